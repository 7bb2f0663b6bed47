import asyncio
import json
import logging
import threading

import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra `serving`")

from suan_jax.errors import UserError
from suan_jax.serving.server import Limits, Service

_BODY = {"time": 5, "user": {"city": "x"}, "history": [], "candidates": [{"item": "a"}, {"item": "b"}]}


class Fake:
    """Scores a candidate by the length of its item's name."""

    def __init__(self):
        self.open, self.seen = threading.Event(), []
        self.open.set()

    def score(self, user, candidates):
        self.open.wait(10)
        self.seen.append((user, candidates, threading.current_thread().name))
        if candidates[0] == "mistake":
            raise UserError("candidates has a mistake")
        if candidates[0] == "bug":
            raise KeyError("a bug")
        return np.array([np.inf if c == "inf" else len(c["item"]) / 10 for c in candidates])


async def call(app, method="POST", path="/score", body=_BODY, headers=(), pause=0.0):
    """A request to an ASGI application, its body in parts: status, headers, and what it answers."""
    body = (
        body if isinstance(body, list) else [body if isinstance(body, bytes) else json.dumps(body).encode()]
    )
    parts = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    parts.append({"type": "http.request", "body": b"", "more_body": False})
    sent = []

    async def receive():
        await asyncio.sleep(pause)
        return parts.pop(0) if parts else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        **{"type": "http", "method": method, "path": path, "headers": list(headers)},
        **{"query_string": b"", "root_path": "", "http_version": "1.1", "scheme": "http"},
    }
    await app(scope, receive, send)
    answer = b"".join(message.get("body", b"") for message in sent)
    head = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    text = json.loads(answer) if "json" in head.get("content-type", "") else answer.decode()
    return sent[0]["status"], head, text


def ask(service, **how):
    return asyncio.run(call(service.app, **how))


@pytest.mark.smoke
def test_scores_and_counts():
    fake = Fake()
    service = Service(fake)
    status, _, answer = ask(service)
    assert (status, answer) == (200, {"probabilities": [0.1, 0.1]})
    user, candidates, thread = fake.seen[0]
    assert (user.time, user.profile, candidates) == (5, {"city": "x"}, _BODY["candidates"])
    assert thread.startswith("score")  # not the event loop's
    assert ask(service, body={})[0] == 400
    status, _, text = ask(service, method="GET", path="/metrics")
    assert status == 200
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines())
    assert lines["# TYPE suan_requests_total"] == lines["# TYPE suan_candidates_total"] == "counter"
    assert lines["# TYPE suan_latency_seconds"] == "summary" and lines["suan_latency_seconds_count"] == "1"
    assert 0 < float(lines["suan_latency_seconds_sum"]) < 10
    assert lines['suan_requests_total{code="200"}'] == lines['suan_requests_total{code="400"}'] == "1"
    assert lines["suan_candidates_total"] == "2" and lines["suan_requests_waiting"] == "0"
    assert 0 < float(lines['suan_latency_seconds{quantile="0.5"}']) < 10
    assert ask(service, method="GET", path="/health")[2] == {"status": "ok"}


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 400, "the body is no JSON"),
        (b"{", 400, "the body is no JSON"),
        (b"\xff\xfe\x00", 400, "the body is no JSON"),
        (b"[" * 100_000, 400, "the body is no JSON"),
        (b'{"time": NaN, "candidates": []}', 400, "NaN is no number"),
        (b"9" * 5000, 400, "the body is no JSON"),
        (b"[]", 400, "the request is a list"),
        ({"time": 5}, 400, "candidates is missing"),
        ({"time": 5, "candidates": [{}], "itms": 1}, 400, "the request has 'itms'"),
        ({"time": 5, "candidates": [{}] * 9}, 400, "candidates has 9 entries, expected at most 8"),
        (
            {"time": 5, "candidates": [{}], "history": [{}] * 5},
            400,
            "history has 5 entries, expected at most 4",
        ),
        ({"time": 5, "candidates": ["mistake"]}, 400, "candidates has a mistake"),
        ({"time": 5, "candidates": ["inf"]}, 500, "the request could not be scored"),
        ({"time": 5, "candidates": [{}], "x" * 10_000: 1}, 400, "the request has 'xxx"),
        ({"time": 5, "candidates": ["bug"]}, 500, "the request could not be scored"),
        ([b" " * 150_000, b" " * 150_000], 413, "the body is larger than 200000 bytes"),
    ],
)
def test_bad_requests_get_one_sentence(body, status, sentence):
    service = Service(Fake(), Limits(body=200_000, candidates=8, history=4))
    got, _, answer = ask(service, body=body)
    assert got == status
    assert sentence in answer["error"] and "\n" not in answer["error"] and len(answer["error"]) < 200
    assert ask(service)[0] == 200  # and the next one is served


def test_a_body_that_says_it_is_too_large_is_not_read():
    service = Service(Fake(), Limits(body=10))
    status, headers, _ = ask(service, headers=[(b"content-length", b"11")], body=[])
    assert (status, headers["connection"]) == (413, "close")


def test_other_paths_and_methods_are_told_so():
    service = Service(Fake())
    assert ask(service, path="/scores")[0] == 404
    assert ask(service, method="GET")[0] == 405
    text = ask(service, method="GET", path="/metrics")[2]
    assert 'code="404"} 1' in text and 'code="405"} 1' in text


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [("bug", "KeyError: 'a bug'"), ("inf", "the model's probabilities are not finite")],
)
def test_a_failure_is_told_where_the_job_runs(candidate, reason, capsys, monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "level", logging.CRITICAL)  # as in a job
    assert ask(Service(Fake()), body={"time": 5, "candidates": [candidate]})[0] == 500
    assert reason in capsys.readouterr().err


def test_all_bodies_together_are_bounded():
    fake = Fake()
    service = Service(fake, Limits(bodies=1000))
    fake.open.clear()
    padded = json.dumps(_BODY).encode().ljust(400)

    async def crowd():
        waiting = [asyncio.create_task(call(service.app, body=padded)) for _ in range(3)]
        await asyncio.sleep(0.1)
        fake.open.set()
        return await asyncio.gather(*waiting)

    answers = asyncio.run(crowd())
    assert [status for status, _, _ in answers] == [200, 200, 503]
    assert answers[2][2] == {"error": "too many bodies are being read"}
    assert (answers[2][1]["connection"], answers[2][1]["retry-after"]) == ("close", "1")
    for _ in range(3):  # none is counted for ever, whatever became of it
        assert ask(service, body=padded)[0] == 200
        assert ask(service, body=padded + b"x")[0] == 400
        assert ask(service, body=[b" " * 900, b" " * 900])[0] == 503


def test_a_slow_client_holds_nobody_up_and_is_given_up():
    service = Service(Fake(), Limits(seconds=0.2))

    async def both():
        slow = asyncio.create_task(call(service.app, pause=0.15))
        quick = await asyncio.wait_for(call(service.app), 0.1)
        return quick, await slow

    quick, slow = asyncio.run(both())
    assert quick[0] == 200 and slow[0] == 408


def test_a_client_that_leaves_is_no_mistake():
    service = Service(Fake())

    async def leave():
        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            pass

        scope = {"type": "http", "method": "POST", "path": "/score", "headers": [], "query_string": b""}
        await service.app(scope, receive, send)

    asyncio.run(leave())
    assert 'code="499"} 1' in ask(service, method="GET", path="/metrics")[2]


def test_the_queue_is_bounded_and_the_loop_answers_while_it_is_full():
    fake = Fake()
    service = Service(fake, Limits(queue=3))
    fake.open.clear()

    async def crowd():
        waiting = [asyncio.create_task(call(service.app)) for _ in range(5)]
        await asyncio.sleep(0.1)
        health = await asyncio.wait_for(call(service.app, method="GET", path="/health"), 1)
        _, _, text = await call(service.app, method="GET", path="/metrics")
        fake.open.set()
        return health, text, await asyncio.gather(*waiting)

    health, text, answers = asyncio.run(crowd())
    assert health[0] == 200 and "suan_requests_waiting 3" in text
    assert [status for status, _, _ in answers] == [200, 200, 200, 503, 503]
    assert answers[-1][1]["retry-after"] == "1"
    assert ask(service)[0] == 200
