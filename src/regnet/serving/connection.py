"""HTTP/1.1 on one connection: uvicorn's, behind limits on heads, slowness, waste and crowds.

A parser of our own sees each piece first; uvicorn receives what is within the limits.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from regnet.serving.exchange import WORK, Work
from regnet.serving.gate import SECURITY_HEADERS
from regnet.system.json_text import json_bytes

MAX_HEAD: Final = 64 << 10
"""Bytes of a request's line and headers; each header counts 32 more, as in HTTP/2."""

MAX_CONNECTIONS: Final = 4096
"""Open connections of a server; each may hold about 64 KiB before its request is parsed."""

_LOG: Final = logging.getLogger(__name__)
_FIELD: Final = 32
_PIECE: Final = 64 << 10  # bytes that are parsed in one step
_MAX_PIPELINED: Final = 256  # requests that a connection sends ahead of their answers
_LINGER: Final = 2.0  # seconds for which the rest of a refused request is read and discarded
_REASONS: Final = {400: "malformed", 408: "seconds", 431: "head", 503: "connections"}


class _Transport:
    """Sends all that is written in one step of the loop together: an answer's head and body.

    Closing waits for the rest of a request that was answered early, or its answer would get lost.
    """

    def __init__(self, transport: Any, connection: "Connection") -> None:
        self._transport, self._connection = transport, connection
        self._waiting: list[bytes] = []
        self._ending = False

    def write(self, data: bytes) -> None:
        """Send bytes, soon."""
        if not self._waiting:
            self._connection.loop.call_soon(self._send)
        self._waiting.append(data)

    def close(self) -> None:
        """Close once all is sent."""
        if self._ending:
            return
        self._ending = True
        self._send()
        if self._connection.unfinished and not self._transport.is_closing():
            self._transport.write_eof()
            self._transport.resume_reading()
            self._connection.wait(_LINGER)
        else:
            self._transport.close()

    def is_closing(self) -> bool:
        """Tell whether nothing more is sent."""
        return self._ending or bool(self._transport.is_closing())

    def _send(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._transport.writelines(waiting)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(asyncio.Protocol):
    """Refuses heads that are too large, requests that are too slow, and what is no HTTP.

    It closes a connection that goes on sending after its answer, instead of reading everything.
    When the client has gone, its requests are cancelled.
    """

    slowest: ClassVar[float]
    """Seconds that a whole request may take to arrive, and that a connection may stay silent."""
    most: ClassVar[int]
    """Bytes of a body."""
    failed: ClassVar[Callable[[str], None]]
    """Receives why something was refused here, before the application."""
    everyone: ClassVar[set["Connection"]]
    """All open connections."""

    def __init__(self, *, app_state: dict[str, Any], **given: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.unfinished = False  # a request has begun to arrive
        self._work = Work()
        self._inner = HttpToolsProtocol(app_state={**app_state, WORK: self._work}, **given)
        self.eof_received = self._inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = self._inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = self._inner.resume_writing  # type: ignore[method-assign]
        self._parser: Any = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._refusal: tuple[int, str] | None = None
        self._in_head = False
        self._begun = self._head = self._raw_head = self._size = 0
        self._url = b""
        self._since = self.loop.time()

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request, for a limited time."""
        self._raw = transport
        self._transport = _Transport(transport, self)
        self._inner.connection_made(self._transport)  # type: ignore[arg-type]
        self.wait(self.slowest)
        self.everyone.add(self)
        if len(self.everyone) > MAX_CONNECTIONS:
            waiting = (one for one in self.everyone if not one._work.tasks)
            oldest = min(waiting, key=lambda one: one._since, default=self)
            oldest._refuse(503, f"there are {MAX_CONNECTIONS:,} connections already")

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock, and the work that nobody waits for."""
        self.everyone.discard(self)
        self.wait(None)
        self._inner.connection_lost(exc)
        self._work.end()

    def data_received(self, data: bytes) -> None:
        """Pass on what came, as long as it is within the limits."""
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            idle, begun = not self.unfinished, self._begun
            self._size += len(piece)
            if not self._transport.is_closing():
                self._parse(piece)
            if self._size > 2 * self.most + MAX_HEAD:
                self._raw.close()
            if self._transport.is_closing():
                continue
            if not idle or self._begun > begun:  # else nothing but empty lines
                self._inner.data_received(piece)
        one = self._begun == self._work.answered + 1
        if one and not self.unfinished and not self._transport.is_closing():
            self._raw.resume_reading()  # uvicorn may have paused: then nobody sees the client go

    def _parse(self, piece: bytes) -> None:
        if self._parser is None:
            return
        in_head, begun = self._in_head, self._begun
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._parser = None  # it is answered as if it had not asked; nothing may follow
        except httptools.HttpParserError:
            self._refuse(*(self._refusal or (400, "Invalid HTTP request received.")))
            return
        if in_head and self._in_head and begun == self._begun:
            self._raw_head += len(piece)
            if self._raw_head > MAX_HEAD:
                self._refuse(431, f"the head of a request is over {MAX_HEAD:,} bytes")

    # Called by the parser, which turns every exception here into one error.

    def on_message_begin(self) -> None:
        """Start the clock of a request."""
        self._begun += 1
        self._since = self.loop.time()
        self._in_head = self.unfinished = True
        self._head = self._raw_head = self._size = 0
        self._url = b""
        self.wait(self.slowest)
        if self._begun - self._work.answered > _MAX_PIPELINED:
            self._fail(400, "too many requests are sent ahead")

    def on_url(self, url: bytes) -> None:
        """Take a part of the request's line."""
        self._url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header, or a trailer after a body in chunks."""
        self._count(len(name) + len(value) + _FIELD)

    def on_headers_complete(self) -> None:
        """Refuse an invalid address."""
        self._in_head = False
        httptools.parse_url(self._url).path.decode("ascii")

    def on_message_complete(self) -> None:
        """Stop the clock: the rest is the application's time."""
        self.unfinished = False
        self.wait(None)

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > MAX_HEAD:
            self._fail(431, f"the head of a request is over {MAX_HEAD:,} bytes")

    def _fail(self, status: int, error: str) -> None:
        self._refusal = status, error
        raise ValueError(error)

    def wait(self, seconds: float | None) -> None:
        """Close the connection after so many seconds; None stops the clock."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self._in_head:
            self._refuse(408, "the request did not arrive in time")
        self._raw.close()

    def _refuse(self, status: int, error: str) -> None:
        """Answer a request that never reaches the application, and close."""
        if self._transport.is_closing():
            return
        type(self).failed(_REASONS[status])
        _LOG.warning(error)
        if not self.unfinished or self._begun > self._work.answered:  # else it has its answer
            self._transport.write(_answer(status, error))
        self._transport.close()


def _answer(status: int, error: str) -> bytes:
    body = json_bytes({"error": error})
    headers = (
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *SECURITY_HEADERS,
    )
    line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
    return line + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + body


def connection_class(
    *, slowest: float, most: int, failed: Callable[[str], None]
) -> type[Connection]:
    """Return the class of a server's connections."""
    values = {"slowest": slowest, "most": most, "failed": staticmethod(failed), "everyone": set()}
    return type("Connection", (Connection,), values)
