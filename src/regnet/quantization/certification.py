"""Which layers stay in FP32, and how often the result agrees with the original.

One half of the check photos chooses the layers. The other half certifies them: it is used once,
after the choice, so the certificate's lower bound is above the truth in at most 5 % of all runs.
Choosing asks for more than certifying (a lower bound instead of a share), so that most choices
pass.
"""

from collections.abc import Callable
from dataclasses import dataclass

from regnet.statistics.agreement import lower_bound

Agreeing = Callable[[int, slice], int]
"""`agreeing(n, part)`: on how many photos of the part the top class is FP32's, n layers in FP32."""


@dataclass(frozen=True)
class Halves:
    """The check photos that choose the layers and those that certify them, as slices."""

    choosing: slice
    certifying: slice

    @classmethod
    def of(cls, photos: int) -> "Halves":
        """Return the halves of this many photos."""
        half = photos // 2
        return cls(slice(half), slice(half, photos))


@dataclass(frozen=True)
class Verdict:
    """`restored` layers in FP32 agree on `agreeing` of `images` photos, at least `low` (95 %).

    `passed`: whether that share is the one asked for.
    """

    restored: int
    agreeing: int
    images: int
    low: float
    passed: bool


def certify(layers: int, photos: int, agreeing: Agreeing, min_agreement: float) -> Verdict | None:
    """Choose how many of the ranked layers to restore, and certify that choice once.

    None if not even restoring all `layers` is enough on the photos that choose.
    """
    halves = Halves.of(photos)
    needed = hits_needed(photos // 2, min_agreement)
    restored = fewest(layers, lambda n: agreeing(n, halves.choosing) >= needed)
    if restored is None:
        return None
    images = photos - photos // 2
    hits = agreeing(restored, halves.certifying)
    return Verdict(
        restored=restored,
        agreeing=hits,
        images=images,
        low=lower_bound(hits, images),
        passed=hits / images >= min_agreement,
    )


def hits_needed(images: int, share: float) -> int:
    """Return the fewest hits whose 95 % lower bound is `share`; all images if that takes more."""
    hits = fewest(images, lambda hits: lower_bound(hits, images) >= share)
    return images if hits is None else hits


def fewest(most: int, holds: Callable[[int], bool]) -> int | None:
    """Return the smallest n in 0..most with `holds(n)`, or None. Bisection: holds is monotonic."""
    if holds(0):
        return 0
    if most < 1 or not holds(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
