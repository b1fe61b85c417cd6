"""Resize and crop as Pillow does on 8-bit images, bit for bit, computing little more than the crop.

Pillow resizes in two passes, one for each axis, with 8-bit rounding after each. Horizontal comes
first, but vertical where the height shrinks by more than twice what the width shrinks by (Pillow
13; earlier ones have no such exception). The passes are asked for one by one here, so the order
does not depend on the Pillow installed, and each does only what the crop needs where that is exact.
"""

from dataclasses import astuple, dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regnet.pixels import kernel
from regnet.pixels.protocol import Box, Interpolation, Size

Pixels = NDArray[np.uint8]

_FILTER = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_SUPPORT = {"bicubic": 2.0, "bilinear": 1.0}
_ONE = float(1 << 22)  # Pillow's weights have 22 fractional bits

MAX_RESIZED_PIXELS = 1 << 24
"""Above this size of the whole resized image, only the taps of the crop are touched."""


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cubic kernel with a = -0.5 at distances x >= 0, in Pillow's order of sums."""
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(x < 1.0, 1.0 - x, 0.0)


_KERNEL = {"bicubic": _cubic, "bilinear": _triangle}


@dataclass(frozen=True)
class Axis:
    """One axis: `source` pixels become `target`, of which `count` from `start` are wanted."""

    source: int
    target: int
    start: int
    count: int

    @property
    def boxable(self) -> bool:
        """Whether Pillow's float32 `box` can name the wanted part exactly.

        That is so where the scale is a multiple of 1/2^n of few bits: all sums are then exact.
        """
        denominator = self.target // gcd(self.source, self.target)
        return denominator & (denominator - 1) == 0 and self.source * self.target < 1 << 24

    @property
    def scale(self) -> float:
        """Source pixels a target pixel, with the length rounded to float32 as Pillow's box is."""
        return float(np.float32(self.source)) / self.target

    def taps(self, interpolation: Interpolation) -> tuple[int, int]:
        """Return the first source pixel that the wanted ones depend on, and the one after."""
        support = _SUPPORT[interpolation] * max(self.scale, 1.0)
        first = (self.start + 0.5) * self.scale - support
        last = (self.start + self.count - 0.5) * self.scale + support
        return max(int(first + 0.5), 0), min(int(last + 0.5), self.source)

    def weights(self, interpolation: Interpolation) -> NDArray[np.float64]:
        """Return the weights of the taps in units of 2^-22, whole numbers: (count, taps)."""
        begin, end = self.taps(interpolation)
        stretch = max(self.scale, 1.0)
        support = _SUPPORT[interpolation] * stretch
        center = (np.arange(self.start, self.start + self.count)[:, None] + 0.5) * self.scale
        tap = np.arange(begin, end)[None, :]
        low, high = np.trunc(center - support + 0.5), np.trunc(center + support + 0.5)
        weight = _KERNEL[interpolation](np.abs((tap - center + 0.5) * (1.0 / stretch)))
        weight[(tap < low) | (tap >= high)] = 0.0
        weight /= np.cumsum(weight, axis=1)[:, -1:]  # one by one: sum() adds in another order
        rounded: NDArray[np.float64] = np.trunc(weight * _ONE + np.copysign(0.5, weight))
        return rounded


def resize_crop(pixels: Pixels, *, size: Size, box: Box, interpolation: Interpolation) -> Pixels:
    """Return the box of pixels (H, W, 3) resized to `size`, bit for bit as Pillow 13: (h, w, 3).

    `size` is (width, height); `box` is (left, top, right, bottom), inside it. Compiled code does
    it where it was built, else Pillow.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = box
    if interpolation == "nearest":
        rows = _nearest(height, size[1])[top:bottom]
        return np.ascontiguousarray(pixels[rows[:, None], _nearest(width, size[0])[left:right]])
    across = Axis(width, size[0], left, right - left)
    down = Axis(height, size[1], top, bottom - top)
    out = np.empty((down.count, across.count, 3), np.uint8)
    bicubic = interpolation == "bicubic"
    if kernel.resize(pixels, across=astuple(across), down=astuple(down), bicubic=bicubic, out=out):
        return out
    order = slice(None, None, -1 if pixels.strides[2] < 0 else 1)  # as in memory: faster to copy
    resized = _resize_image(_image(pixels[:, :, order]), across, down, interpolation)
    return np.array(np.asarray(resized)[:, :, order], order="C")


def _nearest(source: int, target: int) -> NDArray[np.int64]:
    """Return the source pixel of each target pixel; positions are summed up as Pillow does."""
    step = source / target
    positions = np.full(target, step)
    positions[0] /= 2
    return np.cumsum(positions).astype(np.int64)


def _image(pixels: Pixels) -> Image.Image:
    """Return a copy of a view; one whose lines are columns is turned by Pillow, which is faster."""
    if abs(pixels.strides[1]) <= abs(pixels.strides[0]):
        return Image.fromarray(np.ascontiguousarray(pixels))
    lines = Image.fromarray(np.ascontiguousarray(pixels.swapaxes(0, 1)))
    return lines.transpose(Image.Transpose.TRANSPOSE)


def _resize_image(
    image: Image.Image, across: Axis, down: Axis, interpolation: Interpolation
) -> Image.Image:
    if across.target * down.target > MAX_RESIZED_PIXELS:
        return _resize_taps(image, across, down, interpolation)
    vertical = _vertical_first(across, down)
    first, second = (down, across) if vertical else (across, down)
    begin, end = second.taps(interpolation) if second.boxable else (0, second.source)
    if (begin, end) != (0, second.source):  # cut off what the second pass will not touch
        width, height = image.size
        image = image.crop((begin, 0, end, height) if vertical else (0, begin, width, end))
    image = _resize_axis(image, first, vertical, 0, interpolation)
    return _resize_axis(image, second, not vertical, begin, interpolation)


def _vertical_first(across: Axis, down: Axis) -> bool:
    return down.source - down.target > max(0, 2 * (across.source - across.target))


def _resize_axis(
    image: Image.Image, axis: Axis, vertical: bool, offset: int, interpolation: Interpolation
) -> Image.Image:
    """Return the wanted part along one axis of an image that begins at source pixel `offset`."""
    width, height = image.size
    start, stop = axis.start, axis.start + axis.count
    if axis.boxable and axis.source != axis.target:
        low = start * axis.source / axis.target - offset
        high = stop * axis.source / axis.target - offset
        size = (width, axis.count) if vertical else (axis.count, height)
        part = (0, low, width, high) if vertical else (low, 0, high, height)
        return image.resize(size, _FILTER[interpolation], part)
    if axis.source != axis.target:
        size = (width, axis.target) if vertical else (axis.target, height)
        image = image.resize(size, _FILTER[interpolation])
    start, stop = start - offset, stop - offset
    return image.crop((0, start, width, stop) if vertical else (start, 0, stop, height))


def _resize_taps(
    image: Image.Image, across: Axis, down: Axis, interpolation: Interpolation
) -> Image.Image:
    """Resize only the taps of the crop: for extreme shapes, whose whole would not fit in memory."""
    left, right = across.taps(interpolation)
    top, bottom = down.taps(interpolation)
    pixels = np.asarray(image.crop((left, top, right, bottom)))
    if _vertical_first(across, down):
        pixels = _weigh(pixels, down, interpolation)
    pixels = _weigh(pixels.swapaxes(0, 1), across, interpolation).swapaxes(0, 1)
    if not _vertical_first(across, down):
        pixels = _weigh(pixels, down, interpolation)
    return Image.fromarray(np.ascontiguousarray(pixels))


def _weigh(pixels: Pixels, axis: Axis, interpolation: Interpolation) -> Pixels:
    """Return (count, W, 3) from the (taps, W, 3) of an axis, rounded to 8 bits."""
    if axis.source == axis.target:
        return pixels[axis.start - axis.taps(interpolation)[0] :][: axis.count]
    flat = pixels.reshape(len(pixels), -1).astype(np.float64)
    sums = axis.weights(interpolation) @ flat  # whole numbers below 2^53: exact in any order
    rounded = np.clip(np.floor((sums + _ONE / 2) / _ONE), 0, 255).astype(np.uint8)
    return rounded.reshape(axis.count, *pixels.shape[1:])
