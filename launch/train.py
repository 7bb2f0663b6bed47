"""Trains a model, evaluates it on the test split, and prints the result.

    python launch/train.py --config=FILE[:key=value,...] [--workdir=DIR] [--config.FIELD=VALUE ...]
    python launch/train.py ... --distributed
    python launch/train.py ... --coordinator=HOST:PORT --processes=N --process=I

The same command again goes on where the run stopped; once it has finished, it prints the result again.
Without --workdir the run lives in runs/NAME_OF_THE_CONFIG. suan_jax/config.py says what each field means.
On several hosts the same command runs on each, with a work directory that all of them share.
"""

from collections.abc import Sequence

from absl import flags

from suan_jax import cli, config_file, processes
from suan_jax.paths import path_of
from suan_jax.training.loop import train
from suan_jax.training.report import print_summary

_CONFIG = config_file.define_config()
_WORKDIR = flags.DEFINE_string("workdir", "", "work directory; runs/NAME_OF_THE_CONFIG if not given")
processes.define_flags()


def main(argv: Sequence[str]) -> None:
    """Trains and prints."""
    del argv
    processes.connect_by_flags()
    workdir = path_of(_WORKDIR.value) if _WORKDIR.value else config_file.default_workdir()
    summary = train(_CONFIG.value, workdir)
    if processes.is_first():
        print_summary(summary, workdir)


if __name__ == "__main__":
    cli.run(main)
