"""The loop: one network, one recipe, on whatever devices Fabric was given."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from regnet.errors import TrainingError
from regnet.network import RegNet
from regnet.parallel import cores
from regnet.training.augment import Augment
from regnet.training.averages import WeightAverage, precise_batch_norm
from regnet.training.history import EpochRecord, History
from regnet.training.losses import distillation_loss
from regnet.training.optimizer import freeze, frozen_parts, make_optimizer, set_rate
from regnet.training.photos import (
    Batch,
    CentreCrops,
    Cropping,
    Order,
    Photos,
    Unreadable,
    training_batch,
)
from regnet.training.recipe import Recipe
from regnet.training.run_checkpoint import LAST, require_room, write_checkpoint
from regnet.training.schedule import crop_side, learning_rate
from regnet.training.teacher import Teacher

_NEWS_EVERY: Final = 20  # steps: to look at the loss makes a GPU wait
_AUGMENT: Final = 1  # which stream of random numbers
_CROP: Final = 0
_LEAST_OF_CLASS_WEIGHTS: Final = 1e-12


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained on what: values that do not change during a run.

    `fingerprint` tells the data from other data. A checkpoint is written after every epoch, and
    when `checkpoint_seconds` have passed since the last.
    """

    recipe: Recipe
    photos: Photos
    validation: CentreCrops | None
    classes: int
    folder: Path
    fingerprint: str
    teacher: Teacher | None = None
    accumulate: int = 1
    checkpoint_seconds: float = 600.0


@dataclass
class Sums:
    """What is summed over the steps of an epoch."""

    loss: Tensor
    right: Tensor
    images: int = 0
    seconds: float = 0.0
    skipped: int = 0


@dataclass(frozen=True, kw_only=True)
class News:
    """How far a run is: for whoever watches. `loss` and `top1` are means of the epoch so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    top1: float
    lr: float
    images_per_s: float
    seconds_left: float


class Watcher(Protocol):
    """Whoever watches a run; `stop` is asked after each step whether to stop here."""

    def news(self, news: News) -> None:
        """Hear of the step just done."""

    def epoch(self, record: EpochRecord) -> None:
        """Hear of the epoch just done."""

    def skipped(self, photo: Unreadable) -> None:
        """Hear of a photo that could not be read."""

    def stop(self) -> bool:
        """Return whether to write a checkpoint and stop."""


@dataclass
class Position:
    """Where a run is: epochs done, and steps done of the one under way."""

    epoch: int = 0
    step: int = 0


@dataclass
class Best:
    """The best weights by validation so far, and their epoch, counted from 1."""

    top1: float = -1.0
    epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


class Trainer:
    """A network in training; `run` ends it, `deployed` are the weights to use.

    Raises `TrainingError` where it cannot go on, `OutputError` where a checkpoint cannot be kept.
    """

    def __init__(self, job: Job, network: RegNet, fabric: Fabric) -> None:
        self.job, self.fabric, self.bare = job, fabric, network
        recipe = job.recipe
        require_room(job.folder, _checkpoint_bytes(network))
        freeze(network, recipe.transfer.freeze)
        self.optimizer: Any
        self.network: Any
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network, self.optimizer = fabric.setup(network, make_optimizer(network, recipe))
        ema = recipe.averages.ema
        self.average = WeightAverage(network, ema) if ema else None
        self.position, self.best = Position(), Best()
        self.order = Order(
            job.photos.truths,
            recipe.schedule.batch,
            recipe.seed,
            recipe.transfer.balanced_sampling,
        )
        self._augment = Augment(recipe.augmentation, classes=job.classes)
        self._class_weights = _class_weights(job)
        protocol = recipe.input.protocol(recipe.name)
        self._mean, self._scale = (
            torch.tensor(values, device=fabric.device).view(1, 3, 1, 1)
            for values in (protocol.mean, protocol.scale)
        )
        self._sums = self._no_sums()
        self._saved = time.monotonic()

    @property
    def deployed(self) -> dict[str, Tensor]:
        """The weights to evaluate and deploy: the averaged ones where the recipe keeps them."""
        return self.average.weights if self.average else self.bare.state_dict()

    def run(self, history: History, watcher: Watcher) -> None:
        """Train until the recipe's end, or until patience or the watcher says stop."""
        with ThreadPoolExecutor(cores(), "regnet-crops") as pool:
            while self.position.epoch < self.job.recipe.schedule.epochs:
                if not self._run_epoch(history, watcher, pool):
                    self.save(history)
                    return
                history.add(self._end_epoch())
                watcher.epoch(history.records[-1])
                self.save(history)
                if self._out_of_patience():
                    return
            self._make_batch_norm_precise(pool)

    def save(self, history: History) -> None:
        """Write the checkpoint of the run as it stands."""
        if self.fabric.is_global_zero:
            values = self.state() | {"records": [r.to_dict() for r in history.records]}
            write_checkpoint(self.job.folder / LAST, values)
        self._saved = time.monotonic()

    def _run_epoch(self, history: History, watcher: Watcher, pool: ThreadPoolExecutor) -> bool:
        """Do the steps of an epoch that are left; return whether all are done."""
        self.network.train()
        for part in frozen_parts(self.bare):
            part.eval()
        numbers = self.order.batches(self.position.epoch)
        for batch in self._batches(numbers, pool):
            start = time.perf_counter()
            self._step(batch)
            for photo in batch.unreadable:
                watcher.skipped(photo)
            self.position.step += 1
            self._sums.seconds += time.perf_counter() - start + self._waited
            self._tell(history, watcher, last=self.position.step == len(numbers))
            if watcher.stop():
                return False
            if time.monotonic() - self._saved > self.job.checkpoint_seconds:
                self.save(history)
        return True

    def _step(self, batch: Batch) -> None:
        """Do one step of the optimizer on a batch."""
        set_rate(self.optimizer, self._rate())
        self.optimizer.zero_grad(set_to_none=True)
        images, targets = self._augmented(batch)
        for part, last in _parts(len(images), self.job.accumulate):
            with self.fabric.no_backward_sync(self.network, enabled=not last):
                loss = self._forward(images[part], targets[part])
                self.fabric.backward(loss * (len(images[part]) / len(images)))
        if limit := self.job.recipe.optimizer.clip_norm:
            self.fabric.clip_gradients(self.network, self.optimizer, max_norm=limit)
        self.optimizer.step()
        if self.average:
            self.average.update(self.bare)

    def _forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of augmented images, and count it."""
        recipe, teacher = self.job.recipe, self.job.teacher
        soft = None
        if teacher:
            soft = teacher.soft_targets(images, temperature=recipe.loss.temperature)
        logits = self.network((images - self._mean) / self._scale)
        loss = distillation_loss(
            logits, targets, soft, loss=recipe.loss, class_weights=self._class_weights
        )
        with torch.no_grad():
            self._sums.loss += loss.detach() * len(images)
            self._sums.right += (logits.argmax(1) == targets.argmax(1)).sum()
            self._sums.images += len(images)
        return loss

    def _augmented(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return a batch's images (N, 3, S, S) and soft targets (N, classes) on the device."""
        random = torch.Generator().manual_seed(self._seed(_AUGMENT))
        images = torch.from_numpy(batch.crops).to(self.fabric.device, non_blocking=True)
        truths = torch.from_numpy(batch.truths).to(self.fabric.device, non_blocking=True)
        return self._augment(images.permute(0, 3, 1, 2).float(), truths, random)

    def _batches(self, numbers: NDArray[np.int64], pool: ThreadPoolExecutor) -> Iterator[Batch]:
        """Yield this process's part of each batch from the next step on."""
        while self.position.step < len(numbers):
            start = time.perf_counter()
            chosen = numbers[self.position.step]
            random = np.random.default_rng(self._seed(_CROP))
            share = -(-len(chosen) // self.fabric.world_size)
            part = slice(self.fabric.global_rank * share, (self.fabric.global_rank + 1) * share)
            batch = training_batch(
                self.job.photos, chosen, self._cropping(), random, part=part, pool=pool
            )
            self._sums.skipped += len(batch.unreadable)
            self._waited = time.perf_counter() - start
            yield batch

    def _cropping(self) -> Cropping:
        recipe = self.job.recipe
        return Cropping(
            side=crop_side(recipe.input, recipe.schedule, self.position.epoch),
            augmentation=recipe.augmentation,
            interpolation=recipe.input.interpolation,
        )

    def _rate(self) -> float:
        done = self.position.epoch + self.position.step / self.order.steps
        return learning_rate(self.job.recipe, done)

    def _seed(self, stream: int) -> int:
        """Return the seed of a stream of random numbers for the next step."""
        entropy = (self.job.recipe.seed, self.position.epoch, self.position.step, stream)
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)

    def _tell(self, history: History, watcher: Watcher, *, last: bool) -> None:
        """Look at the loss now and then, and pass it on."""
        on_cpu = self.fabric.device.type == "cpu"
        if not (last or on_cpu or self.position.step % _NEWS_EVERY == 0):
            return
        loss = float(self._sums.loss) / max(self._sums.images, 1)
        if not math.isfinite(loss):
            raise TrainingError(self._diverged())
        rate, steps = self._rate(), self.order.steps
        speed = self._sums.images / max(self._sums.seconds, 1e-9)
        left = (self.job.recipe.schedule.epochs - self.position.epoch) * steps - self.position.step
        watcher.news(
            News(
                epoch=self.position.epoch + 1,
                epochs=self.job.recipe.schedule.epochs,
                step=self.position.step,
                steps=steps,
                loss=loss,
                top1=float(self._sums.right) / max(self._sums.images, 1),
                lr=rate,
                images_per_s=speed * self.fabric.world_size,
                seconds_left=left * self._sums.seconds / max(self.position.step, 1),
            )
        )
        if last or self.position.step % _NEWS_EVERY == 0:
            history.step(self.position.epoch * steps + self.position.step, loss, rate)

    def _diverged(self) -> str:
        return (
            f"the loss is not a number any more, in epoch {self.position.epoch + 1}, step "
            f"{self.position.step} of {self.order.steps}, at a learning rate of "
            f"{self._rate():.3g}. {self.job.folder / LAST} is from before: try a lower lr or "
            "clip_norm in the recipe, or --precision 32-true"
        )

    def _end_epoch(self) -> EpochRecord:
        """Validate, note what is best, and go to the next epoch."""
        side = self._cropping().side
        rate = self._rate()
        sums, count = self._sums, max(self._sums.images, 1)
        sums.loss, sums.right = (
            self.fabric.all_reduce(t, reduce_op="mean") for t in (sums.loss, sums.right.float())
        )
        self.position = Position(self.position.epoch + 1, 0)
        self._sums = self._no_sums()
        loss, top1, top5 = self.validate()
        if top1 is not None and top1 > self.best.top1:
            kept = {name: t.detach().cpu().clone() for name, t in self.deployed.items()}
            self.best = Best(top1, self.position.epoch, kept)
        return EpochRecord(
            epoch=self.position.epoch,
            lr=rate,
            crop=side,
            loss=float(sums.loss) / count,
            train_top1=float(sums.right) / count,
            val_loss=loss,
            val_top1=top1,
            val_top5=top5,
            images_per_s=count * self.fabric.world_size / max(sums.seconds, 1e-9),
            seconds=sums.seconds,
            skipped=sums.skipped,
        )

    @torch.no_grad()
    def validate(self) -> tuple[float | None, float | None, float | None]:
        """Return loss, top-1 and top-5 of the weights to deploy on the validation photos."""
        if self.job.validation is None:
            return None, None, None
        with self._deployed_in_place():
            totals = torch.zeros(4, dtype=torch.float64)
            for place, batch in enumerate(self.job.validation.batches()):
                if place % self.fabric.world_size == self.fabric.global_rank and len(batch.truths):
                    totals += self._scores(batch)
        totals = self.fabric.all_reduce(totals.to(self.fabric.device), reduce_op="sum")
        loss, top1, top5, count = totals.tolist()
        return loss / max(count, 1), top1 / max(count, 1), top5 / max(count, 1)

    def _scores(self, batch: Batch) -> Tensor:
        images = torch.from_numpy(batch.crops).to(self.fabric.device).permute(0, 3, 1, 2).float()
        truths = torch.from_numpy(batch.truths).to(self.fabric.device)
        logits = self.network((images - self._mean) / self._scale).float()
        order = logits.topk(min(5, logits.shape[1])).indices == truths[:, None]
        loss = torch.nn.functional.cross_entropy(logits, truths, reduction="sum")
        return torch.stack([loss, order[:, 0].sum(), order.sum(), torch.tensor(len(truths))]).cpu()

    def _deployed_in_place(self) -> "_Swapped":
        return _Swapped(self.network, self.bare, self.average)

    def _out_of_patience(self) -> bool:
        patience = self.job.recipe.schedule.patience
        stale = self.position.epoch - self.best.epoch
        return bool(patience and self.job.validation is not None and stale >= patience)

    def _make_batch_norm_precise(self, pool: ThreadPoolExecutor) -> None:
        """Set BN's statistics anew over some training photos, as the paper's code does."""
        recipe = self.job.recipe
        if not recipe.averages.precise_bn:
            return
        numbers = self.order.batches(recipe.schedule.epochs)
        numbers = numbers[: max(recipe.averages.precise_bn // numbers.shape[1], 1)]
        if self.average:
            self.bare.load_state_dict(self.average.weights)
        precise_batch_norm(self.network, self._normalised(numbers, pool))
        if self.average:
            self.average = WeightAverage(self.bare, recipe.averages.ema)

    def _normalised(self, numbers: NDArray[np.int64], pool: ThreadPoolExecutor) -> Iterator[Tensor]:
        self.position = Position(self.job.recipe.schedule.epochs, 0)
        for batch in self._batches(numbers, pool):
            images, _ = self._augmented(batch)
            yield (images - self._mean) / self._scale
            self.position.step += 1
        self.position.step = 0

    def _no_sums(self) -> Sums:
        zero = torch.zeros((), device=self.fabric.device)
        self._waited = 0.0
        return Sums(zero.clone(), zero.clone())

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint keeps, besides the records."""
        return {
            "recipe": self.job.recipe.to_toml(),
            "fingerprint": self.job.fingerprint,
            "network": self.bare.state_dict(),
            "average": self.average and self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": vars(self.position),
            "sums": vars(self._sums),
            "best": vars(self.best),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned, of the same job. Raises `TrainingError`."""
        job = {"recipe": self.job.recipe.to_toml(), "fingerprint": self.job.fingerprint}
        for what, own in job.items():
            if state[what] != own:
                name = {"recipe": "with another recipe", "fingerprint": "on other photos"}[what]
                raise TrainingError(
                    f"{self.job.folder / LAST}: that run was started {name}; start it as it was, "
                    "or another in a new folder"
                )
        self.bare.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.position, self.best = Position(**state["position"]), Best(**state["best"])
        self._sums = Sums(**state["sums"])


class _Swapped:
    """While entered, a network in evaluation mode has the averaged weights; then its own again."""

    def __init__(self, network: Any, bare: RegNet, average: WeightAverage | None) -> None:
        self._network, self._bare, self._average = network, bare, average

    def __enter__(self) -> None:
        self._network.eval()
        if self._average:
            self._own = {name: t.detach().clone() for name, t in self._bare.state_dict().items()}
            self._bare.load_state_dict(self._average.weights)

    def __exit__(self, *error: object) -> None:
        if self._average:
            self._bare.load_state_dict(self._own)
        self._network.train()


def _parts(count: int, parts: int) -> Iterator[tuple[slice, bool]]:
    """Yield slices that cover `count` images, and whether each is the last."""
    size = max(-(-count // parts), 1)
    for start in range(0, count, size):
        yield slice(start, start + size), start + size >= count


def _class_weights(job: Job) -> Tensor | None:
    """Return weights (classes,) with which every class counts alike, mean 1 over the photos."""
    if not job.recipe.loss.balanced:
        return None
    counts = np.bincount(job.photos.truths, minlength=job.classes)
    weights = len(job.photos) / (job.classes * np.maximum(counts, _LEAST_OF_CLASS_WEIGHTS))
    return torch.tensor(np.where(counts > 0, weights, 0.0), dtype=torch.float32)


def _checkpoint_bytes(network: RegNet) -> int:
    """Return about what two checkpoints of a run take: weights, their mean, momentum, the best."""
    size = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    return 2 * 5 * size
