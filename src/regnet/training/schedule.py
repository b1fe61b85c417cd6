"""What changes while a network is trained: the learning rate and the size of the crops.

Source of the rate: arXiv 2003.13678, section 3, and the code it was trained with.
"""

import math

from regnet.training.recipe import Input, Recipe, Schedule


def learning_rate(recipe: Recipe, progress: float) -> float:
    """Return the head's learning rate after `progress` epochs (a fraction within one counts).

    The warm-up multiplies the cosine, as in the paper's code.
    """
    schedule = recipe.schedule
    if schedule.every == "epoch":
        progress = math.floor(progress)
    return recipe.lr * _cosine(schedule, progress) * _warmup(schedule, progress)


def _cosine(schedule: Schedule, progress: float) -> float:
    share = min(progress / schedule.epochs, 1.0)
    low = schedule.final_factor
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * share))


def _warmup(schedule: Schedule, progress: float) -> float:
    if progress >= schedule.warmup_epochs:
        return 1.0
    alpha = progress / schedule.warmup_epochs
    return schedule.warmup_factor * (1 - alpha) + alpha


def crop_side(input: Input, schedule: Schedule, epoch: int) -> int:
    """Return the side in pixels of the training crops of an epoch, counted from 0."""
    side = input.crop
    for share, size in input.progressive:
        if epoch / schedule.epochs >= share:  # 0.07 * 100 would be over 7
            side = size
    return side
