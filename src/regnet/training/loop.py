"""The loop: one network, one recipe, on whatever devices Fabric was given."""

import math
import time
from collections.abc import Iterator
from typing import Any, Final

import torch
from lightning_fabric import Fabric
from torch import Tensor

from regnet.network.modules import RegNet
from regnet.system.errors import TrainingError
from regnet.training.activation_noise import ActivationNoise
from regnet.training.augment import Augment
from regnet.training.averages import WeightAverage, precise_batch_norm
from regnet.training.command import resuming
from regnet.training.feed import Feed, MicroBatch, Step
from regnet.training.history import EpochRecord, History
from regnet.training.job import Best, Job, News, Position, Sums, Watcher, no_sums
from regnet.training.losses import distillation_loss
from regnet.training.normalise import Normalise
from regnet.training.optimizer import freeze, frozen_parts, make_optimizer, set_rate
from regnet.training.processes import Processes
from regnet.training.recipe import Augmentation
from regnet.training.run_checkpoint import LAST, bytes_of_run, require_room, write_checkpoint
from regnet.training.schedule import learning_rate
from regnet.training.sharding import is_sharded, load_optimizer, sharded_like, whole
from regnet.training.soundness import all_finite, has_exploded, is_off
from regnet.training.stochastic_depth import StochasticDepth
from regnet.training.sync_batch_norm import synchronise_batch_norm
from regnet.training.teacher import mean_targets
from regnet.training.validation import Score, deployed, validate

CHUNK: Final = 32
"""Images that are augmented, and mixed, together: processes that share a batch do it alike."""

_NOISE: Final = 1 << 32  # the streams of random numbers of what disturbs the network
_NEWS_EVERY: Final = 20  # steps: to look at the loss makes a GPU wait
_LOWER: Final = 10  # times lower a rate is advised after that


class Trainer:
    """A network in training: `run` trains it, `weights` are those to evaluate and deploy.

    `saved_at` says where the run was at its last checkpoint, "" without one.
    Raises `TrainingError` where it cannot go on, `OutputError` where a checkpoint cannot be kept.
    """

    def __init__(self, job: Job, network: RegNet, fabric: Fabric) -> None:
        recipe = job.recipe
        self.job, self.fabric, self.bare = job, fabric, network
        self.processes = Processes(fabric)
        self.feed = Feed(job, self.processes, fabric.device)
        self.order = self.feed.order
        require_room(job.folder, bytes_of_run(network))
        freeze(network, recipe.transfer.freeze)
        synchronise_batch_norm(network, fabric.device)
        self.network: Any = fabric.setup_module(_prepared(network, job, fabric))
        self.optimizer: Any = fabric.setup_optimizers(make_optimizer(network, recipe))
        ema = recipe.averages.ema
        self.average = WeightAverage(network, ema) if ema else None
        self.position, self.best, self.sums = Position(), Best(), no_sums(fabric.device)
        self._augment = Augment(recipe.augmentation, classes=job.classes, mean=recipe.input.mean)
        self._perturbations = _perturbations(network, recipe.augmentation)
        self._normalise = Normalise(recipe.input.protocol(recipe.name), fabric.device)
        weights = job.class_weights()
        self._class_weights = None if weights is None else weights.to(fabric.device)
        share = self.processes.rank, self.processes.count
        self._validation = job.validation and job.validation.shared(*share)
        self._saved, self.saved_at = time.monotonic(), ""
        self._result: dict[str, Tensor] | None = None
        self._last_loss = torch.zeros((), device=fabric.device)  # of the step just done

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights to evaluate and deploy: the averaged ones where the recipe keeps them.

        Until `run` has ended, all processes of a sharded network must ask at once.
        """
        if self._result is not None:
            return self._result
        own = self.average.weights if self.average else self.bare.state_dict()
        return {name: whole(tensor) for name, tensor in own.items()}

    def run(self, history: History, watcher: Watcher) -> None:
        """Train until the recipe's end, or until patience or the watcher says stop."""
        self._result = None
        try:
            self._run(history, watcher)
            self._result = self.weights
        except RuntimeError as exc:
            if reason := self.processes.lost_one(exc):
                raise TrainingError(self._alone(reason)) from exc
            raise

    def _run(self, history: History, watcher: Watcher) -> None:
        while self.position.epoch < self.job.recipe.schedule.epochs:
            if self._out_of_patience():
                return
            if not self.run_epoch(history, watcher):
                self._require_sound()
                self.save(history)
                return
            history.add(self._end_epoch())
            watcher.epoch(history.records[-1])
            self.save(history)
        self._make_batch_norm_precise()

    def run_epoch(self, history: History, watcher: Watcher) -> bool:
        """Do the steps of an epoch that are left; return whether all are done."""
        self.network.train()
        for part in frozen_parts(self.bare):
            part.eval()
        start = time.perf_counter()
        for step in self.feed.steps(self.position.epoch, self.position.step):
            self._step(step)
            self.sums.skipped += len(step.unreadable)
            self.sums.seconds += time.perf_counter() - start
            self.position.step += 1
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
        """Do one step of the optimizer on a batch."""
        set_rate(self.optimizer, self._rate(self.position.step))
        self.optimizer.zero_grad(set_to_none=True)
        own = torch.zeros((), device=self.fabric.device)
        for part in step.parts:
            images, targets = self._augmented(part, step.number)
            more = part is not step.parts[-1]
            with self.fabric.no_backward_sync(self.network, enabled=more):
                loss = self._loss(images, targets)
                # gradients are averaged over the processes
                share = len(images) * self.processes.count / self.feed.batch
                self.fabric.backward(loss * share)
                own += loss.detach() * share
        self._last_loss = own
        if limit := self.job.recipe.optimizer.clip_norm:
            self.fabric.clip_gradients(
                self.network, self.optimizer, max_norm=limit, error_if_nonfinite=False
            )
        self.optimizer.step()
        if self.average:
            self.average.update(self.bare)

    def _loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of augmented images, and count it."""
        options, soft = self.job.recipe.loss, None
        if self.job.teachers:
            soft = mean_targets(self.job.teachers, images, temperature=options.temperature)
        logits = self.network(self._normalise(images))
        loss = distillation_loss(
            logits, targets, soft, loss=options, class_weights=self._class_weights
        )
        self.sums.loss += loss.detach() * len(images)
        self.sums.right += (logits.detach().argmax(1) == targets.argmax(1)).sum()
        self.sums.images += len(images)
        return loss

    def _augmented(self, part: MicroBatch, step: int) -> tuple[Tensor, Tensor]:
        """Return a part's images (N, 3, S, S) and soft targets (N, classes) on the device."""
        images, truths = self._normalise.moved(part.crops, part.truths)
        for perturbation in self._perturbations:
            perturbation.draw(self.feed.seed(self.position.epoch, step, _NOISE + part.place))
        done = []
        for start in range(0, len(images), CHUNK):
            chunk = slice(start, start + CHUNK)
            seed = self.feed.seed(self.position.epoch, step, 1 + part.place + start)
            random = torch.Generator().manual_seed(seed)
            done.append(self._augment(images[chunk], truths[chunk], random))
        return torch.cat([image for image, _ in done]), torch.cat([target for _, target in done])

    @property
    def _last_rate(self) -> float:
        """The learning rate of the step just done."""
        return self._rate(self.position.step - 1)

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step of this epoch, counted from 0."""
        done = self.position.epoch + step / self.order.steps
        return learning_rate(self.job.recipe, done)

    def _tell(self, history: History, watcher: Watcher) -> bool:
        """Look at the loss now and then, and pass it on; return whether it is finite."""
        position, steps = self.position, self.order.steps
        sometimes = position.step % _NEWS_EVERY == 0 or position.step == steps
        if not (sometimes or self.fabric.device.type == "cpu"):
            return True
        loss = float(self.sums.loss) / max(self.sums.images, 1)
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
            top1=float(self.sums.right) / max(self.sums.images, 1),
            lr=self._last_rate,
            images_per_s=self._images_per_s(),
            seconds_left=steps_left * self.sums.seconds / max(position.step, 1),
        )
        watcher.news(news)
        if sometimes:
            history.step(position.epoch * steps + position.step, loss, news.lr)
        return True

    def _images_per_s(self) -> float:
        return self.sums.images * self.processes.count / max(self.sums.seconds, 1e-9)

    def _diverged(self, what: str) -> str:
        lower = f"{self.job.recipe.optimizer.lr / _LOWER:g}"
        where = f"{what}, in {self._where()}, at a learning rate of {self._last_rate:.3g}"
        if not self.saved_at:
            return f"{where}. No checkpoint was written: start again with --lr {lower}"
        return (
            f"{where}. {self.job.folder / LAST} is from before, of {self.saved_at}. Resume at a "
            f"lower rate: {resuming(self.job.folder, '--lr', lower)}"
        )

    def _require_sound(self, score: Score | None = None) -> None:
        """Raise `TrainingError` where the state is not one to go on from; all must ask at once."""
        loss, kept = float(self._last_loss), list(self.bare.state_dict().values())
        kept += self.average.weights.values() if self.average else []
        broken, exploded, off = self.processes.any(
            not all_finite(kept),
            has_exploded(loss, self.job),
            score is not None and is_off(score, self.best, self.job),
        )
        if broken:
            raise TrainingError(self._diverged("the weights are not finite any more"))
        if exploded:
            raise TrainingError(self._diverged(f"the loss has grown to {loss:.3g}"))
        if off and score:
            raise TrainingError(self._diverged(f"the validation loss is {score.loss:.3g}"))

    def _alone(self, reason: str) -> str:
        saved = f"{self.job.folder / LAST} is whole, of {self.saved_at}: start all again with"
        none = "no checkpoint had been written yet: start all again"
        return (
            f"process {self.processes.rank} of {self.processes.count} has lost another one, in "
            f"{self._where()} ({reason}). What that one printed last says why it ended. "
            + (f"{saved} --resume" if self.saved_at else none)
        )

    def _where(self) -> str:
        return f"epoch {self.position.epoch + 1}, step {self.position.step} of {self.order.steps}"

    def _end_epoch(self) -> EpochRecord:
        """Validate, keep what is best, and go on to the next epoch."""
        score = self._validate()
        self._require_sound(score)
        totals, speed = self._totals(), self._images_per_s()
        lr, crop = self._last_rate, self.feed.side(self.position.epoch)
        self.position, self.sums = Position(self.position.epoch + 1), no_sums(self.fabric.device)
        if score and self.best.is_beaten_by(score):
            kept = {name: t.detach().cpu().clone() for name, t in self.weights.items()}
            self.best = Best(score.top1, score.loss, self.position.epoch, kept)
        return EpochRecord(
            epoch=self.position.epoch,
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

    def _totals(self) -> Sums:
        """Return the sums over all processes, which must all ask."""
        own = self.sums
        counts = own.loss.new_tensor([own.images, own.skipped])
        summed: Any = self.fabric.all_reduce(
            torch.cat([torch.stack([own.loss, own.right]), counts]), reduce_op="sum"
        )
        loss, right, images, skipped = summed
        return Sums(loss, right, float(images), own.seconds, int(skipped))

    def _validate(self) -> Score | None:
        """Return the score of the weights to deploy, where there are validation photos."""
        if self._validation is None:
            return None
        with deployed(self.bare, self.average):
            return validate(self.bare, self.fabric, self._validation, self._normalise)

    def _out_of_patience(self) -> bool:
        patience = self.job.recipe.schedule.patience
        stale = self.position.epoch - self.best.epoch
        return bool(patience and self.job.validation is not None and stale >= patience)

    def _make_batch_norm_precise(self) -> None:
        """Set BN's statistics anew over some training photos, as the paper's code does."""
        photos = self.job.recipe.averages.precise_bn
        if not photos:
            return
        if self.average:
            self.bare.load_state_dict(self.average.weights)
        precise_batch_norm(self.network, self._normalised(max(photos // self.feed.batch, 1)))
        if self.average:
            self.average.load(self.bare)

    def _normalised(self, steps: int) -> Iterator[Tensor]:
        for step in self.feed.steps(self.position.epoch, last=steps):
            for part in step.parts:
                yield self._normalise(self._augmented(part, step.number)[0])

    def save(self, history: History) -> None:
        """Write the checkpoint of the run as it stands; all processes must call this at once."""
        records = [record.to_dict() for record in history.records]
        values = self.state() | {"records": records} | dict(self.job.about)
        if self.fabric.is_global_zero:
            write_checkpoint(self.job.folder / LAST, values)
        self._saved, self.saved_at = time.monotonic(), self._where()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, besides the records and what the run is."""
        return {
            "network": whole(dict(self.bare.state_dict())),
            "average": self.average and whole(self.average.state_dict()),
            "optimizer": whole(self.optimizer.state_dict()),
            "precision": self.fabric.strategy.precision.state_dict(),
            "position": vars(self.position),
            "sums": vars(self._totals()),
            "best": vars(self.best),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state` returned, of a job on the same photos with the same network."""
        self.bare.load_state_dict(sharded_like(state["network"], self.bare.state_dict()))
        load_optimizer(self.optimizer, state["optimizer"])
        if self.average:
            kept = sharded_like(state["average"]["weights"], self.average.weights)
            self.average.load_state_dict(state["average"] | {"weights": kept})
        if state.get("precision"):
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.position, self.best = Position(**state["position"]), Best(**state["best"])
        self.sums = self._share_of(Sums(**state["sums"]))
        self.saved_at = self._where()

    def _share_of(self, totals: Sums) -> Sums:
        """Return this process's sums such that those of all are these."""
        count, device = self.processes.count, self.fabric.device
        return Sums(
            totals.loss.to(device) / count,
            totals.right.to(device) / count,
            totals.images / count,
            totals.seconds,
            totals.skipped if self.fabric.is_global_zero else 0,
        )


def _perturbations(
    network: RegNet, options: Augmentation
) -> list[ActivationNoise | StochasticDepth]:
    """Return what disturbs a network in training, by hooks; each draws before a step."""
    found: list[ActivationNoise | StochasticDepth] = []
    if options.noise_bits:
        found.append(ActivationNoise(network, options.noise_bits))
    if options.stochastic_depth:
        found.append(StochasticDepth(network, options.stochastic_depth))
    return found


def _prepared(network: RegNet, job: Job, fabric: Fabric) -> Any:
    """Return a network laid out in memory, and compiled, as its device likes it."""
    torch.backends.cudnn.benchmark = True  # sizes stay the same for an epoch, at least
    if is_sharded(fabric):  # which takes the plain layout only
        return network
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = job.compile
    if compiled is None:  # perturbations are hooks, which take a compiled network apart
        compiled = fabric.device.type == "cuda" and not job.recipe.augmentation.perturbs
    return torch.compile(network, dynamic=False) if compiled else network
