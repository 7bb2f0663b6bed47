"""Scores over HTTP: POST /score, GET /health, GET /metrics.

The event loop reads and writes; one thread scores, a request at a time. Requests wait for it in a queue of
bounded length, beyond which they are turned away, so that latency stays bounded too.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import dataclasses
import json
import time
import traceback
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from suan_jax.errors import UserError
from suan_jax.serving.request import Raw, User, parse_request

_LATENCIES = 4096  # of which quantiles are told
_QUANTILES = (0.5, 0.9, 0.99)
_PROMETHEUS = "text/plain; version=0.0.4"
_CLOSE = {"Connection": "close"}  # where the rest of the body is not read


class Scores(Protocol):
    """A `Scorer` or an `Artifact`."""

    def score(self, user: User, candidates: Sequence[Raw]) -> np.ndarray:
        """Probabilities of a click, (M,)."""
        ...


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Attributes:
      body: bytes.
      candidates: candidates.
      history: events, though a model reads its latest only.
      queue: requests that wait or are being scored.
      seconds: for its body to arrive.
      bodies: bytes of all requests that are being read, wait or are being scored.
    """

    body: int = 4 * 2**20
    candidates: int = 4096
    history: int = 10_000
    queue: int = 64
    seconds: float = 10.0
    bodies: int = 64 * 2**20


class Service:
    """The application.

    Attributes:
      app: for an ASGI server.
    """

    def __init__(self, scorer: Scores, limits: Limits | None = None):
        """Serves a scorer within limits."""
        self._scorer, self._limits = scorer, limits or Limits()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "score")
        self._waiting = 0
        self._bytes = 0  # of bodies
        self._codes: collections.Counter[int] = collections.Counter()
        self._candidates = 0
        self._answers, self._seconds = 0, 0.0
        self._latencies: collections.deque[float] = collections.deque(maxlen=_LATENCIES)
        routes = [
            Route("/score", self._score, methods=["POST"]),
            Route("/health", self._health, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
        ]
        self.app = Starlette(routes=routes, exception_handlers={HTTPException: self._elsewhere})

    async def _score(self, request: Request) -> Response:
        start = time.perf_counter()
        try:
            probabilities = await self._probabilities(request)
            response: Response = JSONResponse({"probabilities": probabilities})
            self._candidates += len(probabilities)
            self._answers += 1
            self._latencies.append(time.perf_counter() - start)
            self._seconds += self._latencies[-1]
        except HTTPException as error:
            response = _refused(error)
        except ClientDisconnect:
            response = Response(status_code=499)  # nobody is there to read it
        except Exception:
            traceback.print_exc()  # not by a logger: jobs silence those of the libraries below
            response = _refused(HTTPException(500, "the request could not be scored"))
        self._codes[response.status_code] += 1
        return response

    async def _elsewhere(self, request: Request, error: Exception) -> Response:
        """The answer where there is no such path or method."""
        del request
        assert isinstance(error, HTTPException)
        self._codes[error.status_code] += 1
        return _refused(error)

    async def _probabilities(self, request: Request) -> list[float]:
        body = bytearray()
        try:
            await self._read(request, body)
            return await self._queued(body)
        finally:
            self._bytes -= len(body)

    async def _read(self, request: Request, body: bytearray) -> None:
        try:
            await asyncio.wait_for(self._receive(request, body), self._limits.seconds)
        except TimeoutError:
            sentence = f"the body did not arrive within {self._limits.seconds:g} seconds"
            raise HTTPException(408, sentence, _CLOSE) from None

    async def _receive(self, request: Request, body: bytearray) -> None:
        """Fills `body`, whose bytes count until the request is answered."""
        most = self._limits.body
        too_large = HTTPException(413, f"the body is larger than {most} bytes", _CLOSE)
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > most:
            raise too_large
        async for part in request.stream():
            if len(body) + len(part) > most:
                raise too_large
            if self._bytes + len(part) > self._limits.bodies:
                raise HTTPException(503, "too many bodies are being read", {"Retry-After": "1", **_CLOSE})
            body += part
            self._bytes += len(part)

    async def _queued(self, body: bytearray) -> list[float]:
        if self._waiting >= self._limits.queue:
            raise HTTPException(503, "too many requests are waiting", {"Retry-After": "1"})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._answer, body)
        except UserError as error:
            raise HTTPException(400, str(error)) from None
        finally:
            self._waiting -= 1

    def _answer(self, body: bytearray) -> list[float]:
        """The probabilities that a body asks for; on the scoring thread, as is all that takes time."""
        try:
            value = json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise UserError(f"the body is no JSON ({error})") from error
        user, candidates = parse_request(value)
        for name, items, most in (
            ("candidates", candidates, self._limits.candidates),
            ("history", user.history, self._limits.history),
        ):
            if isinstance(items, list) and len(items) > most:
                raise UserError(f"{name} has {len(items)} entries, expected at most {most}")
        probabilities = self._scorer.score(user, candidates)
        if not np.isfinite(probabilities).all():
            raise FloatingPointError("the model's probabilities are not finite: its weights are not sound")
        return probabilities.tolist()

    async def _health(self, request: Request) -> Response:
        del request
        return JSONResponse({"status": "ok"})

    async def _metrics(self, request: Request) -> Response:
        """Counters since the start, and quantiles of the latest answers' seconds, in Prometheus' format."""
        del request
        lines = ["# TYPE suan_requests_total counter"]
        lines += [f'suan_requests_total{{code="{code}"}} {n}' for code, n in sorted(self._codes.items())]
        lines += ["# TYPE suan_candidates_total counter", f"suan_candidates_total {self._candidates}"]
        lines += ["# TYPE suan_requests_waiting gauge", f"suan_requests_waiting {self._waiting}"]
        lines += ["# TYPE suan_latency_seconds summary"]
        if self._latencies:
            values = np.quantile(np.array(self._latencies), _QUANTILES)
            pairs = zip(_QUANTILES, values, strict=True)
            lines += [f'suan_latency_seconds{{quantile="{q}"}} {value:.6f}' for q, value in pairs]
        lines += [f"suan_latency_seconds_sum {self._seconds:.6f}"]
        lines += [f"suan_latency_seconds_count {self._answers}"]
        return PlainTextResponse("\n".join(lines) + "\n", media_type=_PROMETHEUS)


def _refused(error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code, dict(error.headers or {}))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")
