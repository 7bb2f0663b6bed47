"""Compares models on one harness: the same data, budget, head and embedding width, several seeds.

    python launch/compare.py --config=FILE[:key=value,...] [--workdir=DIR] [--only=NAME,...]
        [--together=K]

Tunes every model's learning rate by the same grid on the validation split, trains it with every seed, prints
the table, and writes it as compare.csv, compare.md and a figure, and every run behind it as runs.csv. The
same command again runs what has not finished. Several processes may share a work directory if each is given
other models with --only; the files are written by a call without it. --together trains that many learning
rates, and seeds, of an entry in one program, which a GPU takes in little more time than one of them.
"""

from collections.abc import Sequence

from absl import flags

from suan_jax import cli, config_file
from suan_jax.paths import path_of
from suan_jax.studies import CompareConfig, compare
from suan_jax.studies.cells import raise_failures
from suan_jax.studies.compare_report import print_comparison, write_comparison

_CONFIG = config_file.define_config(CompareConfig)
_WORKDIR = flags.DEFINE_string("workdir", "", "work directory; runs/NAME_OF_THE_CONFIG if not given")
_ONLY = flags.DEFINE_list("only", [], "entries to run; all if not given")
_TOGETHER = flags.DEFINE_integer("together", 1, "most runs of an entry in one program")


def main(argv: Sequence[str]) -> None:
    """Compares, prints and writes."""
    del argv
    workdir = path_of(_WORKDIR.value) if _WORKDIR.value else config_file.default_workdir()
    comparison = compare(_CONFIG.value, workdir, _ONLY.value, _TOGETHER.value)
    print_comparison(comparison, workdir)
    if _ONLY.value:
        print("With --only no file is written: repeat the command without it for the table and the figure.")
    else:
        write_comparison(comparison, workdir)
    raise_failures(comparison.failures)


if __name__ == "__main__":
    cli.run(main)
