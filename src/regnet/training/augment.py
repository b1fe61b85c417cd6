"""Augmentation of a batch of training crops on its device: flips, lighting, erasing, mixing.

Images are float32 (N, 3, H, W), 0..255, BGR, not yet normalised; a memory format is kept. A batch
takes one number from its `torch.Generator` and draws from that on the CPU, so the draws are the
same on every device.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from regnet.pixels.protocol import Preprocess, Triple
from regnet.training.recipe import Augmentation

Batch = tuple[Tensor, Tensor]
Floats = NDArray[np.float64]

# Principal components of the colours of ImageNet's pixels, R, G, B on 0..1 (Krizhevsky et al. 2012)
EIGENVALUES: Final = (0.2175, 0.0188, 0.0045)
EIGENVECTORS: Final = (  # one row per channel, one column per component
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)

ERASED_AREA: Final = (0.02, 0.33)  # of the image's area
ERASED_ASPECT: Final = (0.3, 3.3)  # height to width

BINS: Final = 31
_GRAY: Final = (0.114, 0.587, 0.299)  # B, G, R: luma of ITU-R 601-2, as in Pillow
_ONE: Final = 1 << 16  # 16 bits of a coordinate are its fraction


class Augment:
    """A recipe's augmentation of a batch, after the crop.

    In this order: flip, TrivialAugment, lighting, random erasing, mixup or cutmix. `mean` is the
    recipe's, of pixels 0..255 in BGR: the colour of erased rectangles.
    """

    def __init__(
        self, augmentation: Augmentation, *, classes: int, mean: Triple = Preprocess.mean
    ) -> None:
        self.augmentation, self.classes, self.mean = augmentation, classes, mean

    def __call__(self, images: Tensor, targets: Tensor, random: torch.Generator) -> Batch:
        """Return augmented images (N, 3, H, W) and soft targets (N, classes), whose rows sum to 1.

        `targets` are the classes, int64 (N,). The images passed in are not changed; if there is
        nothing to do, they are returned themselves.
        """
        recipe = self.augmentation
        # numpy's draws are the same on all CPUs
        draws = np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=random)))
        soft = F.one_hot(targets, self.classes).float()
        if recipe.flip:
            images = flip(images, recipe.flip, draws)
        if recipe.trivial_augment:
            images = trivial_augment(images, draws)
        if recipe.lighting:
            images = light(images, recipe.lighting, draws)
        if recipe.erasing:
            images = erase(images, recipe.erasing, draws, mean=self.mean)
        return mix(images, soft, recipe, draws)


def flip(images: Tensor, probability: float, draws: np.random.Generator) -> Tensor:
    """Return images (N, C, H, W), each mirrored left to right with a probability."""
    mirrored = torch.from_numpy(draws.random(len(images)) < probability).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def light(images: Tensor, deviation: float, draws: np.random.Generator) -> Tensor:
    """Return images (N, 3, H, W) in BGR, each shifted by a colour along the principal components.

    A component's weight is normal with this standard deviation (section 4.1 of Krizhevsky et al.
    2012). As in the paper's training code, the result is not clipped to 0..255.
    """
    rgb = lighting(draws.normal(0, deviation, (len(images), 3)))
    shift = torch.from_numpy(rgb[:, ::-1].astype(np.float32)).to(images.device)
    return images + shift[:, :, None, None]


def lighting(weights: np.ndarray) -> np.ndarray:
    """Return the R, G, B, (N, 3) on 0..255, that weights (N, 3) of the three components add."""
    added: np.ndarray = 255 * (weights * EIGENVALUES) @ np.transpose(EIGENVECTORS)
    return added


def erase(
    images: Tensor,
    probability: float,
    draws: np.random.Generator,
    *,
    mean: Triple = Preprocess.mean,
) -> Tensor:
    """Return images (N, 3, H, W), each with this probability with a rectangle set to `mean`.

    `mean` is the protocol's, so a rectangle is 0 after normalising (arXiv 1708.04896).
    """
    erased = images.clone()
    colour = torch.tensor(mean, device=images.device)[:, None, None]
    chosen = np.flatnonzero(draws.random(len(images)) < probability)
    height, width = images.shape[2:]
    boxes = rectangles(len(chosen), height, width, draws)
    for image, (top, left, bottom, right) in zip(chosen, boxes, strict=True):
        erased[image, :, top:bottom, left:right] = colour
    return erased


def rectangles(
    count: int, height: int, width: int, draws: np.random.Generator
) -> NDArray[np.int64]:
    """Return rectangles to erase (count, 4): top, left, bottom, right.

    Uniform in `ERASED_AREA`, in the logarithm of `ERASED_ASPECT`, and in place. An aspect that
    does not fit into the image at its area becomes the nearest one that does.
    """
    flat, tall = ERASED_ASPECT
    area = draws.uniform(*ERASED_AREA, count)
    aspect = np.exp(draws.uniform(math.log(flat), math.log(tall), count))
    aspect = np.clip(aspect, area * height / width, height / (area * width))
    pixels = area * height * width
    rows = np.clip(np.rint(np.sqrt(pixels * aspect)), 1, height).astype(np.int64)
    columns = np.clip(np.rint(np.sqrt(pixels / aspect)), 1, width).astype(np.int64)
    top, left = draws.integers(height - rows + 1), draws.integers(width - columns + 1)
    return np.stack([top, left, top + rows, left + columns], axis=1)


def mix(images: Tensor, targets: Tensor, recipe: Augmentation, draws: np.random.Generator) -> Batch:
    """Return a batch mixed by mixup or cutmix, for a share `mix` of the batches.

    Images (N, C, H, W) and soft targets (N, classes). Each image is mixed with the one before it;
    if both rules have an alpha over 0, each gets half of the batches.
    """
    rules = [rule for rule, alpha in ((mixup, recipe.mixup), (cutmix, recipe.cutmix)) if alpha]
    if not rules or draws.random() >= recipe.mix:
        return images, targets
    rule = rules[draws.integers(len(rules))]
    alpha = recipe.mixup if rule is mixup else recipe.cutmix
    return rule(images, targets, alpha, draws)


def mixup(images: Tensor, targets: Tensor, alpha: float, draws: np.random.Generator) -> Batch:
    """Return images and targets times l plus the previous ones times 1 - l.

    l is from Beta(alpha, alpha), one for the batch, as in its authors' code (arXiv 1710.09412).
    """
    other = 1 - draws.beta(alpha, alpha)
    return _blend(images, other), _blend(targets, other)


def cutmix(images: Tensor, targets: Tensor, alpha: float, draws: np.random.Generator) -> Batch:
    """Return images with a rectangle of the previous one, whose label gets the share of pixels.

    One rectangle per batch, of the image's shape: its area is 1 - l before it is cut off at the
    edges, l from Beta(alpha, alpha), its centre uniform (arXiv 1905.04899).
    """
    height, width = images.shape[2:]
    side = math.sqrt(1 - draws.beta(alpha, alpha))
    rows, columns = _span(height, side, draws), _span(width, side, draws)
    mixed = images.clone()
    mixed[:, :, rows, columns] = images[:, :, rows, columns].roll(1, 0)
    pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, _blend(targets, pixels / (height * width))


def _span(size: int, share: float, draws: np.random.Generator) -> slice:
    """Return a part of 0..size of about this share, cut off at the ends."""
    length = int(size * share)
    start = int(draws.integers(size)) - length // 2
    return slice(max(start, 0), min(start + length, size))


def _blend(values: Tensor, other: float) -> Tensor:
    """Return each of N values times 1 - other plus the previous one times other."""
    return values.roll(1, 0).mul_(other).add_(values, alpha=1 - other)


# TrivialAugment in its wide space (arXiv 2103.10158): an image, one operation, one strength.
#
# The operations are Pillow's, with the strengths of torchvision's recipes. Results keep fractions
# that Pillow cuts off; shears, translations and rotations take the nearest pixel by Pillow's own
# integers, black from outside.


@dataclass(frozen=True, eq=False)
class Operation:
    """A change of images (N, 3, H, W), each by its strength (N,).

    There is a strength for each of the `BINS`; half of the draws negate it if it is `signed`.
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


def _affine(entry: str) -> Callable[[Tensor, Floats], Tensor]:
    """Return the operation whose matrix has its strength at `entry`: a shear or a translation."""
    return lambda images, strengths: _warp(images, **{entry: strengths})


def _rotate(images: Tensor, strengths: Floats) -> Tensor:
    """Turn by degrees, counter-clockwise, around the centre."""
    angles = -np.radians(strengths)
    cos: Floats = np.cos(angles).round(15)  # as Pillow, so that 90 degrees are exact
    sin: Floats = np.sin(angles).round(15)
    x0, y0 = images.shape[3] / 2, images.shape[2] / 2
    x, y = x0 - cos * x0 - sin * y0, y0 + sin * x0 - cos * y0
    return _warp(images, xx=cos, xy=sin, x=x, yx=-sin, yy=cos, y=y)


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


def _warp(images: Tensor, **entries: Floats) -> Tensor:
    """Return images mapped by matrices xx xy x / yx yy y, black from outside.

    They map a pixel of the result to one of the image, in fixed point; entries (N,) that are not
    given are the identity's.
    """
    count, _, height, width = images.shape
    identity = dict.fromkeys(("xx", "xy", "x", "yx", "yy", "y"), np.zeros(count))
    identity |= {"xx": np.ones(count), "yy": np.ones(count)}
    xx, xy, x, yx, yy, y = (identity | entries).values()
    # a pixel's coordinates are those of its middle
    whole = np.stack([xx, xy, x + (xx + xy) / 2, yx, yy, y + (yx + yy) / 2])
    matrices = np.floor(whole * _ONE + 0.5).astype(np.int32)[:, :, None, None]
    device = images.device
    xx, xy, x, yx, yy, y = torch.from_numpy(matrices).to(device)
    across = torch.arange(width, dtype=torch.int32, device=device)
    down = torch.arange(height, dtype=torch.int32, device=device)[:, None]
    column = (across * xx + down * xy + x) >> 16
    row = (across * yx + down * yy + y) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    source = torch.where(inside, row * width + column, 0).long().flatten(1)[:, None]
    warped = images.flatten(2).gather(2, source.expand(-1, 3, -1)).view(images.shape)
    return warped.mul_(inside[:, None])


def _operation(name: str, apply: Any, last: float = 0.0, signed: bool = False) -> Operation:
    return Operation(name, apply, np.linspace(0, last, BINS), signed)


OPERATIONS: Final = (
    _operation("identity", _identity),
    _operation("shear_x", _affine("xy"), 0.99, signed=True),
    _operation("shear_y", _affine("yx"), 0.99, signed=True),
    _operation("translate_x", _affine("x"), 32.0, signed=True),  # pixels, whatever the size
    _operation("translate_y", _affine("y"), 32.0, signed=True),
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
