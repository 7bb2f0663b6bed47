"""Evaluates a work directory's model on a split of its log, and writes its predictions if asked to.

    python launch/evaluate.py --workdir=DIR [--split=test] [--predictions=FILE.parquet] [--loops=I] \\
        [--config=FILE]

The checkpoint is the best one where the run's config.checkpoint.best names a metric, else the newest.
On several hosts the same command runs on each, as for launch/train.py.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from suan_jax import cli, config_file, processes
from suan_jax.paths import path_of
from suan_jax.schema import SPLITS
from suan_jax.table import print_table
from suan_jax.training.evaluate_run import evaluate_run

_WORKDIR = flags.DEFINE_string("workdir", None, "work directory of a training run", required=True)
_SPLIT = flags.DEFINE_enum("split", "test", SPLITS, "split to evaluate")
_PREDICTIONS = flags.DEFINE_string(
    "predictions", "", "Parquet file to write: user, label and logit of every example, in store order"
)
_LOOPS = flags.DEFINE_integer(
    "loops", None, "calls of a looped model's block; config.model.inferred_loops if not given"
)
_CONFIG = flags.DEFINE_string("config", "", "config file of a run whose model that file defines")
processes.define_flags()


def main(argv: Sequence[str]) -> None:
    """Evaluates and prints."""
    del argv
    processes.connect_by_flags()
    if _CONFIG.value:
        config_file.load_definitions(_CONFIG.value)
    predictions = Path(_PREDICTIONS.value) if _PREDICTIONS.value else None
    result = evaluate_run(path_of(_WORKDIR.value), _SPLIT.value, predictions, _LOOPS.value)
    if processes.is_first():
        print_table(f"{_WORKDIR.value}: {_SPLIT.value}", ["metric", "value"], result.items())


if __name__ == "__main__":
    cli.run(main)
