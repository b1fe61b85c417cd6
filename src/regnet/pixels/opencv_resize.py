"""Resize and crop as OpenCV's INTER_LINEAR on float32, bit for bit, computing only the crop.

Two taps an axis and no smoothing, however much an image shrinks. The arithmetic is that of OpenCV's
own code (`cv2.ipp.setUseIPP(False)`): coordinates rounded to float32, across before down, every
product and sum rounded to float32. Where its wheels hand over to Intel's IPP they differ from
themselves by up to 2e-5 of the range on photos. Source: opencv/modules/imgproc/src/resize.cpp.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regnet.pixels.protocol import Box, Size

Floats = NDArray[np.float32]

_UNIT = np.arange(256, dtype=np.float32) / np.float32(255)  # 8-bit values on 0..1


@dataclass(frozen=True)
class _Taps:
    """The two source pixels of each wanted one along an axis, and their weights."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    first_weight: Floats
    second_weight: Floats


def linear_crop(pixels: NDArray[np.uint8], *, size: Size, box: Box) -> Floats:
    """Return the box of 8-bit pixels (H, W, 3) resized to `size`: float32 (h, w, 3), 0..1.

    `size` is (width, height); `box` is (left, top, right, bottom), inside it.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    if (width, height) == size:
        return _UNIT[pixels[top:bottom, left:right]]
    if (width, height) == (2 * size[0], 2 * size[1]):
        return _halved(pixels[2 * top : 2 * bottom, 2 * left : 2 * right])
    across = _taps(width, size[0], left, right, clamped=True)
    down = _taps(height, size[1], top, bottom, clamped=False)
    first = _across(pixels, down.first, across)
    first *= down.first_weight[:, None, None]
    second = _across(pixels, down.second, across)
    second *= down.second_weight[:, None, None]
    first += second
    return first


def _taps(source: int, target: int, start: int, stop: int, *, clamped: bool) -> _Taps:
    """Return the taps of target pixels `start` to `stop`.

    `clamped` puts the pixels beyond an edge onto it, as OpenCV does across; down, it blends the
    edge with itself, which may round otherwise.
    """
    scale = 1.0 / (target / source)  # in this order: source / target may differ in the last bit
    at = ((np.arange(start, stop) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    fraction = at - first.astype(np.float32)
    if clamped:
        fraction[(first < 0) | (first >= source - 1)] = 0.0
    second = np.clip(first + 1, 0, source - 1)
    return _Taps(np.clip(first, 0, source - 1), second, np.float32(1) - fraction, fraction)


def _across(pixels: NDArray[np.uint8], rows: NDArray[np.int64], across: _Taps) -> Floats:
    """Return the rows given, resized along their width: (rows, count, 3)."""
    low = across.first[0]
    taken = pixels[:, low : across.second[-1] + 1][rows]
    first: Floats = _UNIT.take(taken.take(across.first - low, axis=1))
    first *= across.first_weight[:, None]
    second = _UNIT.take(taken.take(across.second - low, axis=1))
    second *= across.second_weight[:, None]
    first += second
    return first


def _halved(pixels: NDArray[np.uint8]) -> Floats:
    """Return the means of 2 x 2 pixels: what OpenCV does where both sides become exact halves."""
    unit = _UNIT[pixels]
    total: Floats = unit[0::2, 0::2] + unit[0::2, 1::2] + unit[1::2, 0::2] + unit[1::2, 1::2]
    return total * np.float32(0.25)
