import json

import polars as pl
import pytest

from suan_jax.errors import UserError
from suan_jax.scaling.report import fit_runs, print_report, read_report, write_report
from tests.drawn import markers, words
from tests.scaling import planted


def _runs(tmp_path, form="power"):
    """A table of runs, and the names of its columns of x."""
    x, y = {"power": planted.auc, "chinchilla": planted.chinchilla, "loops": planted.loops}[form]()
    columns = {"power": ["params_body"], "chinchilla": ["params_body", "examples"]}
    names = columns.get(form, ["params_once", "params_recurrent", "loops_trained"])
    table = dict(zip(names, x.reshape(len(y), -1).T, strict=True))
    measured = {"log_loss": y} if form == "chinchilla" else {"auc": y, "auc_se": [1e-3] * len(y)}
    pl.DataFrame({**table, **measured, "model": ["suan"] * len(y)}).write_csv(tmp_path / "runs.csv")
    return ",".join(names), "log_loss" if form == "chinchilla" else "auc"


@pytest.mark.parametrize("form", ["power", "chinchilla", "loops", "log"])
def test_a_law_is_written_and_drawn(tmp_path, form, capsys):
    pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
    x, y = _runs(tmp_path, "power" if form == "log" else form)
    report = fit_runs(tmp_path, x, y, form)
    write_report(report, tmp_path / "out" / "deeper")
    content = json.loads((tmp_path / "out/deeper/fit.json").read_text())
    assert content["form"] == form and content["y"] == y
    assert content["x"] == (x if form in ("power", "log") else x.split(","))
    assert set(content) >= {"parameters", "r2", "held_out", "rivals", "excluded", "warnings"}
    for name, each in content["parameters"].items():
        assert each["low"] <= each["value"] <= each["high"], name
    figure = tmp_path / "out/deeper/fit.png"
    assert figure.exists()
    shown = {"power": {"body parameters", "runs"}, "chinchilla": {"body parameters", "training examples"}}
    shown["log"], shown["loops"] = shown["power"], {"loops: 1", "loops: 8"}
    assert words(figure) >= shown[form] | {"log loss" if form == "chinchilla" else "AUC"}
    assert markers(figure) > len(report.law.points.y)
    print_report(report)
    text = capsys.readouterr().out
    assert all(name in text for name in report.law.parameters) and "held-out RMSE" in text


def test_a_law_is_read_back_as_it_was(tmp_path):
    x, y = _runs(tmp_path)
    report = fit_runs(tmp_path, x, y, "power", "params_body < 1e9")
    write_report(report, tmp_path)
    again = read_report(tmp_path / "fit.json")
    assert again.law.parameters == report.law.parameters
    assert (again.x, again.y, again.warnings) == (report.x, report.y, report.warnings)
    assert again.law.band([1e9])[0] == report.law.band([1e9])[0]
    (tmp_path / "other.json").write_text('{"form": "power"}')
    with pytest.raises(UserError, match=r"other.json is no fit.json: 'points' is missing"):
        read_report(tmp_path / "other.json")
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(UserError, match=r"other.json is no fit.json: it holds a list, expected an object"):
        read_report(tmp_path / "other.json")
    content = json.loads((tmp_path / "fit.json").read_text())
    content["points"]["x"][0] = [1.0, 2.0]
    (tmp_path / "other.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"other.json is no fit.json: setting an array element"):
        read_report(tmp_path / "other.json")


def test_a_form_that_is_not_there_is_named(tmp_path):
    x, y = _runs(tmp_path)
    with pytest.raises(UserError, match=r"form is 'powr', the nearest is 'power' of power, log, chinch"):
        fit_runs(tmp_path, x, y, "powr")


def test_depths_of_one_checkpoint_are_one_configuration(tmp_path):
    x, y = planted.loops()
    names = ("params_once", "params_recurrent", "loops_inferred")
    table = pl.DataFrame({**dict(zip(names, x.T, strict=True)), "auc": y, "loops_trained": 8})
    table.write_csv(tmp_path / "runs.csv")
    law = fit_runs(tmp_path, ",".join(names), "auc", "loops").law
    assert len(set(law.points.group.tolist())) == len(set(x[:, 0].tolist())) == 10
    assert any("10 configurations (fewer than 20)" in each for each in law.warnings)


def test_the_same_law_is_the_same_file(tmp_path):
    x, y = _runs(tmp_path)
    for name in ("a", "b"):
        write_report(fit_runs(tmp_path, x, y, "power"), tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_a_name_says_whether_it_rises(tmp_path):
    x, y = planted.auc()
    for name, sentence in (("log_loss", "y does not fall with x"), ("auc", "")):
        pl.DataFrame({"x": x, name: y}).write_csv(tmp_path / "runs.csv")
        if sentence:
            with pytest.raises(UserError, match=sentence):
                fit_runs(tmp_path, "x", name, "power")
        else:
            assert fit_runs(tmp_path, "x", name, "power").law.rising
