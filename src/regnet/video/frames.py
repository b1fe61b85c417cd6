"""The frames of a video to classify: one per interval or, in real time, the newest."""

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Final

from regnet.data.archives import failing
from regnet.data.video_names import is_live
from regnet.pixels.preprocess import ImageLike
from regnet.system.errors import ImageError
from regnet.video.decode import Shot, rgb, shots
from regnet.video.sampling import Sampling

_LOOK_UP: Final = 0.5  # seconds: on some systems a wait without end does not hear Ctrl-C


@dataclass(frozen=True)
class Frame:
    """One frame: its time, in seconds since the first, and its pixels.

    `read` returns uint8 (H, W, 3), RGB, upright, in any thread but not in two at once. It raises
    `ImageError` with the reason, so that other frames go on.
    """

    timestamp: float | None
    read: Callable[[], ImageLike]


def frames(address: str, sampling: Sampling) -> Iterator[Frame]:
    """Yield the frames of a video to classify.

    A problem is a frame whose `read` raises the reason: the last frame, or the only one.
    """
    last: float | None = None
    try:
        for shot in _sampled(address, sampling):
            last = round(float(shot.time), 6)
            yield Frame(last, partial(rgb, shot.frame, shot.pixel_aspect, shot.matrix))
    except ImageError as exc:
        yield Frame(last, failing(str(exc)))


def _sampled(address: str, sampling: Sampling) -> Iterable[Shot]:
    live = is_live(address)
    intervals = Intervals(sampling.every)
    if sampling.newest_only(live=live):
        return newest(shots(address), intervals, paced=not live)
    return (shot for shot in shots(address) if intervals.take(shot.time))


class Intervals:
    """Takes the first frame of each interval of `every` seconds, counted from time 0."""

    def __init__(self, every: float) -> None:
        # From its text: the double next to 0.1 is above it, and the frame at 0.1 would be late.
        self._every = Fraction(str(every))
        self._last: int | None = None

    def is_due(self, time: Fraction) -> bool:
        """Tell whether no frame was taken of the interval that holds this time."""
        return not self._every or time // self._every != self._last

    def take(self, time: Fraction) -> bool:
        """Tell whether a frame is due, and if so take it."""
        due = self.is_due(time)
        if due and self._every:
            self._last = time // self._every
        return due


def newest(shots: Generator[Shot], intervals: Intervals, *, paced: bool) -> Iterator[Shot]:
    """Yield the newest frame each time the caller asks for one, once one is due; drop the others.

    A thread of its own reads `shots`; with `paced` it waits until each is shown, as for files.
    Re-raises the error of reading them, after the last.
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
    """Yield each frame when it is shown, or at once if it is late."""
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
        except BaseException as exc:  # `take` re-raises it
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
