import json

import numpy as np
import polars as pl
import pytest

from suan_jax.errors import UserError
from suan_jax.scaling import fit
from suan_jax.scaling.series import fit_series, print_series, write_series
from tests.drawn import markers, words
from tests.scaling import planted


@pytest.fixture
def runs(tmp_path):
    """Runs of two models that follow laws, and of one that does not move; one of them a student."""
    tables = []
    for seed, model in enumerate(("suan", "bst", "suan")):
        x, y = planted.auc(seed=seed)
        teacher = "suan" if seed == 2 else None
        tables.append(
            pl.DataFrame({"n": x, "auc": y - 0.01 * seed, "model": model, "teacher_model": teacher})
        )
    still = pl.DataFrame({"n": planted.auc()[0], "auc": 0.6, "model": "din", "teacher_model": None})
    pl.concat([*tables, still], how="vertical_relaxed").write_csv(tmp_path / "runs.csv")
    return tmp_path / "runs.csv"


def test_each_kind_has_the_law_of_its_own_runs(runs, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
    series = fit_series(runs, "n", "auc", "power", "model,teacher_model")
    assert list(series.reports) == ["model suan", "model bst", "model suan, teacher_model suan"]
    assert "does not rise" in series.refused["model din"]
    x, y = planted.auc(seed=1)
    assert series.reports["model bst"].law.parameters == fit(x, y - 0.01, "power").parameters
    print_series(series)
    text = capsys.readouterr().out
    assert "no law of model din" in text and "model suan, teacher_model suan" in text
    write_series(series, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "series.json").read_text())
    assert set(content["laws"]) == set(series.reports) and set(content["refused"]) == {"model din"}
    assert (tmp_path / "out" / "series.png").exists()
    labels = {label.replace("_", " ") for label in series.reports} | {"model din, no law"}
    assert words(tmp_path / "out" / "series.png") >= {*labels, "n", "AUC"}
    points = sum(len(report.law.points.y) for report in series.reports.values())
    assert len(series.loose["model din"].y) > 10
    assert markers(tmp_path / "out" / "series.png") > 2 * points + 10  # two panels, and those without a law


def test_laws_of_several_columns_are_written_and_not_drawn(tmp_path, capsys):
    x, y = planted.chinchilla()
    pl.DataFrame({"n": x[:, 0], "d": x[:, 1], "log_loss": y, "model": "suan"}).write_csv(
        tmp_path / "runs.csv"
    )
    series = fit_series(tmp_path / "runs.csv", "n,d", "log_loss", "chinchilla", "model")
    write_series(series, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["series.json"]
    assert "several columns are not drawn side by side" in capsys.readouterr().err


def test_mistakes_are_one_sentence(runs):
    with pytest.raises(UserError, match=r"has no column 'modle', the nearest is 'model'"):
        fit_series(runs, "n", "auc", "power", "modle")
    with pytest.raises(UserError, match=r"no kind of run by model has a law: .*does not rise"):
        fit_series(runs, "n", "auc", "power", "model", "model = 'din'")


def test_a_further_run_lies_in_its_interval_as_often_as_it_should():
    x, y = planted.auc(sizes=8, seeds=3, seed=3)
    law = fit(x, y, "power")
    low, high = law.interval(x[::3])
    band = law.band(x[::3])
    assert (low < band[0]).all() and (band[1] < high).all()
    random = np.random.default_rng(0)
    runs = planted.AUC["E"] - planted.AUC["A"] * x[::3] ** -planted.AUC["alpha"]
    runs = runs + random.normal(size=(500, 8)) * 1e-3
    assert 0.9 < ((low < runs) & (runs < high)).mean() < 1
