"""The head of new classes in closed form: linear discriminant analysis of the photos' features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from regnet.data.labelled import LabelledItem
from regnet.network.modules import RegNet
from regnet.pixels.protocol import Preprocess
from regnet.statistics.discriminant import fit, head
from regnet.system.text import counted, percent
from regnet.training.photos import CentreCrops
from regnet.training.validation import Normalise

FEW: Final = 20
"""With so many photos per class or more, a random head is as good after training."""

MOST: Final = 4096
"""Photos that the head is made of at most, as many of each class."""

_BATCH: Final = 64


@dataclass(frozen=True)
class FittedHead:
    """A head of so many `photos`; `accuracy` is by leave-one-out, None if none can be left out."""

    photos: int
    accuracy: float | None

    def __str__(self) -> str:
        right = "" if self.accuracy is None else f", {percent(self.accuracy)} by leave-one-out"
        return f"the new head starts from the features of {counted(self.photos, 'photo')}{right}"


@torch.no_grad()
def fit_head(
    network: RegNet,
    photos: Sequence[LabelledItem],
    protocol: Preprocess,
    *,
    seed: int,
    device: torch.device,
) -> FittedHead | None:
    """Give a network's head the weights that linear discriminant analysis of its features has.

    Features are those of centre crops, in evaluation mode; `seed` draws from classes with many
    photos. Returns None, the head as it was, if there are many photos per class, if a class has no
    readable one, or if there are so many classes that each would have a single one.
    """
    classes = network.head.fc.out_features
    if len(photos) >= FEW * classes or 2 * classes > MOST:
        return None
    chosen = _drawn(photos, MOST // classes, seed)
    normalise = Normalise(protocol, device)
    features: list[Tensor] = []
    truths = []
    hook = network.head.fc.register_forward_pre_hook(lambda _, values: features.append(values[0]))
    network.to(device).eval()
    for batch in CentreCrops(chosen, protocol, batch=_BATCH, memory=0).batches():
        if len(batch.truths):
            network(normalise(normalise.on_device(batch)[0]))
            truths.append(batch.truths)
    network.cpu().train()
    hook.remove()
    own = np.concatenate([np.empty(0, np.int64), *truths])
    if np.bincount(own, minlength=classes).min() == 0:
        return None
    fitted = fit(torch.cat(features).float().cpu().numpy(), own, classes, roots=("none",))
    linear = head(fitted.moments, fitted.tuning)
    network.head.fc.weight.copy_(torch.from_numpy(linear.weights.T))
    network.head.fc.bias.copy_(torch.from_numpy(linear.bias))
    right = fitted.logits.argmax(axis=1) == own[fitted.rows]
    return FittedHead(len(own), float(right.mean()) if len(right) else None)


def _drawn(photos: Sequence[LabelledItem], most: int, seed: int) -> list[LabelledItem]:
    """Return at most so many photos of each class, drawn at random, in their order."""
    truths = np.array([photo.truth for photo in photos], np.int64)
    order = np.random.default_rng(seed).permutation(len(photos))
    by_class = order[np.argsort(truths[order], kind="stable")]
    starts = np.searchsorted(truths[by_class], truths[by_class])
    return [photos[row] for row in np.sort(by_class[np.arange(len(photos)) - starts < most])]
