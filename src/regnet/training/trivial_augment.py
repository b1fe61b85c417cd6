"""TrivialAugment in its wide space (arXiv 2103.10158): an image, one operation, one strength.

The operations are Pillow's, with the strengths of torchvision's recipes. Results keep fractions
that Pillow cuts off; shears, translations and rotations take the nearest pixel by Pillow's own
integers, black from outside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from regnet.training.devices import on_device

Floats = NDArray[np.float64]

Change = Callable[[Tensor, Tensor], Tensor]
Matrix = Callable[[Floats, int, int], Floats]

BINS: Final = 31
_IDENTITY: Final = np.array([1.0, 0, 0, 0, 1, 0])[:, None]
_GRAY: Final = (0.114, 0.587, 0.299)  # B, G, R: luma of ITU-R 601-2, as in Pillow
_ONE: Final = 1 << 16  # 16 bits of a coordinate are its fraction


@dataclass(frozen=True, eq=False)
class Operation:
    """A change of images (N, 3, H, W), each by its strength (N,).

    There is a strength for each of the `BINS`; half of the draws negate it if it is `signed`. It is
    a `change` of colours by strengths (N, 1, 1, 1) on the device, or a warp by a `matrix` for each
    strength, of images of a size.
    """

    name: str
    strengths: Floats
    signed: bool = False
    change: Change | None = None
    matrix: Matrix | None = None

    def apply(self, images: Tensor, strengths: Floats) -> Tensor:
        """Return the images, changed."""
        if self.matrix:
            return _warp(images, self.matrix(strengths, *images.shape[2:]))
        return self.change(images, _each(strengths, images)) if self.change else images


def trivial_augment(images: Tensor, chosen: NDArray[np.int64], strengths: Floats) -> Tensor:
    """Return images (N, 3, H, W), each changed by one of `OPERATIONS`, with its strength (N,).

    They are sorted by their operations, so that each takes a run of them, and all warps are one.
    """
    order = np.argsort(chosen, kind="stable")
    places, strengths = np.argsort(order), strengths[order]
    ends = np.searchsorted(chosen[order], np.arange(len(OPERATIONS) + 1)).tolist()
    changed = images[on_device(order, images.device)]
    each = _each(strengths, images)
    matrices: list[Floats] = []
    for operation, start, end in zip(OPERATIONS, ends, ends[1:], strict=False):
        if operation.matrix:
            matrices.append(operation.matrix(strengths[start:end], *images.shape[2:]))
        elif operation.change and start < end:
            changed[start:end] = operation.change(changed[start:end], each[start:end])
    first, last = ends[_WARPS[0]], ends[_WARPS[-1] + 1]
    if first < last:
        changed[first:last] = _warp(changed[first:last], np.concatenate(matrices, axis=1))
    return changed[on_device(places, images.device)]


def _affine(place: int) -> Matrix:
    """Return the matrices that have their strength in one place: a shear or a translation."""

    def matrix(strengths: Floats, height: int, width: int) -> Floats:
        whole = np.repeat(_IDENTITY, len(strengths), axis=1)
        whole[place] = strengths
        return whole

    return matrix


def _rotate(strengths: Floats, height: int, width: int) -> Floats:
    """Return matrices that turn by degrees, counter-clockwise, around the centre."""
    angles = -np.radians(strengths)
    cos: Floats = np.cos(angles).round(15)  # as Pillow, so that 90 degrees are exact
    sin: Floats = np.sin(angles).round(15)
    x0, y0 = width / 2, height / 2
    return np.stack([cos, sin, x0 - cos * x0 - sin * y0, -sin, cos, y0 + sin * x0 - cos * y0])


def _brightness(images: Tensor, strengths: Tensor) -> Tensor:
    return (images * (1 + strengths)).clamp_(0, 255)


def _color(images: Tensor, strengths: Tensor) -> Tensor:
    return _away_from(_gray(images).expand_as(images), images, strengths)


def _contrast(images: Tensor, strengths: Tensor) -> Tensor:
    mean = _gray(images).mean((2, 3), keepdim=True)
    return _away_from(mean.expand_as(images), images, strengths)


def _sharpness(images: Tensor, strengths: Tensor) -> Tensor:
    """Go away from the image smoothed by a 3x3 kernel of ones with 5 in the middle; edges stay."""
    if min(images.shape[2:]) < 3:  # nothing but edges
        return images
    smooth = images.clone()
    inner = smooth[:, :, 1:-1, 1:-1]
    inner.mul_(4).add_(F.avg_pool2d(images, 3, stride=1), alpha=9).div_(13)
    return _away_from(smooth, images, strengths)


def _posterize(images: Tensor, strengths: Tensor) -> Tensor:
    """Keep so many of 8 bits."""
    step = torch.ldexp(torch.ones_like(strengths), 8 - strengths)
    return (images / step).floor_().mul_(step)


def _solarize(images: Tensor, strengths: Tensor) -> Tensor:
    """Invert values from a threshold on."""
    return torch.where(images < strengths, images, 255 - images)


def _autocontrast(images: Tensor, strengths: Tensor) -> Tensor:
    """Stretch each channel to 0..255, measured in 8 bits: a flat one stays as it is."""
    low = images.amin((2, 3), keepdim=True).round_()
    high = images.amax((2, 3), keepdim=True).round_()
    stretched = ((images - low) * (255 / (high - low))).clamp_(0, 255)
    return torch.where(high > low, stretched, images)


def _equalize(images: Tensor, strengths: Tensor) -> Tensor:
    """Spread each channel's 8-bit levels so that its histogram becomes flat."""
    levels = images.round().clamp_(0, 255).long().flatten(2).flatten(0, 1)
    channels, pixels = levels.shape
    counts = levels.new_zeros(channels, 256)
    counts.scatter_add_(1, levels, levels.new_ones(()).expand_as(levels))
    step = (pixels - counts.gather(1, levels.amax(1, keepdim=True))) // 255
    below = counts.cumsum(1) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp_(max=255)
    flat = table.gather(1, levels).view(images.shape).to(images.dtype)
    return torch.where(step.view(-1, 3, 1, 1) > 0, flat, images)


def _each(values: Floats, images: Tensor) -> Tensor:
    """Return values (N,) as a tensor (N, 1, 1, 1) like the images."""
    return on_device(values.astype(np.float32), images.device)[:, None, None, None]


def _gray(images: Tensor) -> Tensor:
    """Return the brightness of BGR images, (N, 1, H, W)."""
    blue, green, red = _GRAY
    return blue * images[:, 0:1] + green * images[:, 1:2] + red * images[:, 2:3]


def _away_from(base: Tensor, images: Tensor, strengths: Tensor) -> Tensor:
    """Return base + (1 + strength) * (images - base), in 0..255."""
    return torch.lerp(base, images, 1 + strengths).clamp_(0, 255)


def _warp(images: Tensor, matrices: Floats) -> Tensor:
    """Return images mapped by matrices (6, N), xx xy x / yx yy y, black from outside.

    They map a pixel of the result to one of the image, in fixed point.
    """
    height, width = images.shape[2:]
    xx, xy, x, yx, yy, y = matrices
    # a pixel's coordinates are those of its middle
    whole = np.stack([xx, xy, x + (xx + xy) / 2, yx, yy, y + (yx + yy) / 2])
    fixed = np.floor(whole * _ONE + 0.5).astype(np.int32)[:, :, None, None]
    device = images.device
    xx, xy, x, yx, yy, y = on_device(fixed, device)
    across = torch.arange(width, dtype=torch.int32, device=device)
    down = torch.arange(height, dtype=torch.int32, device=device)[:, None]
    column = (across * xx + down * xy + x) >> 16
    row = (across * yx + down * yy + y) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = torch.where(inside, row * width + column, 0).long().flatten(1)[:, None]
    warped = images.flatten(2).gather(2, source.expand(-1, 3, -1)).view(images.shape)
    return warped.mul_(inside[:, None])


def _up_to(last: float) -> Floats:
    return np.linspace(0, last, BINS)


OPERATIONS: Final = (
    Operation("identity", _up_to(0)),
    Operation("shear_x", _up_to(0.99), signed=True, matrix=_affine(1)),
    Operation("shear_y", _up_to(0.99), signed=True, matrix=_affine(3)),
    Operation("translate_x", _up_to(32), signed=True, matrix=_affine(2)),  # pixels of any size
    Operation("translate_y", _up_to(32), signed=True, matrix=_affine(5)),
    Operation("rotate", _up_to(135), signed=True, matrix=_rotate),
    Operation("brightness", _up_to(0.99), signed=True, change=_brightness),
    Operation("color", _up_to(0.99), signed=True, change=_color),
    Operation("contrast", _up_to(0.99), signed=True, change=_contrast),
    Operation("sharpness", _up_to(0.99), signed=True, change=_sharpness),
    Operation("posterize", 8 - np.round(_up_to(6)), change=_posterize),
    Operation("solarize", _up_to(255)[::-1].copy(), change=_solarize),
    Operation("autocontrast", _up_to(0), change=_autocontrast),
    Operation("equalize", _up_to(0), change=_equalize),
)
STRENGTHS: Final = np.stack([operation.strengths for operation in OPERATIONS])
SIGNED: Final = np.array([operation.signed for operation in OPERATIONS])
_WARPS: Final = [n for n, operation in enumerate(OPERATIONS) if operation.matrix]  # in a row
