"""`regnet train`: labelled photos -> a model, with its accuracy and a report."""

from functools import partial
from pathlib import Path
from typing import Any

from regnet.cli.console import EXIT_INTERRUPTED, say, show
from regnet.cli.options import Json, SmallStem, Store, Truth
from regnet.cli.runs import Stopping, TrainingDisplay
from regnet.inference.predictors import parse_ir_choice
from regnet.system.option import Options, argument, option
from regnet.training.recipe import Changes
from regnet.training.task import Devices


class _Photos(Truth):
    dataset: str | None = argument("Labelled photos; with --resume optional", "[DATASET]", None)
    val: str | None = option(None, "Photos to validate on", "PATH")
    labels: Path | None = option(None, "Class list [the class folders]", "FILE")


class _Origin(SmallStem):
    model: str | None = option(None, "Network or pretrained model, see above", "-m", "MODEL")
    weights: str | None = option(None, "Initialise MODEL from this card or file", "CARD|FILE")
    from_scratch: bool = option(False, "Initialise randomly, even if MODEL is trained")
    teacher: tuple[str, ...] = option((), "Distil from this classifier; repeatable", "MODEL")


class _Recipe(Options):
    recipe: str | None = option(None, "paper, modern, finetune or a TOML file [modern]", "RECIPE")


class _Effort(Options):
    accumulate: int | None = option(None, "Gradient accumulation steps [1]", min=1)
    compile: bool | None = option(None, "Compile the network [on a GPU]")


class _Course(_Recipe, Changes, _Effort):
    """How to train: a recipe, changes to it, and what does not change the result."""


class _Run(Json):
    output: Path | None = option(None, "Folder of the run [runs/DATASET-RECIPE]", "-o", "DIR")
    name: str | None = option(None, "Name of the model [the folder's]", "NAME")
    resume: bool = option(False, "Continue the run in DIR")
    memory: int | None = option(None, "Memory for decoded photos [4]", "GiB", unit=2**30, min=0)
    memory_device: int | None = option(
        None, "GPU memory for decoded photos [half of the free]", "GiB", unit=2**30, min=0
    )
    checkpoint_seconds: float | None = option(
        None,
        "Minutes between checkpoints; every epoch writes one [10]",
        "--checkpoint-minutes",
        "MINUTES",
        unit=60,
        min=0,
    )


def train(
    photos: _Photos,
    recipe: _Course,
    model: _Origin,
    run: _Run,
    devices: Devices,
    models: Store,
) -> int:
    """Train or fine-tune a classifier on labelled photos.

    DATASET has one folder of photos per class, or is anything `regnet evaluate` takes; splits in it
    (train/, val/) are used, else a tenth of each class validates.

    MODEL is a network such as
    regnetx-400mf or a spec JSON, randomly initialised, or a pretrained `bundled`, IR (.xml) or
    checkpoint. With --recipe finetune a card's name stands for its published weights, and `bundled`
    is the default.

    The run's folder gets recipe, checkpoints, metrics.csv, TensorBoard files, the converted model,
    calibrated if there are enough photos, and report.html. Ctrl-C writes a checkpoint; `-o DIR
    --resume` continues with the run's own options and ends with the same weights (--epochs and --lr
    may change). Needs the extra `train`.

    Exit status: 0 done, 1 some photos are unreadable, 2 could not run, 130 interrupted.

      regnet train photos/ --recipe finetune
      regnet train photos/ --recipe finetune -m regnetx-3.2gf -o runs/mine
      regnet train imagenet/ --model regnetx-3.2gf --recipe paper --devices 8
      regnet train -o runs/night --resume
      torchrun --nproc-per-node 8 -m regnet train imagenet/ --recipe paper
    """
    stopping = Stopping()
    display = TrainingDisplay(stopping)
    with stopping.listening():
        from regnet.training.run_folder import resuming
        from regnet.training.train import train as train_network

        settings: dict[str, Any] = vars(photos) | vars(model) | vars(recipe)
        if model.model:
            choice = parse_ir_choice(model.model, "train", precisions=("f32",))
            settings["model"] = choice.model
        try:
            with models.library() as library:
                training = train_network(
                    **settings,
                    folder=run.output,
                    name=run.name,
                    resume=run.resume,
                    memory=run.memory,
                    memory_device=run.memory_device,
                    checkpoint_seconds=run.checkpoint_seconds,
                    devices=devices,
                    library=library,
                    watcher=display,
                    watch=display.watch,
                    say=say,
                )
        finally:
            display.close()
    if training.rank:
        return 0 if training.finished else EXIT_INTERRUPTED
    if not training.finished:
        say(f"regnet: stopped; go on with: {resuming(training.folder)}")
        return EXIT_INTERRUPTED
    from regnet.training.report import training_summary

    show(partial(training_summary, training), training.to_dict, as_json=run.json)
    return bool(training.unreadable)
