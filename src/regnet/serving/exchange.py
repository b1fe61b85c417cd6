"""One request and its answer: the body within its limits, the answer as JSON, facts for the log."""

import asyncio
import contextlib
import ctypes
import math
import os
import re
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from starlette.responses import Response

from regnet.serving.batching import Timing
from regnet.serving.refusals import BadRequest, Refused, TooLarge, TooMany, TooSlow, Unsupported
from regnet.system.json_text import json_bytes

_PIECE: Final = 1 << 20  # bytes unpacked in one step, however well they were compressed
_MAX_MEMBERS: Final = 1000  # of gzip: each costs the same time, however little is in it
_GZIP, _ZLIB, _RAW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS

_LARGE: Final = 1 << 20  # bytes of a body
_EVERY: Final = 256 << 20

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

WORK: Final = "regnet.work"
"""The `state` of a request's scope has the `Work` of its connection under this key."""

_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_KEY: Final = "regnet.exchange"
_PIECES_AT_ONCE: Final = 8


class Unpacker:
    """Unpacks a body in a content coding; raises `Unsupported` for an unknown one."""

    def __init__(self, coding: str | None) -> None:
        self._name = (coding or "identity").strip().lower()
        if self._name not in ("identity", "gzip", "x-gzip", "deflate"):
            raise Unsupported(
                f"a body with Content-Encoding {self._name[:100]!r} is not taken: send gzip, "
                "deflate or none"
            )
        self._stream: zlib._Decompress | None = None
        self._members = 1

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield the unpacked next bytes of the body; raises `BadRequest` if they are damaged."""
        if self._name == "identity":
            yield data
            return
        full = False
        while data or full:
            stream = self._stream = self._current(data)
            try:
                piece = stream.decompress(data, _PIECE)
            except zlib.error as exc:
                raise BadRequest(f"the body is not {self._name} ({exc})") from exc
            yield piece
            full = len(piece) == _PIECE
            data = stream.unconsumed_tail or stream.unused_data

    def _current(self, data: bytes) -> "zlib._Decompress":
        """Return the decompressor of the next bytes: gzip may have several members."""
        is_deflate = self._name == "deflate"
        if self._stream is None:
            has_header = data[0] & 15 == 8
            return zlib.decompressobj(_GZIP if not is_deflate else _ZLIB if has_header else _RAW)
        if not self._stream.eof or not data:
            return self._stream
        self._members += 1
        if is_deflate or self._members > _MAX_MEMBERS:
            raise BadRequest(f"bytes follow the end of the body's {self._name}")
        return zlib.decompressobj(_GZIP)

    def end(self) -> None:
        """Raise `BadRequest` if the body is not complete."""
        if self._stream is not None and not self._stream.eof:
            raise BadRequest(f"the body's {self._name} is cut off")


@dataclass
class Held:
    """Bytes of all bodies that are being received or worked on, at most `max_bytes`.

    Large bodies may take at most `max_large`, so that slow ones leave room for small ones. glibc
    keeps freed memory in each thread's own heap, and many large requests at once make that
    gigabytes: `release` makes it give that back. For one asyncio loop.
    """

    max_bytes: int
    max_large: int
    now: int = 0
    _freed: int = 0
    _task: asyncio.Task[None] | None = None

    def take(self, count: int, *, body: int = 0) -> None:
        """Add bytes of a body that has `body` bytes in all; raises `TooMany` if it has no room."""
        limit = self.max_large if body > _LARGE else self.max_bytes
        if self.now + count > limit:
            raise TooMany(
                f"the requests under way hold {self.now:,} bytes, and at most {limit:,} are "
                "taken (queue_bytes); try again later",
                limit="queue_bytes",
                retry_after=1.0,
            )
        self.now += count

    def release(self, body: int) -> None:
        """Give back the bytes of a body whose request has been answered."""
        self.now -= body
        self._freed += body if body >= _LARGE else 0
        if self._freed >= _EVERY and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._trim())

    async def _trim(self) -> None:
        while self._freed >= _EVERY:  # again if as many were answered meanwhile
            self._freed = 0
            await asyncio.to_thread(_trim)


def _trim() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


@dataclass
class Work:
    """The tasks of a connection's requests that are under way, and how many are answered."""

    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    answered: int = 0
    ended: bool = False

    def end(self) -> None:
        """Cancel the tasks: nobody waits for them any more."""
        self.ended = True
        for task in self.tasks:
            task.cancel()


class ClientGoneError(Exception):
    """The client closed the connection before its request was whole."""


@dataclass
class Exchange:
    """A request under way; it came at `started` by `perf_counter`.

    Its answer is due at `deadline` by the loop's clock, which is a coarse one. `bytes_in` came over
    the network, `bytes_held` are in memory. What handlers set here goes into the log line.
    """

    scope: Scope
    receive: Receive
    deadline: float
    body_limit: int
    held: Held
    started: float = field(default_factory=perf_counter)
    bytes_in: int = 0
    bytes_held: int = 0
    bytes_out: int = 0
    status: int = 0
    model: str | None = None
    images: int = 0
    timing: Timing | None = None
    reason: str | None = None
    error: str | None = None
    headers: dict[bytes, bytes] = field(init=False)
    id: str = field(init=False)

    def __post_init__(self) -> None:
        self.headers = dict(self.scope["headers"])
        given = self.headers.get(b"x-request-id", b"")
        self.id = given.decode() if _ID.fullmatch(given) else os.urandom(8).hex()
        self.scope[_KEY] = self

    def header(self, name: str) -> str | None:
        """Return a header of the request, the last one of that name."""
        value = self.headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    @property
    def media_type(self) -> str:
        """The declared type of the body, without parameters, in lower case."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()

    @property
    def age(self) -> float:
        """Seconds since the request came."""
        return perf_counter() - self.started

    def require_small_body(self) -> None:
        """Refuse a body by its declared length and compression, before any of it is read.

        Raises `TooLarge`, `Unsupported`.
        """
        length = self.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self.body_limit:
            raise self._too_large()
        Unpacker(self.header("content-encoding"))

    async def body(self) -> bytes:
        """Return the whole body of the request, unpacked if it is compressed.

        Raises `TooLarge` as soon as it exceeds its limit, `TooMany` if all bodies together exceed
        theirs, `TooSlow` if it does not arrive in time, `BadRequest` for damaged compression,
        `Unsupported` for an unknown one, `ClientGoneError`.
        """
        try:
            async with asyncio.timeout_at(self.deadline):
                return await self._whole_body()
        except TimeoutError as exc:
            raise TooSlow(
                f"the body did not arrive in time: {self.bytes_in:,} bytes came", limit="seconds"
            ) from exc

    async def _whole_body(self) -> bytes:
        pieces: list[bytes] = []
        unpacker = Unpacker(self.header("content-encoding"))
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk: bytes = message.get("body", b"")
            if self.bytes_in + len(chunk) > self.body_limit:
                raise self._too_large()
            self.bytes_in += len(chunk)
            for piece in unpacker.pieces(chunk):
                if self.bytes_held + len(piece) > self.body_limit:
                    raise self._too_large()
                self.held.take(len(piece), body=self.bytes_held + len(piece))
                self.bytes_held += len(piece)
                pieces.append(piece)
                if len(pieces) % _PIECES_AT_ONCE == 0:
                    await asyncio.sleep(0)  # others have their turn
            if not message.get("more_body", False):
                unpacker.end()
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"the body is over the limit of {self.body_limit:,} bytes (body)", limit="body"
        )

    def error_answer(
        self,
        status: int,
        error: str,
        *,
        limit: str | None = None,
        retry_after: float | None = None,
        more: dict[str, Any] | None = None,
    ) -> Response:
        """Return `{"error", "limit", "id"}` and `more`; `limit` only if one is exceeded."""
        value: dict[str, Any] = {**(more or {}), "error": error}
        if limit is not None:
            value["limit"] = limit
        value["id"] = self.id
        headers = {}
        if retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return json_answer(value, status, headers)

    def refusal_answer(self, refused: Refused) -> Response:
        """Return the answer that says why the request is not served, and note it for the log."""
        self.reason, self.error = refused.limit, str(refused)
        return self.error_answer(
            refused.status, str(refused), limit=refused.limit, retry_after=refused.retry_after
        )


def exchange_of(scope: Scope) -> Exchange:
    """Return the exchange of a request that came through the `Gate`."""
    exchange: Exchange = scope[_KEY]
    return exchange


def short_json(value: Any) -> bytes:
    """Return compact JSON in UTF-8."""
    return json_bytes(value, separators=(",", ":"), allow_nan=False)


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an answer that is JSON."""
    return Response(short_json(value), status, headers, "application/json")
