"""Networks of the constrained spaces with a predicted accuracy and, once measured, a latency."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regnet.network.complexity import Complexity, complexity
from regnet.network.spec import RegNetSpec
from regnet.space.accuracy_model import AccuracyModel, traits
from regnet.space.latency_model import features
from regnet.space.sampling import Window, sample, space_by_name
from regnet.statistics.draws import Reals
from regnet.system.errors import SpaceError


@dataclass(frozen=True)
class Candidate:
    """A network, its cost at 224 pixels, and its predicted top-1 error in percent.

    `extrapolated` if its MACs are far from those of all published networks.
    """

    spec: RegNetSpec
    cost: Complexity
    error: float
    extrapolated: bool = False


@dataclass(frozen=True)
class Candidates:
    """Networks (N,), their latency features (N, F), and the number they were `drawn` from."""

    networks: tuple[Candidate, ...]
    rows: Reals
    drawn: int

    @property
    def errors(self) -> Reals:
        """Predicted top-1 errors in percent, (N,)."""
        return np.array([network.error for network in self.networks])


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A network and its latency; `predicted_ms` is the prediction before measuring, if any.

    A published network has a `name` and a `published_error`, in percent.
    """

    network: Candidate
    ms: float
    predicted_ms: float | None = None
    name: str = ""
    published_error: float | None = None

    @property
    def error(self) -> float:
        """The top-1 error in percent: published, or else predicted."""
        return self.network.error if self.published_error is None else self.published_error


@dataclass(frozen=True, kw_only=True)
class Rival:
    """A published network, and the most accurate other one that is as fast, if any.

    `sought` if the published network is within the budget.
    """

    published: Measured
    better: Measured | None
    sought: bool

    @property
    def beaten(self) -> bool:
        """Whether the other's predicted error is no higher than the published one."""
        return self.better is not None and self.better.error <= self.published.error


def front(measured: Iterable[Measured]) -> list[Measured]:
    """Return the Pareto front of latency and error, the fastest first."""
    best: list[Measured] = []
    for one in sorted(measured, key=lambda m: (m.ms, m.error)):
        if not best or one.error < best[-1].error:
            best.append(one)
    return best


def rival(one: Measured, own: Sequence[Measured], budget: float) -> Rival:
    """Return a published network beside the most accurate of `own` that is as fast."""
    as_fast = [other for other in own if other.ms <= one.ms]
    better = min(as_fast, key=lambda other: other.error, default=None)
    return Rival(published=one, better=better, sought=one.ms <= budget)


def draw(
    spaces: Sequence[str],
    count: int,
    *,
    macs: tuple[int, int],
    accuracy: AccuracyModel,
    image_size: int,
    seed: int,
) -> Candidates:
    """Return the trusted networks among `count` of each space, with MACs in a range.

    MACs are those at 224 pixels, features those at `image_size`. Raises `SpaceError` if there are
    none.
    """
    window = Window(macs=macs)
    specs, costs = [], []
    for name in spaces:
        for one in sample(space_by_name(name), count, seed=seed, window=window):
            if accuracy.plausible(one.cost):  # before its spec is built, which takes longer
                specs.append(one.spec)
                costs.append(one.cost)
    networks = assess(specs, accuracy, costs=costs)
    trusted = tuple(network for network, good in networks if good)
    if not trusted:
        raise SpaceError(
            f"of {count:,} networks of {', '.join(spaces)} with {window} none is as the published "
            "ones: draw more (--candidates)"
        )
    rows = np.stack([features(network.spec, image_size=image_size) for network in trusted])
    return Candidates(trusted, rows, count * len(spaces))


def assess(
    specs: Sequence[Any], accuracy: AccuracyModel, *, costs: Sequence[Complexity] | None = None
) -> list[tuple[Candidate, bool]]:
    """Return RegNets with their predicted errors, and whether each prediction can be trusted."""
    if not specs:
        return []
    costs = costs or [complexity(spec) for spec in specs]
    rows = np.stack([traits(s, c) for s, c in zip(specs, costs, strict=True)])
    columns: Any = (accuracy.predict(rows), accuracy.extrapolates(rows), accuracy.trusted(rows))
    return [
        (Candidate(spec, cost, float(error), bool(beyond)), bool(good))
        for spec, cost, error, beyond, good in zip(specs, costs, *columns, strict=True)
    ]
