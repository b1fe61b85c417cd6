"""`regnet.train`: a folder of photos and a recipe -> a trained, converted model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from regnet.conversion.store import Library
from regnet.network.labels import Labels, read_labels
from regnet.network.spec import Spec
from regnet.system.cache import cache_dir as default_cache_dir
from regnet.training.command import Command
from regnet.training.recipe import Recipe, read_recipe
from regnet.training.task import Changes, Origin, Task, Training

if TYPE_CHECKING:
    from regnet.training.devices import Devices
    from regnet.training.job import Watcher
    from regnet.training.resume import Past
    from regnet.training.watching import Watch


_RECIPE: Final = "modern"


def _silent(message: str) -> None:
    """Say nothing."""


def train(
    dataset: str | Path | None = None,
    *,
    model: str | Path | Spec | None = None,
    recipe: str | Path | Recipe | None = None,
    val: str | Path | None = None,
    labels: Labels | str | Path | None = None,
    truth: str | Path | None = None,
    weights: str | Path | None = None,
    teacher: str | Sequence[str] | None = None,
    folder: str | Path | None = None,
    name: str | None = None,
    resume: bool = False,
    from_scratch: bool = False,
    small_stem: bool = False,
    epochs: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
    crop: int | None = None,
    freeze: int | None = None,
    accumulate: int | None = None,
    compile: bool | None = None,
    devices: "Devices | None" = None,
    memory: int | None = None,
    checkpoint_seconds: float | None = None,
    cache_dir: str | Path | None = None,
    library: Library | None = None,
    watcher: "Watcher | None" = None,
    watch: "Watch | None" = None,
    say: Callable[[str], None] = _silent,
) -> Training:
    """Train a network on labelled photos by a recipe; convert, measure and report what comes out.

    `dataset` is a folder, archive or pattern as for `regnet.evaluate`; with splits in it, or `val`,
    those validate, else a tenth of each class. Classes are its folders, or `labels` (a file of);
    `truth` is a file that says each photo's class, of a folder without class folders.
    `recipe` is "modern" by default. `model` is a network by name or spec, which starts at random,
    or `bundled`, an IR or a checkpoint, which goes on learning; a card's name does where the recipe
    says `pretrained`, and is then `bundled` by default. `weights` are those of another file or
    card, `from_scratch` takes none. `teacher` is a model to learn from as well, or several.
    `epochs` to `freeze` replace the recipe's values. `folder` gets everything.

    `resume` continues the run in `folder`, which starts from the beginning where it has no
    checkpoint yet and `dataset` is named. Without `dataset`, or without `model`, `recipe` and
    `weights`, the run's own options are taken for those not given. They may differ in `epochs`,
    `lr`, `accumulate`, and in where and in which precision it computes. Raises `TrainingError`,
    `RecipeError`, `DatasetError`, `WeightsError`, `UnknownModelError`, `OutputError`,
    `MissingExtraError`.
    """
    from regnet.training.devices import Devices  # says which extra is missing, before others do
    from regnet.training.session import run
    from regnet.training.watching import Unseen, unwatched

    named = model is not None or weights is not None
    past = _past(dataset, folder, resume=resume, named=named or recipe is not None)
    command = past.command if past else Command(dataset=dataset or "", devices=Devices())
    classes = read_labels(labels) if isinstance(labels, str | Path) else labels
    command = command.changed(dataset=dataset, val=val, labels=classes, truth=truth, name=name)
    command = command.changed(accumulate=accumulate, compile=compile, devices=devices)
    command = command.changed(memory=memory, checkpoint_seconds=checkpoint_seconds)
    command = command.changed(entry=library.entry if library else None)
    library = library or Library(folder=default_cache_dir(cache_dir))
    recipe = past.recipe if past and recipe is None else recipe or _RECIPE
    teachers = (teacher,) if isinstance(teacher, str) else tuple(teacher or ())
    changes = Changes(epochs=epochs, batch=batch, lr=lr, seed=seed, crop=crop, freeze=freeze)
    task = Task(
        command=command,
        origin=Origin(model, weights, from_scratch, small_stem, bool(past) and not named),
        recipe=recipe if isinstance(recipe, Recipe) else read_recipe(recipe),
        folder=folder,
        resume=resume,
        changes=replace(changes, teachers=teachers),
        library=replace(library, entry=command.entry),
        watcher=watcher or Unseen(),
        watch=watch or unwatched,
        say=say,
    )
    return run(task)


def _past(
    dataset: str | Path | None, folder: str | Path | None, *, resume: bool, named: bool
) -> "Past | None":
    """Return the run whose options are taken for those not given; None if there is none."""
    from regnet.training.resume import read_past
    from regnet.training.run_checkpoint import LAST
    from regnet.training.run_folder import folder_to_resume

    begun = folder is not None and (Path(folder).expanduser() / LAST).exists()
    if dataset is None or (resume and not named and begun):
        return read_past(folder_to_resume(folder, resume=resume))
    return None
