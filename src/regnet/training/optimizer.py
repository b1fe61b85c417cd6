"""The optimizer of a recipe and its schedule: learning rates, weight decay, and crop sizes."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from regnet.system.errors import TrainingError
from regnet.training.recipe import Input, Optimizer, Recipe, Schedule


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Return the head's learning rate after `progress` epochs (a fraction within one counts).

    The warm-up multiplies the cosine, as in the paper's code (arXiv 2003.13678, section 3).
    """
    schedule = recipe.schedule
    if schedule.every == "epoch":
        progress = math.floor(progress)
    low = schedule.final_factor
    share = min(progress / schedule.epochs, 1.0)
    cosine = low + (1 - low) * 0.5 * (1 + math.cos(math.pi * share))
    warmup = 1.0
    if progress < schedule.warmup_epochs:
        alpha = progress / schedule.warmup_epochs
        warmup = schedule.warmup_factor * (1 - alpha) + alpha
    return recipe.lr * cosine * warmup


def crop_side(input: Input, schedule: Schedule, epoch: int) -> int:
    """Return the side in pixels of the training crops of an epoch, counted from 0."""
    side = input.crop
    for share, size in input.progressive:
        if epoch / schedule.epochs >= share:  # 0.07 * 100 would be over 7
            side = size
    return side


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
    """Return the frozen parts: their BN keeps its statistics, too."""
    return [p for p in network.children() if not any(w.requires_grad for w in p.parameters())]


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimizer; each group has a `factor` for the schedule's learning rate."""
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
