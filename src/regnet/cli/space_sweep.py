"""`regnet space sweep`: trains a population of networks, one record a run."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regnet.cli.console import EXIT_OK, EXIT_SOME_FAILED, interruptible, print_json, say, track
from regnet.cli.options import AsJson, grouped
from regnet.cli.outputs import require_writable
from regnet.cli.ranges import Range, bounds
from regnet.cli.ray_option import Ray, RayCommand
from regnet.cli.sweep_display import SweepDisplay, summary

if TYPE_CHECKING:
    from regnet.space.sampling import Window

HELP = """Train a population of networks on few photos for few epochs; one record a run.

SPACE|FILE is a design space, of which -n networks are drawn as by `regnet space sample`, or a \
file that it wrote. --data is photos as for `regnet train`: splits in it, or --val, validate, \
else a tenth of each class. All networks are trained alike from random weights, by the paper's \
low-budget setting on small crops, or a --recipe of your own; the photos are read once.

RECORDS gets one JSON object a line, and only grows: the same command goes on where it was \
killed, and a network that fails is a record with its reason. With --ray the runs are spread over \
this machine's cores or a cluster, and give the same records. Needs the extra `train`.

Exit status: 0 done, 1 done but some networks failed, 2 could not run, 130 interrupted.

Examples:

  regnet space sweep anynetx-a -n 20 --data photos/ --epochs 10 --macs 2M:4M -o records.jsonl

  regnet space sweep population.jsonl --data photos/ --epochs 10 --ray -o records.jsonl

  regnet space sweep regnetx -n 100 --data imagenet/ --epochs 10 --resolution 224 \
--macs 360M:400M --recipe paper --ray auto --gpus-per-run 1 --cpus-per-run 8 -o x.jsonl
"""


def register(group: typer.Typer) -> None:
    """Add the command to the group."""
    group.command("sweep", help=HELP, cls=RayCommand)(grouped(sweep))


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Which networks are drawn."""

    space: Annotated[
        str | None,
        typer.Option(help="What records name as the space of a file [default: its stem]"),
    ] = None
    count: Annotated[
        int | None,
        typer.Option(
            "--count", "-n", min=1, max=1_000_000, help="Networks [default: 100; a file's: all]"
        ),
    ] = None
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Of the sample, and of each run")
    ] = 0
    macs: Range = None
    params: Range = None
    acts: Range = None

    def window(self) -> "Window":
        """Return the limits of what they cost."""
        from regnet.space.sampling import Window

        return Window(macs=bounds(self.macs), params=bounds(self.params), acts=bounds(self.acts))


@dataclass(frozen=True, kw_only=True)
class CourseOptions:
    """How each network is trained, as `Budget` takes it."""

    recipe: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="sweep, paper, modern, or a TOML file")
    ] = "sweep"
    batch: Annotated[int | None, typer.Option(min=0, help="Images a step; 0 chooses")] = None
    lr: Annotated[
        float | None, typer.Option(help="Learning rate as in the recipe, for 128 images a step")
    ] = None


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Where the runs are."""

    ray: Ray = None
    cpus_per_run: Annotated[int, typer.Option(min=1, help="Threads of each run")] = 1
    gpus_per_run: Annotated[
        float, typer.Option(min=0, help="GPUs of each run, or a share of one; 0 uses the CPU")
    ] = 0.0
    retries: Annotated[
        int, typer.Option(min=0, help="Times that a run begins again which lost its worker")
    ] = 2


def sweep(
    source: Annotated[str, typer.Argument(metavar="SPACE|FILE", help="The networks, see above")],
    data: Annotated[str, typer.Option(metavar="DATASET", help="Photos to learn from")],
    epochs: Annotated[int, typer.Option(min=1, max=100_000, help="Epochs of each network")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="RECORDS", help="File of records to add to")
    ],
    val: Annotated[
        str | None, typer.Option(metavar="PATH", help="Photos to validate with", show_default=False)
    ] = None,
    *,
    networks: SampleOptions,
    resolution: Annotated[
        int | None,
        typer.Option(min=8, max=4096, help="Pixels of the crops [default: the recipe's, 48]"),
    ] = None,
    small_stem: Annotated[
        bool, typer.Option("--small-stem", help="The stem for images of 32 to 64 pixels")
    ] = False,
    course: CourseOptions,
    workers: WorkerOptions,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run again what failed")
    ] = False,
    memory: Annotated[float, typer.Option(min=0.01, help="GiB that photos may take")] = 4.0,
    as_json: AsJson = False,
) -> None:
    """Sweep and say what came out."""
    require_writable(output)
    with interruptible():
        from regnet.space.sweep import Budget, Population
        from regnet.space.sweep import sweep as run

        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells of its settings
        with SweepDisplay() as display:
            swept = run(
                Population(
                    source=source,
                    space=networks.space,
                    count=networks.count,
                    seed=networks.seed,
                    window=networks.window(),
                    small_stem=small_stem,
                ),
                Budget(
                    epochs=epochs,
                    resolution=resolution,
                    **asdict(course),
                    cpus=workers.cpus_per_run,
                    gpus=workers.gpus_per_run,
                    ray=workers.ray,
                    retries=workers.retries,
                    memory=int(memory * 2**30),
                ),
                data,
                output,
                val=val,
                retry_failed=retry_failed,
                watcher=display,
                runs=display.runs,
                watch=lambda items, what, total: track(items, what, lambda: total, unit="photos"),
                say=say,
            )
    if as_json:
        print_json(swept.to_dict())
    else:
        typer.echo(summary(swept))
    raise typer.Exit(EXIT_SOME_FAILED if swept.failed else EXIT_OK)
