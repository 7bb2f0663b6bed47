import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

pytest.importorskip("flatbuffers", reason="needs the extra `serving`")

from suan_jax.errors import UserError
from suan_jax.models.light_suan import LightSuan
from suan_jax.models.loopctr import LoopCtr
from suan_jax.serving import Artifact, Scorer, export
from suan_jax.serving.artifact import flat_batch, is_artifact
from suan_jax.serving.export import export_program, export_run, named_leaves
from suan_jax.serving.request import parse_request
from tests.models.random_model import random_model
from tests.random_batch import random_batch
from tests.readme import block
from tests.training.runs import ROOT


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("artifacts") / "artifact"
    export_run(run, out)
    return out


def fresh_process(code, directory):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    if "suan_jax" in code:
        environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=directory, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_readme_reads_it_with_jax_and_numpy_alone(exported):
    code = block("python", "jax.export")
    code += (
        "import sys\nprint([name for name in sys.modules if name.split('.')[0] in ('suan_jax', 'flax')])\n"
    )
    (exported.parent / "artifacts").mkdir()
    (exported.parent / "artifacts" / "my_log").symlink_to(exported)
    *_, difference, modules = fresh_process(code, exported.parent)
    assert float(difference) < 1e-6
    assert modules == "[]"


def test_raw_requests_score_the_same_without_the_models_code(exported):
    code = """
import json, sys
import numpy as np
from suan_jax.serving import Artifact
from suan_jax.serving.request import parse_request
example = json.load(open("artifact/example.json"))
scores = Artifact("artifact").score(*parse_request(example["request"]))
print(np.abs(scores - example["probabilities"]).max())
print([name for name in sys.modules if name.startswith(("suan_jax.models", "suan_jax.training"))])
"""
    difference, modules = fresh_process(code, exported.parent)
    assert float(difference) < 1e-6
    assert modules == "[]"


def test_it_scores_as_the_work_directory_does(run, exported):
    scorer, artifact = Scorer(run), Artifact(exported)
    example = json.loads((exported / "example.json").read_text())
    user, candidates = parse_request(example["request"])
    assert np.std(example["probabilities"]) > 1e-4
    many = candidates * 5 + [{"item": 10**9}, {}]
    np.testing.assert_allclose(artifact.score(user, many), scorer.score(user, many), atol=1e-6)
    batch = scorer.requests.batch(scorer.requests.user(user), candidates, len(candidates))
    with np.load(exported / "example.npz") as arrays:
        for name, array in flat_batch(batch).items():
            np.testing.assert_array_equal(arrays[name], array, name)


@pytest.mark.parametrize(
    "config",
    [
        LightSuan(head=(8,), window=2, dilation=2),
        LoopCtr(head=(8,), width=16, trained_loops=1, inferred_loops=1),
    ],
)
def test_one_program_takes_any_number_of_rows_and_candidates(config):
    model, variables = random_model(config, noise=0.15)
    program = export_program(model, variables, 7, 0.5)
    assert set(program.platforms) == {"cpu", "cuda"}
    weights = named_leaves(variables)
    for rows, candidates in ((4, 3), (1, 1)):
        batch = random_batch(3, model.schema, rows=rows, candidates=candidates)
        expected = jax.nn.sigmoid(jax.jit(model.apply)(variables, batch).logits + np.log(0.5))
        got = jax.jit(program.call)(weights, flat_batch(batch))
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_damaged_or_incomplete_one_is_refused_by_its_file(exported, tmp_path):
    names = [path.relative_to(exported) for path in exported.rglob("*") if path.is_file()]
    assert {"model.stablehlo", "weights.npz", "schema.json", "SHA256SUMS"} < set(map(str, names))
    for name in names:
        content = (exported / name).read_bytes()
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        for number, bad in enumerate((None, b"", content[: len(content) // 2], bytes(flipped))):
            copy = tmp_path / f"{name}{number}"
            shutil.copytree(exported, copy)
            (copy / name).unlink()
            if bad is not None:
                (copy / name).write_bytes(bad)
            assert is_artifact(copy)
            with pytest.raises(UserError, match=r" is damaged|cannot be read") as caught:
                Artifact(copy)
            assert str(name) in str(caught.value) and "\n" not in str(caught.value)


def test_the_checksums_must_name_every_file_that_is_read(exported, tmp_path):
    copy = shutil.copytree(exported, tmp_path / "copy")
    lines = (copy / "SHA256SUMS").read_text().splitlines(keepends=True)
    (copy / "SHA256SUMS").write_text("".join(line for line in lines if "weights" not in line))
    with pytest.raises(UserError, match=r"SHA256SUMS is damaged, it lacks weights\.npz"):
        Artifact(copy)


def test_devices_that_it_is_not_for_are_refused(exported, monkeypatch):
    monkeypatch.setattr(jax.export, "default_export_platform", lambda: "tpu")
    with pytest.raises(UserError, match=r"model\.stablehlo is for cpu and cuda, and this process has tpu"):
        Artifact(exported)


def test_two_exports_to_one_directory_leave_each_other_alone(run, tmp_path, monkeypatch):
    out, write = tmp_path / "out", export._write

    def write_later(*arguments):
        monkeypatch.setattr(export, "_write", write)
        monkeypatch.setattr(os, "getpid", lambda: 1)  # another process's, from its start to its end
        export_run(run, out)
        write(*arguments)

    monkeypatch.setattr(export, "_write", write_later)
    with pytest.raises(UserError, match=r"cannot write .*/out: Directory not empty"):
        export_run(run, out)
    assert Artifact(out).requests.max_len == Scorer(run).requests.max_len
    assert list(tmp_path.iterdir()) == [out]


def test_mistakes_are_told_and_leave_nothing(run, exported, tmp_path):
    with pytest.raises(UserError, match="exists already, expected the name of a new directory"):
        export_run(run, exported)
    with pytest.raises(UserError, match="is not a work directory"):
        export_run(tmp_path, tmp_path / "absent" / "out")
    with pytest.raises(UserError, match=r"is no artifact, which launch/export.py writes"):
        Artifact(tmp_path)
    assert list(tmp_path.iterdir()) == []
