"""Random crops of one photo: where they lie, and their pixels.

A crop is drawn from numbers that were drawn before, so that a batch's crops do not depend on who
makes them, or in which order.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from regnet.linear import linear_crop
from regnet.protocol import Box, Interpolation
from regnet.resize import resize_crop
from regnet.training.recipe import Augmentation

TRIES: Final = 10
_NUMBERS: Final = 5  # of a try: area, aspect, turn, left, top

Pixels = NDArray[np.uint8]
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
    for area, aspect, turn, left, top in numbers:
        size = (low + (high - low) * area) * width * height
        ratio = _ratio(augmentation.rule, aspect)
        across, down = round(math.sqrt(size * ratio)), round(math.sqrt(size / ratio))
        if augmentation.rule == "pycls" and turn < 0.5:
            across, down = down, across
        if 0 < across <= width and 0 < down <= height:
            x, y = int(left * (width - across + 1)), int(top * (height - down + 1))
            return x, y, x + across, y + down
    return _central(width, height, augmentation)


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
    whole = (0, 0, side, side)
    if interpolation == "opencv-linear":
        return linear_crop(part, size=(side, side), box=whole) * np.float32(255)
    return resize_crop(part, size=(side, side), box=whole, interpolation=interpolation)
