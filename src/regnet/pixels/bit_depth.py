"""Pixel values of more than 8 bits -> 8 bits; what has no known range is refused."""

from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regnet.pixels.formats import (
    BITS_PER_SAMPLE,
    MAX_SAMPLE_VALUE,
    SAMPLE_FORMAT,
    SAMPLES_PER_PIXEL,
    tiff_tags,
)
from regnet.system.errors import ImageError
from regnet.system.notices import DarkPhotoWarning, give

_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3  # sample formats of TIFF
_KNOWN_BITS: Final = (1, 2, 4, 8, 12, 16)
_DARK: Final = 1 << 12  # grey of 16 bits that stays below is taken for 12 bits
_SCALE: Final = "scale them to 0..255 and save them as 8 bits"


def require_known_depth(data: bytes) -> None:
    """Raise `ImageError` for the bytes of a TIFF whose values are of a kind that is never read."""
    tags = tiff_tags(data)
    bits, kind = tags.get(BITS_PER_SAMPLE, 1), tags.get(SAMPLE_FORMAT, _UNSIGNED)
    grey = tags.get(SAMPLES_PER_PIXEL, 1) == 1
    wide = bits == 32 and grey and kind <= _FLOAT  # how wide the range is decides
    if wide or (kind == _SIGNED and bits == 16) or (kind == _UNSIGNED and bits in _KNOWN_BITS):
        return
    names = {_UNSIGNED: "integers", _SIGNED: "signed integers", _FLOAT: "floats"}
    raise ImageError(f"pixels are {bits}-bit {names.get(kind, 'values')}: {_SCALE}")


def is_deep(image: Image.Image) -> bool:
    """Tell grey images of more than 8 bits a value, and of values of no known range."""
    return image.mode in ("I", "F") or image.mode.startswith("I;")


def eight_bits(image: Image.Image, data: bytes) -> Image.Image:
    """Return a deep grey image of mode L: the upper 8 of the bits that a value has.

    `data` are the file's bytes, b"" if not known: they may declare fewer than 16 bits. Raises
    `ImageError` for floats and 32-bit integers, unless they are plainly those of 8 bits.
    """
    # A PPM of 16 bits comes as mode I, scaled to 0..65535; other images of mode I have no range.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        values = np.asarray(image)
        return Image.fromarray((values >> (_bits(image, values, data) - 8)).astype(np.uint8))
    low, high = cast(tuple[float, float], image.getextrema())
    if 0 <= low <= high <= 255 and (image.mode != "F" or high > 1):
        return image.convert("L")
    kind = "32-bit floats" if image.mode == "F" else "32-bit or signed integers"
    raise ImageError(
        f"pixels are {kind} from {low:g} to {high:g}, a range that says nothing of black and "
        f"white: {_SCALE}"
    )


def warn_if_dark(image: Image.Image, pixels: NDArray[np.uint8], data: bytes = b"") -> None:
    """Warn of an image of 16 bits with values below 4,096 only; `pixels` are its 8 bits.

    `image` is loaded, and `data` are its file's bytes, b"" if not known.
    """
    if is_deep(image):
        if image.mode in ("I", "F") and image.format != "PPM":
            return
        values = np.asarray(image)
        highest = int(values.max(initial=0))
        if _bits(image, values, data) != 16:
            return
    elif _is_deep_colour(image, data):
        highest = (int(pixels.max(initial=0)) << 8) + 255
    else:
        return
    if highest < _DARK:
        give(
            DarkPhotoWarning,
            f"16-bit values end at {highest:,}, as if they had 12 bits or fewer, so the photo is "
            f"nearly black: {_SCALE}",
        )


def _bits(image: Image.Image, values: NDArray[Any], data: bytes) -> int:
    """Return how many bits the values have: those declared, unless a value has more."""
    bits = _declared_bits(image, data)
    # A PNG may say how many bits its values had, and have them scaled to 16.
    return 16 if int(values.max(initial=0)) >> bits else bits


def _is_deep_colour(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return data[24:25] == b"\x10" and data[25:26] != b"\0"
    return image.format == "TIFF" and image.mode != "L" and _tag(image, BITS_PER_SAMPLE) == 16


def _declared_bits(image: Image.Image, data: bytes) -> int:
    """Return how many bits the file says its values have, 9 to 16."""
    if image.format == "TIFF":
        highest = _tag(image, MAX_SAMPLE_VALUE) or 0
        whole = highest & (highest + 1) == 0  # a value such as 4095; others are the image's own
        bits = highest.bit_length() if whole else 16
        return min(_tag(image, BITS_PER_SAMPLE) or 16, bits if bits > 8 else 16)
    bits = _significant_bits(data) if image.format == "PNG" else 16
    return bits if 8 < bits < 16 else 16


def _tag(image: Image.Image, number: int) -> int | None:
    """Return the first whole number of a TIFF's tag."""
    value: Any = getattr(image, "tag_v2", {}).get(number)
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, int) else None


def _significant_bits(data: bytes) -> int:
    """Return the bits of the first channel in a PNG's sBIT chunk, 16 without one."""
    at = 8
    while at + 12 <= len(data) and (kind := data[at + 4 : at + 8]) != b"IDAT":
        if kind == b"sBIT":
            return data[at + 8]
        at += 12 + int.from_bytes(data[at : at + 4])
    return 16
