import json

import numpy as np
import polars as pl
import pytest
from scipy.optimize import minimize_scalar

from suan_jax.errors import UserError
from suan_jax.scaling import fit
from suan_jax.scaling.frontier import frontier
from suan_jax.scaling.report import fit_runs, print_report, read_report, write_report
from tests.drawn import markers, words
from tests.scaling import planted


def _law(**changes):
    x, y = planted.chinchilla(**changes)
    return fit(x, y, "chinchilla", resamples=100)


def test_with_six_flops_a_parameter_the_exponent_is_the_closed_form():
    law = _law(noise=1e-4)
    best = frontier(law, 6 * law.points.x.prod(1))
    value = {name: each.value for name, each in law.parameters.items()}
    expected = value["beta"] / (value["alpha"] + value["beta"])
    assert best.exponent.value == pytest.approx(expected, rel=1e-3)
    assert best.exponent.ends[0] < expected < best.exponent.ends[1]
    np.testing.assert_allclose(6 * np.multiply(best.size, best.data), best.compute, rtol=1e-6)


def test_no_other_division_of_a_budget_is_better():
    law = _law()
    cost = 6 * law.points.x[:, 0] + 3e8  # a head that all sizes share
    best = frontier(law, cost * law.points.x[:, 1])
    for compute, size, y in list(zip(best.compute, best.size, best.y, strict=True))[2:-2:5]:

        def loss(log_size, compute=compute):
            number = np.exp(log_size)
            return law.predict([[number, compute / (6 * number + 3e8)]])[0]

        found = minimize_scalar(loss, bounds=(np.log(1e6), np.log(1e11)), method="bounded")
        assert y == pytest.approx(found.fun, rel=2e-3)
        assert np.log(size) == pytest.approx(found.x, abs=0.35)  # cost between sizes is interpolated


def test_flops_that_fall_with_size_are_refused():
    law = _law()
    with pytest.raises(UserError, match="do not grow with N"):
        frontier(law, law.points.x[:, 1] / law.points.x[:, 0])


@pytest.mark.parametrize("compute", ["train_flops", "spent"])
def test_the_report_has_it_where_compute_is_known(tmp_path, compute):
    pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
    x, y = planted.chinchilla()
    table = pl.DataFrame({"n": x[:, 0], "d": x[:, 1], "log_loss": y})
    table.write_csv(tmp_path / "plain.csv")
    assert fit_runs(tmp_path / "plain.csv", "n,d", "log_loss", "chinchilla").frontier is None
    table.with_columns(pl.Series(compute, 6 * x.prod(1))).write_csv(tmp_path / "runs.csv")
    named = "" if compute == "train_flops" else compute
    report = fit_runs(tmp_path / "runs.csv", "n,d", "log_loss", "chinchilla", compute=named)
    assert report.frontier.exponent.value == pytest.approx(0.51, abs=0.03)
    if compute == "spent":
        write_report(report, tmp_path)
        content = json.loads((tmp_path / "fit.json").read_text())["frontier"]
        assert content["exponent"]["value"] == report.frontier.exponent.value
        assert {"spent", "n", "log loss"} & words(tmp_path / "fit.png") == {"n", "log loss"}
        assert markers(tmp_path / "fit.png") > 2 * len(y)  # two panels


def test_a_law_without_a_frontier_is_kept_and_says_why(tmp_path, capsys):
    x, y = planted.chinchilla()
    table = pl.DataFrame({"n": x[:, 0], "d": x[:, 1], "log_loss": y, "train_flops": x[:, 1] / x[:, 0]})
    table.write_csv(tmp_path / "runs.csv")
    report = fit_runs(tmp_path / "runs.csv", "n,d", "log_loss", "chinchilla")
    assert report.frontier is None
    write_report(report, tmp_path)
    print_report(report)
    sentence = "how a budget is best divided cannot be told: "
    assert sentence in capsys.readouterr().out
    content = json.loads((tmp_path / "fit.json").read_text())
    assert content["frontier"] is None and any(sentence in each for each in content["warnings"])
    assert read_report(tmp_path / "fit.json").frontier is None
