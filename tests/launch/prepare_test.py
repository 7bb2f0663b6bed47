import functools
import pathlib
import resource
import subprocess
import sys

import polars as pl
import pytest

from suan_jax.data.store import open_store

LAUNCH = pathlib.Path(__file__).parents[2] / "launch" / "prepare.py"
SPEC = """
from suan_jax.data.sources.log_spec import Categorical, LogSpec

def get_spec():
    film = (Categorical(name="film"),)
    return LogSpec(
        impressions="log.csv", user="user", item="film", time="time", label="click",
        candidate=film, history=film, test_share=0.2,
    )
"""


def _run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, LAUNCH, *arguments], capture_output=True, text=True, timeout=120)


def _log(folder: pathlib.Path, click: int = 1) -> list[str]:
    rows = range(50)
    table = {"user": [row % 5 for row in rows], "film": [row % 7 for row in rows]}
    table |= {"time": [1_600_000_000 + 60 * row for row in rows], "click": [row % 2 * click for row in rows]}
    pl.DataFrame(table).write_csv(folder / "log.csv")
    (folder / "spec.py").write_text(SPEC)
    return ["--source=logs", f"--raw={folder}", f"--spec={folder / 'spec.py'}", f"--out={folder / 'store'}"]


def test_prepares_a_log_and_prints_its_counts(tmp_path):
    done = _run(*_log(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "validation" in done.stdout and "click rate" in done.stdout
    assert open_store(tmp_path / "store").statistics["test"]["impressions"] == 10
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.csv", "spec.py", "store"]


def test_a_mistake_is_one_sentence(tmp_path):
    done = _run(*_log(tmp_path, click=2))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "column 'click', row 2" in done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.csv", "spec.py"]


def test_a_path_that_no_store_can_have_is_refused_before_the_log_is_read(tmp_path):
    from suan_jax.data.preparation import check_out
    from suan_jax.errors import UserError

    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UserError, match="link exists already, expected the path of a new store"):
        check_out(tmp_path / "link")
    with pytest.raises(UserError, match=r"new/\.\. names what is above another folder"):
        check_out("new/..")
    with pytest.raises(UserError, match=r"cannot write .*: File name too long"):
        check_out(tmp_path / ("x" * 300))


def test_a_full_disk_is_not_taken_for_a_damaged_log(tmp_path):
    command = [sys.executable, LAUNCH, *_log(tmp_path)]
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (512, 512))
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, preexec_fn=limit)
    assert done.returncode == 2
    remedy = "raise the limit on file sizes and repeat the command"
    assert done.stderr.splitlines()[-1] == f"error: cannot write {tmp_path}/store: File too large: {remedy}"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.csv", "spec.py"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source=logs"], "--spec is missing"),
        (["--source=synthetic", "--spec=x"], "read by --source=logs alone"),
        (["--source=kuairand_pure", "--raw=/nowhere"], "no folder"),
        (["--source=kuairand_pure"], "^--raw is missing, expected the folder with the raw files of kuairand"),
        (["--source=kuairand_pure", "--raw=gs://b/raw"], "gs://b/raw is in an object store"),
    ],
)
def test_flags_that_do_not_fit(tmp_path, arguments, message):
    from suan_jax.data.prepare_store import prepare_store
    from suan_jax.errors import UserError

    given = dict(argument.removeprefix("--").split("=") for argument in arguments)
    with pytest.raises(UserError, match=message):
        prepare_store(given["source"], given.get("raw", ""), str(tmp_path / "store"), given.get("spec", ""))


def test_beam_is_named_where_it_is_asked_for_and_missing(tmp_path, monkeypatch):
    from suan_jax.data.prepare_store import prepare_store
    from suan_jax.errors import UserError

    arguments = ("logs", str(tmp_path), str(tmp_path / "store"), str(tmp_path / "spec.py"))
    _log(tmp_path)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "suan_jax.data.beam_preparation", raising=False)
    with pytest.raises(UserError, match=r"apache_beam is not installed; pip install -e '\.\[beam\]'"):
        prepare_store(*arguments, runner="DirectRunner")
    with pytest.raises(UserError, match="--nodes=2' is an option of Beam, expected --runner"):
        prepare_store(*arguments, beam_options=["--nodes=2"])
    with pytest.raises(UserError, match="not used by --source=synthetic"):
        prepare_store("synthetic", "", str(tmp_path / "store"), runner="DirectRunner")
    assert not (tmp_path / "store").exists()


def test_synthetic_log_is_copied(tmp_path, monkeypatch):
    from suan_jax.config import SyntheticConfig
    from suan_jax.data import prepare_store as job

    monkeypatch.setattr(job, "SyntheticConfig", lambda: SyntheticConfig(users=600, events=20, impressions=4))
    summary = job.prepare_store("synthetic", "", str(tmp_path / "store"))
    store = open_store(tmp_path / "store")
    assert summary.users == store.statistics["sequences"] == 600
