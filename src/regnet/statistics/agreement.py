"""How far two classifiers agree on the same images, and whether one is the better one."""

import heapq
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.statistics.metrics import LEAST, Share, checked_probabilities


@dataclass(frozen=True, order=True)
class Flip:
    """An image whose most probable class differs between the reference and the other model.

    `margin` is how sure the reference was: its highest probability less its second, in [0, 1].
    """

    margin: float
    source: str
    reference: int
    other: int


@dataclass(frozen=True)
class Agreement:
    """Two classifiers side by side on `images`.

    `top1` is the share of images on which both have the same most probable class; `top1_at_least`
    its one-sided 95 % lower bound (Clopper and Pearson, Biometrika 26, 1934, p. 404). `flips` are
    the others, those that the reference was surest of first; no more than the tally was to keep.
    KL is KL(reference || other) in nats; `max_delta` the largest difference of a probability.
    """

    images: int
    top1: Share
    top1_at_least: float
    flips: tuple[Flip, ...]
    mean_kl: float
    max_kl: float
    max_delta: float

    @property
    def flipped(self) -> int:
        """How many images have another most probable class."""
        return self.images - self.top1.hits


class AgreementTally:
    """Counts batch by batch how two classifiers agree; keeps the `keep` flips of largest margin."""

    def __init__(self, *, keep: int = 1000) -> None:
        self._keep = keep
        self._images = self._same = 0
        self._flips: list[Flip] = []
        self._kl = self._max_kl = self._max_delta = 0.0

    def update(
        self,
        reference: NDArray[np.floating[Any]],
        other: NDArray[np.floating[Any]],
        sources: list[str] | None = None,
    ) -> None:
        """Count a batch: both models' probabilities (N, classes), and the images' names.

        Raises `ValueError` if rows are not probability distributions or do not fit each other.
        """
        p = checked_probabilities(reference, None).astype(np.float64)
        q = checked_probabilities(other, p.shape[1]).astype(np.float64)
        names = [""] * len(p) if sources is None else sources
        if not len(p) == len(q) == len(names):
            raise ValueError(f"{len(p)} rows, {len(q)} rows and {len(names)} names do not fit")
        if not len(p):
            return
        kl = kl_divergence(p, q)
        self._images += len(p)
        self._kl += float(kl.sum())
        self._max_kl = max(self._max_kl, float(kl.max()))
        self._max_delta = max(self._max_delta, float(np.abs(p - q).max()))
        first, second = p.argmax(axis=1), q.argmax(axis=1)
        flipped = np.flatnonzero(first != second)
        self._same += len(p) - len(flipped)
        for row, gap in zip(flipped.tolist(), margin(p[flipped]).tolist(), strict=True):
            heapq.heappush(self._flips, Flip(gap, names[row], int(first[row]), int(second[row])))
            if len(self._flips) > self._keep:
                heapq.heappop(self._flips)

    def result(self) -> Agreement:
        """Return the figures so far; raises `ValueError` before the first image."""
        if not self._images:
            raise ValueError("no images: nothing to agree on")
        return Agreement(
            images=self._images,
            top1=Share.of(self._same, self._images),
            top1_at_least=lower_bound(self._same, self._images),
            flips=tuple(sorted(self._flips, key=lambda flip: (-flip.margin, flip.source))),
            mean_kl=self._kl / self._images,
            max_kl=self._max_kl,
            max_delta=self._max_delta,
        )


def agreement(
    reference: NDArray[np.floating[Any]],
    other: NDArray[np.floating[Any]],
    sources: list[str] | None = None,
) -> Agreement:
    """Return how two models' probabilities (N, classes) of the same images agree."""
    tally = AgreementTally(keep=len(reference))
    tally.update(reference, other, sources)
    return tally.result()


def kl_divergence(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return KL(p || q) in nats, row by row (N,); q counts as at least 1.2e-38."""
    safe = np.where(p > 0, p, 1.0)
    terms = np.where(p > 0, p * np.log(safe / np.maximum(q, LEAST)), 0.0)
    rows: NDArray[np.float64] = np.maximum(terms.sum(axis=1), 0.0)
    return rows


def margin(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the highest probability of each row less its second highest (N,)."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    top = np.partition(probabilities, -2, axis=1)
    gaps: NDArray[np.float64] = top[:, -1] - top[:, -2]
    return gaps


def lower_bound(hits: int, images: int, *, confidence: float = 0.95) -> float:
    """Return the exact one-sided lower bound of a share (Clopper and Pearson).

    It is the share at which as many hits or more have the probability 1 - confidence.
    """
    if not 0 <= hits <= images or images == 0:
        raise ValueError(f"{hits} hits among {images} images")
    if hits == 0:
        return 0.0
    misses = np.arange(images - hits + 1)
    ways = np.array(
        [math.lgamma(images + 1) - math.lgamma(k + 1) - math.lgamma(images - k + 1) for k in misses]
    )  # log(images choose k)
    low, high = 0.0, hits / images
    for _ in range(60):  # halves the bracket to the last bit
        share = (low + high) / 2
        logs = ways + misses * math.log1p(-share) + (images - misses) * math.log(share)
        low, high = (share, high) if np.exp(logs).sum() < 1 - confidence else (low, share)
    return low
