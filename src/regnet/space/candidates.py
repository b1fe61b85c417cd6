"""Networks of the constrained spaces about whose accuracy something is known."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.network.complexity import Complexity, complexity
from regnet.network.spec import RegNetSpec
from regnet.space.accuracy_model import AccuracyModel, traits
from regnet.space.latency_model import features
from regnet.space.sampling import Sampled, Window, sample
from regnet.space.spaces import RegNetSpace, space_by_name
from regnet.system.errors import SpaceError

Reals = NDArray[np.float64]
Watch = Callable[[Iterable[Sampled], int], Iterable[Sampled]]

SPACES: Final = ("regnetx", "regnety")
"""Spaces whose networks an accuracy can be predicted of."""


@dataclass(frozen=True)
class Candidate:
    """A network, its cost at 224 pixels, and its predicted top-1 error in percent.

    `extrapolated` where it has far fewer or more MACs than all published ones.
    """

    spec: RegNetSpec
    cost: Complexity
    error: float
    extrapolated: bool = False


@dataclass(frozen=True)
class Candidates:
    """Networks (N,), the features of their latency (N, F), and of how many they were `drawn`."""

    networks: tuple[Candidate, ...]
    rows: Reals
    drawn: int

    @property
    def errors(self) -> Reals:
        """Predicted top-1 errors in percent, (N,)."""
        return np.array([network.error for network in self.networks])


def require_spaces(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names in lower case; raises `SpaceError` for a space that cannot be searched."""
    found = tuple(dict.fromkeys(name.strip().lower() for name in names))
    if not found or any(name not in SPACES for name in found):
        raise SpaceError(
            f"{', '.join(names) or 'none'}: spaces that can be searched are {', '.join(SPACES)}, "
            "for of others no accuracy is known"
        )
    return found


def draw(
    spaces: Sequence[str],
    count: int,
    *,
    macs: tuple[int, int],
    accuracy: AccuracyModel,
    image_size: int,
    seed: int,
    watch: Watch = lambda items, count: items,
) -> Candidates:
    """Return what is as the published networks among `count` of each space, MACs in a window.

    MACs are those at 224 pixels, features those at `image_size`. Raises `SpaceError` where there
    are none.
    """
    window = Window(macs=macs)
    specs, costs = [], []
    for name in spaces:
        drawn = sample(_space(name), count, seed=seed, window=window)
        for one in watch(drawn, count):
            cost = one.cost
            if accuracy.plausible(cost):  # before its spec is made, which takes longer
                specs.append(_regnet(one))
                costs.append(cost)
    networks = assess(specs, accuracy, costs=costs)
    kept = [network for network, good in networks if good]
    if not kept:
        raise SpaceError(
            f"of {count:,} networks of {', '.join(spaces)} with {window} none is as the published "
            "ones: draw more (--candidates)"
        )
    rows = np.stack([features(network.spec, image_size=image_size) for network in kept])
    return Candidates(tuple(kept), rows, count * len(spaces))


def assess(
    specs: Sequence[RegNetSpec],
    accuracy: AccuracyModel,
    *,
    costs: Sequence[Complexity] | None = None,
) -> list[tuple[Candidate, bool]]:
    """Return networks with their predicted errors, and whether these can be trusted."""
    if not specs:
        return []
    costs = costs or [complexity(spec) for spec in specs]
    rows = np.stack([traits(s, c) for s, c in zip(specs, costs, strict=True)])
    columns: Any = (accuracy.predict(rows), accuracy.extrapolates(rows), accuracy.trusted(rows))
    return [
        (Candidate(spec, cost, float(error), bool(beyond)), bool(good))
        for spec, cost, error, beyond, good in zip(specs, costs, *columns, strict=True)
    ]


def _space(name: str) -> RegNetSpace:
    space = space_by_name(name)
    assert isinstance(space, RegNetSpace)
    return space


def _regnet(one: Sampled) -> RegNetSpec:
    spec = one.spec
    assert isinstance(spec, RegNetSpec)
    return spec
