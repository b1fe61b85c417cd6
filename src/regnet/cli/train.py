"""`regnet train`: from a folder of photos to a model, measured and reported on."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regnet.cli.console import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_SOME_FAILED,
    interruptible,
    print_json,
    say,
)
from regnet.cli.notices import skipped_files
from regnet.cli.options import AsJson, Store, Truth, grouped
from regnet.cli.progress import download_display
from regnet.cli.training_display import SHOWN, Display, Stopping
from regnet.inference.result import readable

if TYPE_CHECKING:
    from regnet.training.task import Training

HELP = """Train a classifier on labelled photos, or a pretrained one further.

DATASET is a folder with one folder of photos per class, or whatever `regnet evaluate` takes; \
splits in it (train/, val/) are found, without them a tenth of each class validates. \
--recipe is `paper` (the RegNet paper's), `modern`, `finetune`, or a TOML file of your own.

--model is a network, such as regnetx-400mf or a spec's file (.json), which starts at random, or \
one that has learnt: `bundled`, an IR (.xml) or a checkpoint. With --recipe finetune a card's \
name stands for its published weights, and `bundled` is the default.

Everything goes into one folder: the recipe as it was followed, checkpoints, metrics.csv, \
TensorBoard's files, and at the end the converted model, calibrated where photos suffice, and \
report.html. Ctrl-C finishes the step and writes a checkpoint. `-o DIR --resume` continues from \
there, or from wherever a run was killed, with the run's own options, and ends with the same \
weights; --epochs and --lr may change. With photos named, a run without a checkpoint yet starts. \
Needs the extra `train`.

Exit status: 0 done, 1 done but some photos could not be read, 2 could not run, 130 interrupted.

Examples:

  regnet train photos/ --recipe finetune

  regnet train photos/ --recipe finetune --model regnetx-3.2gf --epochs 5 -o runs/mine

  regnet train imagenet/ --model regnetx-3.2gf --recipe paper --devices 8

  regnet train -o runs/night --resume

  regnet train tiny.zip --val tiny-val.zip --model regnetx-200mf --small-stem --crop 64

  torchrun --nproc-per-node 8 --nnodes 2 ... -m regnet train imagenet/ --model regnetx-3.2gf \
--nodes 2
"""


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("train", help=HELP)(grouped(train))


@dataclass(frozen=True, kw_only=True)
class PhotoOptions:
    """The photos of the run and what is in them."""

    val: Annotated[
        str | None, typer.Option(metavar="PATH", help="Photos to validate with", show_default=False)
    ] = None
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Class list; default: the class folders")
    ] = None
    truth: Truth = None
    name: Annotated[str | None, typer.Option(help="The model's name [default: the folder's]")] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class OriginOptions:
    """What the network has learnt before, and from whom it learns."""

    weights: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Weights to start from, of a card or a file"),
    ] = None
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start at random whatever the model has learnt")
    ] = False
    teacher: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL", help="A classifier to learn from as well; may be repeated"),
    ] = None
    small_stem: Annotated[
        bool, typer.Option("--small-stem", help="The stem for images of 32 to 64 pixels")
    ] = False


@dataclass(frozen=True, kw_only=True)
class ChangeOptions:
    """What is to be different from the recipe, or how it is computed."""

    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's")] = None
    batch: Annotated[
        int | None, typer.Option(min=0, help="Images a step, of all devices; 0 chooses")
    ] = None
    lr: Annotated[
        float | None, typer.Option(help="Learning rate as in the recipe, for 128 images a step")
    ] = None
    crop: Annotated[
        int | None, typer.Option(min=8, help="Side of the images in pixels; other sizes follow")
    ] = None
    seed: Annotated[int | None, typer.Option(min=0, help="Of all that is random")] = None
    freeze: Annotated[
        int | None, typer.Option(min=0, help="First parts that do not learn: stem, stages")
    ] = None
    accumulate: Annotated[
        int | None,
        typer.Option(min=1, help="Parts in which a batch is computed, to save memory"),
    ] = None
    compile: Annotated[
        bool | None, typer.Option(help="Compile the network [default: on a GPU]")
    ] = None


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Where the run computes, as `Devices` takes it."""

    accelerator: Annotated[str, typer.Option(help="cpu, cuda, ... (Lightning Fabric)")] = "auto"
    devices: Annotated[str, typer.Option(help="How many, or which")] = "auto"
    nodes: Annotated[int, typer.Option(min=1, help="Machines")] = 1
    strategy: Annotated[str, typer.Option(help="ddp, fsdp, ...")] = "auto"
    precision: Annotated[
        str, typer.Option(help="32-true, bf16-mixed, 16-mixed, ...; auto: bf16 where it is fast")
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """Memory of the photos, and the time between checkpoints."""

    memory: Annotated[
        float | None,
        typer.Option(min=0, metavar="GiB", help="Memory for decoded photos \\[default: 4]"),
    ] = None
    checkpoint_minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Between checkpoints; each epoch ends with one \\[default: 10]"),
    ] = None

    def values(self) -> dict[str, Any]:
        """Return them in bytes and seconds."""
        return {
            "memory": None if self.memory is None else int(self.memory * 2**30),
            "checkpoint_seconds": self.checkpoint_minutes and 60 * self.checkpoint_minutes,
        }


def train(
    dataset: Annotated[
        str | None,
        typer.Argument(help="Labelled photos, see above; with --resume the run's own by default"),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="The network, see above", show_default=False)
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="paper, modern, finetune, or a TOML file \\[default: modern]",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder of the run [default: runs/DATASET-RECIPE]"
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in DIR, which is enough to name")
    ] = False,
    *,
    photos: PhotoOptions,
    origin: OriginOptions,
    changes: ChangeOptions,
    devices: DeviceOptions,
    limits: LimitOptions,
    as_json: AsJson = False,
    store: Store,
) -> None:
    """Train and say what came out."""
    models = store.library()
    stopping = Stopping()
    display = Display(stopping)
    with interruptible(), stopping.listening():
        from regnet.training.command import resuming
        from regnet.training.devices import Devices
        from regnet.training.train import train as run

        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells of its settings

        with download_display() as on_event:
            try:
                training = run(
                    dataset,
                    model=model,
                    recipe=recipe,
                    folder=output,
                    resume=resume,
                    **asdict(photos),
                    **asdict(origin),
                    **asdict(changes),
                    **limits.values(),
                    devices=Devices(**asdict(devices)),
                    library=replace(models, on_event=on_event),
                    watcher=display,
                    watch=display.watch,
                    say=say,
                )
            finally:
                display.close()
    if training.rank:
        raise typer.Exit(EXIT_OK if training.finished else EXIT_INTERRUPTED)
    if not training.finished:
        say(f"regnet: stopped; go on with: {resuming(training.folder)}")
        raise typer.Exit(EXIT_INTERRUPTED)
    if as_json:
        print_json(training.to_dict() | {"skipped": skipped_files()})
    else:
        typer.echo("\n".join(_lines(training)))
    raise typer.Exit(EXIT_SOME_FAILED if training.unreadable else EXIT_OK)


def _validating(training: "Training") -> str:
    """Return how many photos validated, of how many."""
    read, count = training.val_read, training.val_photos
    return f"{count:,}" if read == count else f"{read:,} of {count:,}"


def _lines(training: "Training") -> Iterator[str]:
    yield str(training.model)
    yield (
        f"  photos      {training.train_photos:,} to learn from, {_validating(training)} to "
        "validate"
    )
    for photo in training.unreadable[:SHOWN]:
        yield f"    unreadable: {readable(photo.source)!r}: {photo.error}"
    if len(training.unreadable) > SHOWN:
        yield f"    and {len(training.unreadable) - SHOWN:,} more"
    planned = training.recipe.schedule.epochs
    yield (
        f"  epochs      {len(training.records):,} of {planned:,}; the model is of epoch "
        f"{training.epoch:,}"
    )
    if training.top1 is not None and training.top5 is not None:
        yield f"  validation  top-1 {100 * training.top1:.2f} %, top-5 {100 * training.top5:.2f} %"
    yield f"  calibrated  {'yes' if training.calibrated else 'no'}"
    if training.report:
        yield f"  report      {training.report}"
