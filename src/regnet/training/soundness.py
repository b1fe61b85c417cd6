"""Whether the state of a run is one to go on from: looked at before it is written."""

import math
from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor

from regnet.training.job import Best, Job
from regnet.training.sharding import own_part
from regnet.training.validation import Score

_EXPLODED: Final = 30  # times the loss of chance: no network comes back from there


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether all numbers in this process's parts of tensors are finite."""
    floats = (own_part(tensor) for tensor in tensors if tensor.is_floating_point())
    return bool(torch.stack([torch.isfinite(tensor).all() for tensor in floats]).all())


def has_exploded(loss: float, job: Job) -> bool:
    """Return whether the loss of a step is no number, or far above that of chance.

    Class weights and a teacher's temperature make it larger than cross entropy is.
    """
    weights = job.class_weights()
    heaviest = 1.0 if weights is None else max(float(weights.max()), 1.0)
    softest = max(job.recipe.loss.temperature, 1.0) if job.teachers else 1.0
    return not loss <= _EXPLODED * _chance(job) * heaviest * softest


def is_off(score: Score, best: Best, job: Job) -> bool:
    """Return whether a validation loss is no number, or far above the best one and chance.

    Statistics of BN that are young yet may give a large one, too: so the first sets no limit.
    """
    least = best.loss if best.epoch else math.inf
    return not math.isfinite(score.loss) or score.loss > _EXPLODED * max(least, _chance(job))


def _chance(job: Job) -> float:
    return 1 + math.log(job.classes)
