"""How often a certificate of `regnet quantize` claims too much, by simulation.

    python bench/certificates.py [--runs 2000] [--seed 0]

Each run draws which photos agree with FP32 for every number of restored layers, and applies the
rule of `regnet quantize` to them. A run claims too much if the lower bound (95 % confidence) is
above the true agreement of the model that was chosen. The last line is one JSON object; the exit
status is 1 if a bound is too high in more than 5.5 % of the runs of any world.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from regnet.quantization.certification import Verdict, certify

ALLOWED = 0.055


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


def worlds() -> Iterator[World]:
    """Yield models that need no, few or most layers, and ones that never reach what is asked."""
    for photos, worst, layers in product((200, 2_000, 10_000), (0.97, 0.985, 0.9895), (6, 98)):
        damage = (1 - worst) * np.linspace(1, 0, layers + 1) ** 1.5
        yield World(tuple(1 - damage), photos)
    for photos, plateau in product((200, 2_000), (0.985, 0.99, 0.995)):
        yield World((plateau,) * 21, photos)


def verdicts(world: World, runs: int, seed: int) -> Iterator[Verdict | None]:
    """Yield the rule's verdict of each run.

    Photos that flip in one model mostly flip in others: they share the photo's own draw in 7 of
    10 cases.
    """
    chance = np.random.default_rng(seed)
    layers = len(world.truth) - 1
    for _ in range(runs):
        agrees = _agreeing_photos(world, chance)

        def agreeing(count: int, part: slice, agrees: NDArray[np.bool_] = agrees) -> int:
            return int(agrees[count, part].sum())

        yield certify(layers, world.photos, agreeing, world.min_agreement)


def _agreeing_photos(world: World, chance: np.random.Generator) -> NDArray[np.bool_]:
    """Return which photos agree (layers + 1, photos)."""
    shape = (len(world.truth), world.photos)
    draws = np.broadcast_to(chance.random(world.photos, np.float32), shape)
    own = np.flatnonzero(chance.random(shape, np.float32) < 0.3)
    draws = draws.copy()
    draws.flat[own] = chance.random(len(own), np.float32)
    return draws < np.array(world.truth, np.float32)[:, None]


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


def main() -> None:
    """Simulate all worlds, print a line for each, and end in one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    results = []
    for world in worlds():
        result = outcome(world, options.runs, options.seed)
        results.append(result)
        print(
            f"{world.photos:6,} photos, {len(world.truth) - 1:2} layers, all INT8 "
            f"{world.truth[0]:.2%}: chosen {result.chosen:6.1%}, certified {result.certified:6.1%},"
            f" too high {result.too_high:5.2%}, of certified {result.too_high_of_certified:6.2%}"
        )
    worst = max(result.too_high for result in results)
    print(json.dumps({"runs": options.runs, "worst": worst, "worlds": list(map(asdict, results))}))
    sys.exit(worst > ALLOWED)


if __name__ == "__main__":
    main()
