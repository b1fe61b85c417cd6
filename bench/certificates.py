"""How often a certificate of `regnet quantize` claims too much, by simulation.

    python bench/certificates.py [--runs 2000] [--seed 0]

Each run draws which photos agree with FP32, for the numbers of restored layers that are looked at,
and applies the rule of `regnet quantize` to them. A run claims too much if the lower bound (95 %
confidence) is above the true agreement of the model that was chosen. The last line is one JSON
object; the exit status is 1 if a bound is too high in more than 5.5 % of the runs of any world.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from simulated_certificates import World, outcome

ALLOWED = 0.055


def worlds() -> Iterator[World]:
    """Yield models that need no, few or most layers, and ones that never reach what is asked."""
    for photos, worst, layers in product((200, 2_000, 10_000), (0.97, 0.985, 0.9895), (6, 98)):
        damage = (1 - worst) * np.linspace(1, 0, layers + 1) ** 1.5
        yield World(tuple(1 - damage), photos)
    for photos, plateau in product((200, 2_000), (0.985, 0.99, 0.995)):
        yield World((plateau,) * 21, photos)


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
    sys.exit(1 if worst > ALLOWED else 0)


if __name__ == "__main__":
    main()
