"""Clips that the tests of videos make: known pictures at known times."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from regnet.pixels.samples import sample_photos

SIZE = (384, 256)
TIME_BASE = Fraction(1, 1000)


def scene(number: int) -> np.ndarray[Any, Any]:
    """Return a sample photo, scaled to the size of the clips: uint8 (H, W, 3)."""
    photo = sample_photos()[number % 3]
    return np.asarray(Image.open(photo).convert("RGB").resize(SIZE))


def write_clip(
    path: Path,
    shots: Iterable[tuple[int, np.ndarray[Any, Any]]],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: tuple[int, bool] = (0, False),
    aspect: Fraction | None = None,
    **options: str,
) -> Path:
    """Write pictures, each with its time in ms, and return the path.

    `rotation` is in degrees counterclockwise, with whether it is mirrored before; `aspect` is that
    of a pixel.
    """
    shots = list(shots)
    height, width = shots[0][1].shape[:2]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = TIME_BASE
        if any(rotation):
            stream.set_display_rotation(rotation[0], hflip=rotation[1])
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for time, pixels in shots:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = time, TIME_BASE
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def steady(seconds: int, rate: int = 25) -> Iterable[tuple[int, np.ndarray[Any, Any]]]:
    """Yield a scene a second, moving by a pixel a frame."""
    for number in range(seconds * rate):
        second, frame = divmod(number, rate)
        yield round(1000 * number / rate), np.roll(scene(second), frame, axis=1)
