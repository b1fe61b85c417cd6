"""How right a network in training is on photos that it does not learn from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from regnet.network import RegNet
from regnet.training.averages import WeightAverage
from regnet.training.normalise import Normalise
from regnet.training.photos import Batch, CentreCrops


@dataclass(frozen=True)
class Score:
    """Mean loss, and the shares of photos whose class is the best guess, or among five."""

    loss: float
    top1: float
    top5: float


@torch.no_grad()
def validate(network: Any, fabric: Any, crops: CentreCrops, normalise: Normalise) -> Score:
    """Return the score of a network in evaluation mode; processes share the work."""
    totals = torch.zeros(4, dtype=torch.float32, device=fabric.device)
    for place, batch in enumerate(crops.batches()):
        if place % fabric.world_size == fabric.global_rank and len(batch.truths):
            totals += _totals(network, batch, normalise)
    loss, top1, top5, count = fabric.all_reduce(totals, reduce_op="sum").tolist()
    return Score(loss / max(count, 1), top1 / max(count, 1), top5 / max(count, 1))


def _totals(network: Any, batch: Batch, normalise: Normalise) -> Tensor:
    """Return summed loss, right guesses, right ones among five, and the number of photos."""
    images, truths = normalise.on_device(batch)
    logits = network(normalise(images)).float()
    right = logits.topk(min(5, logits.shape[1])).indices == truths[:, None]
    loss = F.cross_entropy(logits, truths, reduction="sum")
    return torch.stack([loss, right[:, 0].sum(), right.sum(), loss.new_tensor(len(truths))])


@contextmanager
def deployed(network: Any, bare: RegNet, average: WeightAverage | None) -> Iterator[None]:
    """Put a network into evaluation mode, with its averaged weights if there are; then undo it."""
    own = {name: t.detach().clone() for name, t in bare.state_dict().items()} if average else {}
    network.eval()
    if average:
        bare.load_state_dict(average.weights)
    try:
        yield
    finally:
        if average:
            bare.load_state_dict(own)
        network.train()
