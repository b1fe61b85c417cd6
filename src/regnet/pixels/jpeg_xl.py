"""JPEG XL: the size that a file claims, and its first frame as a Pillow image.

Source of the header: ISO/IEC 18181-1 (codestream) and 18181-2 (boxes).
"""

from importlib import import_module
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regnet.system.errors import ImageError

_CODESTREAM: Final = b"\xff\x0a"
_BOXES: Final = b"\0\0\0\x0cJXL \r\n\x87\n"
_MOST_BOXES: Final = 64  # before the first with pixels
_HEADER: Final = 18  # bytes of a codestream that hold its size
_LENGTHS: Final = (9, 13, 18, 30)  # bits of a side
_RATIOS: Final = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def jpeg_xl_size(data: bytes) -> tuple[int, int] | None:
    """Return the sides that a JPEG XL file claims, before it is turned; None of other files."""
    bits = int.from_bytes(_codestream(data)[len(_CODESTREAM) :], "little")
    if not bits:
        return None

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)

    def side() -> int:
        return 8 * (1 + take(5)) if small else 1 + take(_LENGTHS[take(2)])

    height = side()
    if ratio := take(3):
        across, down = _RATIOS[ratio - 1]
        return height * across // down, height
    return side(), height


def open_jpeg_xl(data: bytes) -> Image.Image:
    """Return the first frame, upright, alpha dropped, in 8 bits: L or RGB."""
    if jpeg_xl_size(data) is None:
        raise ImageError("the JPEG XL header is corrupt or truncated")
    pixels = import_module("imagecodecs").jpegxl_decode(data, index=0, numthreads=1)
    if pixels.ndim == 3:
        pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]
    return Image.fromarray(np.ascontiguousarray(_in_8_bits(pixels)))


def _in_8_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the upper byte of 16 bits, as of other formats, and 0..255 of floats in [0, 1]."""
    if pixels.dtype == np.uint16:
        pixels = pixels >> 8
    elif np.issubdtype(pixels.dtype, np.floating):
        pixels = np.clip(pixels, 0, 1) * 255 + 0.5
    return pixels.astype(np.uint8, copy=False)


def _codestream(data: bytes) -> bytes:
    """Return the first bytes of the codestream, bare or in boxes; empty where there is none."""
    if data[:2] == _CODESTREAM:
        return data[:_HEADER]
    at = len(_BOXES) if data[: len(_BOXES)] == _BOXES else len(data)
    for _ in range(_MOST_BOXES):
        size, kind, start = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, start = int.from_bytes(data[start : start + 8]), start + 8
        if kind in (b"jxlc", b"jxlp"):
            start += 4 if kind == b"jxlp" else 0  # the part's number
            stream = data[start : start + _HEADER]
            return stream if stream[:2] == _CODESTREAM else b""
        if size < 8:
            break
        at += size
    return b""
