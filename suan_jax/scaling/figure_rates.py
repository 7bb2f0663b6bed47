"""The figure of learning rates: what each is worth at each size, and where the best one goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from suan_jax.figures import figure, look
from suan_jax.scaling.drawing import log_x, words
from suan_jax.scaling.rates import Rates


def draw(rates: Rates, out: Path) -> None:
    """Writes rates.png and rates.svg."""
    with figure(out / "rates", width=9.0) as drawn:
        left, right = drawn.subplots(1, 2)
        for index, each in enumerate(rates.optima):
            style = look(index)
            left.plot(each.rates, each.y, markersize=4, label=f"{each.x:g}", **style)
            if each.best:
                left.axvline(each.best, color=style["color"], linestyle=":", linewidth=1)
                right.plot(each.x, each.best, linestyle="", **style)
        left.set_xlabel("peak learning rate")
        left.set_ylabel(words(rates.y))
        left.legend(title=words(rates.x), loc="best")
        if rates.power is not None:
            found = [(each.x, each.best) for each in rates.optima if each.best]
            x, best = np.array(found).T
            middle = np.exp(np.log(best).mean() + rates.power * np.log(x).mean())
            ends = f" ({rates.ends[0]:.2f} to {rates.ends[1]:.2f})" if rates.ends else ""
            label = rf"$x^{{{-rates.power:.2f}}}$"
            right.plot(
                x, middle * x**-rates.power, color="#000000", linewidth=1, label=label + ends, zorder=1
            )
            right.legend(loc="best", title="best rate, power of the size")
        right.set_xlabel(words(rates.x))
        right.set_ylabel("best peak learning rate")
        right.set_yscale("log")
        every = sorted({rate for each in rates.optima for rate in each.rates})
        log_x(left, np.array(every))
        log_x(right, np.array([each.x for each in rates.optima]))
        right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        right.yaxis.set_major_formatter("{x:g}")
        right.yaxis.set_minor_formatter(NullFormatter())
