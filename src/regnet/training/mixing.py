"""Mixup and cutmix: every image of a batch is mixed with the one before it, labels likewise."""

import math

import numpy as np
from torch import Tensor

from regnet.training.recipe import Augmentation


def mix(
    images: Tensor, targets: Tensor, recipe: Augmentation, draws: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return a batch mixed by one of the recipe's two rules, or as it is.

    Images (N, C, H, W) and soft targets (N, classes). For a share `mix` of the batches; where both
    rules have an alpha over 0, each gets half of them.
    """
    rules = [rule for rule, alpha in ((mixup, recipe.mixup), (cutmix, recipe.cutmix)) if alpha]
    if not rules or draws.random() >= recipe.mix:
        return images, targets
    rule = rules[draws.integers(len(rules))]
    alpha = recipe.mixup if rule is mixup else recipe.cutmix
    return rule(images, targets, alpha, draws)


def mixup(
    images: Tensor, targets: Tensor, alpha: float, draws: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return images and targets times l plus the ones before times 1 - l.

    l is from Beta(alpha, alpha), one for the batch, as in its authors' code (arXiv 1710.09412).
    """
    other = 1 - draws.beta(alpha, alpha)
    return _blend(images, other), _blend(targets, other)


def cutmix(
    images: Tensor, targets: Tensor, alpha: float, draws: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return images with a rectangle of the one before; that one's label has its share of pixels.

    The rectangle has the image's shape and before it is cut off at the edges the area 1 - l, l from
    Beta(alpha, alpha); its centre is anywhere. Source: arXiv 1905.04899; one rectangle a batch.
    """
    height, width = images.shape[2:]
    side = math.sqrt(1 - draws.beta(alpha, alpha))
    rows, columns = _span(height, side, draws), _span(width, side, draws)
    mixed = images.clone()
    mixed[:, :, rows, columns] = images[:, :, rows, columns].roll(1, 0)
    pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
    return mixed, _blend(targets, pixels / (height * width))


def _span(size: int, share: float, draws: np.random.Generator) -> slice:
    """Return a part of 0..size of about this share, cut off where it goes over an end."""
    length = int(size * share)
    start = int(draws.integers(size)) - length // 2
    return slice(max(start, 0), min(start + length, size))


def _blend(values: Tensor, other: float) -> Tensor:
    """Return each of N values times 1 - other plus the one before times other."""
    return values.roll(1, 0).mul_(other).add_(values, alpha=1 - other)
