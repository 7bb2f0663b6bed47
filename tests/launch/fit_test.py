import json
import pathlib
import subprocess
import sys

import polars as pl

from tests.scaling import planted

LAUNCH = pathlib.Path(__file__).parents[2] / "launch" / "fit.py"


def _run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, LAUNCH, *arguments], capture_output=True, text=True, timeout=300)


def _runs(tmp_path, **changes) -> list[str]:
    x, y = planted.auc()
    pl.DataFrame({"params_body": x, "auc": y, **changes}, strict=False).write_csv(tmp_path / "runs.csv")
    return [f"--runs={tmp_path}", f"--out={tmp_path / 'fit'}", "--x=params_body", "--y=auc", "--form=power"]


def test_fits_prints_and_writes(tmp_path):
    done = _run(*_runs(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "auc = E - A/x^alpha of params_body: 24 points" in done.stdout
    assert "bootstrap: 1000/1000" in done.stderr
    content = json.loads((tmp_path / "fit" / "fit.json").read_text())
    assert content["parameters"]["alpha"]["low"] < 0.32 < content["parameters"]["alpha"]["high"]


def test_a_mistake_is_one_sentence_and_leaves_nothing(tmp_path):
    done = _run(*_runs(tmp_path, auc=[0.7] * 23 + ["good"]))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "column 'auc', row 24 is 'good'" in done.stderr
    assert not (tmp_path / "fit").exists()
