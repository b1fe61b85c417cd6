"""Find the most accurate RegNet within a latency on this machine: measured, not only predicted.

Networks of the constrained spaces are drawn, a few are measured, and a latency model is fitted to
them. With the accuracy model it chooses the networks to measure next. The result is measured twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from regnet.network.complexity import complexity
from regnet.network.spec import RegNetSpec, Spec, spec_by_name
from regnet.space import candidates
from regnet.space.accuracy_model import AccuracyModel, LeaveOneOut, fit, leave_one_out
from regnet.space.candidates import Candidates, Measured, Rival
from regnet.space.latency_model import LatencyModel, features
from regnet.space.latency_model import fit as fit_latency
from regnet.space.measure import REFERENCE, Latency, LatencySetup, Stopwatch
from regnet.space.plans import FIRST, SearchExtent
from regnet.space.published import Published, published
from regnet.statistics.draws import Reals
from regnet.system.errors import SpaceError
from regnet.system.machine import Machine, this_machine

_BROAD: Final = 2_000  # networks of each space to take the first ones from
_AT_ONCE: Final = 6
_LEAST_GAIN: Final = 0.01  # points of top-1 error that make a measurement worthwhile
_LEAST_MACS, _MOST_MACS = 50_000_000, 40_000_000_000
_AROUND: Final = (6, 4)  # times below and above the MACs that the budget should allow
_OF_INTEREST: Final = (0.2, 1.25)  # range of latencies for the front, as shares of the budget
_FINALISTS: Final = 6
_FINAL_ROUNDS: Final = 15
UNSTEADY: Final = 1.1
"""Ratio of the reference's slowest to its fastest latency on an unsteady machine."""
_BUSY: Final = 1.5  # the same ratio on a machine too busy for a search
_OTHER_WORK: Final = 0.25  # share of the machine that other processes take when it is too busy

Say = Callable[[str], None]


class Plan(SearchExtent):
    """A search for the lowest error within `latency_ms`, of networks run as in `setup`.

    Raises `SpaceError` if a value is out of range.
    """

    latency_ms: float
    setup: LatencySetup = LatencySetup()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.latency_ms > 0 or self.candidates < 1 or self.measure < FIRST:
            raise SpaceError(
                f"a latency of {self.latency_ms} ms, {self.candidates} candidates, {self.measure} "
                f"measured: more than 0 ms, 1 candidate and {FIRST} measured are the least"
            )


@dataclass(frozen=True, kw_only=True)
class Found:
    """The result of a search.

    `pick` is the answer; it is a published network if no better one was found. `verified` is its
    latency measured once more, alone. `runners_up` are the next most accurate within the budget.
    `front` is the Pareto front, up to a little over the budget. `ahead` networks were predicted
    before they were measured; `ahead_error` is the median of |predicted / measured - 1| over them.
    `latency` is the model fitted to all measured networks.
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
    plan: Plan, *, stopwatch: Stopwatch | None = None, say: Say = lambda text: None
) -> Found:
    """Return the most accurate network within the latency, and how it was found.

    Raises `SpaceError` if no network is fast enough or the machine is busy with other work.
    """
    run = _Search(plan, fit(published()), stopwatch or Stopwatch(plan.setup), say)
    run.begin()
    run.follow()
    pick, verified, rest = run.choose()
    ahead = [abs(one.predicted_ms / one.ms - 1) for one in run.own if one.predicted_ms]
    near = (one for one in run.measured if one.ms <= _OF_INTEREST[1] * plan.latency_ms)
    return Found(
        plan=plan,
        machine=this_machine(),
        pick=pick,
        verified=verified,
        runners_up=tuple(rest),
        front=tuple(candidates.front(near)),
        rivals=run.rivals(),
        measured=tuple(run.own),
        drawn=run.candidates.drawn,
        trusted=len(run.candidates.networks),
        latency=run.model,
        ahead=len(ahead),
        ahead_error=float(np.median(ahead)) if ahead else None,
        accuracy=leave_one_out(published()),
        drift=tuple(run.stopwatch.drift),
        other_work=run.stopwatch.other_work(),
    )


class _Search:
    """The state of a search: `measured` are the published networks, then those that were drawn."""

    def __init__(self, plan: Plan, accuracy: AccuracyModel, stopwatch: Stopwatch, say: Say) -> None:
        self.plan, self.accuracy, self.stopwatch, self._say = plan, accuracy, stopwatch, say
        self.measured: list[Measured] = []
        self._rows: list[Reals] = []  # features of each measured network
        self.candidates: Candidates
        self.model: LatencyModel

    @property
    def own(self) -> list[Measured]:
        """The measured networks that were drawn."""
        return [one for one in self.measured if not one.name]

    @property
    def published(self) -> list[Measured]:
        """The measured networks that were published."""
        return [one for one in self.measured if one.name]

    def begin(self) -> None:
        """Measure published networks and a few others around the budget, and fit the model."""
        self.stopwatch.comparable([])
        reference = complexity(spec_by_name(REFERENCE)).macs
        macs = reference * self.plan.latency_ms / self.stopwatch.drift[0]  # about the budget's
        self._measure_published(macs)
        self.candidates = self._draw(_BROAD, macs / _AROUND[0], macs * _AROUND[1])
        order = np.argsort([network.cost.macs for network in self.candidates.networks])
        places = np.linspace(0, len(order) - 1, min(FIRST, len(order))).round().astype(int)
        self._measure([int(order[place]) for place in places], predicted=None)
        self._require_idle()
        self.candidates = self._draw(self.plan.candidates, *self._interesting_macs())

    def follow(self) -> None:
        """Measure promising candidates until none is left or the limit is reached."""
        while (left := self.plan.measure - len(self.own)) > 0:
            chosen = self._worth_measuring(min(left, _AT_ONCE))
            if not chosen:
                return
            self._measure(chosen, predicted=self.model.predict(self.candidates.rows))

    def rivals(self) -> tuple[Rival, ...]:
        """Return each published network beside the best of the others that is as fast."""
        known = sorted(self.published, key=lambda one: one.network.cost.macs)
        return tuple(candidates.rival(one, self.own, self.plan.latency_ms) for one in known)

    def choose(self) -> tuple[Measured, Latency, list[Measured]]:
        """Return the best network, its latency measured again, and the next best.

        The most accurate ones are measured again for longer; those that are too slow drop out.
        """
        self._require_idle()
        while finalists := self._finalists():
            self._say(f"measuring the {len(finalists)} most accurate again")
            specs = [one.network.spec for one in finalists]
            latencies = self.stopwatch.latencies(specs, rounds=_FINAL_ROUNDS)
            for spec, latency in zip(specs, latencies, strict=True):
                self._set_latency(spec, latency.median)
            self._require_idle()
            if (verified := self._verified(specs)) is not None:
                best, *rest = self._finalists()
                return best, verified, rest
        raise SpaceError(self._refusal())

    def _verified(self, specs: Sequence[Spec]) -> Latency | None:
        """Return the best network's latency, measured alone, once it is within the budget.

        None if the best network is not among `specs`, which have been measured again.
        """
        for one in self._finalists():
            if one.network.spec not in specs:
                return None
            latency = self.stopwatch.latencies([one.network.spec], rounds=_FINAL_ROUNDS)[0]
            self._set_latency(one.network.spec, latency.median)
            if latency.median <= self.plan.latency_ms:
                return latency
        return None

    def _measure_published(self, macs: float) -> None:
        """Measure the published networks that are about as fast as the budget.

        Larger ones follow while the largest is within it, smaller ones while none is.
        """
        known = sorted(
            (one for one in published() if one.family in self.plan.spaces),
            key=lambda one: one.cost.macs,
        )
        costs = [one.cost.macs for one in known]
        first, last = np.searchsorted(costs, (macs / 10, 2 * macs)).tolist()
        first, last = min(first, len(known) - 2), max(last, first + 1, 2)
        self._measure_known(known[first:last])
        while last < len(known) and any(map(self._fits, self.measured[-2:])):
            self._measure_known(known[last : last + 2])
            last += 2
        while first > 0 and not any(map(self._fits, self.measured)):
            self._measure_known(known[max(first - 2, 0) : first])
            first -= 2

    def _measure_known(self, some: Sequence[Published]) -> None:
        self._say(f"measuring {len(some)} published networks")
        specs = [one.spec for one in some]
        networks = candidates.assess(specs, self.accuracy)
        for one, (network, _), ms in zip(some, networks, self._times(specs), strict=True):
            self.measured.append(
                Measured(network=network, ms=ms, name=one.name, published_error=one.percent)
            )

    def _measure(self, places: Sequence[int], *, predicted: Reals | None) -> None:
        """Measure candidates and fit the model to all measured networks."""
        networks = [self.candidates.networks[place] for place in places]
        count = len(self.own)
        self._say(f"measuring networks {count + 1} to {count + len(networks)}")
        times = self._times([network.spec for network in networks])
        for place, network, ms in zip(places, networks, times, strict=True):
            expected = None if predicted is None else float(predicted[place])
            self.measured.append(Measured(network=network, ms=ms, predicted_ms=expected))
        times = [one.ms for one in self.measured]
        self.model = fit_latency(np.stack(self._rows), np.array(times))

    def _times(self, specs: Sequence[RegNetSpec]) -> list[float]:
        """Return comparable milliseconds of networks, measured in groups; keep their features."""
        size = self.plan.setup.image_size
        self._rows += [features(spec, image_size=size) for spec in specs]
        groups = [specs[start : start + _AT_ONCE] for start in range(0, len(specs), _AT_ONCE)]
        return [ms for group in groups for ms in self.stopwatch.comparable(group)]

    def _fits(self, one: Measured) -> bool:
        return one.ms <= self.plan.latency_ms

    def _draw(self, count: int, low: float, high: float) -> Candidates:
        """Return candidates with MACs in a range, within what the accuracy model knows."""
        self._say(f"drawing {count:,} networks of {' and '.join(self.plan.spaces)}")
        least = min(max(round(low), _LEAST_MACS), _MOST_MACS // 4)
        return candidates.draw(
            self.plan.spaces,
            count,
            macs=(least, max(min(round(high), _MOST_MACS), 2 * _LEAST_MACS)),
            accuracy=self.accuracy,
            image_size=self.plan.setup.image_size,
            seed=self.plan.seed,
        )

    def _interesting_macs(self) -> tuple[int, int]:
        """Return the range of MACs of networks about as fast as the front."""
        expected = self.model.predict(self.candidates.rows) / self.plan.latency_ms
        low, high = _OF_INTEREST
        places = np.flatnonzero((expected >= low) & (expected <= high))
        if not len(places):
            places = np.array([expected.argmin()])
        macs = [self.candidates.networks[place].cost.macs for place in places]
        return min(macs), max(macs)

    def _worth_measuring(self, count: int) -> list[int]:
        """Return candidates that may be more accurate than all known networks that are as fast.

        Every second one is for the budget, the others for the latency of a published network, in
        turn; unbeaten ones only, if there are any.
        """
        rivals = [one for one in self.rivals() if one.sought]
        unbeaten = [one.published.ms for one in rivals if not one.beaten]
        limits = unbeaten or [one.published.ms for one in rivals]
        known = [(one.ms, one.error) for one in self.own]
        specs = {one.network.spec for one in self.own}
        measured = np.array([network.spec in specs for network in self.candidates.networks])
        expected, errors = self.model.predict(self.candidates.rows), self.candidates.errors
        chosen: list[int] = []
        for number in range(2 * max(count, len(limits), 1)):
            turn = len(self.own) + number // 2
            limit = limits[turn % len(limits)] if number % 2 and limits else self.plan.latency_ms
            # The expected gain: the reduction of error, times the chance to be as fast.
            best = min((error for ms, error in known if ms <= limit), default=errors.max() + 1)
            gain = self.model.chance_within(self.candidates.rows, limit) * (best - errors)
            gain[measured] = gain[chosen] = 0
            place = int(gain.argmax())
            if gain[place] > _LEAST_GAIN:
                chosen.append(place)
                known.append((float(expected[place]), float(errors[place])))
            if len(chosen) == count:
                break
        return chosen

    def _finalists(self) -> list[Measured]:
        """Return the most accurate of the measured networks within the budget."""
        return sorted(filter(self._fits, self.measured), key=lambda one: one.error)[:_FINALISTS]

    def _set_latency(self, spec: Spec, ms: float) -> None:
        self.measured = [
            replace(one, ms=ms) if one.network.spec == spec else one for one in self.measured
        ]

    def _require_idle(self) -> None:
        """Raise `SpaceError` if the machine is so busy that the pick would be faster later."""
        others = self.stopwatch.other_work() or 0.0
        low, high = min(self.stopwatch.drift), max(self.stopwatch.drift)
        if others >= _OTHER_WORK or high >= _BUSY * low:
            raise SpaceError(
                f"the machine is busy: other processes took {others:.0%} of it, and {REFERENCE} "
                f"took {low:.3g} to {high:.3g} ms. Latencies would be too high: search again when "
                "it is idle"
            )

    def _refusal(self) -> str:
        low, high = min(self.stopwatch.drift), max(self.stopwatch.drift)
        unsteady = (
            f". The machine is busy with other work: {REFERENCE} took {low:.3g} ms at best and "
            f"{high:.3g} at worst; try again when it is idle"
        )
        fastest = min(one.ms for one in self.measured)
        return (
            f"no network was found within {self.plan.latency_ms:g} ms: the fastest of "
            f"{len(self.measured)} measured takes {fastest:.3g} ms; allow more, or take a lower "
            f"--resolution or another --precision{unsteady if high >= UNSTEADY * low else ''}"
        )
