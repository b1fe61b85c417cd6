"""HTTP/1.1 on one connection: uvicorn's, with the limits it lacks on heads, slowness and waste."""

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from regnet.json_text import json_bytes
from regnet.serving.gate import SECURITY_HEADERS

MAX_HEAD: Final = 64 << 10
"""Bytes of a request's line and headers."""


MAX_CONNECTIONS: Final = 4096
"""Open connections of a server; each may hold some 64 KiB before its request is looked at."""
_MAX_PIPELINED: Final = 256
"""Requests that a connection sends ahead of their answers."""
_REASONS: Final = {400: "malformed", 408: "seconds", 431: "head", 503: "connections"}


class _Transport:
    """Sends what is written in one step of the loop at once: an answer's head with its body."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._waiting: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send bytes, soon."""
        if not self._waiting:
            self._loop.call_soon(self._send)
        self._waiting.append(data)

    def close(self) -> None:
        """Close once all is sent."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._transport.writelines(waiting)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(HttpToolsProtocol):
    """Closes a connection whose head is too large, or that sends a request too slowly.

    It also closes one that goes on sending after it had its answer, instead of reading all of it.
    """

    slowest: ClassVar[float] = 30.0
    """Seconds that a whole request may take to arrive, and that a connection may stay silent."""
    most: ClassVar[int] = 32 << 20
    """Bytes of a body that are read and thrown away after an early answer."""

    failed: ClassVar[Any]
    """Function that hears why something was refused here and never reached the application."""

    _timer: asyncio.TimerHandle | None = None
    _head: int = 0
    _in_head: bool = False
    _wasted: int = 0

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request, but not for ever."""
        super().connection_made(_Transport(transport, self.loop))  # type: ignore[arg-type]
        self._await(self.slowest)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, f"there are {MAX_CONNECTIONS:,} connections already")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._await(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, as long as heads stay small."""
        super().data_received(data)
        if self._in_head:
            self._head += len(data)
            if self._head > MAX_HEAD:
                self._refuse(431, f"the head of a request is over {MAX_HEAD:,} bytes")

    def on_message_begin(self) -> None:
        """Start the clock of a request."""
        super().on_message_begin()
        self._in_head, self._head, self._wasted = True, 0, 0
        self._await(self.slowest)

    def on_headers_complete(self) -> None:
        """Start the request; the parser makes a malformed one of what is raised here."""
        self._in_head = False
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise ValueError("too many requests are sent ahead")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body, also one that nobody waits for any more."""
        if self.cycle.response_complete:
            self._wasted += len(body)
            if self._wasted > self.most:
                self.transport.close()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the clock: the rest is the application's time."""
        self._await(None)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg)

    def _await(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self._in_head and not self.transport.is_closing():
            self._refuse(408, "the request did not arrive in time")
        self.transport.close()

    def _refuse(self, status: int, error: str) -> None:
        """Answer what never reaches the application, and close."""
        if self.transport.is_closing():
            return
        self.failed(_REASONS[status])
        body = json_bytes({"error": error})
        headers = (
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *SECURITY_HEADERS,
        )
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)
        self.transport.close()


def connection_class(
    *, slowest: float, most: int, failed: Callable[[str], None]
) -> type[Connection]:
    """Return the class of a server's connections."""
    values = {"slowest": slowest, "most": most, "failed": staticmethod(failed)}
    return type("Connection", (Connection,), values)
