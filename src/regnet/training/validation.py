"""How right a network in training is on photos that it does not learn from."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
def validate(network: nn.Module, fabric: Any, crops: CentreCrops, normalise: Normalise) -> Score:
    """Return the score of a network in evaluation mode; `crops` are this process's share."""
    totals = torch.zeros(4, dtype=torch.float32, device=fabric.device)
    for batch in crops.batches():
        if len(batch.truths):
            totals += _totals(network, fabric, batch, normalise)
        else:  # a sharded network computes only where all processes do
            _totals(network, fabric, _black(batch), normalise)
    loss, top1, top5, count = fabric.all_reduce(totals, reduce_op="sum").tolist()
    return Score(loss / max(count, 1), top1 / max(count, 1), top5 / max(count, 1))


def _black(batch: Batch) -> Batch:
    """Return one black image of an empty batch's size."""
    return Batch(np.zeros((1, *batch.crops.shape[1:]), np.uint8), np.zeros(1, np.int64))


def _totals(network: nn.Module, fabric: Any, batch: Batch, normalise: Normalise) -> Tensor:
    """Return summed loss, right guesses, right ones among five, and the number of photos."""
    images, truths = normalise.on_device(batch)
    with fabric.autocast():
        logits = network(normalise(images)).float()
    right = logits.topk(min(5, logits.shape[1])).indices == truths[:, None]
    loss = F.cross_entropy(logits, truths, reduction="sum")
    return torch.stack([loss, right[:, 0].sum(), right.sum(), loss.new_tensor(len(truths))])


@contextmanager
def deployed(network: nn.Module, average: WeightAverage | None) -> Iterator[None]:
    """Put a network into evaluation mode, with its averaged weights if there are; then undo it."""
    own = {name: t.detach().clone() for name, t in network.state_dict().items()} if average else {}
    network.eval()
    if average:
        network.load_state_dict(average.weights)
    try:
        yield
    finally:
        if average:
            network.load_state_dict(own)
        network.train()
