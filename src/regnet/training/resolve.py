"""A recipe as a run follows it: with the changes asked for, the model's input, a batch size."""

from dataclasses import replace

from regnet.protocol import Preprocess
from regnet.training.recipe import Input, Recipe
from regnet.training.train import Changes


def resolved(recipe: Recipe, changes: Changes, protocol: Preprocess | None) -> Recipe:
    """Return the recipe with the changes and, where it is for pretrained models, this protocol.

    Its batch may still be 0. Raises `RecipeError` where a change is impossible.
    """
    if recipe.transfer.pretrained and protocol is not None:
        recipe = replace(recipe, input=_input(protocol))
    if changes.crop is not None:
        recipe = replace(recipe, input=_scaled(recipe.input, changes.crop))
    if changes.epochs is not None:
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


def _scaled(input: Input, crop: int) -> Input:
    """Return the input with this crop; the other sizes keep their ratio to it."""
    ratio = crop / input.crop
    return replace(
        input,
        crop=crop,
        resize=max(round(input.resize * ratio), crop),
        progressive=tuple(
            (at, max(round(size * ratio / 8) * 8, 8)) for at, size in input.progressive
        ),
    )
