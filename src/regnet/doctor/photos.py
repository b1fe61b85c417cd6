"""What is kept of the photos of a data set: sizes, hashes, and small grey pictures.

About 800 bytes each stay in memory, in columns.
"""

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from regnet.data.sources import Item
from regnet.doctor.findings import File
from regnet.doctor.tree import Place, Tree
from regnet.pixels.decode import jpeg_orientation, require_jpeg, upright
from regnet.pixels.decode_limits import DECODE_LIMITS
from regnet.pixels.decoder import decode_within
from regnet.pixels.photo_cost import jpeg_outline
from regnet.system.errors import ImageError
from regnet.system.notices import about

Grey = NDArray[np.uint8]

SIDE: Final = 24  # side of the small grey picture, in pixels
DIGEST: Final = 16  # bytes of the hash of a file
_ON_ITS_SIDE: Final = (5, 6, 7, 8)  # EXIF orientations
_ENOUGH: Final = 4 * SIDE  # pixels that a side is decoded to at least
_BLANK: Final = 2.5  # levels of contrast


@dataclass(frozen=True)
class Glance:
    """One photo: upright `width` and `height`, `digest` of the file, `grey` (SIDE, SIDE) uint8.

    `sharpness` is as of `sharpness_of`. If `error` says why it could not be read, they are all 0.
    """

    source: str
    error: str = ""
    width: int = 0
    height: int = 0
    sharpness: float = 0.0
    digest: bytes = bytes(DIGEST)
    grey: Grey = field(default_factory=lambda: np.zeros((SIDE, SIDE), np.uint8))


def glances(items: Sequence[Item]) -> list[Glance]:
    """Return what is kept of each photo. Thread-safe."""
    return [_glance(item) for item in items]


def _glance(item: Item) -> Glance:
    try:
        with about(item.source):
            data = item.read()
            grey, (width, height) = _decoded(data)
    except ImageError as exc:
        return Glance(item.source, error=str(exc))
    whole = Image.fromarray(np.ascontiguousarray(grey))
    small = np.asarray(whole.resize((SIDE, SIDE), Image.Resampling.BOX))
    digest = blake2b(data, digest_size=DIGEST).digest()
    return Glance(item.source, "", width, height, sharpness_of(whole), digest, small)


def sharpness_of(grey: Image.Image) -> float:
    """Return the deviation of a grey picture's Laplacian over its own, at a short side of 96.

    It is infinite for pictures with a shorter one, which would be enlarged.
    """
    scale = _ENOUGH / min(grey.size)
    if scale > 1:
        return math.inf
    size = round(grey.width * scale), round(grey.height * scale)
    x = np.asarray(grey.resize(size, Image.Resampling.BOX), np.float32)
    sides = x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:]
    return float((4 * x[1:-1, 1:-1] - sides).std() / (x.std() + 1))


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


class Glances:
    """The glances at the photos of a tree, by their index in its order; fill it with `add`.

    `errors` says why those that could not be read could not.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.sources: list[str] = []
        self.errors: dict[int, str] = {}
        self._sizes = array("I")
        self._contrasts = array("f")
        self._sharpness = array("f")
        self._digests = bytearray()
        self._greys = bytearray()

    def __len__(self) -> int:
        return len(self.sources)

    def add(self, glance: Glance) -> None:
        """Add the glance at the next photo."""
        if glance.error:
            self.errors[len(self)] = glance.error
        self.sources.append(glance.source)
        self._sizes.extend((glance.width, glance.height))
        self._contrasts.append(float(glance.grey.std()))
        self._sharpness.append(glance.sharpness)
        self._digests += glance.digest
        self._greys += glance.grey.tobytes()

    @property
    def readable(self) -> NDArray[np.int64]:
        """The indices of the photos that could be read."""
        good = np.ones(len(self), bool)
        good[list(self.errors)] = False
        return np.flatnonzero(good)

    @property
    def sizes(self) -> NDArray[np.uint32]:
        """Width and height of each, upright, 0 where it could not be read: (N, 2)."""
        return np.frombuffer(self._sizes, np.uint32).reshape(-1, 2)

    @property
    def blank(self) -> NDArray[np.bool_]:
        """Which show nothing but one shade: (N,)."""
        return np.frombuffer(self._contrasts, np.float32) < _BLANK

    @property
    def sharpness(self) -> NDArray[np.float32]:
        """The sharpness of each, as of `sharpness_of`: (N,)."""
        return np.frombuffer(self._sharpness, np.float32)

    @property
    def greys(self) -> Grey:
        """The small grey pictures, uint8 (N, SIDE, SIDE)."""
        return np.frombuffer(self._greys, np.uint8).reshape(-1, SIDE, SIDE)

    @property
    def split_sizes(self) -> dict[str, int]:
        """The number of photos of each split."""
        return {split: sum(counts.values()) for split, counts in self._tree.counts.items()}

    def digest(self, index: int) -> bytes:
        """Return the hash of a photo's file."""
        return bytes(self._digests[index * DIGEST : (index + 1) * DIGEST])

    def place(self, index: int) -> Place:
        """Return the split and class of a photo."""
        return self._tree.places[index]

    def file(self, index: int, detail: str = "", group: int | None = None) -> File:
        """Return a photo as a finding names it."""
        place = self.place(index)
        return File(self.sources[index], place.split, place.label, detail, group)
