"""Turns, warm-up, medians and percentiles, with a clock that the contestants move."""

import numpy as np
import pytest

from regnet.system import timing
from regnet.system.timing import Contestant, Timing, measure, ratio, schedule, side_by_side


class Bench:
    """A clock, and contestants that take as long as they are told and leave their name."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now

    def contestant(self, name: str, seconds: float, *, work: float = 1.0) -> Contestant:
        def run() -> None:
            self.now += seconds
            self.log.append(name)

        return Contestant(name, run, work)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(timing, "PAUSE", 0.0)
    return Bench()


def test_each_round_has_every_contestant_and_begins_one_later(bench: Bench) -> None:
    entrants = [bench.contestant(name, 1.0) for name in "abc"]
    turns = [(number, c.name) for number, c in schedule(entrants, 4)]
    assert [name for _, name in turns] == list("abcbcacababc")
    assert [number for number, _ in turns] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_warm_up_comes_first_then_turns_in_rotation(bench: Bench) -> None:
    entrants = [bench.contestant("a", 1.0), bench.contestant("b", 2.0)]
    found = measure(entrants, rounds=2, clock=bench.clock)
    assert bench.log == ["a", "b", *"ab", *"ba"]
    assert found["a"].rounds == ((1.0,), (1.0,))
    assert found["b"].rounds == ((2.0,), (2.0,))


def test_short_calls_are_repeated_and_the_first_of_a_turn_is_not_counted(bench: Bench) -> None:
    found = measure([bench.contestant("a", 0.03125)], rounds=3, turn=0.125, clock=bench.clock)
    assert [len(calls) for calls in found["a"].rounds] == [4, 4, 4]
    assert len(bench.log) == 4 + 3 * (1 + 4)
    assert found["a"].calls == 12


@pytest.mark.parametrize(("seconds", "rounds"), [(0.0, 3), (30.0, 10), (31.0, 10), (1e9, 1000)])
def test_as_many_rounds_as_fit_but_three_at_least(
    bench: Bench, seconds: float, rounds: int
) -> None:
    entrants = [bench.contestant("a", 1.0), bench.contestant("b", 2.0)]
    found = measure(entrants, seconds=seconds, clock=bench.clock)
    assert len(found["a"].rounds) == len(found["b"].rounds) == rounds


def test_watch_sees_every_turn(bench: Bench) -> None:
    seen = []

    def watch(turns):  # type: ignore[no-untyped-def]
        for turn in turns:
            seen.append(turn[1].name)
            yield turn

    measure([bench.contestant(n, 1.0) for n in "ab"], rounds=2, clock=bench.clock, watch=watch)
    assert seen == ["a", "b", "b", "a"]


def test_rates_are_work_a_second_and_their_median_counts() -> None:
    found = Timing(8.0, ((1.0, 3.0), (1.0, 1.0), (16.0, 16.0)))
    assert found.rates == (4.0, 8.0, 0.5)
    assert found.rate == 4.0


def test_percentiles_are_those_of_numpy() -> None:
    times = np.random.default_rng(0).gamma(2.0, size=(7, 13))
    found = Timing(1.0, tuple(map(tuple, times.tolist())))
    for percent in (0, 50, 90, 99):
        assert found.percentile(percent) == np.percentile(times.ravel(), percent)
    assert found.percentile(0) == times.min()


def test_ratios_pair_the_rounds() -> None:
    """What slows a whole round down does not show, as it would in a ratio of medians."""
    a = Timing(1.0, ((1.0,), (10.0,), (1.0,), (100.0,)))
    b = Timing(1.0, ((2.0,), (20.0,), (2.0,), (200.0,)))
    assert ratio(a, b) == 2.0
    assert ratio(b, a) == 0.5


def test_side_by_side_counts_its_calls() -> None:
    count = []
    found = side_by_side(lambda: count.append(1), workers=3, seconds=0.0)
    before = len(count)
    found.run()
    assert len(count) - before == found.work == 6


def test_side_by_side_lets_errors_out() -> None:
    answers = iter([None, None, None])

    def run() -> None:
        try:
            next(answers)
        except StopIteration:
            raise ValueError("broken") from None

    found = side_by_side(run, workers=2, seconds=0.0)
    with pytest.raises(ValueError, match="broken"):
        found.run()
