"""One run from its task to its model: everything put together."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from regnet.data.dataset import sample
from regnet.data.labelled import Unreadable
from regnet.inference.predictors import parse_choice
from regnet.ir.assumptions import AssumptionWarning, warn, warn_assumed
from regnet.network.modules import RegNet
from regnet.system.errors import DatasetError, OutputError, RegNetError, TrainingError
from regnet.system.parallel import unwatched
from regnet.training.deploy import deploy
from regnet.training.devices import (
    batch_by_photos,
    first_line,
    fitting,
    is_shortage,
    keep_freed_memory,
    one_step,
)
from regnet.training.history import EpochRecord, FirstSpeaks, History
from regnet.training.initial_head import fit_head
from regnet.training.initial_network import (
    Start,
    begin,
    open_start,
    require_size,
    require_statistics,
)
from regnet.training.loop import Trainer
from regnet.training.photo_sets import PhotoSets, open_photo_sets, require_some, unreadable_photos
from regnet.training.photos import MEMORY, CentreCrops, LabelledPhotos
from regnet.training.recipe import Recipe, resolved, write_recipe
from regnet.training.resume import Past, Plan, about, read_past
from regnet.training.run_folder import LAST, RECIPE, in_use, read_run, resuming, run_folder
from regnet.training.state import Job
from regnet.training.task import Task, Training, absolute
from regnet.training.teacher import open_teacher
from regnet.training.validation import Normalise
from regnet.zoo.events import ignore

_STATISTICS: Final = 512  # photos for batch-norm statistics
_BATCH: Final = 64
_DEFAULT: Final = "bundled"
_WHY_DEFAULT: Final = (
    "starting from the bundled model, which needs no download and trains in minutes on a CPU; "
    "--model regnetx-3.2gf starts from a larger one"
)


def run(task: Task) -> Training:
    """Train as the task says; errors as of `train`."""
    fabric = task.command.devices.fabric()
    keep_freed_memory()
    fabric.launch()
    if not fabric.is_global_zero:
        task = replace(task, say=ignore, watch=unwatched)
    sets = _photo_sets(task)
    with ExitStack() as stack:
        folder = _folder(task, fabric, stack)
        if task.resume and not (folder / LAST).exists():
            task.say(f"{folder}: no checkpoint was written yet: the run starts from the beginning")
            task = replace(task, resume=False)
        for finding in sets.findings:
            task.say(f"{finding.severity}: {finding.text} {finding.remedy}")
        with _memory(partial(_shortage, folder)):
            return _run(task, folder, sets, fabric)


@contextmanager
def _memory(advice: Callable[[str], str]) -> Iterator[None]:
    """Turn an error that memory was refused into what to do, which depends on the error's text."""
    try:
        yield
    except (RuntimeError, MemoryError) as exc:
        if not is_shortage(exc):
            raise
        raise TrainingError(advice(first_line(exc))) from exc


def _shortage(folder: Path, reason: str) -> str:
    then = f", then: {resuming(folder)}" if (folder / LAST).exists() else ""
    return f"this machine has too little memory ({reason}). Free some, or lower --memory{then}"


def _photo_sets(task: Task) -> PhotoSets:
    command = task.command
    seed = task.recipe.seed if task.changes.seed is None else task.changes.seed
    try:
        return open_photo_sets(
            command.dataset, command.val, command.labels, seed=seed, truth=command.truth
        )
    except DatasetError as exc:
        if not task.recalled or Path(command.dataset).exists():
            raise
        moved = f"If the photos have moved: regnet train DATASET -o {task.folder} --resume"
        raise DatasetError(f"{exc}. {moved}") from exc


def _folder(task: Task, fabric: Any, stack: ExitStack) -> Path:
    """Return the folder of the run; the first process finds it for all, and locks it."""
    folder: Path | RegNetError | None = None
    if fabric.is_global_zero:
        try:
            folder = run_folder(
                task.folder, task.command.dataset, task.recipe.name, resume=task.resume
            )
            stack.enter_context(in_use(folder))
        except (TrainingError, OutputError) as exc:
            folder = exc
    folder = fabric.broadcast(folder)
    if not isinstance(folder, Path):
        raise folder or TrainingError("the first process of the run has no folder")
    return folder


def _run(task: Task, folder: Path, sets: PhotoSets, fabric: Any) -> Training:
    past = read_past(folder) if task.resume else None
    start = _start(task, past)
    plan = _plan(task, start, sets, past)
    require_size(start.spec, plan.recipe.input)
    task.command.devices.require_sound(start.spec)
    network = begin(
        start.at_random() if task.resume else start,  # one that is resumed gets its weights later
        sets.labels,
        seed=plan.recipe.seed,
        new_head=plan.recipe.transfer.pretrained,
        images=partial(_images, plan.recipe, sets),
        fit_head=partial(_fit_head, task, plan.recipe, sets, fabric.device),
    )
    recipe = _with_batch(plan.recipe, network, sets, fabric)
    require_statistics(start.spec, recipe, task.command.accumulate, len(sets.train))
    job = _job(task, replace(plan, recipe=recipe), sets, folder, fabric)
    assumed = _assumed(start, job, warns=fabric.is_global_zero)
    lost, warnings = unreadable_photos(
        job.photos, job.validation, sets.labels, watch=task.watch, processes=fabric.world_size
    )
    trainer = Trainer(job, network, fabric)
    history = _history(trainer, folder, resume=task.resume)
    if fabric.is_global_zero:
        write_recipe(folder / RECIPE, recipe, plan.notes)
    watcher = FirstSpeaks(task.watcher, first=fabric.is_global_zero)
    for photo in lost:
        watcher.skipped(photo)
    for remark in warnings:
        task.say(f"warning: {remark}")
    with _memory(partial(_batch_shortage, trainer)):
        trainer.run(history, watcher)
    fabric.barrier()
    training = Training(
        folder=folder,
        finished=trainer.state.position.step == 0,
        recipe=recipe,
        records=history.records,
        train_photos=len(sets.train),
        val_photos=0 if sets.validation is None else sets.validation.count,
        unreadable=tuple(watcher.unreadable.values()),
        remarks=(*(finding.text for finding in sets.findings), *warnings, *plan.notes),
        rank=fabric.global_rank,
        assumed=assumed,
    )
    if training.finished and fabric.is_global_zero:
        training = deploy(training, trainer, sets, task, started_from=start.source)
    return training


def _assumed(start: Start, job: Job, *, warns: bool) -> tuple[str, ...]:
    """Return what is assumed about the initial model and the teachers, and warn of it."""
    sentences = [*start.assumed]
    if warns and start.assumed:
        warn(AssumptionWarning(start.source, start.assumed))
    for name, teacher in zip(job.recipe.teachers, job.teachers, strict=True):
        sentences += [f"{text} (teacher {name})" for text in teacher.metadata.assumed]
        if warns:
            warn_assumed(name, teacher.metadata)
    return tuple(sentences)


def _plan(task: Task, start: Start, sets: PhotoSets, past: Past | None) -> Plan:
    """Return the plan; raises `TrainingError` if the run to resume was another one."""
    recipe = resolved(task.recipe, task.changes, start.protocol)
    recipe = replace(recipe, teachers=tuple(map(_absolute_model, recipe.teachers)))
    now = about(
        start,
        sets,
        recipe.teachers,
        accumulate=task.command.accumulate,
        precision=task.command.devices.computed_in,
        library=task.library,
    )
    notes: tuple[str, ...] = ()
    if past is not None:
        if task.keeps_start:
            now = replace(now, start=past.about.start)
        recipe, note = past.continued(recipe, now, epochs_given=task.changes.epochs is not None)
        if note:
            task.say(f"warning: {note}")
        notes = (*past.notes, note) if note else past.notes
    return Plan(recipe=recipe, about=now, command=task.command, notes=notes)


def _absolute_model(teacher: str) -> str:
    """Return the name of a teacher that means the same in every folder."""
    choice = parse_choice(teacher)
    if not Path(choice.model).exists():
        return teacher
    return absolute(choice.model) + teacher.removeprefix(choice.model)


def _start(task: Task, past: Past | None) -> Start:
    """Return the initial network; a run that is resumed as it was has its own."""
    if past and task.keeps_start:
        return Start(
            spec=past.about.network, source=past.about.start.name if past.about.start else ""
        )
    pretrained = task.recipe.transfer.pretrained
    model = task.model
    if model is None and task.weights is None and pretrained:
        model = _DEFAULT
        task.say(_WHY_DEFAULT)
    pretrained = pretrained and not task.from_scratch
    start = open_start(model, task.weights, pretrained=pretrained, library=task.library)
    if task.from_scratch:
        start = start.at_random()
    if not task.small_stem:
        return start
    if start.state is not None:
        raise TrainingError(
            f"{start.source} has weights for its own stem: leave out --small-stem, or begin at "
            "random (--from-scratch)"
        )
    return replace(start, spec=start.spec.with_small_stem())


def _images(recipe: Recipe, sets: PhotoSets) -> Iterator[Tensor]:
    """Yield batches of normalised centre crops of training photos."""
    protocol = recipe.input.protocol(recipe.name)
    chosen = sample(sets.train, _STATISTICS, seed=recipe.seed)
    normalise = Normalise(protocol, torch.device("cpu"))
    lost: list[Unreadable] = []
    read = 0
    for batch in CentreCrops(chosen, protocol, batch=_BATCH, memory=0).batches():
        lost += batch.unreadable
        read += len(batch.truths)
        if len(batch.truths):
            yield normalise(normalise.on_device(batch)[0])
    require_some(lost, read)


def _fit_head(
    task: Task, recipe: Recipe, sets: PhotoSets, device: torch.device, network: RegNet
) -> None:
    """Fit a new head to the features of training photos, if the recipe has that."""
    if recipe.transfer.head == "fitted":
        protocol = recipe.input.protocol(recipe.name)
        fitted = fit_head(network, sets.train, protocol, seed=recipe.seed, device=device)
        if fitted:
            task.say(str(fitted))


def _with_batch(recipe: Recipe, network: RegNet, sets: PhotoSets, fabric: Any) -> Recipe:
    """Return the recipe with a batch size, chosen here if it is 0."""
    if recipe.schedule.batch:
        return recipe
    gpu, processes = fabric.device.type == "cuda", fabric.world_size
    batch = batch_by_photos(len(sets.train), gpu=gpu, processes=processes)
    if gpu:
        trial = deepcopy(network)
        share = fitting(batch // processes, lambda n: one_step(trial, recipe, fabric, n))
        shares = fabric.all_gather(torch.tensor(share, device=fabric.device))
        batch = int(shares.min()) * processes
    return recipe.changed("schedule", batch=batch)


def _bytes_on_device(photos: LabelledPhotos, limit: int | None, fabric: Any) -> int:
    """Return the bytes of the photos if all processes' devices should keep them, else 0.

    The limit on a GPU is by default half of what a step leaves free.
    """
    if limit is None:
        limit = 0
        if fabric.device.type == "cuda":
            step = torch.cuda.max_memory_reserved(fabric.device)  # of the batch that was tried
            free = torch.cuda.mem_get_info(fabric.device)[0]
            limit = (free + torch.cuda.memory_reserved(fabric.device) - step) // 2
    fits = photos.in_memory and photos.held_bytes <= limit
    everywhere = fabric.all_gather(torch.tensor(float(fits), device=fabric.device)).min()
    return photos.held_bytes if everywhere else 0


def _job(task: Task, plan: Plan, sets: PhotoSets, folder: Path, fabric: Any) -> Job:
    recipe, command = plan.recipe, task.command
    memory = (MEMORY if command.memory is None else command.memory) // 2
    validation = None
    photos = LabelledPhotos(
        sets.train, short_side=2 * max(recipe.input.crops), memory=memory, watch=task.watch
    )
    if sets.validation is not None and sets.validation.count:
        protocol = recipe.input.protocol(recipe.name)
        validation = CentreCrops(tuple(sets.validation.items()), protocol, batch=256, memory=memory)
    memory_device = _bytes_on_device(photos, command.memory_device, fabric)
    plan = replace(plan, command=replace(plan.command, memory_device=memory_device))
    return Job(
        recipe=recipe,
        photos=photos,
        validation=validation,
        classes=len(sets.labels),
        folder=folder,
        teachers=tuple(
            open_teacher(model, sets.labels, library=task.library, device=fabric.device)
            for model in recipe.teachers
        ),
        accumulate=command.accumulate,
        checkpoint_seconds=command.checkpoint_seconds,
        compile=command.compile,
        memory_device=memory_device,
        about=plan.to_dict(),
    )


def _history(trainer: Trainer, folder: Path, *, resume: bool) -> History:
    """Return the run's history; a run that is resumed loads its checkpoint first."""
    records: list[EpochRecord] = []
    if resume:
        values = read_run(folder / LAST)
        try:
            trainer.load(values)
            records = [EpochRecord.from_dict(record) for record in values["records"]]
        except (RuntimeError, LookupError, TypeError, ValueError, TrainingError) as exc:
            raise TrainingError(
                f"{folder / LAST}: does not fit the network that it names, or this version "
                f"({first_line(exc)}). Start the run again in another folder"
            ) from exc
    position, steps = trainer.state.position, trainer.feed.order.steps
    done = position.epoch * steps + position.step
    return History(folder, records, next_step=done, on_disk=trainer.fabric.is_global_zero)


def _batch_shortage(trainer: Trainer, reason: str) -> str:
    """Return what to do if a batch does not fit in memory."""
    job = trainer.job
    batch = min(job.recipe.schedule.batch, len(job.photos))
    gpu = trainer.fabric.device.type == "cuda"
    what = f"{'the GPU' if gpu else 'this machine'} has too little memory for a batch of {batch}"
    what += f" ({reason})" if reason.startswith("could not create") else ""
    parts = 2 * job.accumulate
    in_parts = ("--accumulate", str(parts)) if batch >= 2 * parts * trainer.processes.count else ()
    if trainer.saved_at:
        if in_parts:
            return f"{what}. Compute it in parts: {resuming(job.folder, *in_parts)}"
        return f"{what}. Free memory, then: {resuming(job.folder)}"
    ways = [" ".join(in_parts)] if in_parts else []
    ways += [f"--batch {batch // 2}"] if batch > 2 else []
    ways += ["--crop with fewer pixels"]
    return f"{what}. Start again with {' or '.join(ways)}"
