"""Whether one of two classifiers is the better one, on the same images."""

import math
from dataclasses import dataclass

from regnet.statistics.metrics import wilson


@dataclass(frozen=True)
class PairedTest:
    """Whether B is more often right than A on the same images.

    `only_a` and `only_b` are right in one model alone. `difference` is B's accuracy less A's, with
    its 95 % interval. `p_value` is McNemar's, exact and two-sided: how likely so uneven a split of
    `only_a + only_b` is, were both equally good.
    """

    both: int
    only_a: int
    only_b: int
    neither: int
    difference: float
    low: float
    high: float
    p_value: float

    @property
    def images(self) -> int:
        """How many images were compared."""
        return self.both + self.only_a + self.only_b + self.neither


def paired_test(*, both: int, only_a: int, only_b: int, neither: int) -> PairedTest:
    """Return the comparison of two models from how many images each has right.

    The interval is Newcombe's method 10 (Statistics in Medicine 17, 1998, p. 2635).
    """
    counts = (both, only_a, only_b, neither)
    if min(counts) < 0 or not any(counts):
        raise ValueError(f"counts {counts} must be >= 0 and not all 0")
    images = sum(counts)
    share_a, share_b = (both + only_a) / images, (both + only_b) / images
    low_a, high_a = wilson(both + only_a, images)
    low_b, high_b = wilson(both + only_b, images)
    phi = _phi(*counts)
    down = _square_and_add(share_b - low_b, high_a - share_a, phi)
    up = _square_and_add(high_b - share_b, share_a - low_a, phi)
    low, high = share_b - share_a - down, share_b - share_a + up
    return PairedTest(
        *counts,
        difference=(only_b - only_a) / images,
        low=max(-1.0, low),
        high=min(1.0, high),
        p_value=mcnemar(only_a, only_b),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Return McNemar's exact two-sided p-value of two discordant counts, in (0, 1].

    It is the two-sided binomial test of one half, in whole numbers (Psychometrika 12, 1947, p.
    153).
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"counts {only_a} and {only_b} must be >= 0")
    n, fewer = only_a + only_b, min(only_a, only_b)
    ways = total = 1
    for k in range(fewer):
        ways = ways * (n - k) // (k + 1)
        total += ways
    return min(1.0, 2 * total / (1 << n))


def _square_and_add(x: float, y: float, phi: float) -> float:
    return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))


def _phi(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Return the correlation of the two models' hits, with a continuity correction."""
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    n = both + only_a + only_b + neither
    excess = float(both * neither - only_a * only_b)
    if excess > 0:
        excess = max(0.0, excess - n / 2)
    return excess / math.sqrt(margins)
