"""Connections of clients that are slow, idle or many: bounded in time and in number."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """Uvicorn's HTTP/1.1, whose own timer starts behind the first answer, and which any byte then stops.

    A client that closes its half of the connection behind a whole request still gets the answer.

    Attributes:
      seconds: between the start of a connection, or an answer, and the end of the next request's headers;
        beyond them the connection is ended.
      most: connections at a time; one more is closed at once.
    """

    seconds = 10.0
    most = 256

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
        self._await_request()

    def on_response_complete(self) -> None:
        """An answer was written."""
        super().on_response_complete()
        self._await_request()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends nothing more: whether the connection stays open."""
        if self._waits() or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        super().connection_lost(exc)
        self._stop_timer()

    def _await_request(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self.seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self) -> None:
        if self._waits():
            self.transport.abort()

    def _waits(self) -> bool:
        """Whether no request is being answered: the body of one is the application's to wait for."""
        return self.cycle is None or self.cycle.response_complete
