"""Trains a student on the labels and on a teacher's logits, evaluates it, and prints the result.

    python launch/distill.py --config=FILE[:key=value,...] --teacher=WORKDIR [--workdir=DIR] \\
        [--config.FIELD=VALUE ...]
    python launch/distill.py --config=FILE[:key=value,...] --config.distillation.online=True [--workdir=DIR]

Offline, the teacher is another run's model, of any kind and size; online, config.distillation.teacher trains
along. The same command again goes on where the run stopped. The work directory is that of a training run of
the student. suan_jax/distillation/config.py says what the fields of config.distillation mean.
"""

from collections.abc import Sequence

from absl import flags

from suan_jax import cli, config_file
from suan_jax.distillation import DistillConfig, distill
from suan_jax.paths import path_of
from suan_jax.training.report import print_summary

_CONFIG = config_file.define_config(DistillConfig)
_TEACHER = flags.DEFINE_string("teacher", "", "work directory of the teacher's run; none if it trains along")
_WORKDIR = flags.DEFINE_string("workdir", "", "work directory; runs/NAME_OF_THE_CONFIG if not given")


def main(argv: Sequence[str]) -> None:
    """Distills and prints."""
    del argv
    config = _CONFIG.value
    config.distillation.teacher_from = _TEACHER.value or config.distillation.teacher_from
    workdir = path_of(_WORKDIR.value) if _WORKDIR.value else config_file.default_workdir()
    print_summary(distill(config, workdir), workdir)


if __name__ == "__main__":
    cli.run(main)
