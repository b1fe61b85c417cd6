"""TrivialAugment in its wide space (arXiv 2103.10158): an image, one operation, one strength.

The operations are Pillow's, with the strengths of torchvision's recipes. Images are float32
(N, 3, H, W), 0..255, channels BGR. Results keep fractions where Pillow cuts them off; shears,
translations and rotations take the nearest pixel by Pillow's own integers, black from outside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

BINS: Final = 31
_GRAY: Final = (0.114, 0.587, 0.299)  # B, G, R: luma of ITU-R 601-2, as in Pillow
_ONE: Final = 1 << 16  # 16 bits of a coordinate are its fraction


@dataclass(frozen=True, eq=False)
class Operation:
    """A change of images (N, 3, H, W), each by its strength (N,).

    There is a strength for each of the `BINS`; where `signed`, half of the draws take its negative.
    """

    name: str
    apply: Callable[[Tensor, Floats], Tensor]
    strengths: Floats
    signed: bool


def trivial_augment(images: Tensor, draws: np.random.Generator) -> Tensor:
    """Return images (N, 3, H, W), each changed by one of `OPERATIONS`, all equally likely."""
    count = len(images)
    chosen = draws.integers(len(OPERATIONS), size=count)
    bins = draws.integers(BINS, size=count)
    signs = 2 * draws.integers(2, size=count) - 1
    changed = images.clone()
    for number, operation in enumerate(OPERATIONS):
        which = np.flatnonzero(chosen == number)
        if not len(which) or operation.apply is _identity:
            continue
        strengths = operation.strengths[bins[which]]
        strengths = strengths * signs[which] if operation.signed else strengths
        index = torch.from_numpy(which).to(images.device)
        changed[index] = operation.apply(images[index], strengths)
    return changed


def _identity(images: Tensor, strengths: Floats) -> Tensor:
    return images


def _shear_x(images: Tensor, strengths: Floats) -> Tensor:
    return _warp(images, _matrices(strengths, xy=strengths))


def _shear_y(images: Tensor, strengths: Floats) -> Tensor:
    return _warp(images, _matrices(strengths, yx=strengths))


def _translate_x(images: Tensor, strengths: Floats) -> Tensor:
    return _warp(images, _matrices(strengths, x=strengths))


def _translate_y(images: Tensor, strengths: Floats) -> Tensor:
    return _warp(images, _matrices(strengths, y=strengths))


def _rotate(images: Tensor, strengths: Floats) -> Tensor:
    """Turn by degrees, counter-clockwise, around the centre."""
    angles = -np.radians(strengths)
    cos: Floats = np.cos(angles).round(15)  # as Pillow, so that 90 degrees are
    sin: Floats = np.sin(angles).round(15)
    x0, y0 = images.shape[3] / 2, images.shape[2] / 2
    x, y = x0 - cos * x0 - sin * y0, y0 + sin * x0 - cos * y0
    return _warp(images, _matrices(strengths, xx=cos, xy=sin, x=x, yx=-sin, yy=cos, y=y))


def _brightness(images: Tensor, strengths: Floats) -> Tensor:
    return (images * (1 + _each(strengths, images))).clamp_(0, 255)


def _color(images: Tensor, strengths: Floats) -> Tensor:
    return _away_from(_gray(images).expand_as(images), images, strengths)


def _contrast(images: Tensor, strengths: Floats) -> Tensor:
    mean = _gray(images).mean((2, 3), keepdim=True)
    return _away_from(mean.expand_as(images), images, strengths)


def _sharpness(images: Tensor, strengths: Floats) -> Tensor:
    """Go away from the image smoothed by a 3x3 kernel of ones with 5 in the middle; edges stay."""
    if min(images.shape[2:]) < 3:  # nothing but edges
        return images
    smooth = images.clone()
    inner = smooth[:, :, 1:-1, 1:-1]
    inner.mul_(4).add_(F.avg_pool2d(images, 3, stride=1), alpha=9).div_(13)
    return _away_from(smooth, images, strengths)


def _posterize(images: Tensor, strengths: Floats) -> Tensor:
    """Keep so many of 8 bits."""
    step = _each(2 ** (8 - strengths), images)
    return (images / step).floor_().mul_(step)


def _solarize(images: Tensor, strengths: Floats) -> Tensor:
    """Invert values from a threshold on."""
    return torch.where(images < _each(strengths, images), images, 255 - images)


def _autocontrast(images: Tensor, strengths: Floats) -> Tensor:
    """Stretch each channel to 0..255, measured in 8 bits: a flat one stays as it is."""
    low = images.amin((2, 3), keepdim=True).round_()
    high = images.amax((2, 3), keepdim=True).round_()
    stretched = ((images - low) * (255 / (high - low))).clamp_(0, 255)
    return torch.where(high > low, stretched, images)


def _equalize(images: Tensor, strengths: Floats) -> Tensor:
    """Spread each channel's 8-bit levels so that its histogram becomes flat."""
    levels = images.round().clamp_(0, 255).long().flatten(2).flatten(0, 1)
    channels, pixels = levels.shape
    starts = 256 * torch.arange(channels, device=images.device)[:, None]
    counts = torch.bincount((levels + starts).flatten(), minlength=256 * channels)
    counts = counts.view(channels, 256)
    step = (pixels - counts.gather(1, levels.amax(1, keepdim=True))) // 255
    below = counts.cumsum(1) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp_(max=255)
    flat = table.gather(1, levels).view(images.shape).to(images.dtype)
    return torch.where(step.view(-1, 3, 1, 1) > 0, flat, images)


def _each(values: Floats, images: Tensor) -> Tensor:
    """Return values (N,) as a tensor (N, 1, 1, 1) like the images."""
    return torch.from_numpy(values.astype(np.float32)).to(images.device)[:, None, None, None]


def _gray(images: Tensor) -> Tensor:
    """Return the brightness of BGR images, (N, 1, H, W)."""
    blue, green, red = _GRAY
    return blue * images[:, 0:1] + green * images[:, 1:2] + red * images[:, 2:3]


def _away_from(base: Tensor, images: Tensor, strengths: Floats) -> Tensor:
    """Return base + (1 + strength) * (images - base), in 0..255."""
    return torch.lerp(base, images, 1 + _each(strengths, images)).clamp_(0, 255)


def _matrices(like: Floats, **entries: Floats) -> NDArray[np.int32]:
    """Return fixed-point matrices (6, N, 1, 1) from a pixel of the result to one of the image.

    Entries (N,) are of xx xy x / yx yy y; those not given are the identity's.
    """
    identity = dict.fromkeys(("xx", "xy", "x", "yx", "yy", "y"), np.zeros_like(like))
    identity |= {"xx": np.ones_like(like), "yy": np.ones_like(like)}
    xx, xy, x, yx, yy, y = (identity | entries).values()
    # a pixel's coordinates are its middle's
    whole = np.stack([xx, xy, x + (xx + xy) / 2, yx, yy, y + (yx + yy) / 2])
    return np.floor(whole * _ONE + 0.5).astype(np.int32)[:, :, None, None]


def _warp(images: Tensor, matrices: NDArray[np.int32]) -> Tensor:
    """Return images whose pixels come from where the matrices say, black from outside."""
    height, width = images.shape[2:]
    device = images.device
    xx, xy, x, yx, yy, y = torch.from_numpy(matrices).to(device)
    across = torch.arange(width, dtype=torch.int32, device=device)
    down = torch.arange(height, dtype=torch.int32, device=device)[:, None]
    column = (across * xx + down * xy + x) >> 16
    row = (across * yx + down * yy + y) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = torch.where(inside, row * width + column, 0).long().flatten(1)[:, None]
    found = images.flatten(2).gather(2, source.expand(-1, 3, -1)).view(images.shape)
    return found.mul_(inside[:, None])


def _operation(name: str, apply: Any, last: float = 0.0, signed: bool = False) -> Operation:
    return Operation(name, apply, np.linspace(0, last, BINS), signed)


OPERATIONS: Final = (
    _operation("identity", _identity),
    _operation("shear_x", _shear_x, 0.99, signed=True),
    _operation("shear_y", _shear_y, 0.99, signed=True),
    _operation("translate_x", _translate_x, 32.0, signed=True),  # pixels, whatever the size
    _operation("translate_y", _translate_y, 32.0, signed=True),
    _operation("rotate", _rotate, 135.0, signed=True),
    _operation("brightness", _brightness, 0.99, signed=True),
    _operation("color", _color, 0.99, signed=True),
    _operation("contrast", _contrast, 0.99, signed=True),
    _operation("sharpness", _sharpness, 0.99, signed=True),
    Operation("posterize", _posterize, 8 - np.round(np.linspace(0, 6, BINS)), signed=False),
    Operation("solarize", _solarize, np.linspace(255, 0, BINS), signed=False),
    _operation("autocontrast", _autocontrast),
    _operation("equalize", _equalize),
)
