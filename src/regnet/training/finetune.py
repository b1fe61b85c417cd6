"""`regnet.finetune`: a pretrained network and one's own photos -> a classifier of them."""

from pathlib import Path
from typing import Any

from regnet.training.recipe import Recipe
from regnet.training.task import Training
from regnet.training.train import train


def finetune(
    dataset: str | Path,
    *,
    model: str | Path = "bundled",
    recipe: str | Path | Recipe = "finetune",
    **options: Any,
) -> Training:
    """Train a pretrained network further on labelled photos; options and errors as of `train`.

    `model` is `bundled`, a card's name, an IR or a checkpoint file. It gets a new head where the
    classes differ, keeps the input that it takes, and learns slowest in its first layers.
    """
    return train(dataset, model=model, recipe=recipe, **options)
