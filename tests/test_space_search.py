"""The search on a machine that takes as long as a formula says; and the real stopwatch, briefly."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from simulated_machine import SimulatedMachine, formula

from regnet.errors import SpaceError
from regnet.space import search as module
from regnet.space.accuracy_model import fit
from regnet.space.candidates import SPACES, draw, require_spaces
from regnet.space.measure import Setup, Stopwatch, setup
from regnet.space.published import published
from regnet.space.search import Found, Measured, Plan, front, search
from regnet.spec import RegNetSpec

PLAN = Plan(latency_ms=8.0, candidates=2_000, measure=36)


@pytest.fixture(scope="module")
def found() -> Found:
    return search(PLAN, stopwatch=SimulatedMachine())


def test_the_pick_is_within_the_budget_and_the_best_of_what_was_measured(found: Found):
    assert formula(found.pick.network.spec) == found.pick.ms == found.verified.median <= 8
    within = [one.network.error for one in found.measured if one.ms <= 8]
    assert found.pick.network.error == min(within)
    errors = [one.network.error for one in found.runners_up]
    assert errors == sorted(errors)
    assert all(one.ms <= 8 for one in found.runners_up)
    assert found.pick not in found.runners_up


def test_it_finds_what_measuring_everything_would(found: Found):
    accuracy = fit(published())
    macs = [one.network.cost.macs for one in found.measured]
    window = (min(macs), max(macs))
    everything = draw(SPACES, 2_000, macs=window, accuracy=accuracy, image_size=224, seed=1)
    best = min(one.error for one in everything.networks if formula(one.spec) <= 8)
    assert found.pick.network.error < best + 0.1
    assert len(found.measured) <= 36 < len(everything.networks)


def test_it_measures_where_it_matters(found: Found):
    """After the first, spread ones, nothing is far over the budget, and predictions hold."""
    chosen = found.measured[12:]
    assert len(chosen) == found.ahead > 0
    assert all(one.predicted_ms and one.ms < 1.2 * 8 for one in chosen)
    assert found.ahead_error is not None
    assert found.ahead_error < 0.1
    assert found.latency.measured == len(found.measured) + len(found.rivals)


def test_at_the_latency_of_published_networks_something_as_accurate_is_found(found: Found):
    sought = [rival for rival in found.rivals if rival.sought]
    assert {rival.published.name for rival in sought} >= {"regnetx-400mf", "regnety-400mf"}
    for rival in sought:
        assert rival.published.ms == formula(rival.published.network.spec) <= 8
        assert rival.better is None or rival.better.ms <= rival.published.ms
    assert sum(rival.beaten for rival in sought) >= len(sought) / 2
    for rival in sought:
        error = rival.published.published_error
        assert error is not None
        assert rival.better is None or rival.beaten == (rival.better.network.error <= error)
    assert any(not rival.sought for rival in found.rivals)


def test_the_front_is_of_what_nothing_beats(found: Found):
    for one in found.front:
        assert not any(
            other.ms <= one.ms and other.network.error < one.network.error
            for other in found.measured
        )
    times = [one.ms for one in found.front]
    assert times == sorted(times)
    assert front([]) == []


def test_the_same_seed_finds_the_same(found: Found):
    again = search(PLAN, stopwatch=SimulatedMachine())
    assert again.measured == found.measured
    assert again.pick == found.pick


def test_a_pick_that_is_too_slow_alone_gives_way_to_the_next(found: Found):
    first = found.pick.network.spec
    machine = SimulatedMachine({first: 1.5})
    other = search(PLAN, stopwatch=machine)
    assert other.pick.network.spec == found.runners_up[0].network.spec
    slow = next(one for one in other.measured if one.network.spec == first)
    assert slow.ms == pytest.approx(1.5 * formula(first))


def test_one_space_alone():
    plan = replace(PLAN, spaces=("RegNetX",), candidates=1_000, measure=14)
    found = search(plan, stopwatch=SimulatedMachine())
    assert all(one.network.spec.se_ratio is None for one in found.measured)
    assert all(rival.published.name.startswith("regnetx") for rival in found.rivals)


def test_a_budget_that_nothing_meets():
    plan = replace(PLAN, latency_ms=0.3, spaces=("regnetx",), candidates=500, measure=12)
    with pytest.raises(
        SpaceError, match=r"no network was found within 0\.3 ms: the fastest of \d+"
    ):
        search(plan, stopwatch=SimulatedMachine())


def test_what_cannot_be_searched():
    with pytest.raises(SpaceError, match="spaces that can be searched are regnetx, regnety"):
        require_spaces(["anynetx-a"])
    with pytest.raises(SpaceError, match="more than 0 ms"):
        Plan(latency_ms=0)
    with pytest.raises(SpaceError, match="use --device CPU"):
        setup("f32", device="GPU")
    with pytest.raises(SpaceError, match="'fp8' is none of f32, bf16, int8"):
        setup("fp8")
    with pytest.raises(SpaceError, match="32 or more"):
        setup("f32", image_size=31)


def test_what_slows_down_the_machine_cancels_out(monkeypatch: pytest.MonkeyPatch):
    from regnet.benchmarking.timing import Contestant, Timing
    from regnet.space import measure as timing_module

    slowness = iter((1.0, 3.0))

    def measured(contestants: Sequence[Contestant], **_: object) -> dict[str, Timing]:
        slow = next(slowness)
        times = {c.name: slow * (2.0 + number) / 1e3 for number, c in enumerate(contestants)}
        return {name: Timing(1.0, ((each,) * 3,) * 3) for name, each in times.items()}

    def contestant(self: Stopwatch, spec: RegNetSpec, path: object) -> Contestant:
        return Contestant(str(path), lambda: None)

    monkeypatch.setattr(timing_module, "measure", measured)
    monkeypatch.setattr(Stopwatch, "_contestant", contestant)
    stopwatch = Stopwatch(Setup())
    specs = [published()[0].spec] * 2
    assert stopwatch.comparable(specs) == pytest.approx([3.0, 4.0])
    assert stopwatch.comparable(specs) == pytest.approx([3.0, 4.0])
    assert stopwatch.drift == pytest.approx([2.0, 6.0])


def test_real_latencies():
    pytest.importorskip("onnx")
    stopwatch = Stopwatch(setup("int8", image_size=64))
    small, large = (
        stopwatch.latencies([spec], rounds=1)[0]
        for spec in (published()[0].spec, published()[5].spec)
    )
    assert 0 < small.median <= small.p90
    assert small.median < large.median  # 16 times the work
    assert len(stopwatch.drift) == 2


def test_the_measured_are_not_drawn_again(found: Found):
    specs = [one.network.spec for one in found.measured]
    assert len(set(specs)) == len(specs)
    assert isinstance(found.measured[0], Measured)
    assert set(found.front) <= set(module.front(found.measured))
