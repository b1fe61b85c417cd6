"""An analysis of records as rows of text."""

from regnet.network.spec import RegNetSpec, Spec
from regnet.space.analysis import Analysis, SpaceResult
from regnet.space.findings import Finding, points
from regnet.statistics.bootstrap import Interval


def space_rows(found: Analysis) -> list[list[str]]:
    """Return a row a space: name, networks, failed runs, least, median and mean error, MMACs."""
    return [_space_row(one) for one in found.spaces]


def _space_row(one: SpaceResult) -> list[str]:
    population, errors = one.population, one.population.errors
    macs = population.costs("macs") / 1e6
    return [
        one.space,
        f"{len(population):,}",
        f"{len(population.failed):,}",
        *(f"{100 * value:.1f} %" for value in (errors.min(), one.median, errors.mean())),
        "" if one.mean is None else f"{100 * one.mean.low:.1f} to {100 * one.mean.high:.1f}",
        f"{macs.min():.3g} to {macs.max():.3g}",
    ]


def finding_rows(found: Analysis) -> list[list[str]]:
    """Return a row a finding: what the paper says, measured, its interval, the verdict."""
    return [[one.claim, *measured(one), one.verdict] for one in found.findings]


def measured(one: Finding) -> tuple[str, str]:
    """Return what was measured of a finding, and its interval."""
    found = one.measured
    if one.unit == "points":
        return f"{100 * found.value:+.2f}", points(found)
    if one.unit == "rank correlation":
        return f"{found.value:+.2f}", f"{found.low:+.2f} to {found.high:+.2f}"
    return f"{found.value:g}", f"{found.low:g} to {found.high:g}"


def best_rows(found: Analysis) -> list[list[str]]:
    """Return the names of spaces, and a row a parameter with the best value in each."""
    spaces = [one for one in found.spaces if one.best]
    names = sorted({name for one in spaces for name in one.best}, key=_order)
    rows = [[name, *(_best(one.best.get(name)) for one in spaces)] for name in names]
    return [["", *(one.space for one in spaces)], *rows] if rows else []


def _order(name: str) -> tuple[int, str]:
    letters = ("d", "w0", "wa", "wm", "w", "b", "g")
    return letters.index(name if name in letters else name[0]), name


def _best(found: Interval | None) -> str:
    return "" if found is None else f"{found.value:g} ({found.low:g} to {found.high:g})"


def failed_lines(found: Analysis, most: int = 10) -> list[str]:
    """Return a line a run without a result, and one for those over `most`."""
    lines = [
        f"no result: {run.space}, {spec_text(run.spec)}, seed {run.seed}: {run.failure or 'none'}"
        for run in found.failed[:most]
    ]
    more = len(found.failed) - most
    return [*lines, f"no result: {more:,} more"] if more > 0 else lines


def spec_text(spec: Spec) -> str:
    """Return a network in short: its parameters, or its stages."""
    if isinstance(spec, RegNetSpec):
        return f"d {spec.d}, w0 {spec.w0}, wa {spec.wa:g}, wm {spec.wm:g}, g {spec.g}, b {spec.b}"
    return ", ".join(
        f"{s.depth} x {s.width} (g {s.group_width}, b {s.bottleneck})" for s in spec.stages
    )
