"""The search on a machine that takes as long as a formula says; and the real stopwatch, briefly."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from simulated_machine import SimulatedMachine, formula

from regnet.network.spec import RegNetSpec
from regnet.pages.report import Table
from regnet.space.accuracy_model import fit
from regnet.space.candidates import Measured, draw, front
from regnet.space.measure import LatencySetup, Stopwatch
from regnet.space.plans import SEARCHED, require_spaces
from regnet.space.published import published
from regnet.space.search import Found, Plan, search
from regnet.space.search_report import pick_line, remarks, search_report
from regnet.space.search_results import found_to_dict
from regnet.system.errors import SpaceError

PLAN = Plan(latency_ms=8.0, candidates=2_000, measure=36)


@pytest.fixture(scope="module")
def found() -> Found:
    return search(PLAN, stopwatch=SimulatedMachine())


def tables(found: Found) -> dict[str, list[list[str]]]:
    """Return the cells of each section's table, as they are shown."""
    return {
        section.title: [
            [cell if isinstance(cell, str) else cell.text for cell in row] for row in block.rows
        ]
        for section in search_report(found).sections
        for block in section.blocks
        if isinstance(block, Table)
    }


def test_the_pick_is_within_the_budget_and_the_best_of_what_was_measured(found: Found):
    assert formula(found.pick.network.spec) == found.pick.ms == found.verified.median <= 8
    known = [*found.measured, *(rival.published for rival in found.rivals)]
    assert found.pick.error == min(one.error for one in known if one.ms <= 8)
    errors = [one.error for one in found.runners_up]
    assert errors == sorted(errors)
    assert all(one.ms <= 8 for one in found.runners_up)
    assert found.pick not in found.runners_up


def test_it_finds_what_measuring_everything_would(found: Found):
    accuracy = fit(published())
    macs = [one.network.cost.macs for one in found.measured]
    window = (min(macs), max(macs))
    everything = draw(SEARCHED, 2_000, macs=window, accuracy=accuracy, image_size=224, seed=1)
    best = min(one.error for one in everything.networks if formula(one.spec) <= 8)
    assert found.pick.error < best + 0.1
    assert len(found.measured) <= 36 < len(everything.networks)


@pytest.mark.parametrize("budget", [4.0, 8.0, 25.0])
def test_a_pick_is_never_below_a_published_network_within_the_budget(budget: float):
    plan = Plan(latency_ms=budget, candidates=300, measure=12)
    found = search(plan, stopwatch=SimulatedMachine())
    known = [one for one in published() if formula(one.spec) <= budget]
    assert {one.name for one in known} & {rival.published.name for rival in found.rivals}
    assert found.pick.error <= min(one.percent for one in known)
    assert found.pick.ms <= budget


def test_a_published_pick_is_named_and_is_no_guess(found: Found):
    """Of 36 measured networks none is predicted to be better than this one was published."""
    assert found.pick.name == "regnety-600mf"
    assert found.pick.error == found.pick.published_error == pytest.approx(24.54)
    assert pick_line(found).startswith("regnety-600mf: 7.54 ms, of 8 allowed")
    assert pick_line(found).endswith("top-1 75.46 % (published)")
    (row,) = [row for row in tables(found)["Front"] if "<- the pick" in row[0]]
    assert row[:3] == ["regnety-600mf <- the pick", "7.54", "75.46 % (published)"]


def test_guesses_are_marked_wherever_they_are_printed(found: Found):
    other = found.runners_up[0]
    guess = replace(other, network=replace(other.network, extrapolated=True))
    rival = replace(found.rivals[0], better=guess, sought=True)
    marked = replace(found, pick=guess, front=(guess,), rivals=(rival,))
    accuracy = f"~{100 - guess.network.error:.2f} %"
    assert pick_line(marked).endswith(f"predicted top-1 {accuracy}")
    assert [row[2] for row in tables(marked)["Front"]] == [accuracy]
    assert [row[-1] for row in tables(marked)["Beside the published networks"]] == [accuracy]
    assert any(line.startswith("~: ") for line in remarks(marked))
    assert found_to_dict(marked, [])["pick"]["extrapolated"]


def test_a_network_has_one_latency(found: Found):
    """The answer is measured twice more; what is printed is the last figure, everywhere."""
    machine = SimulatedMachine({found.pick.network.spec: 1.04})
    other = search(PLAN, stopwatch=machine)
    assert other.pick.network.spec == found.pick.network.spec
    assert other.pick.ms == other.verified.median == 1.04 * found.pick.ms
    shown = [*other.front, *other.measured, *(rival.published for rival in other.rivals)]
    times = {one.ms for one in shown if one.network.spec == other.pick.network.spec}
    assert times == {other.pick.ms}


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (SimulatedMachine(others=0.3), "other processes took 30% of it"),
        (SimulatedMachine(slowdown=1.2), r"regnetx-400mf took 5\.31 to \d+.* ms"),
    ],
)
def test_a_busy_machine_is_an_error(machine: SimulatedMachine, reason: str):
    with pytest.raises(SpaceError, match=f"the machine is busy: .*{reason}.*when it is idle"):
        search(PLAN, stopwatch=machine)
    assert len(machine.drift) < 10  # before the long part of the search


def test_a_little_other_work_is_a_remark():
    plan = replace(PLAN, candidates=300, measure=12)
    found = search(plan, stopwatch=SimulatedMachine(others=0.1))
    assert any("ther processes took 10 %" in line for line in remarks(found))


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
        assert rival.better is None or rival.beaten == (rival.better.error <= error)
    assert any(not rival.sought for rival in found.rivals)


def test_the_front_is_of_what_nothing_beats(found: Found):
    known = [*found.measured, *(rival.published for rival in found.rivals)]
    for one in found.front:
        assert not any(other.ms <= one.ms and other.error < one.error for other in known)
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
    slow = next(r.published for r in other.rivals if r.published.network.spec == first)
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
        require_spaces(("anynetx-a",))
    with pytest.raises(SpaceError, match="more than 0 ms"):
        Plan(latency_ms=0)
    with pytest.raises(SpaceError, match="use --device CPU"):
        LatencySetup(device="GPU")
    with pytest.raises(SpaceError, match="precision must be 'f32', 'bf16' or 'int8', not 'fp8'"):
        LatencySetup(precision="fp8")
    with pytest.raises(
        SpaceError, match="image_size must be a whole number of at least 32, not 31"
    ):
        LatencySetup(image_size=31)


def test_what_slows_down_the_machine_cancels_out(monkeypatch: pytest.MonkeyPatch):
    from regnet.space import measure as timing_module
    from regnet.system.timing import Contestant, Timing

    slowness = iter((1.0, 3.0))

    def measured(contestants: Sequence[Contestant], **_: object) -> dict[str, Timing]:
        slow = next(slowness)
        times = {c.name: slow * (2.0 + number) / 1e3 for number, c in enumerate(contestants)}
        return {name: Timing(1.0, ((each,) * 3,) * 3) for name, each in times.items()}

    def contestant(self: Stopwatch, spec: RegNetSpec, path: object) -> Contestant:
        return Contestant(str(path), lambda: None)

    monkeypatch.setattr(timing_module, "measure", measured)
    monkeypatch.setattr(Stopwatch, "_contestant", contestant)
    stopwatch = Stopwatch(LatencySetup())
    specs = [published()[0].spec] * 2
    assert stopwatch.comparable(specs) == pytest.approx([3.0, 4.0])
    assert stopwatch.comparable(specs) == pytest.approx([3.0, 4.0])
    assert stopwatch.drift == pytest.approx([2.0, 6.0])


def test_real_latencies():
    pytest.importorskip("onnx")
    stopwatch = Stopwatch(LatencySetup(precision="int8", image_size=64))
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
    known = [*found.measured, *(rival.published for rival in found.rivals)]
    assert set(found.front) <= set(front(known))
