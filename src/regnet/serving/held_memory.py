"""The memory that bodies of requests take: limited together, given back once they are answered."""

import asyncio
import contextlib
import ctypes
import sys
from dataclasses import dataclass
from typing import Final

from regnet.serving.refusals import TooMany

_LARGE: Final = 1 << 20  # bytes of a body
_EVERY: Final = 256 << 20


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
