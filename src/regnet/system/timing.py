"""Competitors measured in turns: interleaved rounds, medians, percentiles, paired ratios."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np

Clock = Callable[[], float]
Turn = tuple[int, "Contestant"]
Watch = Callable[[Sequence[Turn]], Iterable[Turn]]

MIN_ROUNDS, MAX_ROUNDS = 3, 1000
MAX_CALLS = 1000
PAUSE = 0.005
"""Seconds before each turn: threads of the one before that still wait for work go to sleep."""


@dataclass(frozen=True)
class Contestant:
    """One way to do a job: a call of `run` does `work` units of it (images, operations)."""

    name: str
    run: Callable[[], object]
    work: float = 1.0


@dataclass(frozen=True)
class Timing:
    """What was measured of a contestant: the seconds of every call, round by round."""

    work: float
    rounds: tuple[tuple[float, ...], ...]

    @property
    def rates(self) -> tuple[float, ...]:
        """Units of work a second, in each round."""
        return tuple(self.work * len(calls) / sum(calls) for calls in self.rounds)

    @property
    def rate(self) -> float:
        """Units of work a second: the median of the rounds."""
        return statistics.median(self.rates)

    @property
    def calls(self) -> int:
        """How many calls were timed."""
        return sum(map(len, self.rounds))

    def percentile(self, percent: float) -> float:
        """Return the seconds that so many percent of all calls took at most; 0 is the fastest."""
        return float(np.percentile([t for calls in self.rounds for t in calls], percent))


def ratio(a: Timing, b: Timing) -> float:
    """Return how many times faster `a` did its work than `b`: the median over their rounds.

    Each round compares what ran side by side, so what slows down both cancels out.
    """
    return statistics.median(x / y for x, y in zip(a.rates, b.rates, strict=True))


def measure(
    contestants: Sequence[Contestant],
    *,
    rounds: int | None = None,
    seconds: float = 30.0,
    turn: float = 0.1,
    clock: Clock = time.perf_counter,
    watch: Watch = iter,
) -> dict[str, Timing]:
    """Return the timing of each contestant, by name.

    All are warmed up; then they take turns, each once a round, and every round begins with another
    one. A turn is as many calls as take about `turn` seconds. There are `rounds` rounds, or as many
    as fit in `seconds`, but 3 at least. `watch` sees the turns as they begin.
    """
    calls = [_calls(contestant, turn, clock) for contestant in contestants]
    if rounds is None:
        one_round = sum(count * each for count, each in calls)
        rounds = min(max(MIN_ROUNDS, int(seconds / max(one_round, 1e-9))), MAX_ROUNDS)
    counts = {c.name: count for c, (count, _) in zip(contestants, calls, strict=True)}
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in counts}
    for _, contestant in watch(schedule(contestants, rounds)):
        count = counts[contestant.name]
        time.sleep(PAUSE)
        if count > 1:  # the first call after a pause is not counted
            contestant.run()
        turn_times = tuple(_seconds(contestant.run, clock) for _ in range(count))
        found[contestant.name].append(turn_times)
    return {c.name: Timing(c.work, tuple(found[c.name])) for c in contestants}


def schedule(contestants: Sequence[Contestant], rounds: int) -> list[Turn]:
    """Return the turns of all rounds, with their round; each round starts one contestant later."""
    turns: list[Turn] = []
    for number in range(rounds):
        first = number % len(contestants)
        turns += zip(repeat(number), [*contestants[first:], *contestants[:first]], strict=False)
    return turns


def _calls(contestant: Contestant, turn: float, clock: Clock) -> tuple[int, float]:
    """Warm a contestant up; return how many calls make a turn, and the seconds of one."""
    spent = each = _seconds(contestant.run, clock)
    while spent < turn:
        each = _seconds(contestant.run, clock)
        spent += max(each, turn / MAX_CALLS)
    return min(max(1, math.ceil(turn / max(each, 1e-9))), MAX_CALLS), each


def _seconds(run: Callable[[], object], clock: Clock) -> float:
    start = clock()
    run()
    return clock() - start


def side_by_side(run: Callable[[], object], *, workers: int, seconds: float = 0.2) -> Contestant:
    """Return a contestant that calls `run` from `workers` threads, for about `seconds` a call.

    Its work is the number of calls; it has no name yet.
    """
    run()
    each = min(_seconds(run, time.perf_counter) for _ in range(2))
    calls = workers * min(max(2, round(seconds / max(each, 1e-9))), MAX_CALLS)

    def all_calls() -> None:
        with ThreadPoolExecutor(workers) as pool:
            for _ in pool.map(lambda _: run(), range(calls)):
                pass

    return Contestant("", all_calls, calls)
