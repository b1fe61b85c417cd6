"""A recipe as a run follows it: with the changes asked for, the model's input, a batch size."""

from dataclasses import replace
from typing import Final

from regnet.network.spec import Spec
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import TrainingError
from regnet.training.recipe import Input, Recipe
from regnet.training.task import Changes

_SMALLEST: Final = 32  # pixels of crops that grow


def resolved(recipe: Recipe, changes: Changes, protocol: Preprocess | None) -> Recipe:
    """Return the recipe with the changes and, where it is for pretrained models, this protocol.

    Its batch may still be 0. Raises `RecipeError` where a change is impossible.
    """
    if recipe.transfer.pretrained and protocol is not None:
        recipe = replace(recipe, input=_input(protocol))
    if changes.crop is not None:
        recipe = replace(recipe, input=_scaled(recipe.input, changes.crop))
    if changes.teachers:
        recipe = replace(recipe, teachers=changes.teachers)
    if changes.epochs not in (None, recipe.schedule.epochs):
        share = recipe.schedule.warmup_epochs / recipe.schedule.epochs
        recipe = recipe.changed(
            "schedule", epochs=changes.epochs, warmup_epochs=share * changes.epochs
        )
    recipe = recipe.changed("schedule", batch=changes.batch)
    recipe = recipe.changed("optimizer", lr=changes.lr)
    recipe = recipe.changed("transfer", freeze=changes.freeze)
    return recipe if changes.seed is None else replace(recipe, seed=changes.seed)


def _input(protocol: Preprocess) -> Input:
    return Input(
        resize=protocol.resize,
        crop=protocol.crop,
        interpolation=protocol.interpolation,
        offset=protocol.offset,
        mean=protocol.mean,
        scale=protocol.scale,
    )


def require_size(spec: Spec, input: Input) -> None:
    """Raise `TrainingError` where crops are so small that the last stage is given one pixel.

    There is nothing to learn from there; and on CPUs, torch 2.13's gradients in bf16 of a 3x3
    convolution of stride 2 over one pixel hold whatever was in memory.
    """
    least = spec.stem_stride * 2 ** (len(spec.stages) - 1) + 1
    smallest = min([input.crop, *(size for _, size in input.progressive)])
    if smallest < least:
        raise TrainingError(
            f"crops of {smallest} pixels are one pixel before the last stage: take {least} or more "
            "(--crop, [input] progressive), or the stem for small images (--small-stem)"
        )


def require_statistics(spec: Spec, recipe: Recipe, accumulate: int, photos: int) -> None:
    """Raise `TrainingError` where BN of the last stage would get one value per channel.

    That is one image at a time, and crops that are one pixel after the last stage.
    """
    batch = min(recipe.schedule.batch, photos)
    largest_bad = spec.stem_stride * 2 ** len(spec.stages)
    smallest = min([recipe.input.crop, *(size for _, size in recipe.input.progressive)])
    frozen = recipe.transfer.freeze > len(spec.stages)
    if frozen or batch // accumulate > 1 or smallest > largest_bad:
        return
    how = "--batch 2 or more" if batch < 2 else f"--accumulate {max(batch // 2, 1)} or less"
    raise TrainingError(
        f"one image at a time, with crops of {smallest} pixels, leaves batch normalisation of the "
        f"last stage one value per channel: take {how}, or crops of {largest_bad + 1} or more "
        "(--crop, [input] progressive)"
    )


def _scaled(input: Input, crop: int) -> Input:
    """Return the input with this crop; other sizes keep their ratio to it, down to 32 pixels."""
    ratio, least = crop / input.crop, min(crop, _SMALLEST)
    return replace(
        input,
        crop=crop,
        resize=max(round(input.resize * ratio), crop),
        progressive=tuple(
            (at, max(round(size * ratio / 8) * 8, least)) for at, size in input.progressive
        ),
    )
