"""Random crops of one photo: where they lie, and their pixels.

A crop is drawn from numbers that were drawn before, so that a batch's crops do not depend on who
makes them, or in which order.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from regnet.pixels.pillow_resize import resize_crop
from regnet.pixels.protocol import Box, Interpolation
from regnet.training.recipe import Augmentation

TRIES: Final = 10
_NUMBERS: Final = 5  # of a try: area, aspect, turn, left, top

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Uniforms = NDArray[np.float64]


def draws(random: np.random.Generator, count: int) -> Uniforms:
    """Return the random numbers in [0, 1) that `count` crops are made from: (count, tries, 5)."""
    return random.random((count, TRIES, _NUMBERS))


def random_box(width: int, height: int, augmentation: Augmentation, numbers: Uniforms) -> Box:
    """Return (left, top, right, bottom) of a random crop of an image, from its numbers.

    Area and aspect ratio are drawn until the crop fits, ten times at most; then it is central. The
    rule "pycls" draws the ratio evenly from 3/4..4/3 and turns half the crops, "torchvision" draws
    its logarithm evenly.
    """
    low, high = augmentation.area
    rule = augmentation.rule
    for area, aspect, turn, left, top in numbers.tolist():
        size = (low + (high - low) * area) * (width * height)
        ratio = _ratio(rule, aspect)
        across, down = round(math.sqrt(size * ratio)), round(math.sqrt(size / ratio))
        if rule == "pycls" and turn < 0.5:
            across, down = down, across
        if 0 < across <= width and 0 < down <= height:
            x, y = _place(rule, width - across, left), _place(rule, height - down, top)
            return x, y, x + across, y + down
    return _central(width, height, augmentation)


def _place(rule: str, room: int, number: float) -> int:
    """Return where a crop with so much room begins: by pycls's rule never at the very end."""
    return int(number * (max(room, 1) if rule == "pycls" else room + 1))


def _ratio(rule: str, number: float) -> float:
    if rule == "pycls":
        return 3 / 4 + (4 / 3 - 3 / 4) * number
    return math.exp(math.log(3 / 4) + math.log(16 / 9) * number)


def _central(width: int, height: int, augmentation: Augmentation) -> Box:
    """Return the central crop: a square, or as near to one as torchvision's rule allows."""
    side = min(width, height)
    across = down = side
    if augmentation.rule == "torchvision":
        across, down = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def crop(
    pixels: Pixels, box: Box, *, side: int, interpolation: Interpolation
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return the box of pixels (H, W, 3) resized to (side, side, 3), 0..255.

    8-bit by Pillow's filters; float32 by OpenCV's rule, which does not round.
    """
    left, top, right, bottom = box
    part = pixels[top:bottom, left:right]
    if interpolation == "opencv-linear":
        return _linear(part, side)
    whole = (0, 0, side, side)
    return resize_crop(part, size=(side, side), box=whole, interpolation=interpolation)


def _linear(pixels: Pixels, side: int) -> Floats:
    """Return pixels resized as by OpenCV's INTER_LINEAR on float32: (side, side, 3).

    On 0..255, within 0.0001 of `regnet.pixels.opencv_resize`, which is exact and takes three times
    as long.
    """
    height, width = pixels.shape[:2]
    top, bottom, down = _taps(height, side)
    left, right, across = _taps(width, side)
    channel = np.arange(3)
    rows = pixels[top].reshape(side, -1).astype(np.float32)
    rows = _blended(rows, pixels[bottom].reshape(side, -1).astype(np.float32), down[:, None])
    first, second = (rows.take((3 * at[:, None] + channel).ravel(), 1) for at in (left, right))
    return _blended(first, second, across.repeat(3)).reshape(side, side, 3)


def _taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return the two source pixels of each wanted one along an axis, and the second's weight."""
    at = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    second = np.minimum(first + 1, source - 1)
    return np.maximum(first, 0), second, at - first.astype(np.float32)


def _blended(first: Floats, second: Floats, weight: Floats) -> Floats:
    """Return first + (second - first) * weight; `second` is used up."""
    second -= first
    second *= weight
    second += first
    return second
