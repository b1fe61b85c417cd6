"""Frames in real time: whoever asks gets the newest, and those that came before it are dropped."""

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Final

from regnet.video.decode import Shot
from regnet.video.intervals import Intervals

_LOOK_UP: Final = 0.5  # seconds: on some systems a wait without end does not hear Ctrl-C


def newest(shots: Generator[Shot], intervals: Intervals, *, paced: bool) -> Iterator[Shot]:
    """Yield the newest frame each time one is asked for, once one is due.

    A thread of its own reads `shots`; `paced` makes it wait until each is to be shown, as for
    files. Raises what reading them raised, after the last.
    """
    slot = _Slot(intervals)
    read = _paced(shots, slot.stopped) if paced else shots
    threading.Thread(target=slot.fill, args=(read,), name="regnet-video", daemon=True).start()
    try:
        while (shot := slot.take()) is not None:
            yield shot
    finally:
        slot.stopped.set()


def _paced(shots: Generator[Shot], stopped: threading.Event) -> Generator[Shot]:
    """Yield each frame when it is to be shown, or at once where that is over."""
    begin: float | None = None
    with closing(shots):
        for shot in shots:
            now = time.monotonic()
            begin = now if begin is None else begin
            stopped.wait(begin + float(shot.time) - now)
            yield shot


class _Slot:
    """The place between two threads for one frame, the newest."""

    def __init__(self, intervals: Intervals) -> None:
        self.stopped = threading.Event()
        self._intervals = intervals
        self._changed = threading.Condition()
        self._shot: Shot | None = None
        self._ended = False
        self._error: BaseException | None = None

    def fill(self, shots: Generator[Shot]) -> None:
        """Put each frame here, until there are no more or `stopped` is set."""
        try:
            with closing(shots):
                for shot in shots:
                    if self.stopped.is_set():
                        break
                    with self._changed:
                        self._shot = shot
                        self._changed.notify()
        except BaseException as exc:  # whoever takes the frames is to hear of it
            self._error = exc
        with self._changed:
            self._ended = True
            self._changed.notify()

    def take(self) -> Shot | None:
        """Wait until a frame is due and return it, None at the end."""
        with self._changed:
            while not self._changed.wait_for(self._is_due_or_ended, _LOOK_UP):
                pass
            shot, self._shot = self._shot, None
        if shot is not None and self._intervals.take(shot.time):
            return shot
        if self._error is not None:
            raise self._error
        return None

    def _is_due_or_ended(self) -> bool:
        due = self._shot is not None and self._intervals.is_due(self._shot.time)
        return due or self._ended
