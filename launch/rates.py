"""Whether the best learning rate moves with scale: each size's best rate, and the power of size it follows.

    python launch/rates.py --runs=DIR_OR_CSV --out=DIR --x=COLUMN [--y=COLUMN] [--where=CONDITION]

Runs are those of launch/fit.py, of several learning rates at each of several sizes, such as those of
configs/rates.py. Writes rates.json, rates.png and rates.svg.
"""

from collections.abc import Sequence

from absl import flags

from suan_jax import cli
from suan_jax.paths import path_of
from suan_jax.scaling.rates import find_rates, print_rates, write_rates

_RUNS = flags.DEFINE_string("runs", None, "CSV file, or directory of runs", required=True)
_OUT = flags.DEFINE_string("out", None, "directory for rates.json, rates.png and rates.svg", required=True)
_X = flags.DEFINE_string("x", None, "column of sizes, such as model_width", required=True)
_Y = flags.DEFINE_string("y", "auc", "column that says which rate is best")
_WHERE = flags.DEFINE_string("where", "", "condition that runs must meet, such as model = 'suan'")


def main(argv: Sequence[str]) -> None:
    """Finds, prints and writes."""
    del argv
    rates = find_rates(path_of(_RUNS.value), _X.value, _Y.value, _WHERE.value)
    print_rates(rates)
    write_rates(rates, path_of(_OUT.value))


if __name__ == "__main__":
    cli.run(main)
