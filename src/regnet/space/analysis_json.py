"""An analysis of records as JSON values, and its runs as a table's rows."""

import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from regnet.network.spec import spec_to_dict
from regnet.space.analysis import Analysis, SpaceResult
from regnet.space.findings import Difference
from regnet.space.outcomes import Population
from regnet.space.published import published
from regnet.space.records import RunRecord
from regnet.space.remarks import remarks
from regnet.space.trends import exponents
from regnet.statistics.bootstrap import DRAWS, Interval
from regnet.system.files import write_whole
from regnet.system.json_text import json_text
from regnet.system.output_file import naming
from regnet.system.row_writers import require_parquet
from regnet.system.version import TOOL_VERSION


def analysis_to_dict(found: Analysis) -> dict[str, Any]:
    """Return an analysis as plain JSON values; errors and their differences are shares."""
    return {
        "tool": TOOL_VERSION,
        "records": [asdict(source) for source in found.sources],
        "settings": [asdict(setting) for setting in found.settings],
        "runs": found.runs,
        "networks": found.networks,
        "bootstrap": {"draws": DRAWS, "seed": found.seed, "interval": 0.95},
        "spaces": [_space(one) for one in found.spaces],
        "differences": [_difference(one) for one in found.differences],
        "findings": [one.to_dict() for one in found.findings],
        "untested": list(found.untested),
        "failed": [_failed(run) for run in found.failed],
        "remarks": remarks(found),
        "published": {
            "networks": [one.to_dict() for one in published()],
            "exponents": _intervals(exponents()),
        },
    }


def _space(one: SpaceResult) -> dict[str, Any]:
    population, errors = one.population, one.population.errors
    return {
        "space": one.space,
        "networks": len(population),
        "failed": len(population.failed),
        "error": {"least": errors.min(), "mean": _interval(one.mean), "median": one.median},
        "edf_height": _interval(one.area),
        "edf": {name: values.tolist() for name, values in vars(one.edf).items()},
        "best_values": _intervals(one.best),
        "rank_correlation_with_error": _intervals(one.correlations),
        "e_fit": {
            "networks": one.fit_errors.tolist(),
            "rank_correlation_with_error": _interval(one.fit_correlation),
        },
        "best_network": _best(population),
    }


def _best(population: Population) -> dict[str, Any]:
    best = population.networks[int(population.errors.argmin())]
    values = {name: getattr(best, name) for name in ("error", "macs", "params", "acts")}
    return {**values, "spec": spec_to_dict(best.spec)}


def _difference(one: Difference) -> dict[str, Any]:
    return {
        "first": one.first,
        "second": one.second,
        "mean_error": one.mean.to_dict(),
        "edf_height": one.area.to_dict(),
        "separated": one.separated,
        "sentence": one.sentence,
    }


def _failed(run: RunRecord) -> dict[str, Any]:
    spec = spec_to_dict(run.spec)
    return {"space": run.space, "seed": run.seed, "reason": run.failure or "", "spec": spec}


def _interval(found: Interval | None) -> dict[str, float] | None:
    return None if found is None else found.to_dict()


def _intervals(found: Any) -> dict[str, Any]:
    return {name: _interval(one) for name, one in found.items()}


def rows(found: Analysis) -> list[dict[str, Any]]:
    """Return a row a network with a result, and a run without: see docs/analyze.md."""
    made = [row for one in found.spaces for row in _network_rows(one)]
    return made + [_failed_row(run) for run in found.failed]


def _network_rows(one: SpaceResult) -> list[dict[str, Any]]:
    population = one.population
    made = []
    for place, network in enumerate(population.networks):
        row = {
            "space": one.space,
            "error": network.error,
            "runs": len(network.errors),
            "failure": None,
            "macs": network.macs,
            "params": network.params,
            "acts": network.acts,
            "e_fit": one.fits[place].error if one.fits else None,
            "spec": json_text(spec_to_dict(network.spec)),
        }
        made.append(row | {n: float(v[place]) for n, v in population.parameters.items()})
    return made


def _failed_row(run: RunRecord) -> dict[str, Any]:
    return {
        "space": run.space,
        "error": None,
        "runs": 1,
        "failure": run.failure,
        "macs": run.macs,
        "params": run.params,
        "acts": run.acts,
        "e_fit": None,
        "spec": json_text(spec_to_dict(run.spec)),
    }


def write_rows(path: Path, table: Sequence[dict[str, Any]]) -> None:
    """Write rows as Parquet, whole or not at all; a column that a row lacks is null there.

    Raises `OutputError`, and `MissingExtraError` without pyarrow.
    """
    require_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for row in table for name in row))
    columns = {name: [row.get(name) for row in table] for name in names}
    types = {"failure": pa.string(), "e_fit": pa.float64()}
    arrays = [pa.array(column, types.get(name)) for name, column in columns.items()]
    buffer = io.BytesIO()
    pq.write_table(pa.table(dict(zip(names, arrays, strict=True))), buffer)
    with naming(path):
        write_whole(path, buffer.getvalue())
