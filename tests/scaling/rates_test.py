import json

import numpy as np
import polars as pl
import pytest

from suan_jax.errors import UserError
from suan_jax.scaling.rates import find_rates, print_rates, write_rates
from tests.drawn import words


def _runs(tmp_path, power=0.5, rates=6, sign=1, top=8e-3):
    """Scores whose best rate is 3e-3 · (48 / width)^power."""
    rows = [
        {"width": width, "learning_rate": rate, "score": 0.6 + sign * score, "seed": seed}
        for width in (32, 64, 128, 256)
        for rate in top / 2.0 ** np.arange(rates)
        for seed in range(2)
        for score in [0.01 * np.log10(width) - 4e-3 * np.log(rate / (3e-3 * (48 / width) ** power)) ** 2]
    ]
    name = "auc" if sign > 0 else "log_loss"
    pl.DataFrame(rows).rename({"score": name}).write_csv(tmp_path / "runs.csv")
    return tmp_path / "runs.csv", name


@pytest.mark.parametrize("sign", [1, -1])
def test_the_planted_optimum_and_its_power_are_found(tmp_path, sign, capsys):
    pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
    path, y = _runs(tmp_path, sign=sign)
    rates = find_rates(path, "width", y)
    assert rates.power == pytest.approx(0.5, abs=1e-6)
    assert rates.ends[0] <= rates.power <= rates.ends[1]
    for each in rates.optima:
        assert each.best == pytest.approx(3e-3 * (48 / each.x) ** 0.5, rel=1e-6)
    print_rates(rates)
    assert "power 0.50" in capsys.readouterr().out
    write_rates(rates, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "rates.json").read_text())["power"] == rates.power
    assert words(tmp_path / "out" / "rates.png") >= {"width", "peak learning rate", "32", "256"}


def test_an_optimum_at_the_end_of_the_rates_is_none(tmp_path, capsys):
    rates = find_rates(_runs(tmp_path, power=0.0, rates=3, top=4e-4)[0], "width")
    assert [each.best for each in rates.optima] == [None] * 4 and rates.power is None
    print_rates(rates)
    assert "no power" in capsys.readouterr().out


def test_two_rates_are_too_few(tmp_path):
    with pytest.raises(UserError, match="width 32 has 2 learning rates, expected at least 3"):
        find_rates(_runs(tmp_path, rates=2)[0], "width")
