"""The loop: one network, one recipe, on the devices that Fabric was given."""

import math
import time
from collections.abc import Iterator
from typing import Final

import torch
from lightning_fabric import Fabric
from torch import Tensor

from regnet.network.modules import RegNet
from regnet.system.errors import TrainingError
from regnet.training.augment import Augment
from regnet.training.batch_norm import precise_batch_norm
from regnet.training.devices import Processes
from regnet.training.feed import Feed
from regnet.training.history import EpochRecord, History, News, Watcher
from regnet.training.microbatch import MicroBatch, Step
from regnet.training.pace import Pace
from regnet.training.regularisation import disturb
from regnet.training.run_folder import LAST, require_room, resuming, write_checkpoint
from regnet.training.state import Best, Job, Position, State, Sums, has_exploded, is_off, set_rate
from regnet.training.teacher import distillation_loss, mean_targets
from regnet.training.validation import Normalise, Score, validate

_NOISE: Final = 1 << 32  # streams of random numbers for disturbances of the network
_NEWS_EVERY: Final = 20  # steps: reading the loss makes a GPU wait
_RARELY: Final = 20  # times as long as a checkpoint takes, until the next one of a fast device
_LOWER: Final = 10  # times lower a rate is advised after divergence
_KEPT: Final = 2 * 4 + 2  # times the weights: in two checkpoints, their mean, momentum, best; files


class Trainer:
    """A network in training: `run` trains it; `weights` are those to evaluate and deploy.

    `saved_at` is the place of the last checkpoint, "" without one. Raises `TrainingError` if
    training cannot continue, `OutputError` if a checkpoint cannot be written.
    """

    def __init__(self, job: Job, network: RegNet, fabric: Fabric) -> None:
        recipe = job.recipe
        self.job, self.fabric = job, fabric
        self.processes = Processes(fabric)
        self.feed = Feed(job, self.processes, fabric.device)
        size = sum(t.numel() * t.element_size() for t in network.state_dict().values())
        require_room(job.folder, _KEPT * size)
        self.state = State(job, network, fabric)
        whole = fabric.device.type != "cpu"
        self._augment = Augment(classes=job.classes, mean=recipe.input.mean, whole=whole)
        self._disturbances = disturb(network, recipe.augmentation)
        self._normalise = Normalise(recipe.input.protocol(recipe.name), fabric.device)
        weights = job.class_weights()
        self._class_weights = None if weights is None else weights.to(fabric.device)
        share = self.processes.rank, self.processes.count
        self._validation = job.validation and job.validation.shared(*share)
        self._saved, self.saved_at = time.monotonic(), ""
        self._saves_rarely, self._save_seconds = whole, 0.0
        self._result: dict[str, Tensor] | None = None
        self._last_loss = torch.zeros((), device=fabric.device)  # of the step just done
        self._pace = Pace(self.feed.kind, on_cpu=fabric.device.type == "cpu")

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights to evaluate and deploy, averaged ones if the recipe keeps them.

        Until `run` has ended, all processes of a sharded network must ask at once.
        """
        return self.state.weights() if self._result is None else self._result

    def run(self, history: History, watcher: Watcher) -> None:
        """Train until the recipe's end, or until patience or the watcher stops it."""
        self._result = None
        try:
            self._run(history, watcher)
            self._result = self.weights
        except RuntimeError as exc:
            if reason := self.processes.lost_one(exc):
                raise TrainingError(self._alone(reason)) from exc
            raise
        finally:
            self.feed.close()

    def _run(self, history: History, watcher: Watcher) -> None:
        schedule, first = self.job.recipe.schedule, self.state.position.epoch
        while self.state.position.epoch < schedule.epochs:
            stale = self.state.position.epoch - self.state.best.epoch
            if schedule.patience and self._validation is not None and stale >= schedule.patience:
                self._save_after_epoch(history, last=True)
                return
            if self.state.position.epoch == first + 1 and (text := self._pace.text()):
                watcher.limit(text)
            if not self.run_epoch(history, watcher):
                self._require_sound()
                self.save(history)
                return
            history.add(self._end_epoch())
            watcher.epoch(history.records[-1])
            last = self.state.position.epoch == schedule.epochs
            self._save_after_epoch(history, last=last)
        self._make_batch_norm_precise()

    def run_epoch(self, history: History, watcher: Watcher) -> bool:
        """Do the remaining steps of an epoch; return whether all are done."""
        position, sums = self.state.position, self.state.sums
        self.state.train()
        start = time.perf_counter()
        for step in self.feed.steps(position.epoch, position.step):
            arrived = time.perf_counter()
            self._step(step)
            done = time.perf_counter()
            self._pace.step(arrived - start, done - arrived)
            sums.skipped += len(step.unreadable)
            sums.seconds += done - start
            position.step += 1
            for photo in step.unreadable:
                watcher.skipped(photo)
            late = time.monotonic() - self._saved > self.job.checkpoint_seconds
            diverged, stop, save = self.processes.any(
                not self._tell(history, watcher), watcher.stop(), late
            )
            if diverged:
                raise TrainingError(self._diverged("the loss is not a number any more"))
            if stop:
                return False
            if save:
                self._require_sound()
                self.save(history)
            start = time.perf_counter()
        return True

    def _step(self, step: Step) -> None:
        """Do one optimizer step on a batch: forward, loss, backward in parts, step."""
        network, optimizer = self.state.network, self.state.optimizer
        set_rate(optimizer, self._rate(self.state.position.step))
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.fabric.device)
        for part in step.parts:
            images, targets = self._augmented(part, step.number)
            more = part is not step.parts[-1]
            with self.fabric.no_backward_sync(network, enabled=more):
                loss = self._loss(images, targets)
                # gradients are averaged over the processes
                share = len(images) * self.processes.count / self.feed.batch
                self.fabric.backward(loss * share)
                total += loss.detach() * share
        self._last_loss = total
        if limit := self.job.recipe.optimizer.clip_norm:
            self.fabric.clip_gradients(network, optimizer, max_norm=limit, error_if_nonfinite=False)
        optimizer.step()
        if self.state.average:
            self.state.average.update(self.state.bare)

    def _loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of augmented images, and count it."""
        options, soft, sums = self.job.recipe.loss, None, self.state.sums
        if self.job.teachers:
            soft = mean_targets(self.job.teachers, images, temperature=options.temperature)
        logits = self.state.network(self._normalise(images))
        loss = distillation_loss(
            logits, targets, soft, loss=options, class_weights=self._class_weights
        )
        sums.loss += loss.detach() * len(images)
        sums.right += (logits.detach().argmax(1) == targets.argmax(1)).sum()
        sums.images += len(images)
        return loss

    def _augmented(self, part: MicroBatch, step: int) -> tuple[Tensor, Tensor]:
        """Return a part's images (N, 3, S, S) and soft targets (N, classes) on the device."""
        epoch = self.state.position.epoch
        images, truths = self._normalise.moved(part.crops, part.truths)
        for disturbance in self._disturbances:
            disturbance.draw(self.feed.seed(epoch, step, _NOISE + part.place))
        return self._augment(images, truths, part.draws)

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step of this epoch, counted from 0."""
        progress = self.state.position.epoch + step / self.feed.order.steps
        return self.job.recipe.lr_at(progress)

    @property
    def _last_rate(self) -> float:
        return self._rate(self.state.position.step - 1)

    def _images_per_s(self) -> float:
        sums = self.state.sums
        return sums.images * self.processes.count / max(sums.seconds, 1e-9)

    def _tell(self, history: History, watcher: Watcher) -> bool:
        """Read the loss now and then, and report it; return whether it is finite."""
        position, sums, steps = self.state.position, self.state.sums, self.feed.order.steps
        sometimes = position.step % _NEWS_EVERY == 0 or position.step == steps
        if not (sometimes or self.fabric.device.type == "cpu"):
            return True
        start = time.perf_counter()
        loss = float(sums.loss) / max(sums.images, 1)
        waited = time.perf_counter() - start
        self._pace.read(waited)
        sums.seconds += waited
        if not math.isfinite(loss):
            return False
        epochs = self.job.recipe.schedule.epochs
        steps_left = (epochs - position.epoch) * steps - position.step
        news = News(
            epoch=position.epoch + 1,
            epochs=epochs,
            step=position.step,
            steps=steps,
            loss=loss,
            top1=float(sums.right) / max(sums.images, 1),
            lr=self._last_rate,
            images_per_s=self._images_per_s(),
            seconds_left=steps_left * sums.seconds / max(position.step, 1),
        )
        watcher.news(news)
        if sometimes:
            history.step(position.epoch * steps + position.step, loss, news.lr)
        return True

    def _end_epoch(self) -> EpochRecord:
        """Validate, keep the best weights, and go on to the next epoch."""
        state = self.state
        score = self._validate()
        self._require_sound(score)
        totals, speed = state.totals(), self._images_per_s()
        lr, crop = self._last_rate, self.job.recipe.crop_at(state.position.epoch)
        state.position = Position(state.position.epoch + 1)
        state.sums = Sums.zero(self.fabric.device)
        if score and state.best.is_beaten_by(score):
            weights = {name: t.detach().cpu().clone() for name, t in self.weights.items()}
            state.best = Best(score.top1, score.loss, state.position.epoch, weights)
        return EpochRecord(
            epoch=state.position.epoch,
            lr=lr,
            crop=crop,
            loss=float(totals.loss) / max(totals.images, 1),
            train_top1=float(totals.right) / max(totals.images, 1),
            val_loss=score.loss if score else None,
            val_top1=score.top1 if score else None,
            val_top5=score.top5 if score else None,
            images_per_s=speed,
            seconds=totals.seconds,
            skipped=totals.skipped,
        )

    def _validate(self) -> Score | None:
        """Return the score of the weights to deploy, if there are validation photos."""
        if self._validation is None:
            return None
        with self.state.deployed() as network:
            return validate(network, self.fabric, self._validation, self._normalise)

    def _make_batch_norm_precise(self) -> None:
        """Recompute batch-norm statistics over some training photos, as the paper's code does."""
        photos, state = self.job.recipe.averages.precise_bn, self.state
        if not photos:
            return
        if state.average:
            state.bare.load_state_dict(state.average.weights)
        steps = max(photos // self.feed.batch, 1)
        with self.fabric.autocast():  # the bare network: compiling it again would not pay
            precise_batch_norm(state.bare, self._normalised(steps))
        if state.average:
            state.average.load(state.bare.state_dict())

    def _normalised(self, steps: int) -> Iterator[Tensor]:
        for step in self.feed.steps(self.state.position.epoch, last=steps):
            for part in step.parts:
                yield self._normalise(self._augmented(part, step.number)[0])

    def _save_after_epoch(self, history: History, *, last: bool) -> None:
        """Write a checkpoint, unless a device is so fast that it would mostly wait for these."""
        soon = time.monotonic() - self._saved < _RARELY * self._save_seconds
        due = last or not (self._saves_rarely and soon)
        (due,) = self.processes.any(due and self.fabric.is_global_zero)  # which writes it
        if due and self.saved_at != self._where():
            self.save(history)

    def save(self, history: History) -> None:
        """Write a checkpoint of the run; all processes must call this at once."""
        start = time.monotonic()
        records = [record.to_dict() for record in history.records]
        values = self.state.to_dict() | {"records": records} | dict(self.job.about)
        if self.fabric.is_global_zero:
            write_checkpoint(self.job.folder / LAST, values)
        self._saved, self.saved_at = time.monotonic(), self._where()
        self._save_seconds = self._saved - start

    def load(self, values: dict[str, object]) -> None:
        """Take up the state of a checkpoint."""
        self.state.load(values)
        self.saved_at = self._where()

    def _require_sound(self, score: Score | None = None) -> None:
        """Raise `TrainingError` if the run has diverged; all processes must call this at once."""
        loss = float(self._last_loss)
        broken, exploded, off = self.processes.any(
            not self.state.all_finite(),
            has_exploded(loss, self.job),
            score is not None and is_off(score, self.state.best, self.job),
        )
        if broken:
            raise TrainingError(self._diverged("the weights are not finite any more"))
        if exploded:
            raise TrainingError(self._diverged(f"the loss has grown to {loss:.3g}"))
        if off and score:
            raise TrainingError(self._diverged(f"the validation loss is {score.loss:.3g}"))

    def _diverged(self, what: str) -> str:
        lower = f"{self.job.recipe.optimizer.lr / _LOWER:g}"
        where = f"{what}, in {self._where()}, at a learning rate of {self._last_rate:.3g}"
        if not self.saved_at:
            return f"{where}. No checkpoint was written: start again with --lr {lower}"
        return (
            f"{where}. {self.job.folder / LAST} is from before, of {self.saved_at}. Resume at a "
            f"lower rate: {resuming(self.job.folder, '--lr', lower)}"
        )

    def _alone(self, reason: str) -> str:
        then = "no checkpoint had been written yet: start all again"
        if self.saved_at:
            last = self.job.folder / LAST
            then = f"{last} is intact, of {self.saved_at}: start all again with --resume"
        return (
            f"process {self.processes.rank} of {self.processes.count} has lost another one, in "
            f"{self._where()} ({reason}). What that one printed last says why it ended. {then}"
        )

    def _where(self) -> str:
        position = self.state.position
        return f"epoch {position.epoch + 1}, step {position.step} of {self.feed.order.steps}"
