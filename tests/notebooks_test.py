import json
import shutil

import pytest

from tests.readme import ROOT

_NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
_NAMES = [path.stem for path in _NOTEBOOKS]


def _cells(name: str, kind: str) -> list[dict]:
    content = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text())
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def _text(cell: dict) -> str:
    return "".join(cell["source"])


def test_there_are_four():
    assert _NAMES == ["distillation", "loop_scaling", "quickstart", "scaling_laws"]


@pytest.mark.parametrize("name", _NAMES)
def test_it_opens_in_colab_installs_once_keeps_its_outputs_and_holds_no_logic(name):
    words = "\n".join(map(_text, _cells(name, "markdown")))
    assert f"/blob/main/notebooks/{name}.ipynb)" in words and "gs://" in words
    install, *others = _cells(name, "code")
    assert 'find_spec("suan_jax")' in _text(install) and "%pip" in _text(install)
    for cell in others:
        assert "pip" not in _text(cell) and "def " not in _text(cell)
    outputs = [output for cell in others for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert all(cell["execution_count"] for cell in others)


@pytest.mark.parametrize("case", _NAMES)
def test_it_runs(case, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="the extra `notebooks` is not installed")
    nbformat = pytest.importorskip("nbformat", reason="the extra `notebooks` is not installed")
    shutil.copytree(ROOT / "notebooks", tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(tmp_path / f"{case}.ipynb", 4)
    before = [cell.get("outputs") for cell in notebook.cells]
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    assert (tmp_path / "runs").is_dir()
    if case in ("scaling_laws", "loop_scaling"):  # a law of a table is the same wherever it is fitted
        printed = [_printed(outputs) for outputs in before]
        assert printed == [_printed(cell.get("outputs")) for cell in notebook.cells]


def _printed(outputs: list | None) -> list[str]:
    return [output["text"] for output in outputs or () if output.get("name") == "stdout"]
