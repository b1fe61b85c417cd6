"""What records of training runs tell of design spaces, as numbers with their intervals."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np

from regnet.space.findings import (
    Difference,
    Finding,
    line_findings,
    ratio_findings,
    space_findings,
    untested,
)
from regnet.space.fit import LineFit, fit_line
from regnet.space.outcomes import Population, populations
from regnet.space.records import RunRecord, Setting, read_records
from regnet.statistics.bootstrap import (
    FEWEST,
    Edf,
    Interval,
    best_value,
    edf,
    heights,
    interval,
    rank_correlation,
    resampled_means,
    winners,
)
from regnet.statistics.draws import Reals
from regnet.system.errors import SpaceError

_READS: Final = 5
COSTS: Final = ("macs", "params", "acts")


@dataclass(frozen=True)
class Source:
    """A file of records: its path as it was given, the SHA-256 of its bytes, its runs."""

    path: str
    sha256: str
    runs: int


@dataclass(frozen=True, kw_only=True)
class SpaceResult:
    """What a space's networks tell. Errors are in [0, 1].

    `mean` and `area` (the EDF's mean height between the best error of all spaces and their median)
    have bootstrap intervals. `best` has the best value of each parameter, `correlations` the rank
    correlation of error and cost, `fits` the quantised line nearest to each network, for spaces
    that have no such line, and `fit_correlation` that of e_fit and error. With fewer than
    `FEWEST` networks there is no interval, and what needs one is None or empty.
    """

    population: Population
    edf: Edf
    mean: Interval | None
    area: Interval | None
    best: Mapping[str, Interval]
    correlations: Mapping[str, Interval]
    fits: tuple[LineFit, ...]
    fit_correlation: Interval | None

    @property
    def space(self) -> str:
        """Its name."""
        return self.population.space

    @property
    def median(self) -> float:
        """The median error."""
        return float(np.median(self.population.errors))

    @property
    def fit_errors(self) -> Reals:
        """The e_fit of each network, (N,)."""
        return np.array([fit.error for fit in self.fits])


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """All that records tell; `failed` are runs without a result, `untested` claims likewise."""

    sources: tuple[Source, ...]
    settings: tuple[Setting, ...]
    runs: int
    spaces: tuple[SpaceResult, ...]
    failed: tuple[RunRecord, ...]
    differences: tuple[Difference, ...]
    findings: tuple[Finding, ...]
    untested: tuple[str, ...]
    machines: tuple[str, ...]
    area_range: tuple[float, float]
    seed: int

    @property
    def networks(self) -> int:
        """Networks with a result."""
        return sum(len(one.population) for one in self.spaces)


def analyze_files(paths: Sequence[Path], *, mixed: bool = False, seed: int = 0) -> Analysis:
    """Return what the records in files tell; see `analyze`. Raises `SpaceError`."""
    records, sources = _read(list(dict.fromkeys(paths)))
    return analyze(records, sources=sources, mixed=mixed, seed=seed)


def _read(paths: Sequence[Path]) -> tuple[list[RunRecord], list[Source]]:
    """Return records, and the files of the very bytes they are from: a sweep may still write."""
    for _ in range(_READS):
        digests = [_sha256(path) for path in paths]
        of_files = [read_records([path]) for path in paths]
        if digests == [_sha256(path) for path in paths]:
            runs = {record.key: record for records in of_files for record in records}
            parts = zip(paths, digests, of_files, strict=True)
            return list(runs.values()), [Source(p.as_posix(), d, len(r)) for p, d, r in parts]
    raise SpaceError("the records change faster than they can be read: analyze a copy of them")


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as exc:
        raise SpaceError(f"cannot read the records {path}: {exc.strerror or exc}") from exc


def analyze(
    records: Sequence[RunRecord],
    *,
    sources: Sequence[Source] = (),
    mixed: bool = False,
    seed: int = 0,
) -> Analysis:
    """Return what records tell, all intervals by a bootstrap of that seed.

    Raises `SpaceError` where no run has a result, or settings differ and are not to be `mixed`.
    """
    found = populations(records, mixed=mixed)
    with_result = [population for population in found if len(population)]
    pooled = np.concatenate([population.errors for population in with_result])
    limits = float(pooled.min()), float(np.median(pooled))
    spaces = [_space_result(one, limits, seed) for one in with_result]
    differences = _differences(with_result, limits, seed)
    return Analysis(
        sources=tuple(sources),
        settings=tuple(dict.fromkeys(record.setting for record in records)),
        runs=len(records),
        spaces=tuple(spaces),
        failed=tuple(run for population in found for run in population.failed),
        differences=tuple(d for (a, b), d in differences.items() if _first(a, b, with_result)),
        findings=tuple(_findings(spaces, differences)),
        untested=tuple(untested({name for pair in differences for name in pair})),
        machines=tuple(dict.fromkeys(record.machine for record in records)),
        area_range=limits,
        seed=seed,
    )


def _space_result(population: Population, limits: tuple[float, float], seed: int) -> SpaceResult:
    errors, space = population.errors, population.space
    fits = () if population.is_line else tuple(fit_line(n.spec) for n in population.networks)
    if len(population) < FEWEST:
        bare = _bare_edf(errors)
        return SpaceResult(
            population=population,
            edf=bare,
            mean=None,
            area=None,
            best={},
            correlations={},
            fits=fits,
            fit_correlation=None,
        )
    sampled = partial(resampled_means, seed=seed, purpose=space)
    area = heights(errors, *limits)
    won = winners(errors, seed=seed, purpose=f"{space} best")
    correlate = partial(rank_correlation, b=errors, seed=seed, purpose=space)
    costs = {name: correlate(population.costs(name)) for name in COSTS}
    return SpaceResult(
        population=population,
        edf=edf(errors, seed=seed, purpose=space),
        mean=interval(float(errors.mean()), sampled(errors)),
        area=interval(float(area.mean()), sampled(area)),
        best={name: best_value(v, won) for name, v in population.parameters.items()},
        correlations={name: found for name, found in costs.items() if found is not None},
        fits=fits,
        fit_correlation=correlate(np.array([fit.error for fit in fits])) if fits else None,
    )


def _bare_edf(errors: Reals) -> Edf:
    """Return the distribution function of too few errors for a band."""
    steps, counts = np.unique(errors, return_counts=True)
    share = counts.cumsum() / len(errors)
    return Edf(steps, share, share, share)


def _differences(
    spaces: Sequence[Population], limits: tuple[float, float], seed: int
) -> dict[tuple[str, str], Difference]:
    """Return the differences of spaces with networks enough, of both orders."""
    enough = [population for population in spaces if len(population) >= FEWEST]
    means = {p.space: _both_means(p, limits, seed) for p in enough}
    values = {p.space: (p.errors.mean(), heights(p.errors, *limits).mean()) for p in enough}
    variances = {p.space: p.errors.var(ddof=1) for p in enough}
    found = {}
    for first, second in [(a.space, b.space) for a in enough for b in enough if a is not b]:
        mean, area = (
            interval(values[first][i] - values[second][i], means[first][i] - means[second][i])
            for i in range(2)
        )
        spread = float(np.sqrt((variances[first] + variances[second]) / 2))
        found[first, second] = Difference(first, second, mean, area, spread)
    return found


def _both_means(
    population: Population, limits: tuple[float, float], seed: int
) -> tuple[Reals, Reals]:
    """Return resampled means of the errors and of the areas under the EDF, (draws,) each."""
    sampled = partial(resampled_means, seed=seed, purpose=population.space)
    return sampled(population.errors), sampled(heights(population.errors, *limits))


def _first(later: str, earlier: str, spaces: Sequence[Population]) -> bool:
    """Tell whether of two spaces the first is the later one: differences are given once."""
    pairs = combinations([population.space for population in spaces], 2)
    return (earlier, later) in pairs


def _findings(
    spaces: Sequence[SpaceResult], differences: Mapping[tuple[str, str], Difference]
) -> list[Finding]:
    best = {s.space: s.best["b"] for s in spaces if s.population.is_line and "b" in s.best}
    lines = {s.space: s.fit_correlation for s in spaces if s.fit_correlation is not None}
    return [*space_findings(differences), *ratio_findings(best), *line_findings(lines)]
