import http.client
import json
import re
import signal
import socket
import threading
import time

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="needs the extra `serving`")

import uvicorn

from suan_jax.errors import UserError
from suan_jax.serving import run as run_module
from suan_jax.serving.run import serve
from tests.ports import free_port
from tests.training.runs import Job


def post(port, body, timeout=60):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    connection.request("POST", "/score", body if isinstance(body, str) else json.dumps(body))
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_a_work_directory_is_served_until_sigterm(run):
    job = Job(f"--workdir={run}", "--port=0", launch="serve")
    line = job.process.stdout.readline()
    try:
        port = int(re.fullmatch(rf"serving {run} on http://127\.0\.0\.1:(\d+)\n", line)[1])
        event = {"item": 5, "category": 3, "time": 100}
        body = {"time": 500, "history": [event] * 3, "candidates": [{"item": 3}, {"item": 999_999}, {}]}
        status, answer = post(port, body)
        assert status == 200 and len(answer["probabilities"]) == 3
        assert all(0 < p < 1 for p in answer["probabilities"])
        assert post(port, body) == (status, answer)
        status, answer = post(port, {**body, "candidates": [{"itm": 3}]})
        assert status == 400 and "the nearest is 'item'" in answer["error"]
        assert post(port, "{")[0] == 400
        # A request whose body is still on its way when the job is told to stop is answered.
        text = json.dumps(body).encode()
        late = socket.create_connection(("127.0.0.1", port), timeout=60)
        late.sendall(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(text) + text[:20])
        assert post(port, body)[0] == 200
        job.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 60
        with pytest.raises(OSError):  # once it no longer listens
            while time.monotonic() < deadline:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                time.sleep(0.05)
        late.sendall(text[20:])
        assert b"200 OK" in late.recv(1000)
        late.close()
    finally:
        if job.process.poll() is None:
            job.process.send_signal(signal.SIGTERM)
        done = job.end()
    assert done.returncode == 0, done.stderr


class Fake:
    def score(self, user, candidates):
        return np.full(len(candidates), 0.5)


def test_of_two_jobs_on_one_port_one_loads_and_a_signal_at_any_time_ends_it(tmp_path, monkeypatch):
    port = free_port()

    def load(directory):
        with pytest.raises(UserError, match=f"--port={port} of --host=127.0.0.1 cannot be listened on"):
            serve(directory, "127.0.0.1", port)  # the other job: this one is not yet up
        return Fake()

    monkeypatch.setattr(run_module, "Scorer", load)
    monkeypatch.setattr(run_module, "warm_up", lambda scorer: None)
    own, handler = uvicorn.Server.run, signal.getsignal(signal.SIGTERM)
    ended = []

    def told_at_once(server, sockets):
        signal.raise_signal(signal.SIGTERM)
        rescue = threading.Timer(10, setattr, (server, "should_exit", True))
        rescue.start()
        own(server, sockets=sockets)
        ended.append(rescue.is_alive())
        rescue.cancel()

    monkeypatch.setattr(uvicorn.Server, "run", told_at_once)
    try:
        serve(tmp_path, "127.0.0.1", port)
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert ended == [True]


def test_mistakes_are_told(run, tmp_path):
    with pytest.raises(UserError, match="is not a work directory"):
        serve(tmp_path, "127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port={port} of --host=127.0.0.1 cannot be listened on"):
            serve(run, "127.0.0.1", port)
    with pytest.raises(UserError, match="--port=70000"):
        serve(run, "127.0.0.1", 70000)
