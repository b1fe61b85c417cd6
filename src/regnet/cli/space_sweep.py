"""`regnet space sweep`: a population of networks, trained; one record per run."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import typer

from regnet.cli.console import print_json, require_writable, say
from regnet.cli.options import Json
from regnet.cli.progress import track
from regnet.cli.runs import SweepDisplay, errors_of
from regnet.cli.space_sample import Ranges
from regnet.space.plans import Budget, NetworkTraining, PhotoMemory, Population, Workers
from regnet.system.option import option
from regnet.system.text import percent

if TYPE_CHECKING:
    from regnet.space.sweep import Swept


class _Networks(Population, Ranges):
    """A population, within ranges."""


class _Photos(PhotoMemory):
    data: str = option(..., "Photos to train on", "DATASET")
    val: str | None = option(None, "Photos to validate on", "PATH")


class _Records(Json):
    output: Path = option(..., "File of records to add to", "-o", "RECORDS")
    retry_failed: bool = option(False, "Repeat failed runs")


def sweep(
    networks: _Networks,
    photos: _Photos,
    training: NetworkTraining,
    workers: Workers,
    records: _Records,
) -> bool:
    """Train a population of networks, one record per run.

    SPACE|FILE is a design space, of which -n networks are drawn as by `regnet space sample`, or a
    file that it wrote. --data is as for `regnet train`: splits in it, or --val, validate, else a
    tenth of each class. All networks are randomly initialised and trained alike, by the paper's
    low-budget setting on small crops for few epochs, or --recipe.

    RECORDS gets one JSON object per line; the same command resumes. A network that fails is a
    record with its reason. With --ray the runs are spread over this machine's cores or a cluster.
    Needs the extra `train`.

    Exit status: 0 done, 1 some networks failed, 2 could not run, 130 interrupted.

      regnet space sweep anynetx-a --data photos/ --epochs 10 -o a.jsonl
      regnet space sweep some.jsonl --data photos/ --epochs 10 --ray -o r.jsonl
    """
    require_writable(records.output)
    from regnet.space.sweep import sweep as run

    with SweepDisplay() as display:
        swept = run(
            replace(networks, window=networks.limits()),
            Budget(**vars(training), **vars(workers), memory=photos.memory),
            photos.data,
            records.output,
            val=photos.val,
            retry_failed=records.retry_failed,
            watcher=display,
            watch=lambda items, what, total: track(items, what, total, "photos"),
            say=say,
        )
    if records.json:
        print_json(swept.to_dict())
    else:
        typer.echo("\n".join(_lines(swept)))
    return bool(swept.failed)


def _lines(swept: "Swept") -> Iterator[str]:
    done = len(swept.records) - len(swept.failed)
    new = sum(record.failure is None for record in swept.new)
    yield str(swept.path)
    yield (
        f"  {swept.space}: {done:,} networks trained, {new:,} of them now; "
        f"{len(swept.failed):,} failed"
    )
    yield from (f"    failed: {record.failure}" for record in swept.failed[:10])
    if (best := swept.best) is not None:
        middle = median(errors_of(swept.records))
        yield f"  error       least {percent(best.error)}, median {percent(middle)}"
        yield (
            f"  best        {best.macs / 1e6:.1f} MMACs, {best.params / 1e3:,.0f} thousand "
            f"parameters: {best.spec}"
        )
