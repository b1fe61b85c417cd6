"""The frames of a video to classify: one per interval or, in real time, the newest."""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Final

from regnet.data.archives import failing
from regnet.data.photo_files import is_live
from regnet.pixels.preprocess import ImageLike
from regnet.system.errors import ImageError
from regnet.video.decode import Shot, rgb, shots
from regnet.video.sampling import Sampling

_LOOK_UP: Final = 0.5  # seconds: on some systems a wait without end does not hear Ctrl-C


@dataclass(frozen=True)
class Frame:
    """One frame: its time, in seconds since the first, and its pixels.

    `read` returns uint8 (H, W, 3), RGB, upright, for one thread at a time, or raises `ImageError`.
    """

    timestamp: float | None
    read: Callable[[], ImageLike]


def frames(address: str, sampling: Sampling) -> Iterator[Frame]:
    """Yield the frames of a video to classify; `read` of the last one may raise the problem."""
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

    def take(self, time: Fraction) -> bool:
        """Tell whether no frame was taken of the interval that holds this time; take it if so."""
        if not self._every:
            return True
        last, self._last = self._last, int(time // self._every)
        return self._last != last


def newest(shots: Generator[Shot], intervals: Intervals, *, paced: bool) -> Iterator[Shot]:
    """Yield the newest frame each time the caller asks for one, once one is due; drop the others.

    A thread reads `shots`; with `paced` it waits until each is shown. Re-raises its errors.
    """
    slot: deque[Shot] = deque(maxlen=1)
    changed, ended, stopped = threading.Event(), threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def fill() -> None:
        try:
            with closing(_paced(shots, stopped) if paced else shots) as read:
                for shot in read:
                    if stopped.is_set():
                        break
                    slot.append(shot)
                    changed.set()
        except BaseException as exc:  # for whoever takes the frames
            errors.append(exc)
        ended.set()
        changed.set()

    threading.Thread(target=fill, name="regnet-video", daemon=True).start()
    try:
        over = False
        while not over:
            while not changed.wait(_LOOK_UP):
                pass
            changed.clear()
            over = ended.is_set()  # before the slot is emptied: nothing comes after that
            shot = slot.pop() if slot else None
            if shot is not None and intervals.take(shot.time):
                yield shot
        if errors:
            raise errors[0]
    finally:
        stopped.set()


def _paced(shots: Generator[Shot], stopped: threading.Event) -> Generator[Shot]:
    """Yield each frame when it is shown, or at once if it is late."""
    begin: float | None = None
    with closing(shots):
        for shot in shots:
            now = time.monotonic()
            begin = now if begin is None else begin
            stopped.wait(begin + float(shot.time) - now)
            yield shot
