"""What is drawn at random for a batch of training crops: flips, operations, colours, boxes, mixing.

The numbers are drawn on the CPU from a seed, so they are the same on every device, whoever makes
the images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from regnet.training.recipe import Augmentation
from regnet.training.trivial_augment import BINS, OPERATIONS, SIGNED, STRENGTHS

Floats = NDArray[np.float64]
Box = tuple[int, int, int, int]

# Principal components of the colours of ImageNet's pixels, R, G, B on 0..1 (Krizhevsky et al. 2012)
EIGENVALUES: Final = (0.2175, 0.0188, 0.0045)
EIGENVECTORS: Final = (  # one row per channel, one column per component
    (-0.5675, 0.7192, 0.4009),
    (-0.5808, -0.0045, -0.8140),
    (-0.5836, -0.6948, 0.4203),
)

CHUNK: Final = 32
"""Images for which numbers are drawn, and that are mixed, together."""

ERASED_AREA: Final = (0.02, 0.33)  # of the image's area
ERASED_ASPECT: Final = (0.3, 3.3)  # height to width


@dataclass(frozen=True)
class Mixing:
    """How `count` images are mixed, each with the one before it, the first with the last.

    The one before it gets the share `other` of the label and, without a `box`, of each pixel; with
    a box (top, left, bottom, right) the pixels in there (cutmix).
    """

    count: int
    other: float = 0.0
    box: Box | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Draws:
    """What is drawn for N images; None for what the recipe does not ask for.

    `mirrored` (N,) are the flips, `operations` (N,) and `strengths` (N,) TrivialAugment's, `shifts`
    (N, 3) what lighting adds to B, G, R, `erased` (N, 4) rectangles (top, left, bottom, right),
    empty for images that stay. `mixing` is a value for each run of images that are mixed together.
    """

    mirrored: NDArray[np.bool_] | None = None
    operations: NDArray[np.int64] | None = None
    strengths: Floats | None = None
    shifts: NDArray[np.float32] | None = None
    erased: NDArray[np.int64] | None = None
    mixing: tuple[Mixing, ...]


def joined(draws: Sequence[Draws]) -> Draws:
    """Return the draws of several runs of images as one."""

    def array(name: str) -> Any:
        parts = [getattr(each, name) for each in draws]
        return None if parts[0] is None else np.concatenate(parts)

    return Draws(
        mirrored=array("mirrored"),
        operations=array("operations"),
        strengths=array("strengths"),
        shifts=array("shifts"),
        erased=array("erased"),
        mixing=tuple(mixing for each in draws for mixing in each.mixing),
    )


def random_numbers(seed: int) -> np.random.Generator:
    """Return numpy's generator for a run of images; its draws are the same on all CPUs."""
    random = torch.Generator().manual_seed(seed)
    return np.random.default_rng(int(torch.randint(2**63 - 1, (), generator=random)))


def draw_chunks(
    recipe: Augmentation, count: int, height: int, width: int, seed: Callable[[int], int]
) -> tuple[Draws, ...]:
    """Return what is drawn for `count` images, in chunks of `CHUNK`.

    `seed` returns that of a chunk, by the place of its first image.
    """
    return tuple(
        draw(recipe, min(CHUNK, count - at), height, width, random_numbers(seed(at)))
        for at in range(0, count, CHUNK)
    )


def draw(
    recipe: Augmentation, count: int, height: int, width: int, random: np.random.Generator
) -> Draws:
    """Return what is drawn for `count` images of this size that are mixed together."""
    mirrored = random.random(count) < recipe.flip if recipe.flip else None
    operations = strengths = None
    if recipe.trivial_augment:
        operations, strengths = draw_operations(count, random)
    shifts = erased = None
    if recipe.lighting:
        rgb = lighting(random.normal(0, recipe.lighting, (count, 3)))
        shifts = rgb[:, ::-1].astype(np.float32)
    if recipe.erasing:
        erased = np.zeros((count, 4), np.int64)
        chosen = np.flatnonzero(random.random(count) < recipe.erasing)
        erased[chosen] = rectangles(len(chosen), height, width, random)
    return Draws(
        mirrored=mirrored,
        operations=operations,
        strengths=strengths,
        shifts=shifts,
        erased=erased,
        mixing=(draw_mixing(recipe, count, height, width, random),),
    )


def draw_operations(count: int, random: np.random.Generator) -> tuple[NDArray[np.int64], Floats]:
    """Return an operation for each image, all equally likely, and its strength."""
    chosen = random.integers(len(OPERATIONS), size=count)
    bins = random.integers(BINS, size=count)
    signs = 2 * random.integers(2, size=count) - 1
    return chosen, STRENGTHS[chosen, bins] * np.where(SIGNED[chosen], signs, 1)


def lighting(weights: Floats) -> Floats:
    """Return the R, G, B, (N, 3) on 0..255, that weights (N, 3) of the three components add.

    A weight is normal (section 4.1 of Krizhevsky et al. 2012).
    """
    added: Floats = 255 * (weights * EIGENVALUES) @ np.transpose(EIGENVECTORS)
    return added


def rectangles(
    count: int, height: int, width: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Return rectangles to erase (count, 4): top, left, bottom, right.

    Uniform in `ERASED_AREA`, in the logarithm of `ERASED_ASPECT`, and in place. An aspect that
    does not fit into the image at its area becomes the nearest one that does.
    """
    flat, tall = ERASED_ASPECT
    area = random.uniform(*ERASED_AREA, count)
    aspect = np.exp(random.uniform(math.log(flat), math.log(tall), count))
    aspect = _between(aspect, area * height / width, height / (area * width))
    pixels = area * height * width
    rows = _between(np.rint(np.sqrt(pixels * aspect)), 1, height).astype(np.int64)
    columns = _between(np.rint(np.sqrt(pixels / aspect)), 1, width).astype(np.int64)
    top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
    return np.stack([top, left, top + rows, left + columns], axis=1)


def _between(values: Floats, low: Floats | int, high: Floats | int) -> Floats:
    """Return what `numpy.clip` does, in half of its time for few values."""
    between: Floats = np.minimum(np.maximum(values, low), high)
    return between


def draw_mixing(
    recipe: Augmentation, count: int, height: int, width: int, random: np.random.Generator
) -> Mixing:
    """Return how images are mixed: by mixup or cutmix, for a share `mix` of the draws.

    If both rules have an alpha over 0, each gets half of them.
    """
    rules = [rule for rule, alpha in (("mixup", recipe.mixup), ("cutmix", recipe.cutmix)) if alpha]
    if not rules or random.random() >= recipe.mix:
        return Mixing(count)
    if rules[random.integers(len(rules))] == "mixup":
        return Mixing(count, 1 - random.beta(recipe.mixup, recipe.mixup))
    return _cutmix(recipe.cutmix, count, height, width, random)


def _cutmix(
    alpha: float, count: int, height: int, width: int, random: np.random.Generator
) -> Mixing:
    """Return one rectangle of the image's shape, and its share of the pixels.

    Its area is 1 - l before it is cut off at the edges, l from Beta(alpha, alpha), its centre
    uniform (arXiv 1905.04899).
    """
    side = math.sqrt(1 - random.beta(alpha, alpha))
    top, bottom = _span(height, side, random)
    left, right = _span(width, side, random)
    share = (bottom - top) * (right - left) / (height * width)
    return Mixing(count, share, (top, left, bottom, right))


def _span(size: int, share: float, random: np.random.Generator) -> tuple[int, int]:
    """Return a part of 0..size of about this share, cut off at the ends."""
    length = int(size * share)
    start = int(random.integers(size)) - length // 2
    return max(start, 0), min(start + length, size)
