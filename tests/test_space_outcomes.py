"""e_fit: nothing for what lies on a line, and never more than a plain search finds."""

import itertools
import math

import numpy as np
import pytest

from regnet.network.spec import AnyNetSpec, RegNetSpec, Stage, spec_by_name
from regnet.space.outcomes import fit_line
from regnet.space.sampling import sample, space_by_name


def of_widths(*stages: tuple[int, int]) -> AnyNetSpec:
    return AnyNetSpec(stages=tuple(Stage(depth, width, 8) for depth, width in stages))


def block_widths(spec: AnyNetSpec | RegNetSpec) -> list[int]:
    return [stage.width for stage in spec.stages for _ in range(stage.depth)]


def error(widths: list[int], line: RegNetSpec) -> float:
    """Return the definition: the mean absolute log-ratio."""
    pairs = zip(widths, line.block_widths, strict=True)
    return sum(abs(math.log(a / b)) for a, b in pairs) / len(widths)


def test_the_line_that_is_found_has_the_error_that_is_told() -> None:
    for one in sample(space_by_name("anynetx-a"), 20, seed=5):
        found = fit_line(one.spec)
        line = RegNetSpec(d=found.d, w0=found.w0, wa=found.wa, wm=found.wm, g=1)
        assert error(block_widths(one.spec), line) == pytest.approx(found.error, abs=0.02)


def test_no_line_of_a_plain_grid_is_nearer() -> None:
    grid = itertools.product(range(8, 257, 24), np.geomspace(1, 256, 12), (1.5, 2.0, 2.5, 3.0))
    lines = list(grid)
    for one in sample(space_by_name("anynetx-d"), 6, seed=2):
        widths = block_widths(one.spec)
        others = (
            RegNetSpec(d=len(widths), w0=w0, wa=float(wa), wm=wm, g=1) for w0, wa, wm in lines
        )
        nearest = min(error(widths, other) for other in others)
        assert fit_line(one.spec).error <= nearest + 0.02


@pytest.mark.parametrize("name", ["regnetx-200mf", "regnetx-3.2gf", "regnety-8.0gf"])
def test_published_networks_are_near_their_line(name: str) -> None:
    assert fit_line(spec_by_name(name)).error < 0.05


def test_one_width_is_a_line() -> None:
    assert fit_line(of_widths((4, 64), (9, 64))).error == pytest.approx(0, abs=1e-12)


def test_falling_widths_are_far_from_every_line() -> None:
    found = fit_line(of_widths((5, 512), (5, 64)))
    assert found.error == pytest.approx(math.log(8) / 2, rel=0.05)


def test_spaces_come_nearer_to_lines_from_c_to_e() -> None:
    medians = [
        float(np.median([fit_line(one.spec).error for one in sample(space_by_name(name), 60)]))
        for name in ("anynetx-c", "anynetx-d", "anynetx-e", "regnetx")
    ]
    assert medians == sorted(medians, reverse=True)
