"""The serving job: a work directory or an artifact behind a port, until it is told to stop."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

from suan_jax.errors import UserError
from suan_jax.serving.artifact import Artifact, is_artifact
from suan_jax.serving.example import example_request
from suan_jax.serving.request import SLOTS, parse_request
from suan_jax.serving.scorer import Scorer

_GRACE = 30  # seconds that requests have to be answered once the job is told to stop


def serve(directory: Path, host: str, port: int) -> None:
    """Serves until SIGTERM or SIGINT; requests that came before it are still answered.

    Args:
      directory: a work directory, or what `launch/export.py` wrote.
      host: address to listen on.
      port: 0 for any that is free.

    Raises:
      UserError: if the directory is not right, the port is taken, or the extra `serving` is not installed.
    """
    try:
        import uvicorn

        from suan_jax.serving.connection import Connection
        from suan_jax.serving.server import Service
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed; pip install -e '.[serving]' brings it") from error
    listener = _listen(host, port)
    with listener:
        scorer = Artifact(directory) if is_artifact(directory) else Scorer(directory)
        warm_up(scorer)
        config = uvicorn.Config(
            Service(scorer).app,
            http=Connection,
            ws="none",
            lifespan="off",
            log_level="error",  # it warns of each request that is no HTTP, which anyone can send
            access_log=False,
            timeout_graceful_shutdown=_GRACE,
        )
        server = uvicorn.Server(config)
        # For a signal before the server handles it itself, and for the one that it raises again once it has
        # answered what came before: the job then is done.
        signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
        print(f"serving {directory} on http://{host}:{listener.getsockname()[1]}", flush=True)
        server.run(sockets=[listener])


def warm_up(scorer: Scorer | Artifact) -> None:
    """Compiles the program of every number of slots, so that no request waits for it."""
    for slots in SLOTS:
        scorer.score(*parse_request(example_request(scorer.requests, slots)))


def _listen(host: str, port: int) -> socket.socket:
    """Whoever connects from here on waits for an answer; of two jobs that come at once, one listens."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError, TypeError) as error:  # a name that is no text is a TypeError
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--port={port} of --host={host} cannot be listened on: {reason}") from error
    return listener
