"""What a run is given, where it stands, and what it tells: the values around the loop."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from regnet.training.history import EpochRecord
from regnet.training.photos import CentreCrops, LabelledPhotos, Unreadable
from regnet.training.recipe import Recipe
from regnet.training.teacher import Teacher
from regnet.training.validation import Score


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained on what: values that do not change during a run.

    A batch goes through the network in `accumulate` parts. A checkpoint is written after every
    epoch, and `checkpoint_seconds` after the last. `compile` has torch compile the network; None
    does on a GPU, where it pays. `about` are plain values that checkpoints keep beside the state:
    what the run is.
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
    about: Mapping[str, Any] = field(default_factory=dict)

    def class_weights(self) -> Tensor | None:
        """Return weights (classes,) by which all classes count alike, their mean over photos 1."""
        if not self.recipe.loss.balanced:
            return None
        counts = np.bincount(self.photos.truths, minlength=self.classes)
        weights = len(self.photos) / (self.classes * np.maximum(counts, 1))
        return torch.tensor(np.where(counts > 0, weights, 0.0), dtype=torch.float32)


@dataclass
class Position:
    """Where a run is: epochs done, and steps done of the one under way."""

    epoch: int = 0
    step: int = 0


@dataclass
class Sums:
    """What is summed over the steps of an epoch.

    `loss` and `right` over this process's `images`, on its device; `skipped` by this process.
    """

    loss: Tensor
    right: Tensor
    images: float = 0
    seconds: float = 0.0
    skipped: int = 0


def no_sums(device: torch.device) -> Sums:
    """Return sums of nothing."""
    return Sums(torch.zeros((), device=device), torch.zeros((), device=device))


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


@dataclass(frozen=True, kw_only=True)
class News:
    """How far a run is; `loss` and `top1` (0..1) are means of the epoch so far, of one process."""

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
    """Whoever watches a run; `stop` is asked after each step whether to stop there."""

    def news(self, news: News) -> None:
        """Hear of the step just done."""

    def epoch(self, record: EpochRecord) -> None:
        """Hear of the epoch just done."""

    def skipped(self, photo: Unreadable) -> None:
        """Hear of a photo that could not be read."""

    def stop(self) -> bool:
        """Return whether to write a checkpoint and stop."""
