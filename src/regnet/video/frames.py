"""A video to the frames that are to be classified."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from regnet.data.archives import failing
from regnet.data.video_names import is_live
from regnet.pixels.preprocess import ImageLike
from regnet.system.errors import ImageError
from regnet.video.decode import Shot, shots
from regnet.video.intervals import Intervals
from regnet.video.newest import newest
from regnet.video.pixels import rgb
from regnet.video.sampling import Sampling


@dataclass(frozen=True)
class Frame:
    """One frame: its time, in seconds since the first, and its pixels once they are wanted.

    `read` gives uint8 (H, W, 3), RGB, upright, in any thread but not in two at once. It raises
    `ImageError` with the reason, so that other frames go on.
    """

    timestamp: float | None
    read: Callable[[], ImageLike]


def frames(address: str, sampling: Sampling) -> Iterator[Frame]:
    """Yield the frames of a video that are to be classified.

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
