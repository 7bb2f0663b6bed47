"""Serves a work directory's model, or an exported one, over HTTP.

    python launch/serve.py --workdir=DIR [--port=8000] [--host=127.0.0.1] [--config=FILE]

POST /score takes {user, history, candidates, time, context} with raw ids and answers {probabilities};
GET /health and GET /metrics tell how it does. SIGTERM answers what is under way and ends it.
"""

from collections.abc import Sequence

from absl import flags

from suan_jax import cli, config_file
from suan_jax.paths import path_of
from suan_jax.serving.run import serve

_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "work directory of a training run, or a directory that launch/export.py made",
    required=True,
)
_PORT = flags.DEFINE_integer("port", 8000, "port to listen on; 0 for any that is free")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "address to listen on; 0.0.0.0 for all of the machine's")
_CONFIG = flags.DEFINE_string("config", "", "config file of a run whose model that file defines")


def main(argv: Sequence[str]) -> None:
    """Serves."""
    del argv
    if _CONFIG.value:
        config_file.load_definitions(_CONFIG.value)
    serve(path_of(_WORKDIR.value), _HOST.value, _PORT.value)


if __name__ == "__main__":
    cli.run(main)
