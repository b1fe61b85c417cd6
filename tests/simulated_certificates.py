"""What the rule of `regnet quantize` does on simulated photos, for tests and benchmarks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regnet.quantization.trial import Verdict, certify


@dataclass(frozen=True)
class World:
    """Models of which `truth[n]` is the true agreement with n layers restored, and photos."""

    truth: tuple[float, ...]
    photos: int
    min_agreement: float = 0.99


@dataclass(frozen=True)
class Outcome:
    """Shares of all runs: with a choice, and certified; and of too high bounds among both."""

    chosen: float
    certified: float
    too_high: float
    too_high_of_certified: float


def verdicts(world: World, runs: int, seed: int) -> Iterator[Verdict | None]:
    """Yield the rule's verdict of each run."""
    chance = np.random.default_rng(seed)
    for _ in range(runs):
        photos = DrawnPhotos(world, chance)
        yield certify(len(world.truth) - 1, world.photos, photos.agreeing, world.min_agreement)


class DrawnPhotos:
    """Photos of one run, drawn when they are looked at.

    Photos that flip in one model mostly flip in others: in 7 of 10 cases the photo's own draw
    decides, the same for all models.
    """

    def __init__(self, world: World, chance: np.random.Generator) -> None:
        self._world, self._chance = world, chance
        self._shared = chance.random(world.photos)
        self._agrees: dict[int, NDArray[np.bool_]] = {}

    def agreeing(self, count: int, part: slice) -> int:
        """Return how many photos of the part agree with this many layers restored."""
        if count not in self._agrees:
            alone = self._chance.random(self._world.photos)
            shares = self._chance.random(self._world.photos) < 0.7
            draws = np.where(shares, self._shared, alone)
            self._agrees[count] = draws < self._world.truth[count]
        return int(self._agrees[count][part].sum())


def outcome(world: World, runs: int, seed: int) -> Outcome:
    """Return how the rule did in a world."""
    chosen = [verdict for verdict in verdicts(world, runs, seed) if verdict is not None]
    high = [verdict.low > world.truth[verdict.restored] for verdict in chosen]
    certified = [too for too, verdict in zip(high, chosen, strict=True) if verdict.passed]
    return Outcome(
        chosen=len(chosen) / runs,
        certified=len(certified) / runs,
        too_high=sum(high) / runs,
        too_high_of_certified=sum(certified) / max(len(certified), 1),
    )
