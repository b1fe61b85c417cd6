"""The loop: one network, one recipe, on whatever devices Fabric was given."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

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
from regnet.training.job import Best, Job, News, Position, Sums, Watcher, no_sums
from regnet.training.losses import distillation_loss
from regnet.training.normalise import Normalise
from regnet.training.optimizer import freeze, frozen_parts, make_optimizer, set_rate
from regnet.training.photos import Batch, Cropping, Order, training_batch
from regnet.training.run_checkpoint import LAST, require_room, write_checkpoint
from regnet.training.schedule import crop_side, learning_rate
from regnet.training.sync_batch_norm import synchronise_batch_norm
from regnet.training.validation import Score, deployed, validate

CHUNK: Final = 32
"""Images that are augmented, and mixed, together: processes that share a batch do it alike."""

_NEWS_EVERY: Final = 20  # steps: to look at the loss makes a GPU wait
_CROPS: Final = 0  # streams of random numbers; those of the chunks' augmentation follow


class Trainer:
    """A network in training: `run` trains it, `weights` are those to evaluate and deploy.

    Raises `TrainingError` where it cannot go on, `OutputError` where a checkpoint cannot be kept.
    """

    def __init__(self, job: Job, network: RegNet, fabric: Fabric) -> None:
        recipe = job.recipe
        _require_shares(recipe.schedule.batch, fabric.world_size)
        require_room(job.folder, _checkpoint_bytes(network))
        freeze(network, recipe.transfer.freeze)
        synchronise_batch_norm(network)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.job, self.fabric, self.bare = job, fabric, network
        self.network: Any
        self.optimizer: Any
        self.network, self.optimizer = fabric.setup(network, make_optimizer(network, recipe))
        ema = recipe.averages.ema
        self.average = WeightAverage(network, ema) if ema else None
        self.position, self.best, self.sums = Position(), Best(), no_sums(fabric.device)
        self.order = Order(
            job.photos.truths,
            recipe.schedule.batch,
            recipe.seed,
            recipe.transfer.balanced_sampling,
        )
        self._augment = Augment(recipe.augmentation, classes=job.classes)
        self._normalise = Normalise(recipe.input.protocol(recipe.name), fabric.device)
        weights = job.class_weights()
        self._class_weights = None if weights is None else weights.to(fabric.device)
        self._saved = time.monotonic()

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights to evaluate and deploy: the averaged ones where the recipe keeps them."""
        return self.average.weights if self.average else self.bare.state_dict()

    def run(self, history: History, watcher: Watcher) -> None:
        """Train until the recipe's end, or until patience or the watcher says stop."""
        with ThreadPoolExecutor(cores(), "regnet-crops") as pool:
            while self.position.epoch < self.job.recipe.schedule.epochs:
                if self._out_of_patience():
                    return
                if not self._run_epoch(history, watcher, pool):
                    self.save(history)
                    return
                history.add(self._end_epoch())
                watcher.epoch(history.records[-1])
                self.save(history)
            self._make_batch_norm_precise(pool)

    def _run_epoch(self, history: History, watcher: Watcher, pool: ThreadPoolExecutor) -> bool:
        """Do the steps of an epoch that are left; return whether all are done."""
        self.network.train()
        for part in frozen_parts(self.bare):
            part.eval()
        numbers = self.order.batches(self.position.epoch)
        while self.position.step < len(numbers):
            start = time.perf_counter()
            batch = self._batch(numbers[self.position.step], pool)
            if len(batch.truths):
                self._step(batch)
            self.sums.skipped += len(batch.unreadable)
            self.sums.seconds += time.perf_counter() - start
            self.position.step += 1
            for photo in batch.unreadable:
                watcher.skipped(photo)
            self._tell(history, watcher)
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
                loss = self._loss(images[part], targets[part])
                self.fabric.backward(loss * (len(images[part]) / len(images)))
        if limit := self.job.recipe.optimizer.clip_norm:
            self.fabric.clip_gradients(self.network, self.optimizer, max_norm=limit)
        self.optimizer.step()
        if self.average:
            self.average.update(self.bare)

    def _loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of augmented images, and count it."""
        options, soft = self.job.recipe.loss, None
        if self.job.teacher:
            soft = self.job.teacher.soft_targets(images, temperature=options.temperature)
        logits = self.network(self._normalise(images))
        loss = distillation_loss(
            logits, targets, soft, loss=options, class_weights=self._class_weights
        )
        self.sums.loss += loss.detach() * len(images)
        self.sums.right += (logits.detach().argmax(1) == targets.argmax(1)).sum()
        self.sums.images += len(images)
        return loss

    def _batch(self, numbers: NDArray[np.int64], pool: ThreadPoolExecutor) -> Batch:
        """Return this process's part of the next step's crops."""
        recipe, share = self.job.recipe, len(numbers) // self.fabric.world_size
        start = self.fabric.global_rank * share
        return training_batch(
            self.job.photos,
            numbers,
            Cropping(
                side=self._crop_side(),
                augmentation=recipe.augmentation,
                interpolation=recipe.input.interpolation,
            ),
            np.random.default_rng(self._seed(_CROPS)),
            part=slice(start, start + share),
            pool=pool,
        )

    def _augmented(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return a batch's images (N, 3, S, S) and soft targets (N, classes) on the device."""
        images, truths = self._normalise.on_device(batch)
        first = self.fabric.global_rank * len(images) // CHUNK
        chunks = enumerate(zip(images.split(CHUNK), truths.split(CHUNK), strict=True), 1 + first)
        done = [
            self._augment(*chunk, torch.Generator().manual_seed(self._seed(stream)))
            for stream, chunk in chunks
        ]
        return torch.cat([image for image, _ in done]), torch.cat([target for _, target in done])

    def _crop_side(self) -> int:
        recipe = self.job.recipe
        return crop_side(recipe.input, recipe.schedule, self.position.epoch)

    def _rate(self) -> float:
        done = self.position.epoch + self.position.step / self.order.steps
        return learning_rate(self.job.recipe, done)

    def _seed(self, stream: int) -> int:
        """Return the seed of a stream of random numbers for the next step."""
        entropy = (self.job.recipe.seed, self.position.epoch, self.position.step, stream)
        return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _tell(self, history: History, watcher: Watcher) -> None:
        """Look at the loss now and then, and pass it on; raises `TrainingError` where it is NaN."""
        position, steps = self.position, self.order.steps
        sometimes = position.step % _NEWS_EVERY == 0 or position.step == steps
        if not (sometimes or self.fabric.device.type == "cpu"):
            return
        images = max(self.sums.images, 1)
        loss, rate, epochs = float(self.sums.loss) / images, self._rate(), self.job.recipe.schedule
        if not math.isfinite(loss):
            raise TrainingError(self._diverged())
        news = News(
            epoch=position.epoch + 1,
            epochs=epochs.epochs,
            step=position.step,
            steps=steps,
            loss=loss,
            top1=float(self.sums.right) / images,
            lr=rate,
            images_per_s=self._images_per_s(),
            seconds_left=((epochs.epochs - position.epoch) * steps - position.step)
            * self.sums.seconds
            / max(position.step, 1),
        )
        watcher.news(news)
        if sometimes:
            history.step(position.epoch * steps + position.step, loss, rate)

    def _images_per_s(self) -> float:
        return self.sums.images * self.fabric.world_size / max(self.sums.seconds, 1e-9)

    def _diverged(self) -> str:
        return (
            f"the loss is not a number any more, in epoch {self.position.epoch + 1}, step "
            f"{self.position.step} of {self.order.steps}, at a learning rate of "
            f"{self._rate():.3g}. {self.job.folder / LAST} is from before: try a lower lr or "
            "clip_norm in the recipe, or --precision 32-true"
        )

    def _end_epoch(self) -> EpochRecord:
        """Validate, keep what is best, and go on to the next epoch."""
        sums, rate, side, speed = self.sums, self._rate(), self._crop_side(), self._images_per_s()
        own = torch.stack([sums.loss, sums.right, sums.loss.new_tensor(sums.images)])
        totals: Any = self.fabric.all_reduce(own, reduce_op="sum")
        loss, right, images = totals.tolist()
        self.position, self.sums = Position(self.position.epoch + 1), no_sums(self.fabric.device)
        score = self._validate()
        if score and score.top1 > self.best.top1:
            kept = {name: t.detach().cpu().clone() for name, t in self.weights.items()}
            self.best = Best(score.top1, self.position.epoch, kept)
        return EpochRecord(
            epoch=self.position.epoch,
            lr=rate,
            crop=side,
            loss=loss / max(images, 1),
            train_top1=right / max(images, 1),
            val_loss=score.loss if score else None,
            val_top1=score.top1 if score else None,
            val_top5=score.top5 if score else None,
            images_per_s=speed,
            seconds=sums.seconds,
            skipped=sums.skipped,
        )

    def _validate(self) -> Score | None:
        """Return the score of the weights to deploy, where there are validation photos."""
        if self.job.validation is None:
            return None
        with deployed(self.network, self.bare, self.average):
            return validate(self.network, self.fabric, self.job.validation, self._normalise)

    def _out_of_patience(self) -> bool:
        patience = self.job.recipe.schedule.patience
        stale = self.position.epoch - self.best.epoch
        return bool(patience and self.job.validation is not None and stale >= patience)

    def _make_batch_norm_precise(self, pool: ThreadPoolExecutor) -> None:
        """Set BN's statistics anew over some training photos, as the paper's code does."""
        photos = self.job.recipe.averages.precise_bn
        if not photos:
            return
        numbers = self.order.batches(self.position.epoch)
        numbers = numbers[: max(photos // numbers.shape[1], 1)]
        if self.average:
            self.bare.load_state_dict(self.average.weights)
        precise_batch_norm(self.network, self._normalised(numbers, pool))
        if self.average:
            self.average.load(self.bare)

    def _normalised(self, numbers: NDArray[np.int64], pool: ThreadPoolExecutor) -> Iterator[Tensor]:
        for step, chosen in enumerate(numbers):
            self.position.step = step
            yield self._normalise(self._augmented(self._batch(chosen, pool))[0])
        self.position.step = 0

    def save(self, history: History) -> None:
        """Write the checkpoint of the run as it stands."""
        if self.fabric.is_global_zero:
            values = self.state() | {"records": [r.to_dict() for r in history.records]}
            write_checkpoint(self.job.folder / LAST, values)
        self._saved = time.monotonic()

    def state(self) -> dict[str, Any]:
        """Return all that a checkpoint keeps, besides the records."""
        return {
            "recipe": self.job.recipe.to_toml(),
            "fingerprint": self.job.fingerprint,
            "network": self.bare.state_dict(),
            "average": self.average and self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "position": vars(self.position),
            "sums": vars(self.sums),
            "best": vars(self.best),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned, of the same job. Raises `TrainingError`."""
        own = {"with another recipe": ("recipe", self.job.recipe.to_toml())}
        own |= {"on other photos": ("fingerprint", self.job.fingerprint)}
        for how, (key, value) in own.items():
            if state[key] != value:
                raise TrainingError(
                    f"{self.job.folder / LAST}: that run was started {how}; start it as it was, "
                    "or another in a new folder"
                )
        self.bare.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.position, self.best = Position(**state["position"]), Best(**state["best"])
        self.sums = Sums(**state["sums"])
        self.sums.loss = self.sums.loss.to(self.fabric.device)
        self.sums.right = self.sums.right.to(self.fabric.device)


def _parts(count: int, parts: int) -> Iterator[tuple[slice, bool]]:
    """Yield slices that cover `count` images, and whether each is the last."""
    size = max(-(-count // parts), 1)
    for start in range(0, count, size):
        yield slice(start, start + size), start + size >= count


def _require_shares(batch: int, processes: int) -> None:
    if batch % processes:
        raise TrainingError(
            f"a batch of {batch} cannot be shared evenly by {processes} processes: take a multiple"
        )


def _checkpoint_bytes(network: RegNet) -> int:
    """Return about what two checkpoints take: weights, their mean, momentum, the best, each."""
    size = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    return 2 * 4 * size
