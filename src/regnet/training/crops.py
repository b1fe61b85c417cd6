"""Random crops: which part of each photo, and its pixels at the wanted size.

A crop is made from numbers drawn before, so a batch's crops do not depend on who makes them, or in
which order.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.data.labelled import Unreadable
from regnet.pixels.pillow_resize import resize_crop
from regnet.pixels.protocol import Box, Interpolation
from regnet.system.parallel import cores
from regnet.training.photos import Batch, LabelledPhotos, as_batch
from regnet.training.recipe import Augmentation, Recipe

TRIES: Final = 10
_NUMBERS: Final = 5  # per try: area, aspect, turn, left, top
_AT_ONCE: Final = 32  # photos held at a time by a thread

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Uniforms = NDArray[np.float64]


def uniforms(random: np.random.Generator, count: int) -> Uniforms:
    """Return the random numbers in [0, 1) for `count` crops: (count, tries, 5)."""
    return random.random((count, TRIES, _NUMBERS))


def random_boxes(
    sizes: NDArray[np.int64], augmentation: Augmentation, numbers: Uniforms
) -> NDArray[np.int64]:
    """Return (left, top, right, bottom) of random crops of images, (N, 4), from their numbers.

    `sizes` (N, 2) are width and height. Area and aspect ratio are drawn until the crop fits, ten
    times at most; then it is central: a square, or by torchvision's rule as much as its ratios
    allow. The rule "pycls" draws the ratio evenly from 3/4..4/3, turns half the crops, and never
    begins at the very end; "torchvision" draws the ratio's logarithm evenly.
    """
    low, high = augmentation.area
    pycls = augmentation.rule == "pycls"
    area, aspect, turn, left, top = np.moveaxis(numbers, 2, 0)  # each (N, tries)
    width, height = sizes.T[:, :, None]
    size = (low + (high - low) * area) * (width * height)
    if pycls:
        ratio = 3 / 4 + (4 / 3 - 3 / 4) * aspect
    else:
        ratio = np.exp(math.log(3 / 4) + math.log(16 / 9) * aspect)
    across = np.rint(np.sqrt(size * ratio)).astype(np.int64)
    down = np.rint(np.sqrt(size / ratio)).astype(np.int64)
    if pycls:
        turned = turn < 0.5
        across, down = np.where(turned, down, across), np.where(turned, across, down)
    fits = (across > 0) & (across <= width) & (down > 0) & (down <= height)
    places = np.arange(len(sizes)), fits.argmax(1)  # the first try that fits
    across, down, left, top = (values[places] for values in (across, down, left, top))
    width, height = sizes.T
    x, y = width - across, height - down
    x, y = (np.maximum(x, 1), np.maximum(y, 1)) if pycls else (x + 1, y + 1)
    x, y = (left * x).astype(np.int64), (top * y).astype(np.int64)
    drawn = np.stack([x, y, x + across, y + down], axis=1)
    return np.where(fits.any(1)[:, None], drawn, _central_boxes(width, height, square=pycls))


def _central_boxes(
    width: NDArray[np.int64], height: NDArray[np.int64], *, square: bool
) -> NDArray[np.int64]:
    """Return central boxes: squares, or as much as aspects of 3/4 to 4/3 allow."""
    wide, tall = (height, width) if square else (height * 4 / 3, width * 4 / 3)
    across = np.minimum(width, np.rint(wide).astype(np.int64))
    down = np.minimum(height, np.rint(tall).astype(np.int64))
    x, y = (width - across) // 2, (height - down) // 2
    return np.stack([x, y, x + across, y + down], axis=1)


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
    """Return the two source pixels of each target pixel along an axis, and the second's weight."""
    at = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    second = np.minimum(first + 1, source - 1)
    return np.maximum(first, 0), second, at - first.astype(np.float32)


def _blended(first: Floats, second: Floats, weight: Floats) -> Floats:
    """Return first + (second - first) * weight; overwrites `second`."""
    second -= first
    second *= weight
    second += first
    return second


def training_batch(
    photos: LabelledPhotos,
    numbers: NDArray[np.int64],
    recipe: Recipe,
    random: np.random.Generator,
    *,
    side: int,
    part: slice = slice(None),
    pool: ThreadPoolExecutor | None = None,
) -> Batch:
    """Return random crops (side, side) of the photos of these numbers, or of a part of them.

    Random numbers are drawn for all of them, so the parts of several processes are those of the
    whole batch. The threads of a `pool` share the work, else this thread does it.
    """
    drawn = uniforms(random, len(numbers))[part]
    numbers = numbers[part]

    def some(places: Sequence[int]) -> list[NDArray[Any] | Unreadable]:
        return [
            each
            for at in range(0, len(places), _AT_ONCE)
            for each in _crops(photos, numbers, places[at : at + _AT_ONCE], recipe, drawn, side)
        ]

    share = max(-(-len(numbers) // cores()), 1) if pool else len(numbers)  # equal runs per thread
    runs = [range(at, min(at + share, len(numbers))) for at in range(0, len(numbers), share)]
    made = pool.map(some, runs) if pool else map(some, runs)
    return as_batch([each for run in made for each in run], photos.truths[numbers], side)


def _crops(
    photos: LabelledPhotos,
    numbers: NDArray[np.int64],
    places: Sequence[int],
    recipe: Recipe,
    drawn: Uniforms,
    side: int,
) -> list[NDArray[Any] | Unreadable]:
    """Return the crops of the photos at some places of a batch; `numbers` and `drawn` are its."""
    read = [photos.pixels(int(numbers[place])) for place in places]
    shapes = [(1, 1) if isinstance(each, Unreadable) else each.shape[1::-1] for each in read]
    boxes = random_boxes(np.array(shapes), recipe.augmentation, drawn[list(places)]).tolist()
    return [
        each
        if isinstance(each, Unreadable)
        else crop(each, tuple(box), side=side, interpolation=recipe.input.interpolation)
        for each, box in zip(read, boxes, strict=True)
    ]
