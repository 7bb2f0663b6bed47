"""What the depths of a looped model are worth: each alone, by an oracle, and chosen for each example.

    python launch/depths.py --workdir=DIR [--config=FILE]

Reads one trained run, scores its validation and test splits once at all depths, prints the tables, and writes
them beside the run as depths.json, depths.csv and a figure, depths.png and depths.svg.
"""

from collections.abc import Sequence

from absl import flags

from suan_jax import cli, config_file
from suan_jax.paths import path_of
from suan_jax.studies.depths import study_depths
from suan_jax.studies.depths_report import print_depths, write_depths

_WORKDIR = flags.DEFINE_string("workdir", None, "work directory of a training run", required=True)
_CONFIG = flags.DEFINE_string("config", "", "config file of a run whose model that file defines")


def main(argv: Sequence[str]) -> None:
    """Studies, prints and writes."""
    del argv
    if _CONFIG.value:
        config_file.load_definitions(_CONFIG.value)
    workdir = path_of(_WORKDIR.value)
    study = study_depths(workdir)
    print_depths(study, workdir)
    write_depths(study, workdir)


if __name__ == "__main__":
    cli.run(main)
