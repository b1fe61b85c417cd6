"""What the doctor keeps of a photo: its size, a hash of its file, and a small grey picture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from regnet.data.sources import Item
from regnet.pixels.decode import jpeg_orientation, require_jpeg, upright
from regnet.pixels.decode_limits import DECODE_LIMITS
from regnet.pixels.decoder import decode_within
from regnet.pixels.photo_cost import jpeg_outline
from regnet.system.errors import ImageError
from regnet.system.notices import about

Grey = NDArray[np.uint8]

SIDE: Final = 24
"""Side of the small grey picture, in pixels: 576 bytes a photo stay in memory."""

DIGEST: Final = 16
"""Bytes of the hash of a file."""

_ON_ITS_SIDE: Final = (5, 6, 7, 8)  # EXIF orientations
_ENOUGH: Final = 4 * SIDE  # pixels that a side is decoded to at least


@dataclass(frozen=True)
class Glance:
    """One photo: upright `width` and `height`, `digest` of the file, `grey` (SIDE, SIDE) uint8.

    Where `error` says why it could not be read, they are all 0.
    """

    source: str
    error: str = ""
    width: int = 0
    height: int = 0
    digest: bytes = bytes(DIGEST)
    grey: Grey = field(default_factory=lambda: np.zeros((SIDE, SIDE), np.uint8))

    @property
    def contrast(self) -> float:
        """The standard deviation of the grey picture, in levels."""
        return float(self.grey.std())


def glances(items: Sequence[Item]) -> Iterator[Glance]:
    """Yield what is kept of each photo. Thread-safe."""
    for item in items:
        try:
            with about(item.source):
                glance = _glance(item.source, item.read())
            yield glance
        except ImageError as exc:
            yield Glance(item.source, error=str(exc))


def _glance(source: str, data: bytes) -> Glance:
    grey, (width, height) = _decoded(data)
    whole = Image.fromarray(np.ascontiguousarray(grey))
    small = whole.resize((SIDE, SIDE), Image.Resampling.BOX)
    digest = blake2b(data, digest_size=DIGEST).digest()
    return Glance(source, "", width, height, digest, np.asarray(small))


def _decoded(data: bytes) -> tuple[Grey, tuple[int, int]]:
    """Return an image upright and grey, a JPEG at a fraction of its size, and its full size."""
    if (scaled := _scaled_jpeg(data)) is not None:
        return scaled
    pixels = decode_within(data, "RGB", DECODE_LIMITS)
    grey = Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
    return np.asarray(grey), grey.size


def _scaled_jpeg(data: bytes) -> tuple[Grey, tuple[int, int]] | None:
    """Return a JPEG, decoded in a third of the time; None where Pillow must decide."""
    outline = jpeg_outline(data)
    if outline is None or not outline.has_quick_head(data):
        return None
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
        require_jpeg(data, outline, width, height, DECODE_LIMITS)
        grey = simplejpeg.decode_jpeg(data, "GRAY", min_height=_ENOUGH, min_width=_ENOUGH)
    except (ValueError, MemoryError):
        return None
    orientation = jpeg_orientation(data, outline)
    size = (height, width) if orientation in _ON_ITS_SIDE else (width, height)
    return upright(grey, orientation)[..., 0], size
