"""The optimizer of a recipe: which parameters decay, and how fast each part learns."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from regnet.system.errors import TrainingError
from regnet.training.recipe import Optimizer, Recipe


def parts_of(network: nn.Module) -> list[nn.Module]:
    """Return the network's parts from the pixels to the logits: stem, stages, head."""
    return list(network.children())


def freeze(network: nn.Module, count: int) -> None:
    """Keep the first parts as they are: no gradients. Raises `TrainingError` for all of them."""
    parts = parts_of(network)
    if count >= len(parts):
        raise TrainingError(
            f"freeze = {count} leaves nothing to train: the network has {len(parts)} parts "
            f"(stem, {len(parts) - 2} stages, head): {len(parts) - 1} at most"
        )
    for part in parts[:count]:
        part.requires_grad_(False)


def frozen_parts(network: nn.Module) -> list[nn.Module]:
    """Return the parts that do not learn: their BN keeps its statistics, too."""
    return [p for p in parts_of(network) if not any(w.requires_grad for w in p.parameters())]


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimizer; each group has a `factor` to multiply the schedule's rate with."""
    options = recipe.optimizer
    groups = list(_groups(network, options))
    optimizer: torch.optim.Optimizer
    if options.kind == "adamw":
        optimizer = torch.optim.AdamW(groups, betas=(options.momentum, 0.999))
    else:
        nesterov = options.nesterov and options.momentum > 0
        optimizer = torch.optim.SGD(groups, momentum=options.momentum, nesterov=nesterov)
    set_rate(optimizer, recipe.lr)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def _groups(network: nn.Module, options: Optimizer) -> Iterator[dict[str, Any]]:
    parts = parts_of(network)
    for place, part in enumerate(parts):
        factor = options.stage_decay ** (len(parts) - 1 - place)
        learning = [p for p in part.parameters() if p.requires_grad]
        for decays in (True, False):
            chosen = [p for p in learning if _decays(p, options) is decays]
            if chosen:
                decay = options.weight_decay if decays else 0.0
                yield {"params": chosen, "weight_decay": decay, "factor": factor}


def _decays(parameter: nn.Parameter, options: Optimizer) -> bool:
    return options.decay_norms or parameter.ndim > 1  # BN's scales and all biases are vectors
