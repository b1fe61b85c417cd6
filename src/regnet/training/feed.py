"""The feed of a run: random crops of each step, this process's share of them, ahead of a GPU.

A crop is made from numbers drawn before, so a batch's crops do not depend on who makes them, or in
which order.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regnet.pixels.pillow_resize import resize_crop
from regnet.pixels.protocol import Box, Interpolation
from regnet.system.errors import TrainingError
from regnet.system.parallel import cores, in_order
from regnet.training.devices import Processes
from regnet.training.history import Unreadable
from regnet.training.photos import Batch, LabelledPhotos, as_batch
from regnet.training.recipe import Augmentation, Recipe
from regnet.training.run_folder import LAST, resuming
from regnet.training.state import Job

_CROPS: Final = 0  # a step's stream of random numbers; its images' streams follow
TRIES: Final = 10
_NUMBERS: Final = 5  # per try: area, aspect, turn, left, top

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Uniforms = NDArray[np.float64]


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


def draws(random: np.random.Generator, count: int) -> Uniforms:
    """Return the random numbers in [0, 1) for `count` crops: (count, tries, 5)."""
    return random.random((count, TRIES, _NUMBERS))


def random_box(width: int, height: int, augmentation: Augmentation, numbers: Uniforms) -> Box:
    """Return (left, top, right, bottom) of a random crop of an image, from its numbers.

    Area and aspect ratio are drawn until the crop fits, ten times at most; then it is central: a
    square, or by torchvision's rule as much as its ratios allow. The rule "pycls" draws the ratio
    evenly from 3/4..4/3, turns half the crops, and never begins at the very end; "torchvision"
    draws the ratio's logarithm evenly.
    """
    low, high = augmentation.area
    pycls = augmentation.rule == "pycls"
    for area, aspect, turn, left, top in numbers.tolist():
        size = (low + (high - low) * area) * (width * height)
        ratio = 3 / 4 + (4 / 3 - 3 / 4) * aspect
        if not pycls:
            ratio = math.exp(math.log(3 / 4) + math.log(16 / 9) * aspect)
        across, down = round(math.sqrt(size * ratio)), round(math.sqrt(size / ratio))
        if pycls and turn < 0.5:
            across, down = down, across
        if 0 < across <= width and 0 < down <= height:
            rooms = (width - across, height - down)
            places = [max(room, 1) if pycls else room + 1 for room in rooms]
            x, y = int(left * places[0]), int(top * places[1])
            return x, y, x + across, y + down
    across = down = min(width, height)
    if not pycls:
        across, down = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    x, y = (width - across) // 2, (height - down) // 2
    return x, y, x + across, y + down


def crop(
    pixels: Pixels, box: Box, *, side: int, interpolation: Interpolation
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Return the box of pixels (H, W, 3) resized to (side, side, 3), 0..255.

    8-bit by Pillow's filters; float32 by OpenCV's rule, which does not round.
    """
    left, top, right, bottom = box
    part = pixels[top:bottom, left:right]
    if interpolation == "opencv-linear":
        return _linear(part, side)
    whole = (0, 0, side, side)
    return resize_crop(part, size=(side, side), box=whole, interpolation=interpolation)


def _linear(pixels: Pixels, side: int) -> Floats:
    """Return pixels resized as by OpenCV's INTER_LINEAR on float32: (side, side, 3).

    On 0..255, within 0.0001 of `regnet.pixels.opencv_resize`, which is exact and takes three times
    as long.
    """
    height, width = pixels.shape[:2]
    top, bottom, down = _taps(height, side)
    left, right, across = _taps(width, side)
    channel = np.arange(3)
    rows = pixels[top].reshape(side, -1).astype(np.float32)
    rows = _blended(rows, pixels[bottom].reshape(side, -1).astype(np.float32), down[:, None])
    first, second = (rows.take((3 * at[:, None] + channel).ravel(), 1) for at in (left, right))
    return _blended(first, second, across.repeat(3)).reshape(side, side, 3)


def _taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Return the two source pixels of each target pixel along an axis, and the second's weight."""
    at = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    second = np.minimum(first + 1, source - 1)
    return np.maximum(first, 0), second, at - first.astype(np.float32)


def _blended(first: Floats, second: Floats, weight: Floats) -> Floats:
    """Return first + (second - first) * weight; overwrites `second`."""
    second -= first
    second *= weight
    second += first
    return second


def training_batch(
    photos: LabelledPhotos,
    numbers: NDArray[np.int64],
    recipe: Recipe,
    random: np.random.Generator,
    *,
    side: int,
    part: slice = slice(None),
    pool: ThreadPoolExecutor,
) -> Batch:
    """Return random crops (side, side) of the photos of these numbers, or of a part of them.

    Random numbers are drawn for all of them, so the parts of several processes are those of the
    whole batch.
    """
    drawn = draws(random, len(numbers))[part]
    numbers = numbers[part]

    def one(place: int) -> NDArray[Any] | Unreadable:
        pixels = photos.pixels(int(numbers[place]))
        if isinstance(pixels, Unreadable):
            return pixels
        height, width = pixels.shape[:2]
        box = random_box(width, height, recipe.augmentation, drawn[place])
        return crop(pixels, box, side=side, interpolation=recipe.input.interpolation)

    share = max(-(-len(numbers) // cores()), 1)  # equal runs, one per thread
    runs = [range(at, min(at + share, len(numbers))) for at in range(0, len(numbers), share)]
    crops = [each for run in pool.map(lambda run: list(map(one, run)), runs) for each in run]
    return as_batch(crops, photos.truths[numbers], side)


@dataclass(frozen=True)
class MicroBatch:
    """Photos that go through the network at once, on the host: crops (N, S, S, 3), classes (N,).

    `place` is the first one's in the step's batch, the same with any number of processes.
    """

    crops: Tensor
    truths: Tensor
    place: int


@dataclass(frozen=True)
class Step:
    """A step's photos: parts (gradient accumulation), and the photos that were left out."""

    number: int
    parts: tuple[MicroBatch, ...]
    unreadable: tuple[Unreadable, ...]


class Feed:
    """Makes this process's crops of each step, on all cores."""

    def __init__(self, job: Job, processes: Processes, device: torch.device) -> None:
        schedule, transfer = job.recipe.schedule, job.recipe.transfer
        self.order = Order(
            job.photos.truths, schedule.batch, job.recipe.seed, transfer.balanced_sampling
        )
        self.batch = min(schedule.batch, len(job.photos))
        self._job, self._on_gpu = job, device.type == "cuda"
        self._runs = runs(self.batch, job.accumulate, processes)

    def steps(self, epoch: int, first: int = 0, last: int | None = None) -> Iterator[Step]:
        """Yield the steps of an epoch; for a GPU they are made ahead, while it computes."""
        numbers = self.order.batches(epoch)
        with ThreadPoolExecutor(cores(), "regnet-crops") as pool:
            make = partial(self._step, epoch, numbers, pool)
            chosen = range(len(numbers))[first:last]
            if self._on_gpu:
                yield from in_order(chosen, lambda n: list(map(make, n)), workers=1, batch_size=1)
            else:
                yield from map(make, chosen)

    def seed(self, epoch: int, step: int, stream: int) -> int:
        """Return the seed of one of a step's streams of random numbers."""
        entropy = (self._job.recipe.seed, epoch, step, stream)
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _step(
        self, epoch: int, numbers: NDArray[np.int64], pool: ThreadPoolExecutor, step: int
    ) -> Step:
        job, side = self._job, self._job.recipe.crop_at(epoch)
        parts: list[MicroBatch] = []
        unreadable: list[Unreadable] = []
        for run in self._runs:
            random = np.random.default_rng(self.seed(epoch, step, _CROPS))
            batch = training_batch(
                job.photos, numbers[step], job.recipe, random, side=side, part=run, pool=pool
            )
            unreadable += batch.unreadable
            batch = _filled(batch, run.stop - run.start, job.folder)
            crops, truths = torch.from_numpy(batch.crops), torch.from_numpy(batch.truths)
            if self._on_gpu:  # from pinned memory it copies while it computes
                crops, truths = crops.pin_memory(), truths.pin_memory()
            parts.append(MicroBatch(crops, truths, run.start))
        return Step(step, tuple(parts), tuple(unreadable))


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
    """Return `count` photos: unreadable ones are replaced by repeating others.

    So all processes and parts have the same size. Raises `TrainingError` if none is readable.
    """
    readable = len(batch.truths)
    if readable == count:
        return batch
    if not readable:
        remedy = "Make them readable or remove them, and start again"
        if (folder / LAST).exists():  # without them it would be a run on other photos
            remedy = f"Make them readable, then: {resuming(folder)}"
        photo = batch.unreadable[0]
        raise TrainingError(
            f"none of {count} photos of a step could be read, such as {photo.source}: "
            f"{photo.error}. {remedy}"
        )
    chosen = np.arange(count) % readable
    return Batch(batch.crops[chosen], batch.truths[chosen], batch.unreadable)
