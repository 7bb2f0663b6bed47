"""Exports a work directory's model: a program, its weights and its vocabularies, without the model's code.

    python launch/export.py --workdir=DIR --out=DIR [--config=FILE]

The artifact scores any number of requests and candidates at a time, on CPUs and NVIDIA GPUs; it holds an
example request with its probabilities. launch/serve.py serves it as it serves a work directory.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from suan_jax import cli, config_file
from suan_jax.paths import path_of
from suan_jax.serving.export import export_run
from suan_jax.table import print_table

_WORKDIR = flags.DEFINE_string("workdir", None, "work directory of a training run", required=True)
_OUT = flags.DEFINE_string("out", None, "directory to make", required=True)
_CONFIG = flags.DEFINE_string("config", "", "config file of a run whose model that file defines")


def main(argv: Sequence[str]) -> None:
    """Exports and prints what was written."""
    del argv
    if _CONFIG.value:
        config_file.load_definitions(_CONFIG.value)
    written = export_run(path_of(_WORKDIR.value), Path(_OUT.value))
    print_table(_OUT.value, ["what", "value"], written.items())


if __name__ == "__main__":
    cli.run(main)
