import contextlib
import json
import socket
import threading
import time

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="needs the extra `serving`")

import uvicorn

from suan_jax.serving.connection import Connection
from suan_jax.serving.server import Service

_TEXT = json.dumps({"time": 5, "candidates": [{}]}).encode()
_POST = b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(_TEXT)


class Hasty(Connection):
    """Waits for half a second, and has room for three."""

    seconds, most = 0.5, 3


class Slow:
    """Takes longer to score than a connection may be idle."""

    def score(self, user, candidates):
        time.sleep(0.8)
        return np.full(len(candidates), 0.5)


@pytest.fixture(scope="module")
def port():
    config = uvicorn.Config(Service(Slow()).app, http=Hasty, ws="none", lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def connected(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        yield connection


def received(connection):
    """All that comes before the connection ends."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(10_000):
            parts.append(part)
    return b"".join(parts)


def test_idle_and_trickling_clients_are_given_up(port):
    with connected(port) as connection:
        assert received(connection) == b""
    with connected(port) as connection:
        connection.sendall(_POST[:30])
        with pytest.raises(OSError):
            for _ in range(100):
                connection.sendall(b"x")
                time.sleep(0.05)


def test_a_request_takes_its_time_and_another_may_follow(port):
    with connected(port) as connection:
        for _ in range(2):
            time.sleep(0.1)
            connection.sendall(_POST + _TEXT)
            assert b"200 OK" in connection.recv(10_000)
        connection.sendall(_POST[:20])  # and what then trickles is given up, too
        assert received(connection) == b""


def test_a_client_that_sends_no_more_is_answered(port):
    with connected(port) as connection:
        connection.sendall(_POST + _TEXT)
        connection.shutdown(socket.SHUT_WR)
        assert b"probabilities" in received(connection)
    with connected(port) as connection:
        connection.sendall(_POST + _TEXT[:5])
        connection.shutdown(socket.SHUT_WR)
        assert received(connection) == b""


def test_one_connection_too_many_is_closed_and_the_others_are_served(port):
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(connected(port)) for _ in range(3)]
        for connection in busy:
            connection.sendall(_POST + _TEXT)
        time.sleep(0.1)
        start = time.monotonic()
        with connected(port) as another:
            assert received(another) == b""
        assert time.monotonic() - start < 0.4  # not for being idle
        for connection in busy:
            assert b"200 OK" in connection.recv(10_000)
    time.sleep(0.1)
    with connected(port) as connection:
        connection.sendall(_POST + _TEXT)
        assert b"200 OK" in connection.recv(10_000)
