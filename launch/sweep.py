"""Runs every cell of a sweep, each a training job in a work directory of its own, and writes runs.csv.

    python launch/sweep.py --config=FILE[:key=value,...] [--workdir=DIR] [--part=I --parts=N]
        [--together=K]
    python launch/sweep.py --config=FILE[:key=value,...] [--workdir=DIR] --predict=FIT.json [--together=K]

The same command again runs what has not finished; a failed cell is reported and does not stop the rest. A
scheduler runs shares of the cells side by side, one --part each. --together trains cells that differ in seed
and peak learning rates alone in one program, which a GPU takes in little more time than one of them; they are
in one share, so that each --part needs the same --together. With --predict, a fit.json of launch/fit.py, only
the cells one step beyond the fitted runs are trained: a table and predict.json set what the law said of them,
with the 95 % interval of a run, beside what was measured.
"""

from collections.abc import Sequence

from absl import flags

from suan_jax import cli, config_file
from suan_jax.errors import UserError
from suan_jax.paths import path_of
from suan_jax.studies import SweepConfig, next_rung, sweep
from suan_jax.studies.cells import raise_failures
from suan_jax.studies.rung_report import print_rung
from suan_jax.studies.sweep_report import print_sweep

_CONFIG = config_file.define_config(SweepConfig)
_WORKDIR = flags.DEFINE_string("workdir", "", "work directory; runs/NAME_OF_THE_CONFIG if not given")
_PART = flags.DEFINE_integer("part", 0, "which share of the cells to run, from 0", lower_bound=0)
_PARTS = flags.DEFINE_integer("parts", 1, "number of shares", lower_bound=1)
_TOGETHER = flags.DEFINE_integer("together", 1, "most cells, of other seeds or rates, in one program")
_PREDICT = flags.DEFINE_string("predict", "", "fit.json of a law: train what lies one step beyond it")


def main(argv: Sequence[str]) -> None:
    """Sweeps and prints."""
    del argv
    workdir = path_of(_WORKDIR.value) if _WORKDIR.value else config_file.default_workdir()
    if _PREDICT.value and _PARTS.value > 1:
        raise UserError(
            f"--parts is {_PARTS.value}, expected 1 with --predict, whose cells run in one process"
        )
    if _PREDICT.value:
        rung = next_rung(_CONFIG.value, path_of(_PREDICT.value), workdir, _TOGETHER.value)
        print_rung(rung, workdir)
        raise_failures(rung.failures)
        return
    result = sweep(_CONFIG.value, workdir, _PART.value, _PARTS.value, _TOGETHER.value)
    print_sweep(result, workdir)
    raise_failures(result.failures)


if __name__ == "__main__":
    cli.run(main)
