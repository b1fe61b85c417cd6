"""`regnet.train` and `regnet.finetune`: photos and a recipe -> a trained, converted model."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regnet.conversion.store import Library
from regnet.network.labels import Labels, read_labels
from regnet.network.spec import Spec
from regnet.system.cache import cache_dir as default_cache_dir
from regnet.system.parallel import Watch, unwatched
from regnet.training.history import Unseen, Watcher
from regnet.training.recipe import Changes, Recipe, read_recipe
from regnet.training.task import Command, Devices, Task, Training
from regnet.zoo.events import ignore

if TYPE_CHECKING:
    from regnet.training.resume import Past

_RECIPE: Final = "modern"


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
    devices: Devices | None = None,
    memory: int | None = None,
    memory_device: int | None = None,
    checkpoint_seconds: float | None = None,
    cache_dir: str | Path | None = None,
    library: Library | None = None,
    watcher: Watcher | None = None,
    watch: Watch | None = None,
    say: Callable[[str], None] = ignore,
) -> Training:
    """Train a network on labelled photos by a recipe; convert, evaluate and report the result.

    `dataset` is a folder, archive or pattern as for `regnet.evaluate`. Its splits, or `val`, are
    for validation, else a tenth of each class is held out. Classes are its folders, or `labels` (a
    file of them); `truth` is a label file for a folder without class folders. `recipe` is "modern"
    by default. `model` is a network by name or spec, which is randomly initialised, or `bundled`,
    an IR or a checkpoint, which is trained further; with a `pretrained` recipe also a card's name,
    and `bundled` is the default. `weights` are those of another file or card, `from_scratch` uses
    none. `teacher` is a model to distil from, or several. `epochs` to `freeze` replace the recipe's
    values. `folder` gets everything.

    `resume` continues the run in `folder`, from the beginning if it has no checkpoint yet and
    `dataset` is given. Without `dataset`, or without `model`, `recipe` and `weights`, the run's own
    options are used for those not given. They may differ in `epochs`, `lr`, `accumulate`, and in
    devices and precision. Raises `TrainingError`, `RecipeError`, `DatasetError`, `WeightsError`,
    `UnknownModelError`, `OutputError`, `MissingExtraError`.
    """
    import_module("regnet.training.devices")  # names the missing extra, before others do
    from regnet.training.session import run

    named = model is not None or weights is not None
    past = _past(dataset, folder, resume=resume, named=named or recipe is not None)
    command = past.command if past else Command(dataset=dataset or "")
    classes = read_labels(labels) if isinstance(labels, str | Path) else labels
    command = command.changed(dataset=dataset, val=val, labels=classes, truth=truth, name=name)
    command = command.changed(accumulate=accumulate, compile=compile, devices=devices)
    entry = library.entry if library else None
    command = command.changed(memory=memory, memory_device=memory_device)
    command = command.changed(checkpoint_seconds=checkpoint_seconds, entry=entry)
    library = library or Library(folder=default_cache_dir(cache_dir))
    task = Task(
        command=command,
        model=model,
        weights=weights,
        from_scratch=from_scratch,
        small_stem=small_stem,
        recalled=bool(past) and not named,
        recipe=_recipe(past.recipe if past and recipe is None else recipe, teacher),
        folder=folder,
        resume=resume,
        changes=Changes(epochs=epochs, batch=batch, lr=lr, seed=seed, crop=crop, freeze=freeze),
        library=replace(library, entry=command.entry),
        watcher=watcher or Unseen(),
        watch=watch or unwatched,
        say=say,
    )
    return run(task)


def _recipe(given: str | Path | Recipe | None, teacher: str | Sequence[str] | None) -> Recipe:
    """Return the recipe that is given, or the default one, with these teachers instead of its."""
    recipe = given if isinstance(given, Recipe) else read_recipe(given or _RECIPE)
    teachers = (teacher,) if isinstance(teacher, str) else tuple(teacher or ())
    return replace(recipe, teachers=teachers) if teachers else recipe


def _past(
    dataset: str | Path | None, folder: str | Path | None, *, resume: bool, named: bool
) -> "Past | None":
    """Return the run whose options are used for those not given, if there is one."""
    from regnet.training.resume import read_past
    from regnet.training.run_folder import LAST, folder_to_resume

    begun = folder is not None and (Path(folder).expanduser() / LAST).exists()
    if dataset is None or (resume and begun and not named):
        return read_past(folder_to_resume(folder, resume=resume))
    return None


def finetune(
    dataset: str | Path,
    *,
    model: str | Path = "bundled",
    recipe: str | Path | Recipe = "finetune",
    **options: Any,
) -> Training:
    """Fine-tune a pretrained network on labelled photos; options and errors as of `train`.

    `model` is `bundled`, a card's name, an IR or a checkpoint file. It gets a new head if the
    classes differ, keeps its input, and its first layers learn slowest.
    """
    return train(dataset, model=model, recipe=recipe, **options)
