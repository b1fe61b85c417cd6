"""The feed of a run: the crops of each step, this process's share of them, ahead of a GPU.

They are made by this process's threads, by processes of their own ahead of a GPU, or on the device
itself if all photos are there, from boxes that processes draw ahead. The random numbers are the
same in all three.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from regnet.data.labelled import Unreadable
from regnet.system.errors import RegNetError, TrainingError
from regnet.system.parallel import cores, in_order
from regnet.training.crops import random_boxes, training_batch, uniforms
from regnet.training.devices import Processes, on_device
from regnet.training.draws import Draws, draw_chunks
from regnet.training.microbatch import MicroBatch, Step
from regnet.training.photos import Batch
from regnet.training.resident import PLACE_BYTES, SUPPORT, ResidentPhotos
from regnet.training.run_folder import LAST, resuming
from regnet.training.state import Job
from regnet.training.workers import Workers, crop_bytes, useful_workers

_CROPS: Final = 0  # a step's stream of random numbers; its images' streams follow
_DRAWING: Final = 2  # processes that draw for a device, tens of thousands of photos a second each


@dataclass(frozen=True)
class Order:
    """The order of an epoch's photos: whole batches of numbers, the same for the same seed.

    `balanced` takes as many photos of every class (one more of some): a part of large classes,
    small ones repeatedly. What does not fill a batch waits for another epoch; a set smaller than a
    batch is one batch.
    """

    truths: NDArray[np.int64]
    batch: int
    seed: int
    balanced: bool = False

    @property
    def steps(self) -> int:
        """Number of batches."""
        return max(len(self.truths) // self.batch, 1)

    def batches(self, epoch: int) -> NDArray[np.int64]:
        """Return the numbers of the photos of each batch of an epoch: (steps, batch)."""
        random = np.random.default_rng((self.seed, epoch))
        order = self._balanced(random) if self.balanced else random.permutation(len(self.truths))
        batch = min(self.batch, len(order))
        return order[: self.steps * batch].reshape(self.steps, batch)

    def _balanced(self, random: np.random.Generator) -> NDArray[np.int64]:
        _, counts = np.unique(self.truths, return_counts=True)
        classes = np.split(np.argsort(self.truths, kind="stable"), np.cumsum(counts)[:-1])
        share, left = divmod(len(self.truths), len(classes))
        shares = share + (random.permutation(len(classes)) < left)
        drawn = map(partial(_repeated, random), classes, shares.tolist())
        return random.permutation(np.concatenate(list(drawn)))


def _repeated(
    random: np.random.Generator, numbers: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Return `count` of the numbers: all of them in random order before one is repeated."""
    rounds = [random.permutation(numbers) for _ in range(-(-count // len(numbers)))]
    return np.concatenate(rounds)[:count]


class Feed:
    """Gives this process's crops of each step.

    `kind` is "threads", "processes" or "device": who makes them.
    """

    def __init__(self, job: Job, processes: Processes, device: torch.device) -> None:
        schedule, transfer = job.recipe.schedule, job.recipe.transfer
        self.order = Order(
            job.photos.truths, schedule.batch, job.recipe.seed, transfer.balanced_sampling
        )
        self.batch = min(schedule.batch, len(job.photos))
        self._job, self._device = job, device
        self._runs = runs(self.batch, job.accumulate, processes)
        self._numbers: tuple[int, NDArray[np.int64]] = (-1, np.zeros((0, 0), np.int64))
        self._resident = None
        images = sum(run.stop - run.start for run in self._runs)
        size, most = crop_bytes(job, images), None
        fits = 0 < job.photos.held_bytes <= job.memory_device and job.photos.in_memory
        if fits and job.recipe.input.interpolation in SUPPORT:
            self._resident = ResidentPhotos(job.photos, device)
            size, most = images * PLACE_BYTES, _DRAWING
        count = useful_workers(job, size, processes.count, device, most)
        pins = device.type == "cuda"
        self._workers = Workers(self._made, count, size, pins=pins) if count else None

    @property
    def kind(self) -> str:
        """Who makes the crops."""
        return "device" if self._resident else "processes" if self._workers else "threads"

    def steps(self, epoch: int, first: int = 0, last: int | None = None) -> Iterator[Step]:
        """Yield the steps of an epoch; for a GPU they are made ahead, while it computes."""
        chosen = range(self.order.steps)[first:last]
        made: Iterator[Step]
        if self._workers:
            made = self._workers.steps(epoch, chosen)
        elif self._resident:
            made = map(partial(self._drawn, self._resident, epoch), chosen)
        else:
            made = self._by_threads(epoch, chosen)
        if self._resident:
            made = map(partial(self._cropped, self._resident, epoch), made)
        yield from made

    def close(self) -> None:
        """End the processes; they start again if more steps are asked for."""
        if self._workers:
            self._workers.close()

    def seed(self, epoch: int, step: int, stream: int) -> int:
        """Return the seed of one of a step's streams of random numbers."""
        entropy = (self._job.recipe.seed, epoch, step, stream)
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _by_threads(self, epoch: int, chosen: range) -> Iterator[Step]:
        ahead = self._device.type == "cuda"
        with ThreadPoolExecutor(cores(), "regnet-crops") as pool:

            def make(step: int) -> Step:
                made = self._step(epoch, step, pool)
                return made.pin_memory() if ahead else made

            if ahead:
                yield from in_order(chosen, lambda n: list(map(make, n)), workers=1, batch_size=1)
            else:
                yield from map(make, chosen)

    def _made(self, epoch: int, step: int) -> Step | RegNetError:
        """Return a step, or why there is none: in a process of its own."""
        try:
            if self._resident:
                return self._drawn(self._resident, epoch, step)
            return self._step(epoch, step)
        except RegNetError as exc:
            return exc

    def _step(self, epoch: int, step: int, pool: ThreadPoolExecutor | None = None) -> Step:
        job, side = self._job, self._job.recipe.crop_at(epoch)
        numbers = self._batch(epoch, step)
        parts: list[MicroBatch] = []
        unreadable: list[Unreadable] = []
        for run in self._runs:
            random = self._random(epoch, step)
            batch = training_batch(
                job.photos, numbers, job.recipe, random, side=side, part=run, pool=pool
            )
            unreadable += batch.unreadable
            batch = _filled(batch, run.stop - run.start, job.folder)
            crops, truths = torch.from_numpy(batch.crops), torch.from_numpy(batch.truths)
            parts.append(MicroBatch(crops, truths, self._draws(epoch, step, run), run.start))
        return Step(step, tuple(parts), tuple(unreadable))

    def _drawn(self, resident: ResidentPhotos, epoch: int, step: int) -> Step:
        """Return a step that has, instead of crops, a photo's number and box each: (N, 5)."""
        photos, recipe = self._job.photos, self._job.recipe
        numbers = self._batch(epoch, step)
        drawn = uniforms(self._random(epoch, step), len(numbers))
        parts: list[MicroBatch] = []
        unreadable: list[Unreadable] = []
        for run in self._runs:
            own = numbers[run]
            read = resident.sizes[own, 0] > 0
            found = [photos.pixels(int(number)) for number in own[~read]]
            lost = [photo for photo in found if isinstance(photo, Unreadable)]
            unreadable += lost
            readable = np.flatnonzero(read)
            chosen = _repeated_to(len(own), len(readable), lost, self._job.folder)
            own, sizes = own[readable], resident.sizes[own[readable]]
            boxes = random_boxes(sizes, recipe.augmentation, drawn[run][readable])
            places = torch.from_numpy(np.column_stack([own, boxes])[chosen])
            truths = torch.from_numpy(photos.truths[own[chosen]])
            parts.append(MicroBatch(places, truths, self._draws(epoch, step, run), run.start))
        return Step(step, tuple(parts), tuple(unreadable))

    def _cropped(self, resident: ResidentPhotos, epoch: int, step: Step) -> Step:
        """Return a step that was drawn with its crops, which the device makes of its own photos."""
        side, interpolation = self._job.recipe.crop_at(epoch), self._job.recipe.input.interpolation
        parts: list[MicroBatch] = []
        for part in step.parts:
            crops = resident.crops(part.crops.numpy(), side=side, interpolation=interpolation)
            truths = on_device(part.truths.numpy(), self._device)
            parts.append(replace(part, crops=crops, truths=truths))
        return replace(step, parts=tuple(parts))

    def _draws(self, epoch: int, step: int, run: slice) -> tuple[Draws, ...]:
        """Return what is drawn for the augmentation of a part, the same for all processes."""
        recipe = self._job.recipe
        side = recipe.crop_at(epoch)
        first = 1 + run.start
        return draw_chunks(
            recipe.augmentation,
            run.stop - run.start,
            side,
            side,
            lambda place: self.seed(epoch, step, first + place),
        )

    def _batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Return the numbers of a step's photos."""
        numbers = self._numbers
        if numbers[0] != epoch:
            numbers = self._numbers = epoch, self.order.batches(epoch)
        batch: NDArray[np.int64] = numbers[1][step]
        return batch

    def _random(self, epoch: int, step: int) -> np.random.Generator:
        return np.random.default_rng(self.seed(epoch, step, _CROPS))


def runs(batch: int, parts: int, processes: Processes) -> tuple[slice, ...]:
    """Return this process's run of each part of a batch: all processes' together are the part."""
    if batch < parts * processes.count:
        raise TrainingError(
            f"a batch of {batch} photos is too small for {processes.count} processes that take it "
            f"in {parts} parts each: take a larger batch, fewer processes or a lower accumulate"
        )
    own = [
        np.array_split(part, processes.count)[processes.rank]
        for part in np.array_split(np.arange(batch), parts)
    ]
    return tuple(slice(int(run[0]), int(run[-1]) + 1) for run in own)


def _filled(batch: Batch, count: int, folder: Path) -> Batch:
    """Return `count` photos: unreadable ones are replaced by repeating others."""
    if len(batch.truths) == count:
        return batch
    chosen = _repeated_to(count, len(batch.truths), batch.unreadable, folder)
    return Batch(batch.crops[chosen], batch.truths[chosen], batch.unreadable)


def _repeated_to(
    count: int, readable: int, unreadable: Sequence[Unreadable], folder: Path
) -> NDArray[np.int64]:
    """Return which of the readable photos make up `count`, repeated if they are fewer.

    So all processes and parts have the same size. Raises `TrainingError` if none is readable.
    """
    if readable:
        return np.arange(count) % readable
    remedy = "Make them readable or remove them, and start again"
    if (folder / LAST).exists():  # without them it would be a run on other photos
        remedy = f"Make them readable, then: {resuming(folder)}"
    photo = unreadable[0]
    raise TrainingError(
        f"none of {count} photos of a step could be read, such as {photo.source}: "
        f"{photo.error}. {remedy}"
    )
