"""Class activation maps as pictures: the photo with colours where the network sees the class."""

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regnet.explanation.activation_maps import Explanation
from regnet.explanation.colours import colour_table
from regnet.pixels.preprocess import ImageLike, rgb_pixels

Heat = NDArray[np.float32]

OPACITY: Final = 0.55
_DIMMED: Final = 0.45  # of the brightness, where the network does not look


def overlay_png(photo: ImageLike, explanation: Explanation, *, opacity: float = OPACITY) -> bytes:
    """Return a PNG of the upright photo with the map over it; what the network does not see is dim.

    Colours go from dark violet, 0 or against the class, to light yellow, the explanation's `scale`;
    `opacity` is theirs, 0 to 1. Raises `ImageError` where the photo cannot be read, `ValueError`
    where it is not of the size that was explained.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity={opacity} must be 0 to 1")
    pixels = rgb_pixels(photo)
    if pixels.shape[1::-1] != explanation.size:
        raise ValueError(f"the photo is {pixels.shape[1::-1]}, explained was {explanation.size}")
    left, top, right, bottom = seen(explanation)
    whole, colours = Image.fromarray(pixels), Image.fromarray(_colours(explanation))
    shown = whole.point([round(_DIMMED * level) for level in range(256)] * 3)
    part = whole.crop((left, top, right, bottom))
    shown.paste(Image.blend(part, colours, opacity), (left, top))
    return _png(shown)


def heat_png(explanation: Explanation) -> bytes:
    """Return a PNG of the colours alone, to be laid over the explanation's box."""
    return _png(Image.fromarray(_colours(explanation)))


def _colours(explanation: Explanation) -> NDArray[np.uint8]:
    return colour_table()[np.round(heat(explanation) * 255).astype(np.uint8)]


def seen(explanation: Explanation) -> tuple[int, int, int, int]:
    """Return the pixels that the network sees: left, top, right, bottom on the photo, rounded."""
    left, top, width, height = explanation.box
    edges = (left, top, left + width, top + height)
    x, y, right, bottom = (round(edge) for edge in edges)
    return x, y, max(right, x + 1), max(bottom, y + 1)


def heat(explanation: Explanation) -> Heat:
    """Return how much each pixel of `seen` speaks for the class: 0 to 1, the explanation's `scale`.

    Between the centres of the map's cells it is interpolated (cubic).
    """
    left, top, right, bottom = seen(explanation)
    size = (right - left, bottom - top)
    if explanation.scale <= 0:
        return np.zeros(size[::-1], np.float32)
    smooth = Image.fromarray(explanation.map / np.float32(explanation.scale))
    return np.asarray(smooth.resize(size, Image.Resampling.BICUBIC)).clip(0, 1)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=2)  # photos get no smaller by more, only slower
    return file.getvalue()
