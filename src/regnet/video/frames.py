"""The frames of a video, camera or stream: decoded, one per interval or the newest, as pixels."""

import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any, Final

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation

from regnet.data.archives import failing
from regnet.data.photo_files import is_live, is_stream
from regnet.pixels.decode import Pixels
from regnet.pixels.preprocess import ImageLike
from regnet.system.errors import ImageError
from regnet.video.sampling import Sampling

MAX_FRAME_PIXELS: Final = 8192 * 4352
"""Larger frames are refused: no level of H.264, HEVC or AV1 allows more."""

Matrix = tuple[int, int, int, int]
"""Where the right and the lower neighbour of a stored pixel are shown: x, y and x, y."""

UPRIGHT: Final[Matrix] = (1, 0, 0, 1)

# What a file may be: no playlist, which could name other files and addresses.
_FORMATS: Final = (
    "asf,avi,dv,flv,ivf,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,nut,ogg,yuv4mpegpipe"
)
_SILENCE: Final = 20.0  # seconds without a sign from a camera or server
_LOOK_UP: Final = 0.5  # seconds: on some systems a wait without end does not hear Ctrl-C
# Without these swscale rounds down, and repeats chroma of 4:2:0 instead of interpolating it: the
# probabilities of photos made into 4:2:0 then move twice as far.
_EXACT: Final = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_UNSPECIFIED: Final = 2  # AVCOL_SPC_UNSPECIFIED


@dataclass(frozen=True)
class Shot:
    """A decoded frame, when it is shown, in seconds since the first, and how, as `rgb` takes it."""

    time: Fraction
    frame: av.VideoFrame
    pixel_aspect: Fraction = Fraction(1)
    matrix: Matrix = UPRIGHT


def shots(address: str) -> Generator[Shot]:
    """Yield the frames of a video in the order in which they are shown, without damaged ones.

    Raises `ImageError` if it cannot be opened, is over the limits or breaks off, and at the end of
    a file that had damaged parts.
    """
    live = is_live(address)
    with _open(address) as container:
        stream = _video_stream(container)
        stream.thread_type = "SLICE" if live else "AUTO"  # threads for frames delay them
        aspect = stream.sample_aspect_ratio or Fraction(1)
        square_size(stream.codec_context.width, stream.codec_context.height, aspect)
        clock = _Clock(stream)
        damaged = 0
        rotation, matrix = None, UPRIGHT
        for frame in _frames(container, stream):
            if frame is None:
                damaged += 1
                continue
            if frame.rotation != rotation:
                rotation, matrix = frame.rotation, _display_matrix(frame)
            yield Shot(clock.time(frame), frame, aspect, matrix)
        if not live:
            _require_whole(clock.end, _declared_length(container, stream), damaged)


@contextmanager
def _open(address: str) -> Iterator[Any]:
    try:
        container = _container(address)
    except (av.FFmpegError, OSError, ValueError) as exc:
        raise ImageError(f"cannot be opened: {_why(exc)}") from exc
    with container:
        yield container


def _container(address: str) -> Any:
    limits = {"max_pixels": str(MAX_FRAME_PIXELS)}
    common: dict[str, Any] = {"options": limits, "metadata_errors": "replace"}
    if is_stream(address):
        tcp = {"rtsp_flags": "prefer_tcp", "protocol_whitelist": "rtsp,rtp,srtp,udp,tcp,tls,crypto"}
        return av.open(address, format="rtsp", container_options=tcp, timeout=_SILENCE, **common)
    if is_live(address):
        system, name = camera(address)
        return av.open(name, format=system, timeout=_SILENCE, **common)
    safe = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
    return av.open(f"file:{address}", container_options=safe, **common)


def camera(name: str) -> tuple[str, str]:
    """Return the input format and device name of `camera:0`, `camera:NAME` or `/dev/video0`."""
    which = name.removeprefix("camera:")
    if sys.platform == "darwin":
        return "avfoundation", f"{which}:none"
    if sys.platform == "win32":
        return "dshow", f"video={which}"
    return "video4linux2", f"/dev/video{which}" if which.isdecimal() else which


def _video_stream(container: Any) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        raise ImageError("holds no video")
    if stream.codec_context is None:
        raise ImageError("its codec is not known")
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    return stream


def _require_whole(end: Fraction, declared: Fraction, damaged: int) -> None:
    if not end:
        raise ImageError("no frame of it can be decoded")
    if damaged:
        raise ImageError(f"damaged: {damaged} parts of it cannot be decoded")
    if end < declared - 1:
        raise ImageError(f"damaged: ends at {float(end):.3f} s of {float(declared):.3f} s")


def _declared_length(container: Any, stream: Any) -> Fraction:
    """Return the seconds that the header of a video says it has, 0 where it does not."""
    if not set(container.format.name.split(",")) & {"mov", "matroska", "avi"}:
        return Fraction(0)  # others have no such header: what is known is a guess
    if stream.duration is not None:
        return Fraction(stream.duration * stream.time_base)
    found = re.match(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    return Fraction(found[3]) + 60 * (int(found[2]) + 60 * int(found[1])) if found else Fraction(0)


def _frames(container: Any, stream: Any) -> Iterator[av.VideoFrame | None]:
    """Yield the frames; None for a packet or frame that cannot be decoded."""
    for packet in _packets(container, stream):
        try:
            yield from (None if frame.is_corrupt else frame for frame in packet.decode())
        except av.FFmpegError:
            yield None


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    while True:
        try:
            yield from container.demux(stream)
        except av.BlockingIOError:  # some cameras say so when they have no frame yet
            time.sleep(0.005)
        except av.FFmpegError as exc:
            raise ImageError(f"breaks off: {_why(exc)}") from exc
        else:
            return


class _Clock:
    """Tells when frames are shown, in seconds since the first."""

    def __init__(self, stream: Any) -> None:
        self._step = 1 / Fraction(stream.guessed_rate or stream.average_rate or 25)
        self._first: Fraction | None = None
        self.end = Fraction(0)  # of the last frame: 0 before there is one

    def time(self, frame: av.VideoFrame) -> Fraction:
        """Return a frame's time; where it says none, it comes at the usual distance."""
        base = frame.time_base or Fraction(1)
        shown = self.end
        if frame.pts is not None:
            if self._first is None:
                self._first = frame.pts * base - shown
            shown = frame.pts * base - self._first
        self.end = shown + (frame.duration * base or self._step)
        return shown


def _why(exc: Exception) -> str:
    """Return the reason alone: an address in it may hold a password."""
    if isinstance(exc, av.ArgumentError | av.InvalidDataError | av.EOFError):
        return "it is damaged or no video of a known kind"
    return getattr(exc, "strerror", None) or type(exc).__name__


def rgb(
    frame: av.VideoFrame, pixel_aspect: Fraction = Fraction(1), matrix: Matrix = UPRIGHT
) -> Pixels:
    """Return a frame's pixels upright: uint8 (H, W, 3), RGB.

    Colours follow the matrix and range that the frame names; without a matrix it is BT.709 in high
    definition, else BT.601, as in players. Pixels that are not square (`pixel_aspect` is width /
    height) are made so, and the frame is turned and mirrored by right angles. Thread-safe, but not
    for the same frame, which it changes for a moment. Raises `ImageError`.
    """
    width, height = square_size(frame.width, frame.height, pixel_aspect)
    high = frame.width >= 1280 or frame.height > 576
    unnamed = Colorspace.ITU709 if high else Colorspace.ITU601
    colorspace = unnamed if frame.colorspace == _UNSPECIFIED else None
    try:
        pixels: Pixels = frame.reformat(
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=colorspace,
            interpolation=int(_EXACT),
            threads=1,
        ).to_ndarray()  # type: ignore[assignment]
    except (av.FFmpegError, ValueError) as exc:
        raise ImageError(f"its frames cannot be made RGB ({exc})") from exc
    a, b, c, d = matrix
    if abs(b) > abs(a):  # stored columns are shown as rows
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def square_size(width: int, height: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """Return the size in square pixels, none of the frame lost. Raises `ImageError`."""
    if pixel_aspect > 1:
        width = round(width * pixel_aspect)
    elif pixel_aspect > 0:
        height = round(height / pixel_aspect)
    if width * height > MAX_FRAME_PIXELS:
        raise ImageError(
            f"frames of {width} x {height} are over the limit of {MAX_FRAME_PIXELS:,} pixels"
        )
    return width, height


def _display_matrix(frame: av.VideoFrame) -> Matrix:
    """Return how to turn and mirror a frame. Rarely: its side data waits for garbage collection."""
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(side_data, np.int32)[:5].tolist()
    return a, b, c, d


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
