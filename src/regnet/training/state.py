"""A run's job, which never changes, and its state, which checkpoints keep: weights, optimizer."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from regnet.network.modules import RegNet
from regnet.system.errors import TrainingError
from regnet.training.batch_norm import synchronise_batch_norm
from regnet.training.devices import is_sharded, load_optimizer, own_part, sharded_like, whole
from regnet.training.photos import CentreCrops, LabelledPhotos
from regnet.training.recipe import Optimizer, Recipe
from regnet.training.teacher import Teacher
from regnet.training.validation import Score

_EXPLODED: Final = 30  # times the loss of chance: no network recovers from there


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train on what.

    A batch goes through the network in `accumulate` parts. A checkpoint is written after every
    epoch, and `checkpoint_seconds` after the last. `compile` uses torch.compile; None does on a
    GPU, if it pays. Photos that fit into `memory_device` bytes are kept on the device, which makes
    the crops; else `workers` processes do (None: all cores for a GPU, 0: threads). `about` are
    plain values for checkpoints that describe the run.
    """

    recipe: Recipe
    photos: LabelledPhotos
    validation: CentreCrops | None
    classes: int
    folder: Path
    teachers: tuple[Teacher, ...] = ()
    accumulate: int = 1
    checkpoint_seconds: float = 600.0
    compile: bool | None = None
    memory_device: int = 0
    workers: int | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def class_weights(self) -> Tensor | None:
        """Return weights (classes,) that balance the classes, with mean 1 over the photos."""
        if not self.recipe.loss.balanced:
            return None
        counts = np.bincount(self.photos.truths, minlength=self.classes)
        weights = len(self.photos) / (self.classes * np.maximum(counts, 1))
        return torch.tensor(np.where(counts > 0, weights, 0.0), dtype=torch.float32)


@dataclass
class Position:
    """Epochs done, and steps done of the current one."""

    epoch: int = 0
    step: int = 0


@dataclass
class Sums:
    """Sums over the steps of an epoch.

    `loss` and `right` over this process's `images`, on its device; `skipped` by this process.
    """

    loss: Tensor
    right: Tensor
    images: float = 0
    seconds: float = 0.0
    skipped: int = 0

    @classmethod
    def zero(cls, device: torch.device) -> Self:
        """Return sums of nothing."""
        return cls(torch.zeros((), device=device), torch.zeros((), device=device))


@dataclass
class Best:
    """The best weights by validation so far, and their epoch, counted from 1."""

    top1: float = -1.0
    loss: float = math.inf
    epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def is_beaten_by(self, score: Score) -> bool:
        """Return whether a score has a higher top-1, or the same top-1 and a lower loss."""
        return (score.top1, -score.loss) > (self.top1, -self.loss)


class WeightAverage:
    """An exponential moving average of a network's `weights` and batch-norm statistics.

    It forgets faster early on, while weights are still poor: after t steps the decay is at most
    (1 + t) / (10 + t).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay, self._steps = decay, 0
        self._now: tuple[nn.Module, dict[str, Tensor]] | None = None
        self.weights = {name: t.detach().clone() for name, t in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Include the network after a step."""
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        average: Any = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        now = self._tensors(network)
        floats = [name for name, mean in self.weights.items() if mean.is_floating_point()]
        for kind in {type(now[name]) for name in floats}:  # sharded tensors do not mix with others
            names = [name for name in floats if type(now[name]) is kind]
            average([self.weights[name] for name in names], [now[name] for name in names], None)
        others = [name for name in self.weights if not self.weights[name].is_floating_point()]
        if others:
            torch._foreach_copy_([self.weights[name] for name in others], [now[n] for n in others])

    def _tensors(self, network: nn.Module) -> dict[str, Tensor]:
        """Return the network's tensors; they stay the same in every step, unless sharded."""
        if self._now and self._now[0] is network:
            return self._now[1]
        now = network.state_dict()
        if not any(isinstance(tensor, DTensor) for tensor in now.values()):
            self._now = network, now
        return now

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the averaged weights."""
        for name, mean in self.weights.items():
            mean.copy_(weights[name])

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"steps": self._steps, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._steps = state["steps"]
        self.load(state["weights"])


class State:
    """What training changes and a checkpoint keeps.

    `bare` is the network, `network` the same as Fabric and torch.compile wrap it; `average` its
    averaged weights, None if the recipe keeps none.
    """

    def __init__(self, job: Job, network: RegNet, fabric: Fabric) -> None:
        recipe = job.recipe
        self.fabric, self.bare = fabric, network
        freeze(network, recipe.transfer.freeze)
        synchronise_batch_norm(network, fabric.device)
        self.network: Any = fabric.setup_module(_prepared(network, job, fabric))
        # Fabric's gradient scaler, of 16-mixed, and fused steps exclude each other
        scales = getattr(fabric.strategy.precision, "scaler", None) is not None
        fused = fabric.device.type == "cuda" and not is_sharded(fabric) and not scales
        self.optimizer: Any = fabric.setup_optimizers(make_optimizer(network, recipe, fused=fused))
        ema = recipe.averages.ema
        self.average = WeightAverage(network, ema) if ema else None
        self.position, self.best, self.sums = Position(), Best(), Sums.zero(fabric.device)

    def weights(self) -> dict[str, Tensor]:
        """Return the weights to evaluate and deploy, averaged ones if there are; all processes."""
        own = self.average.weights if self.average else self.bare.state_dict()
        return {name: whole(tensor) for name, tensor in own.items()}

    def train(self) -> None:
        """Put the network in training mode; frozen parts keep their BN statistics, too."""
        self.network.train()
        for part in frozen_parts(self.bare):
            part.eval()

    @contextmanager
    def deployed(self) -> Iterator[RegNet]:
        """Put the network in evaluation mode, with averaged weights if there are; then undo it."""
        average, own = self.average, {}
        self.bare.eval()
        if average:
            own = {name: t.detach().clone() for name, t in self.bare.state_dict().items()}
            self.bare.load_state_dict(average.weights)
        try:
            yield self.bare
        finally:
            if average:
                self.bare.load_state_dict(own)
            self.bare.train()

    def all_finite(self) -> bool:
        """Return whether all weights in this process are finite."""
        tensors = list(self.bare.state_dict().values())
        tensors += self.average.weights.values() if self.average else []
        floats = (own_part(tensor) for tensor in tensors if tensor.is_floating_point())
        return bool(torch.stack([torch.isfinite(tensor).all() for tensor in floats]).all())

    def totals(self) -> Sums:
        """Return the sums over all processes, which must all call this."""
        own = self.sums
        counts = own.loss.new_tensor([own.images, own.skipped])
        summed: Any = self.fabric.all_reduce(
            torch.cat([torch.stack([own.loss, own.right]), counts]), reduce_op="sum"
        )
        loss, right, images, skipped = summed
        return Sums(loss, right, float(images), own.seconds, int(skipped))

    def to_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it; all processes must call this at once."""
        return {
            "network": whole(dict(self.bare.state_dict())),
            "average": self.average and whole(self.average.state_dict()),
            "optimizer": whole(self.optimizer.state_dict()),
            "precision": self.fabric.strategy.precision.state_dict(),
            "position": vars(self.position),
            "sums": vars(self.totals()),
            "best": vars(self.best),
        }

    def load(self, values: dict[str, Any]) -> None:
        """Restore what `to_dict` returned, for a job on the same photos and network."""
        self.bare.load_state_dict(sharded_like(values["network"], self.bare.state_dict()))
        load_optimizer(self.optimizer, values["optimizer"])
        if self.average:
            weights = sharded_like(values["average"]["weights"], self.average.weights)
            self.average.load_state_dict(values["average"] | {"weights": weights})
        if values.get("precision"):
            self.fabric.strategy.precision.load_state_dict(values["precision"])
        self.position, self.best = Position(**values["position"]), Best(**values["best"])
        self.sums = self._share_of(Sums(**values["sums"]))

    def _share_of(self, totals: Sums) -> Sums:
        """Return this process's sums, such that those of all add up to `totals`."""
        count, device = self.fabric.world_size, self.fabric.device
        return Sums(
            totals.loss.to(device) / count,
            totals.right.to(device) / count,
            totals.images / count,
            totals.seconds,
            totals.skipped if self.fabric.is_global_zero else 0,
        )


def _prepared(network: RegNet, job: Job, fabric: Fabric) -> Any:
    """Return a network laid out in memory, and compiled, for its device."""
    torch.backends.cudnn.benchmark = True  # sizes stay the same for an epoch, at least
    if is_sharded(fabric):  # which takes the plain layout only
        return network
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = job.compile
    if compiled is None:  # disturbances are hooks, which take a compiled network apart
        options = job.recipe.augmentation
        hooked = options.noise_bits or options.stochastic_depth
        compiled = fabric.device.type == "cuda" and not hooked
    return torch.compile(network, dynamic=False) if compiled else network


def freeze(network: nn.Module, count: int) -> None:
    """Freeze the first parts (stem, stages): no gradients. Raises `TrainingError` for all parts."""
    parts = list(network.children())
    if count >= len(parts):
        raise TrainingError(
            f"freeze = {count} leaves nothing to train: the network has {len(parts)} parts "
            f"(stem, {len(parts) - 2} stages, head): {len(parts) - 1} at most"
        )
    for part in parts[:count]:
        part.requires_grad_(False)


def frozen_parts(network: nn.Module) -> list[nn.Module]:
    """Return the frozen parts of a network."""
    return [p for p in network.children() if not any(w.requires_grad for w in p.parameters())]


def make_optimizer(
    network: nn.Module, recipe: Recipe, *, fused: bool = False
) -> torch.optim.Optimizer:
    """Return the optimizer; each group has a `factor` for the schedule's learning rate.

    `fused` steps take one kernel for many tensors, on a GPU.
    """
    options = recipe.optimizer
    groups = list(_groups(network, options))
    optimizer: torch.optim.Optimizer
    if options.kind == "adamw":
        betas = (options.momentum, 0.999)
        optimizer = torch.optim.AdamW(groups, betas=betas, fused=fused or None)
    else:
        nesterov = options.nesterov and options.momentum > 0
        optimizer = torch.optim.SGD(
            groups, momentum=options.momentum, nesterov=nesterov, fused=fused or None
        )
    set_rate(optimizer, recipe.lr)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set each group's share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def _groups(network: nn.Module, options: Optimizer) -> Iterator[dict[str, Any]]:
    parts = list(network.children())
    for place, part in enumerate(parts):
        factor = options.stage_decay ** (len(parts) - 1 - place)
        learning = [p for p in part.parameters() if p.requires_grad]
        for decays in (True, False):  # BN's scales and all biases are vectors
            chosen = [p for p in learning if (options.decay_norms or p.ndim > 1) is decays]
            if chosen:
                decay = options.weight_decay if decays else 0.0
                yield {"params": chosen, "weight_decay": decay, "factor": factor}


def has_exploded(loss: float, job: Job) -> bool:
    """Return whether the loss of a step is not a number, or far above that of chance.

    Class weights and a teacher's temperature make it larger than cross entropy is.
    """
    weights = job.class_weights()
    heaviest = 1.0 if weights is None else max(float(weights.max()), 1.0)
    softest = max(job.recipe.loss.temperature, 1.0) if job.teachers else 1.0
    return not loss <= _EXPLODED * _chance(job) * heaviest * softest


def is_off(score: Score, best: Best, job: Job) -> bool:
    """Return whether a validation loss is not finite, or far above the best one and chance.

    The first sets no limit: young batch-norm statistics may give a large one, too.
    """
    lowest = best.loss if best.epoch else math.inf
    return not math.isfinite(score.loss) or score.loss > _EXPLODED * max(lowest, _chance(job))


def _chance(job: Job) -> float:
    return 1 + math.log(job.classes)
