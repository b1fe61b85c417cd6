"""Memory of large requests, given back to the system once they are answered."""

import asyncio
import contextlib
import ctypes
import sys
from typing import Final

_LARGE: Final = 1 << 20
_EVERY: Final = 256 << 20


class FreedMemory:
    """Counts the bytes of large requests, and lets the C library give back what they used.

    glibc keeps freed pieces for later, in each thread's own heap, and where many clients send large
    requests at once that is gigabytes. For one asyncio loop; nothing where there is no glibc.
    """

    def __init__(self) -> None:
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None

    def add(self, size: int) -> None:
        """Count the bytes of a request that has been answered."""
        self._bytes += size if size >= _LARGE else 0
        if self._bytes >= _EVERY and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._give_back())

    async def _give_back(self) -> None:
        while self._bytes >= _EVERY:  # again if as many were answered meanwhile
            self._bytes = 0
            await asyncio.to_thread(_give_back)


def _give_back() -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
