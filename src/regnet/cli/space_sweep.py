"""`regnet space sweep`: a population of networks, trained; one record per run."""

import logging
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import typer

from regnet.cli.console import print_json, require_writable, say
from regnet.cli.options import Json, Ray, SmallStem
from regnet.cli.progress import track
from regnet.cli.runs import SweepDisplay, errors_of
from regnet.cli.space_sample import Ranges
from regnet.system.option import Options, argument, option
from regnet.system.text import percent

if TYPE_CHECKING:
    from regnet.space.sweep import Swept


class _Networks(Ranges, SmallStem):
    source: str = argument("The networks, see above", "SPACE|FILE")
    space: str | None = option(None, "Name of the space in the records [FILE's stem]", "NAME")
    count: int | None = option(
        None, "Number of networks [100, or all of FILE]", "-n", min=1, max=1_000_000
    )
    seed: int = option(0, "Random seed of the sample and of each run", min=0, max=2**63 - 1)


class _Photos(Options):
    data: str = option(..., "Photos to train on", "DATASET")
    val: str | None = option(None, "Photos to validate on", "PATH")
    memory: int = option(4 << 30, "Memory for photos", "GiB", unit=2**30, min=0.01)


class _Course(Options):
    epochs: int = option(..., "Epochs per network", min=1, max=100_000)
    recipe: str = option("sweep", "sweep, paper, modern or a TOML file", "NAME|FILE")
    resolution: int | None = option(None, "Crop size [the recipe's, 48]", "PIXELS", min=8, max=4096)
    batch: int | None = option(None, "Global batch size; 0 = automatic", min=0)
    lr: float | None = option(None, "Learning rate per 128 images", "LR")


class _Workers(Ray):
    cpus: int = option(1, "Threads per run", "--cpus-per-run", min=1)
    gpus: float = option(0.0, "GPUs per run, or a share of one", "--gpus-per-run", min=0)
    retries: int = option(2, "Restarts of a run that lost its worker", min=0)


class _Records(Json):
    output: Path = option(..., "File of records to add to", "-o", "RECORDS")
    retry_failed: bool = option(False, "Repeat failed runs")


def sweep(
    networks: _Networks, photos: _Photos, training: _Course, workers: _Workers, records: _Records
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
    from regnet.space.sweep import Budget, Population
    from regnet.space.sweep import sweep as run

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it logs its settings
    population = Population(
        source=networks.source,
        space=networks.space,
        count=networks.count,
        seed=networks.seed,
        window=networks.window(),
        small_stem=networks.small_stem,
    )
    budget = Budget(**vars(training), **vars(workers), memory=photos.memory)
    with SweepDisplay() as display:
        swept = run(
            population,
            budget,
            photos.data,
            records.output,
            val=photos.val,
            retry_failed=records.retry_failed,
            watcher=display,
            runs=display,
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
