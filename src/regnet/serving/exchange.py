"""One request and its answer, from its arrival on: what is known of it, for its log line."""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

from regnet.serving.content_coding import unpacker
from regnet.serving.refusals import Refused, TooLarge, TooMany
from regnet.serving.served_model import Timing

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_KEY: Final = "regnet.exchange"
_PIECES_AT_ONCE: Final = 8
_LARGE: Final = 1 << 20  # bytes of a body


WORK: Final = "regnet.work"
"""Where the `state` of a request's scope has the `Work` of its connection."""


@dataclass
class Work:
    """What a connection has under way: the tasks of its requests, and how many are answered."""

    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    answered: int = 0
    ended: bool = False

    def end(self) -> None:
        """End the tasks: nobody waits for them any more."""
        self.ended = True
        for task in self.tasks:
            task.cancel()


class TooSlow(Refused):
    """Its body did not arrive in time."""

    status = 408


class ClientGoneError(Exception):
    """The client closed the connection before its request was whole."""


@dataclass
class Held:
    """Bytes of all bodies that are being received or worked on; at most `most` of them.

    `of_large` of them may be taken by large bodies, so that slow ones leave room to small ones.
    """

    most: int
    of_large: int
    now: int = 0

    def take(self, count: int, *, large: bool = False) -> None:
        """Add bytes; raises `TooMany` where there is no room for them."""
        most = self.of_large if large else self.most
        if self.now + count > most:
            raise TooMany(
                f"the requests under way hold {self.now:,} bytes, and at most {most:,} are "
                "taken (queue_bytes); try again later",
                limit="queue_bytes",
                retry_after=1.0,
            )
        self.now += count


@dataclass
class Exchange:
    """A request under way; it came at `started` by `perf_counter`, in seconds.

    Its answer is due at `deadline` by the loop's clock, which is a coarse one. `bytes_in` came over
    the network, `bytes_held` are in memory. What handlers set here goes into the log line.
    """

    scope: Scope
    receive: Receive
    id: str
    started: float
    deadline: float
    body_limit: int
    held: Held
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

    def __post_init__(self) -> None:
        self.headers = dict(self.scope["headers"])

    def header(self, name: str) -> str | None:
        """Return a header of the request, the last one of that name."""
        value = self.headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    @property
    def media_type(self) -> str:
        """What the body is said to be, without parameters, in lower case."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()

    def require_small_body(self) -> None:
        """Refuse a body that says it is too large, before any of it is read.

        Raises `TooLarge`, and `Unsupported` for a compression that is not known.
        """
        length = self.headers.get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > self.body_limit:
            raise self._too_large()
        unpacker(self.header("content-encoding"))

    async def body(self) -> bytes:
        """Return the whole body of the request, unpacked if it comes compressed.

        Raises `TooLarge` as soon as it is over the limit, `TooMany` where all bodies together are,
        `TooSlow` where it is not whole in time, `BadRequest` where its compression is damaged,
        `Unsupported` for one that is not known, `ClientGoneError`.
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
        unpacking = unpacker(self.header("content-encoding"))
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk: bytes = message.get("body", b"")
            if self.bytes_in + len(chunk) > self.body_limit:
                raise self._too_large()
            self.bytes_in += len(chunk)
            for piece in unpacking.pieces(chunk):
                self.hold(len(piece))
                pieces.append(piece)
                if len(pieces) % _PIECES_AT_ONCE == 0:
                    await asyncio.sleep(0)  # others have their turn
            if not message.get("more_body", False):
                unpacking.end()
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def age(self) -> float:
        """Return the seconds since it came."""
        return perf_counter() - self.started

    def hold(self, count: int) -> None:
        """Count bytes of the body in memory; raises `TooLarge`, `TooMany`."""
        if self.bytes_held + count > self.body_limit:
            raise self._too_large()
        self.held.take(count, large=self.bytes_held + count > _LARGE)
        self.bytes_held += count

    def release(self) -> None:
        """Give the bytes of the body back."""
        self.held.now -= self.bytes_held

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"the body is over the limit of {self.body_limit:,} bytes (body)", limit="body"
        )


def open_exchange(
    scope: Scope, receive: Receive, *, seconds: float, body_limit: int, held: Held
) -> Exchange:
    """Return the exchange of a request that has just come, and attach it to its scope."""
    deadline = asyncio.get_running_loop().time() + seconds
    exchange = Exchange(scope, receive, "", perf_counter(), deadline, body_limit, held)
    given = exchange.headers.get(b"x-request-id", b"")
    exchange.id = given.decode() if _ID.fullmatch(given) else os.urandom(8).hex()
    scope[_KEY] = exchange
    return exchange


def exchange_of(scope: Scope) -> Exchange:
    """Return the exchange of a request; without one the application lacks its `Gate`."""
    exchange: Exchange = scope[_KEY]
    return exchange
