"""Samples of the design space: what they may hold, what they cost, and that seeds repeat them."""

import hashlib
import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regnet.network.complexity import complexity
from regnet.network.spec import PUBLISHED_NAMES, AnyNetSpec, RegNetSpec, spec_by_name, spec_to_dict
from regnet.space.networks import Frame, Lines, on_lines
from regnet.space.sampling import (
    SPACES,
    Sampled,
    Window,
    largest_acts,
    largest_params,
    sample,
    space_by_name,
)
from regnet.statistics.draws import Uniforms, WeightedValues, evenly, log_uniform
from regnet.system.errors import SpaceError, UnknownModelError

SMALL_IMAGES = Frame(image_size=64, stem_width=16, stem_stride=1, classes=200)


def drawn(name: str, count: int = 300, **options: object) -> list[Sampled]:
    return list(sample(SPACES[name], count, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("frame", [Frame(), SMALL_IMAGES])
def test_costs_are_those_of_the_networks(name: str, frame: Frame) -> None:
    for one in drawn(name, frame=frame):
        assert complexity(one.spec, image_size=frame.image_size) == one.cost
        assert one.spec.classes == frame.classes
        assert one.spec.stem_width == frame.stem_width


@pytest.mark.parametrize("name", SPACES)
def test_networks_differ_and_a_smaller_sample_begins_a_larger(name: str) -> None:
    many = [one.spec for one in drawn(name)]
    assert len({(spec.stages, spec.se_ratio) for spec in many}) == len(many)
    assert [one.spec for one in drawn(name, 20)] == many[:20]
    assert [one.spec for one in drawn(name, 20, seed=1)] != many[:20]


def test_the_same_seed_draws_the_same_on_every_machine() -> None:
    lines = [json.dumps(spec_to_dict(s.spec)) for name in SPACES for s in drawn(name, 50, seed=7)]
    found = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert found == "95ae54587d93e005b22b982a169e084027b927a3d5ab98e1779962b033b49139"


def test_the_spaces_of_stages_are_each_within_the_one_before() -> None:
    for one in drawn("anynetx-a"):
        assert all(s.depth <= 16 and s.bottleneck in (1, 2, 4) for s in one.spec.stages)
        assert len(one.spec.stages) == 4
    columns = {name: [one.spec.stages for one in drawn(name)] for name in SPACES if name[0] == "a"}
    for name in ("anynetx-b", "anynetx-c", "anynetx-d", "anynetx-e"):
        assert all(len({s.bottleneck for s in stages}) == 1 for stages in columns[name])
    for name in ("anynetx-c", "anynetx-d", "anynetx-e"):  # narrow stages have narrower groups
        groups = [{s.group_width for s in stages if s.inner_width > 32} for stages in columns[name]]
        assert all(len(found) <= 1 for found in groups)
    for name in ("anynetx-d", "anynetx-e"):
        assert all(_rising([s.width for s in stages]) for stages in columns[name])
    assert all(_rising([s.depth for s in stages]) for stages in columns["anynetx-e"])
    assert not all(_rising([s.depth for s in stages]) for stages in columns["anynetx-d"])
    assert not all(len({s.bottleneck for s in stages}) == 1 for stages in columns["anynetx-a"])


def _rising(values: list[int]) -> bool:
    return values == sorted(values)


def test_regnets_keep_to_their_ranges() -> None:
    for one in drawn("regnet"):
        spec = one.spec
        assert isinstance(spec, RegNetSpec)
        assert spec.d < 64
        assert spec.w0 <= 256
        assert spec.wa <= 256
        assert 1.5 <= spec.wm <= 3
        assert spec.g <= 32
    for name, ratio in (("regnetx", None), ("regnety", 0.25)):
        for one in drawn(name):
            spec = one.spec
            assert isinstance(spec, RegNetSpec)
            assert (spec.b, spec.se_ratio) == (1, ratio)
            assert spec.d <= 40
            assert spec.wm >= 2
            cost = complexity(spec)
            macs = np.array([cost.macs], float)
            assert cost.params <= largest_params(macs)[0]
            assert cost.acts <= largest_acts(macs)[0]


def test_the_published_networks_are_within_the_envelope() -> None:
    for name in PUBLISHED_NAMES:
        cost = complexity(spec_by_name(name))
        macs = np.array([cost.macs], float)
        assert cost.params <= largest_params(macs)[0]
        assert cost.acts <= 1.002 * largest_acts(macs)[0]  # regnety-6.4gf is 0.1 % above


def test_a_window_holds_all_and_an_empty_one_is_an_error() -> None:
    window = Window(macs=(360_000_000, 400_000_000), params=(0, 6_000_000))
    for one in drawn("regnetx", 100, window=window):
        assert 360_000_000 <= one.cost.macs <= 400_000_000
        assert one.cost.params <= 6_000_000
    empty = Window(macs=(10**9, 10**9))
    with pytest.raises(SpaceError, match=r"only \d different.*macs from 1,000,000,000.*widen"):
        drawn("anynetx-e", 5, window=empty)


def test_other_numbers_of_stages() -> None:
    for stages in (2, 3):
        for name in ("anynetx-e", "regnetx"):
            space = replace(SPACES[name], stages=stages)
            for one in islice(sample(space, 50, frame=SMALL_IMAGES), 50):
                assert len(one.spec.stages) == stages
                assert complexity(one.spec, image_size=64) == one.cost


def test_unknown_spaces_are_named() -> None:
    assert space_by_name("RegNetX") is SPACES["regnetx"]
    with pytest.raises(UnknownModelError, match=r"no design space.*'anynetx-f'.*anynetx-e"):
        space_by_name("anynetx-f")


def test_rising_rows_are_those_that_rejection_leaves() -> None:
    table = log_uniform(1, 6)
    numbers = Uniforms(3, "test").draw(600_000).reshape(-1, 3)
    free = table.pick(numbers)
    kept = free[(np.diff(free, axis=1) >= 0).all(axis=1)]
    rising = table.pick_rising(numbers)
    assert (np.diff(rising, axis=1) >= 0).all()
    found, expected = _shares(rising), _shares(kept)
    assert found.keys() == expected.keys()
    for row, share in expected.items():
        assert found[row] == pytest.approx(share, abs=0.003)


def _shares(rows: np.ndarray) -> dict[tuple[int, ...], float]:
    values, counts = np.unique(rows, axis=0, return_counts=True)
    return {tuple(v): c / len(rows) for v, c in zip(values.tolist(), counts.tolist(), strict=True)}


def test_log_uniform_is_what_rounding_reals_gives() -> None:
    numbers = Uniforms(0, "reals").draw(400_000)
    reals = np.rint(np.exp(np.log(8) + numbers * np.log(64 / 8)) / 8) * 8
    found, expected = (
        _shares(log_uniform(8, 64, step=8).pick(numbers)[:, None]),
        _shares(reals.astype(int)[:, None]),
    )
    for value, share in expected.items():
        assert found[value] == pytest.approx(share, abs=0.003)


def test_tables_reach_their_ends() -> None:
    for table in (evenly((3, 5, 9)), log_uniform(1, 16), WeightedValues([1, 2], [0.5, 0.1])):
        ends = table.pick(np.array([0.0, np.nextafter(1.0, 0.0)]))
        assert ends.tolist() == [table.values[0], table.values[-1]]


@given(
    d=st.integers(1, 63),
    w0=st.integers(1, 32).map(lambda k: 8 * k),
    wa=st.integers(1, 2560).map(lambda k: k / 10),
    wm=st.integers(1500, 3000).map(lambda k: k / 1000),
    g=st.sampled_from([1, 2, 4, 8, 16, 24, 32, 120]),
    b=st.sampled_from([1, 2, 4]),
    stages=st.integers(1, 5),
)
def test_networks_on_lines_are_those_of_the_specs(
    d: int, w0: int, wa: float, wm: float, g: int, b: int, stages: int
) -> None:
    spec = RegNetSpec(d=d, w0=w0, wa=wa, wm=wm, g=g, b=b)
    columns = (np.array([value]) for value in (d, w0, wa, wm, g, b))
    networks, lines = on_lines(Lines(*columns), stages)
    assert (len(lines.d) == 1) == (len(spec.stages) == stages)
    if len(lines.d):
        expected = [[s.depth, s.width, s.group_width, s.bottleneck] for s in spec.stages]
        assert networks.rows(0).tolist() == expected
        assert AnyNetSpec(stages=spec.stages).stages == spec.stages
