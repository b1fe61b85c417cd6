"""Encoded photos in memory at one time: who wants to read more than there is room for waits."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache
from threading import Condition
from typing import Final

MOST: Final = 256 << 20
"""Bytes of encoded photos in memory; a larger one is read when there is no other."""

_block: Final = ContextVar[ExitStack | None]("block", default=None)


class Room:
    """Memory to be shared: who asks for more bytes than are left waits, unless nobody has any."""

    def __init__(self, size: int) -> None:
        self._size, self._taken, self._changed = size, 0, Condition()

    @contextmanager
    def taken(self, memory: int) -> Iterator[None]:
        """Hold so many bytes for the block."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + memory <= self._size)
            self._taken += memory
        try:
            yield
        finally:
            with self._changed:
                self._taken -= memory
                self._changed.notify_all()


@cache
def _room(process: int) -> Room:
    """Return the room of a process: a fork has none of its parent's photos."""
    return Room(MOST)


@contextmanager
def one_photo() -> Iterator[None]:
    """Let the photo that is read in the block be in memory until its end, and no longer."""
    with ExitStack() as held:
        token = _block.set(held)
        try:
            yield
        finally:
            _block.reset(token)


def wait_for_room(size: int) -> None:
    """Wait until a photo of so many bytes may be read in this block of `one_photo`.

    It stands for what was read in the block before. Outside of such a block there is no limit.
    """
    if (held := _block.get()) is not None:
        held.close()  # who waits holds nothing, so that nobody waits for ever
        held.enter_context(_room(os.getpid()).taken(size))
