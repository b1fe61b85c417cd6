"""The most accurate RegNet within a latency on this machine: measured, not only predicted.

Networks of the constrained spaces are drawn; a few are measured, and a model of latency is fitted
to them; it and the model of accuracy choose which are worth measuring next. What is chosen in the
end has been measured twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, TypeVar

import numpy as np

from regnet.network.complexity import complexity
from regnet.network.spec import Spec, spec_by_name
from regnet.space.accuracy_model import AccuracyModel, LeaveOneOut, fit, leave_one_out
from regnet.space.candidates import Candidates, assess, draw, require_spaces
from regnet.space.latency_model import LatencyModel, Reals, features
from regnet.space.latency_model import fit as fit_latency
from regnet.space.measure import REFERENCE, Latency, LatencySetup, Stopwatch
from regnet.space.measured import Measured, Rival, front, rival
from regnet.space.published import Published, published
from regnet.system.errors import SpaceError
from regnet.system.machine import Machine, this_machine

_BROAD: Final = 2_000  # networks of each space from which the first are taken
_FIRST: Final = 12
_AT_ONCE: Final = 6
_LEAST_GAIN: Final = 0.01  # points of top-1 error that make a measurement worth its time
_LEAST_MACS, _MOST_MACS = 50_000_000, 40_000_000_000
_AROUND: Final = (6, 4)  # of the MACs that the budget should allow: a window for the first
_OF_INTEREST: Final = (0.2, 1.25)  # of the budget: latencies that the front is about
_FINALISTS: Final = 6
_FINAL_ROUNDS: Final = 15
UNSTEADY: Final = 1.1
"""How many times longer the reference takes at worst than at best on a machine that is busy."""
_BUSY: Final = 1.5  # the same, on a machine too busy to search on
_OTHER_WORK: Final = 0.25  # share of the machine that others take when it is too busy

Report = Callable[[str], None]
T = TypeVar("T")


class Measures(Protocol):
    """What measures networks: see `Stopwatch`."""

    drift: list[float]

    def latencies(self, specs: Sequence[Spec], *, rounds: int = ...) -> list[Latency]:
        """Return latencies."""

    def comparable(self, specs: Sequence[Spec], *, rounds: int = ...) -> list[float]:
        """Return milliseconds that can be compared with those of other calls."""

    def other_work(self) -> float | None:
        """Return the share of the machine that others took so far; None if it is not known."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is looked for: the lowest error within `latency_ms`, of networks as in `setup`.

    `candidates` are drawn from each space, up to `measure` of them measured. Raises `SpaceError`.
    """

    latency_ms: float
    setup: LatencySetup = field(default_factory=LatencySetup)
    spaces: tuple[str, ...] = ("regnetx", "regnety")
    candidates: int = 20_000
    measure: int = 48
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "spaces", require_spaces(self.spaces))
        if not self.latency_ms > 0 or self.candidates < 1 or self.measure < _FIRST:
            raise SpaceError(
                f"a latency of {self.latency_ms} ms, {self.candidates} candidates, {self.measure} "
                f"measured: more than 0 ms, 1 candidate and {_FIRST} measured are the least"
            )


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of a search.

    `pick` is the answer, a published network if none was found that is predicted to be better;
    `verified` is its latency measured once more, alone. `runners_up` are the next, the most
    accurate first, all measured within the budget. `front` is what is the most accurate at its
    latency, up to a little over the budget. `ahead_error` is the median of
    |predicted / measured - 1| over networks predicted before they were measured, `ahead` how many;
    `latency` the model after all of them.
    """

    plan: Plan
    machine: Machine
    pick: Measured
    verified: Latency
    runners_up: tuple[Measured, ...]
    front: tuple[Measured, ...]
    rivals: tuple[Rival, ...]
    measured: tuple[Measured, ...]
    drawn: int
    trusted: int
    latency: LatencyModel
    ahead: int
    ahead_error: float | None
    accuracy: LeaveOneOut
    drift: tuple[float, ...]
    other_work: float | None


def search(
    plan: Plan, *, stopwatch: Measures | None = None, say: Report = lambda text: None
) -> Found:
    """Return the most accurate network found within the latency, and how it was found.

    Raises `SpaceError` if none is within, or the machine is busy with other work;
    `MissingExtraError` without the extra `torch`.
    """
    known = published()
    hunt = _Hunt(plan, fit(known), stopwatch or Stopwatch(plan.setup), say)
    hunt.begin()
    hunt.follow()
    pick, verified, rest = hunt.choose()
    ahead = [abs(one.predicted_ms / one.ms - 1) for one in hunt.own if one.predicted_ms]
    return Found(
        plan=plan,
        machine=this_machine(),
        pick=pick,
        verified=verified,
        runners_up=tuple(rest),
        front=tuple(front(one for one in hunt.all if one.ms <= _OF_INTEREST[1] * plan.latency_ms)),
        rivals=hunt.rivals(),
        measured=tuple(hunt.own),
        drawn=hunt.candidates.drawn,
        trusted=len(hunt.candidates.networks),
        latency=hunt.model,
        ahead=len(ahead),
        ahead_error=float(np.median(ahead)) if ahead else None,
        accuracy=leave_one_out(known),
        drift=tuple(hunt.stopwatch.drift),
        other_work=hunt.stopwatch.other_work(),
    )


class _Hunt:
    """A search under way: what has been drawn, measured and learnt of it."""

    def __init__(
        self, plan: Plan, accuracy: AccuracyModel, stopwatch: Measures, say: Report
    ) -> None:
        self.plan, self.accuracy, self.stopwatch, self._say = plan, accuracy, stopwatch, say
        self.published: list[Measured] = []
        self.own: list[Measured] = []
        self._rows: list[Reals] = []
        self._taken: set[Spec] = set()
        self.candidates: Candidates
        self.model: LatencyModel

    @property
    def all(self) -> list[Measured]:
        """The published networks and the others that were measured."""
        return [*self.published, *self.own]

    def begin(self) -> None:
        """Measure published networks and a few others about the budget, and fit the model."""
        macs = self._affordable()
        self._measure_published(macs)
        self.candidates = self._draw(_BROAD, _window(macs / _AROUND[0], macs * _AROUND[1]))
        order = np.argsort([network.cost.macs for network in self.candidates.networks])
        places = np.linspace(0, len(order) - 1, min(_FIRST, len(order))).round().astype(int)
        self._measure([int(order[place]) for place in places], predicted=None)
        self._require_idle()
        self.candidates = self._draw(self.plan.candidates, self._interesting())

    def follow(self) -> None:
        """Measure what may be better than what is known, while there is such and it is allowed."""
        while (left := self.plan.measure - len(self.own)) > 0:
            chosen = self._worth_measuring(min(left, _AT_ONCE))
            if not chosen:
                return
            self._measure(chosen, predicted=self.model.predict(self.candidates.rows))

    def rivals(self) -> tuple[Rival, ...]:
        """Return the published networks, each beside the best that is known to be as fast."""
        budget = self.plan.latency_ms
        known = sorted(self.published, key=lambda one: one.network.cost.macs)
        return tuple(rival(one, self.own, budget) for one in known)

    def choose(self) -> tuple[Measured, Latency, list[Measured]]:
        """Return the best network, its latency measured again, and the next best.

        The most accurate ones, published or not, take turns for longer; those too slow then are
        out.
        """
        self._require_idle()
        while finalists := self._finalists():
            self._say(f"measuring the {len(finalists)} most accurate again")
            specs = [one.network.spec for one in finalists]
            again = self.stopwatch.latencies(specs, rounds=_FINAL_ROUNDS)
            for spec, latency in zip(specs, again, strict=True):
                self._set_latency(spec, latency.median)
            self._require_idle()
            if (verified := self._verified(specs)) is not None:
                best, *rest = self._finalists()
                return best, verified, rest
        raise SpaceError(self._refusal())

    def _verified(self, specs: Sequence[Spec]) -> Latency | None:
        """Return the latency of the best network, alone, once it is within the budget.

        None where the best is none of these, which are measured.
        """
        for one in self._finalists():
            if one.network.spec not in specs:
                return None
            latency = self.stopwatch.latencies([one.network.spec], rounds=_FINAL_ROUNDS)[0]
            self._set_latency(one.network.spec, latency.median)
            if latency.median <= self.plan.latency_ms:
                return latency
        return None

    def _affordable(self) -> float:
        """Return about how many MACs the budget allows, by those of the reference."""
        self.stopwatch.comparable([])
        reference = complexity(spec_by_name(REFERENCE)).macs
        return reference * self.plan.latency_ms / self.stopwatch.drift[0]

    def _measure_published(self, macs: float) -> None:
        """Measure the published networks that may be about as fast as the budget.

        Larger ones follow while the largest is within it, smaller ones while none is.
        """
        known = sorted(
            (one for one in published() if one.family in self.plan.spaces),
            key=lambda one: complexity(one.spec).macs,
        )
        costs = [complexity(one.spec).macs for one in known]
        first, last = np.searchsorted(costs, (macs / 10, 2 * macs)).tolist()
        first, last = min(first, len(known) - 2), max(last, first + 1, 2)
        self._measure_known(known[first:last])
        while last < len(known) and any(map(self._fits, self.published[-2:])):
            self._measure_known(known[last : last + 2])
            last += 2
        while first > 0 and not any(map(self._fits, self.published)):
            self._measure_known(known[max(first - 2, 0) : first])
            first -= 2

    def _measure_known(self, some: Sequence[Published]) -> None:
        self._say(f"measuring {len(some)} published networks")
        for group in _groups(some):
            found = self.stopwatch.comparable([one.spec for one in group])
            networks = assess([one.spec for one in group], self.accuracy)
            for one, (network, _), ms in zip(group, networks, found, strict=True):
                self.published.append(
                    Measured(network=network, ms=ms, name=one.name, published_error=one.percent)
                )
                self._rows.append(features(one.spec, image_size=self.plan.setup.image_size))

    def _fits(self, one: Measured) -> bool:
        return one.ms <= self.plan.latency_ms

    def _draw(self, count: int, macs: tuple[int, int]) -> Candidates:
        self._say(f"drawing {count:,} networks of {' and '.join(self.plan.spaces)}")
        return draw(
            self.plan.spaces,
            count,
            macs=macs,
            accuracy=self.accuracy,
            image_size=self.plan.setup.image_size,
            seed=self.plan.seed,
        )

    def _interesting(self) -> tuple[int, int]:
        """Return the least and most MACs of networks about as fast as the front."""
        expected = self.model.predict(self.candidates.rows) / self.plan.latency_ms
        low, high = _OF_INTEREST
        places = np.flatnonzero((expected >= low) & (expected <= high))
        if not len(places):
            places = np.array([expected.argmin()])
        macs = [self.candidates.networks[place].cost.macs for place in places]
        return _window(min(macs), max(macs))

    def _measure(self, places: Sequence[int], *, predicted: Reals | None) -> None:
        """Measure candidates, and learn from them."""
        for some in _groups(places):
            networks = [self.candidates.networks[place] for place in some]
            self._say(f"measuring networks {len(self.own) + 1} to {len(self.own) + len(some)}")
            found = self.stopwatch.comparable([network.spec for network in networks])
            for place, network, ms in zip(some, networks, found, strict=True):
                expected = None if predicted is None else float(predicted[place])
                self.own.append(Measured(network=network, ms=ms, predicted_ms=expected))
                self._rows.append(self.candidates.rows[place])
                self._taken.add(network.spec)
        self._fit()

    def _fit(self) -> None:
        # Published and own networks are measured one kind after the other, so rows are in order.
        times = [one.ms for one in self.all]
        self.model = fit_latency(np.stack(self._rows), np.array(times))

    def _worth_measuring(self, most: int) -> list[int]:
        """Return candidates that may well be more accurate than all known that are as fast.

        As fast as what: every other one as the budget asks, the rest as a published network each,
        those that are not beaten yet where there are such.
        """
        budget = self.plan.latency_ms
        rivals = [one for one in self.rivals() if one.sought]
        unbeaten = [one.published.ms for one in rivals if not one.beaten]
        others = unbeaten or [one.published.ms for one in rivals]
        known = [(one.ms, one.error) for one in self.own]
        expected = self.model.predict(self.candidates.rows)
        found: list[int] = []
        for number in range(2 * max(most, len(others), 1)):
            turn = len(self.own) + number // 2
            limit = budget if number % 2 == 0 or not others else others[turn % len(others)]
            place = self._most_promising(limit, known, found)
            if place is not None:
                found.append(place)
                known.append((float(expected[place]), float(self.candidates.errors[place])))
            if len(found) == most:
                break
        return found

    def _most_promising(
        self, limit: float, known: Sequence[tuple[float, float]], chosen: Sequence[int]
    ) -> int | None:
        """Return the candidate of the largest expected gain at a latency, None where there is none.

        The gain is by how much its error is less than that of all `known` (latency, error), times
        the chance that it is as fast.
        """
        errors = self.candidates.errors
        best = min((error for ms, error in known if ms <= limit), default=errors.max() + 1)
        gain = self.model.chance_within(self.candidates.rows, limit) * (best - errors)
        gain[list(chosen)] = 0
        taken = [network.spec in self._taken for network in self.candidates.networks]
        gain[np.array(taken)] = 0
        place = int(gain.argmax())
        return place if gain[place] > _LEAST_GAIN else None

    def _finalists(self) -> list[Measured]:
        """Return the most accurate within the budget, as far as is known."""
        within = [one for one in self.all if self._fits(one)]
        return sorted(within, key=lambda one: one.error)[:_FINALISTS]

    def _set_latency(self, spec: Spec, ms: float) -> None:
        for measured in (self.published, self.own):
            for place, one in enumerate(measured):
                if one.network.spec == spec:
                    measured[place] = replace(one, ms=ms)

    def _require_idle(self) -> None:
        """Raise `SpaceError` on a machine so busy that the pick would be faster later."""
        others = self.stopwatch.other_work() or 0.0
        if others < _OTHER_WORK and max(self.stopwatch.drift) < _BUSY * min(self.stopwatch.drift):
            return
        raise SpaceError(
            f"the machine is busy: other processes took {others:.0%} of it, and {REFERENCE} took "
            f"{min(self.stopwatch.drift):.3g} to {max(self.stopwatch.drift):.3g} ms. Latencies "
            "would be too high: search again when it is idle"
        )

    def _refusal(self) -> str:
        fastest = min(self.all, key=lambda one: one.ms)
        return (
            f"no network was found within {self.plan.latency_ms:g} ms: the fastest of "
            f"{len(self.all)} measured takes {fastest.ms:.3g} ms; allow more, or take a lower "
            f"--resolution or another --precision{self._unsteady()}"
        )

    def _unsteady(self) -> str:
        """Return what to add where the machine was busy with other work for a while."""
        low, high = min(self.stopwatch.drift), max(self.stopwatch.drift)
        if high < UNSTEADY * low:
            return ""
        return (
            f". The machine is busy with other work: {REFERENCE} took {low:.3g} ms at best and "
            f"{high:.3g} at worst; try again when it is idle"
        )


def _window(low: float, high: float) -> tuple[int, int]:
    """Return a window of MACs within what anything is known of."""
    least = min(max(round(low), _LEAST_MACS), _MOST_MACS // 4)
    return least, max(min(round(high), _MOST_MACS), 2 * _LEAST_MACS)


def _groups(items: Sequence[T]) -> list[Sequence[T]]:
    """Return the items in groups that are measured together."""
    return [items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)]
