import subprocess

import jax
import pytest

from suan_jax.files import read_json
from suan_jax.training import versions
from suan_jax.training.versions import record_versions


@pytest.fixture
def entries(tmp_path):
    def record(step):
        record_versions(tmp_path, step)
        return read_json(tmp_path / "versions.json")

    return record


@pytest.mark.smoke
def test_what_a_run_ran_with_is_recorded(entries, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_autotune_level=0")
    monkeypatch.setenv("MY_PASSWORD", "secret")
    (entry,) = entries(0)
    assert entry["from_step"] == 0
    assert entry["packages"]["jax"] == jax.__version__
    assert entry["devices"] == {jax.devices()[0].device_kind: jax.device_count()}
    assert entry["processes"] == 1
    assert entry["environment"]["XLA_FLAGS"] == "--xla_gpu_autotune_level=0"
    assert "MY_PASSWORD" not in entry["environment"]


def test_a_start_adds_an_entry_where_something_changed(entries, monkeypatch):
    monkeypatch.setenv("JAX_ANYTHING", "1")
    assert len(entries(0)) == 1
    assert len(entries(40)) == 1
    monkeypatch.setenv("JAX_ANYTHING", "2")
    first, second = entries(80)
    assert (first["from_step"], second["from_step"]) == (0, 80)
    assert second["environment"]["JAX_ANYTHING"] == "2"


def test_the_commit_tells_whether_files_differ_from_it(tmp_path, monkeypatch):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    monkeypatch.setattr(versions, "_ROOT", tmp_path)
    assert versions.versions()["commit"] is None
    git("init")
    (tmp_path / "a.py").write_text("1\n")
    git("add", "a.py")
    git("commit", "-m", "first")
    commit = versions.versions()["commit"]
    assert len(commit) == 40
    (tmp_path / "a.py").write_text("2\n")
    assert versions.versions()["commit"] == commit + "+"
