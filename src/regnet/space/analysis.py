"""What records of training runs say of design spaces, as numbers with their intervals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import numpy as np

from regnet.network.spec import spec_to_dict
from regnet.space import findings
from regnet.space.findings import Difference, Finding
from regnet.space.outcomes import LineFit, Population, TrainedNetwork, fit_line, populations
from regnet.space.published import exponents, published
from regnet.space.records import RunRecord, Setting, read_file
from regnet.statistics import bootstrap
from regnet.statistics.bootstrap import DRAWS, FEWEST, Edf, Interval
from regnet.statistics.draws import Reals
from regnet.system.files import whole_file
from regnet.system.json_text import json_text, plain
from regnet.system.output_file import naming
from regnet.system.row_writers import require_parquet
from regnet.system.version import TOOL_VERSION

COSTS: Final = ("macs", "params", "acts")

Resampled = tuple[tuple[float, Reals], tuple[float, Reals]]


@dataclass(frozen=True)
class Source:
    """A file of records: its path as given, the SHA-256 of its bytes, the number of runs."""

    path: str
    sha256: str
    runs: int


@dataclass(frozen=True, kw_only=True)
class SpaceResult:
    """What the networks of a space say. Errors are in [0, 1].

    `mean` and `area` (the EDF's mean height between the least error of all spaces and their median)
    have bootstrap intervals. `best` has the best value of each parameter, `correlations` the rank
    correlation of error and each cost. `fits` has the quantised line nearest to each network, for
    spaces without such lines, and `fit_correlation` that of e_fit and error. With fewer than
    `FEWEST` networks there are no intervals: what needs one is None or empty.
    """

    population: Population
    edf: Edf
    mean: Interval | None = None
    area: Interval | None = None
    best: Mapping[str, Interval] = field(default_factory=dict)
    correlations: Mapping[str, Interval] = field(default_factory=dict)
    fits: tuple[LineFit, ...]
    fit_correlation: Interval | None = None

    @property
    def space(self) -> str:
        """The name of the space."""
        return self.population.space

    @property
    def median(self) -> float:
        """The median error."""
        return float(np.median(self.population.errors))

    @property
    def fit_errors(self) -> Reals:
        """The e_fit of each network, (N,)."""
        return np.array([fit.error for fit in self.fits])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        population, errors = self.population, self.population.errors
        best = population.networks[int(errors.argmin())]
        costs = {name: getattr(best, name) for name in ("error", *COSTS)}
        return {
            "space": self.space,
            "networks": len(population),
            "failed": len(population.failed),
            "error": {"least": errors.min(), "mean": plain(self.mean), "median": self.median},
            "edf_height": plain(self.area),
            "edf": {name: values.tolist() for name, values in vars(self.edf).items()},
            "best_values": plain(self.best),
            "rank_correlation_with_error": plain(self.correlations),
            "e_fit": {
                "networks": self.fit_errors.tolist(),
                "rank_correlation_with_error": plain(self.fit_correlation),
            },
            "best_network": costs | {"spec": spec_to_dict(best.spec)},
        }


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What records say; `failed` are runs without a result, `untested` claims that need others."""

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
        """The number of networks with a result."""
        return sum(len(one.population) for one in self.spaces)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; errors and their differences are shares."""
        return {
            "tool": TOOL_VERSION,
            "records": plain(self.sources),
            "settings": plain(self.settings),
            "runs": self.runs,
            "networks": self.networks,
            "bootstrap": {"draws": DRAWS, "seed": self.seed, "interval": 0.95},
            "spaces": plain(self.spaces),
            "differences": plain(self.differences),
            "findings": plain(self.findings),
            "untested": list(self.untested),
            "failed": [
                {
                    "space": run.space,
                    "seed": run.seed,
                    "reason": run.failure or "",
                    "spec": spec_to_dict(run.spec),
                }
                for run in self.failed
            ],
            "remarks": findings.remarks(self),
            "published": {"networks": plain(published()), "exponents": plain(exponents())},
        }


def analyze_files(paths: Sequence[Path], *, mixed: bool = False, seed: int = 0) -> Analysis:
    """Return what the records in files say; see `analyze`. Raises `SpaceError`."""
    sources, runs = [], dict[str, RunRecord]()
    for path in dict.fromkeys(paths):
        digest, records = read_file(path)
        sources.append(Source(path.as_posix(), digest, len(records)))
        runs |= records
    return analyze(list(runs.values()), sources=sources, mixed=mixed, seed=seed)


def analyze(
    records: Sequence[RunRecord],
    *,
    sources: Sequence[Source] = (),
    mixed: bool = False,
    seed: int = 0,
) -> Analysis:
    """Return what records say, all intervals by a bootstrap with this seed.

    Raises `SpaceError` if no run has a result, or settings differ and are not to be `mixed`.
    """
    every = populations(records, mixed=mixed)
    with_result = [population for population in every if len(population)]
    pooled = np.concatenate([population.errors for population in with_result])
    limits = float(pooled.min()), float(np.median(pooled))
    resampled = {p.space: _resampled(p, limits, seed) for p in with_result if len(p) >= FEWEST}
    spaces = [_space_result(p, resampled.get(p.space), seed) for p in with_result]
    spreads = {p.space: p.errors.var(ddof=1) for p in with_result if p.space in resampled}
    names = list(resampled)
    pairs = [(later, name) for place, later in enumerate(names) for name in names[:place]]
    differences = {}
    for first, second in permutations(names, 2):
        mean, area = (
            bootstrap.interval(a - b, means_a - means_b)
            for (a, means_a), (b, means_b) in zip(resampled[first], resampled[second], strict=True)
        )
        spread = float(np.sqrt((spreads[first] + spreads[second]) / 2))
        differences[first, second] = Difference(first, second, mean, area, spread)
    return Analysis(
        sources=tuple(sources),
        settings=tuple(dict.fromkeys(record.setting for record in records)),
        runs=len(records),
        spaces=tuple(spaces),
        failed=tuple(run for population in every for run in population.failed),
        differences=tuple(differences[pair] for pair in pairs),
        findings=tuple(_findings(spaces, differences)),
        untested=tuple(findings.untested({name for pair in differences for name in pair})),
        machines=tuple(dict.fromkeys(record.machine for record in records)),
        area_range=limits,
        seed=seed,
    )


def _resampled(population: Population, limits: tuple[float, float], seed: int) -> Resampled:
    """Return the mean error and the area under the EDF, each with its resamples (draws,)."""
    errors = population.errors
    columns = errors, bootstrap.heights(errors, *limits)
    sampled = partial(bootstrap.resampled_means, seed=seed, purpose=population.space)
    mean, area = ((float(column.mean()), sampled(column)) for column in columns)
    return mean, area


def _space_result(population: Population, resampled: Resampled | None, seed: int) -> SpaceResult:
    errors, space = population.errors, population.space
    fits = () if population.is_line else tuple(fit_line(n.spec) for n in population.networks)
    steps, counts = np.unique(errors, return_counts=True)
    share = counts.cumsum() / len(errors)
    result = SpaceResult(population=population, edf=Edf(steps, share, share, share), fits=fits)
    if resampled is None:
        return result
    won = bootstrap.winners(errors, seed=seed, purpose=f"{space} best")
    correlate = partial(bootstrap.rank_correlation, b=errors, seed=seed, purpose=space)
    costs = {name: correlate(population.costs(name)) for name in COSTS}
    return replace(
        result,
        edf=bootstrap.edf(errors, seed=seed, purpose=space),
        mean=bootstrap.interval(*resampled[0]),
        area=bootstrap.interval(*resampled[1]),
        best={name: bootstrap.best_value(v, won) for name, v in population.parameters.items()},
        correlations={name: one for name, one in costs.items() if one is not None},
        fit_correlation=correlate(result.fit_errors) if fits else None,
    )


def _findings(
    spaces: Sequence[SpaceResult], differences: Mapping[tuple[str, str], Difference]
) -> list[Finding]:
    best = {s.space: s.best["b"] for s in spaces if s.population.is_line and "b" in s.best}
    lines = {s.space: s.fit_correlation for s in spaces if s.fit_correlation is not None}
    return [
        *findings.space_findings(differences),
        *findings.ratio_findings(best),
        *findings.line_findings(lines),
    ]


def rows(found: Analysis) -> Iterator[dict[str, Any]]:
    """Yield a row for each network with a result and each run without: see docs/analyze.md."""
    for one in found.spaces:
        for place, network in enumerate(one.population.networks):
            e_fit = one.fits[place].error if one.fits else None
            parameters = {n: float(v[place]) for n, v in one.population.parameters.items()}
            runs = len(network.errors)
            yield _row(one.space, network, runs=runs, e_fit=e_fit) | parameters
    for run in found.failed:
        yield _row(run.space, run, failure=run.failure)


def _row(
    space: str,
    run: TrainedNetwork | RunRecord,
    *,
    runs: int = 1,
    failure: str | None = None,
    e_fit: float | None = None,
) -> dict[str, Any]:
    """Return the columns that all rows have, in their order."""
    columns = {"space": space, "error": run.error, "runs": runs, "failure": failure}
    costs = {name: getattr(run, name) for name in COSTS}
    return columns | costs | {"e_fit": e_fit, "spec": json_text(spec_to_dict(run.spec))}


def write_rows(path: Path, table: Sequence[dict[str, Any]]) -> None:
    """Write rows as Parquet, atomically; a column that a row lacks is null there.

    Raises `OutputError`, and `MissingExtraError` without pyarrow.
    """
    require_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"failure": pa.string(), "e_fit": pa.float64()}
    names = dict.fromkeys(name for row in table for name in row)
    columns = {n: pa.array([row.get(n) for row in table], types.get(n)) for n in names}
    with naming(path), whole_file(path) as file:
        pq.write_table(pa.table(columns), file)
