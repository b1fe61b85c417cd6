"""Videos to decoded frames with their times: files, cameras and streams."""

import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av

from regnet.data.video_names import camera, is_live, is_stream
from regnet.system.errors import ImageError
from regnet.video.pixels import (
    MAX_FRAME_PIXELS,
    UPRIGHT,
    Matrix,
    display_matrix,
    square_size,
)

# What a file may be: no playlist, which could name other files and addresses.
_FORMATS: Final = (
    "asf,avi,dv,flv,ivf,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,nut,ogg,yuv4mpegpipe"
)
_SILENCE: Final = 20.0  # seconds without a sign from a camera or server


@dataclass(frozen=True)
class Shot:
    """A decoded frame, when it is shown, in seconds since the first, and how, as `rgb` takes it."""

    time: Fraction
    frame: av.VideoFrame
    pixel_aspect: Fraction = Fraction(1)
    matrix: Matrix = UPRIGHT


def shots(address: str) -> Generator[Shot]:
    """Yield the frames of a video as they are decoded, in the order in which they are shown.

    Frames that are known to be damaged are left out. Raises `ImageError` where it cannot be
    opened, is over the limits or breaks off, and at the end of a file that had damaged parts.
    """
    live = is_live(address)
    with _open(address) as container:
        stream = _video_stream(container)
        stream.thread_type = "SLICE" if live else "AUTO"  # threads for frames delay them
        aspect = stream.sample_aspect_ratio or Fraction(1)
        square_size(stream.codec_context.width, stream.codec_context.height, aspect)
        clock = _Clock(stream)
        damage = _Damage()
        rotation, matrix = None, UPRIGHT
        for frame in _frames(container, stream, damage):
            if frame.rotation != rotation:
                rotation, matrix = frame.rotation, display_matrix(frame)
            yield Shot(clock.time(frame), frame, aspect, matrix)
        if not live:
            _require_whole(clock.end, _declared_length(container, stream), damage)


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


def _video_stream(container: Any) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        raise ImageError("holds no video")
    if stream.codec_context is None:
        raise ImageError("its codec is not known")
    stream.codec_context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    return stream


@dataclass
class _Damage:
    """How many parts of a video, packets or frames, could not be decoded."""

    parts: int = 0


def _require_whole(end: Fraction, declared: Fraction, damage: _Damage) -> None:
    if not end:
        raise ImageError("no frame of it can be decoded")
    if damage.parts:
        raise ImageError(f"damaged: {damage.parts} parts of it cannot be decoded")
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


def _frames(container: Any, stream: Any, damage: _Damage) -> Iterator[av.VideoFrame]:
    for packet in _packets(container, stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            damage.parts += 1
            continue
        for frame in frames:
            if frame.is_corrupt:
                damage.parts += 1
            else:
                yield frame


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
