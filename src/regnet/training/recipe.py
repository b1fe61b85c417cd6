"""Recipes: how a network is trained, as frozen values in plain TOML files.

A file holds a table for each part below; what it leaves out has the default written here, which
is the paper's recipe (arXiv 2003.13678, section 3 and its training code).
"""

import json
import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from regnet.pixels.protocol import MAX_SIDE, Interpolation, Offset, Preprocess, Triple
from regnet.system.checked import Checked, Rule, within
from regnet.system.errors import ProtocolError, RecipeError, reason_of
from regnet.system.files import write_whole
from regnet.system.option import Options, option
from regnet.system.output_file import naming

Pair = tuple[float, float]
Sizes = tuple[tuple[float, int], ...]
Amount = Annotated[float, within(ge=0)]
Share = Annotated[float, within(ge=0, le=1)]
Probability = Annotated[float, within(ge=0, lt=1)]

RECIPES: Final = ("paper", "modern", "finetune")
_MAX_BYTES: Final = 1 << 20
_SUFFIX: Final = ".toml"
_MIN_GROWING_CROP: Final = 32  # pixels

_toml = partial(json.dumps, ensure_ascii=False)  # both write a recipe's values alike


def _grows(sizes: Sizes) -> bool:
    shares = [share for share, _ in sizes]
    in_order = shares == sorted(set(shares)) and all(0 <= share < 1 for share in shares)
    return in_order and all(8 <= size <= 4096 for _, size in sizes)


@dataclass(frozen=True, kw_only=True)
class Optimizer(Checked, error=RecipeError):
    """SGD with Nesterov momentum, or AdamW.

    `lr` is for `per` images a step and grows linearly with their number; a stage has `stage_decay`
    times the rate of the one after it, the head all of it. `weight_decay` leaves out BN and biases
    unless `decay_norms`. `clip_norm` limits the length of the gradient; 0 does not.
    """

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: Annotated[float, within(gt=0, le=1000)] = 0.1
    per: Annotated[int, within(ge=1, le=1_000_000)] = 128
    momentum: Probability = 0.9
    nesterov: bool = True
    weight_decay: Amount = 5e-5
    decay_norms: bool = True
    stage_decay: Annotated[float, within(gt=0, le=1)] = 1.0
    clip_norm: Amount = 0.0


@dataclass(frozen=True, kw_only=True)
class Schedule(Checked, error=RecipeError):
    """Linear warm-up from `warmup_factor` of the rate, then half a cosine down to `final_factor`.

    `batch` images make a step; 0 chooses by their number, and by the memory of a GPU. The rate
    changes every "epoch" or every "step". `patience` ends the run after so many epochs without a
    better validation (a higher top-1, or the same with a lower loss); 0 never does.
    """

    epochs: Annotated[int, within(ge=1, le=100_000)] = 100
    batch: Annotated[int, within(ge=0, le=1_000_000)] = 128
    warmup_epochs: Amount = 5.0
    warmup_factor: Share = 0.1
    final_factor: Share = 0.0
    every: Literal["epoch", "step"] = "epoch"
    patience: Annotated[int, within(ge=0)] = 0


@dataclass(frozen=True, kw_only=True)
class Input(Checked, error=RecipeError):
    """The input of the trained model: the protocol's sizes and rules, channels in BGR.

    `mean` and `scale` are of pixels from 0 to 255, as in `Preprocess`. `progressive` lists pairs
    (share of the epochs, crop): from that share on, training crops have that size; before the
    first pair, and without any, `crop`.
    """

    resize: Annotated[int, within(ge=1, le=MAX_SIDE)] = 256
    crop: int = 224
    interpolation: Interpolation = "opencv-linear"
    offset: Offset = "ceil"
    mean: Triple = Preprocess.mean
    scale: Triple = Preprocess.scale
    progressive: Annotated[
        Sizes,
        Rule("with shares from 0 to below 1 in rising order and crops from 8 to 4096", _grows),
    ] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.protocol("recipe")

    @property
    def crops(self) -> tuple[int, ...]:
        """The sizes of all training crops."""
        return (self.crop, *(size for _, size in self.progressive))

    def protocol(self, name: str) -> Preprocess:
        """Return the protocol that evaluates and deploys the model."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "progressive"}
        try:
            return Preprocess(name=name, **values)
        except ProtocolError as exc:
            raise RecipeError(str(exc)) from exc


@dataclass(frozen=True, kw_only=True)
class Augmentation(Checked, error=RecipeError):
    """Augmentation of a training photo, and disturbances of the network.

    A random crop by the rule of "pycls" or of "torchvision", which covers a share of the photo's
    area in `area`; a `flip` with that probability. PCA `lighting` of that deviation;
    `trivial_augment` (arXiv 2103.10158); `erasing` of a rectangle with that probability (arXiv
    1708.04896); `mixup` and `cutmix`, each the alpha of its Beta distribution (arXiv 1710.09412
    and 1905.04899), one of the two per batch, for a share `mix` of the batches. Noise like that of
    rounding activations to `noise_bits` bits, so that INT8 agrees better; 0 adds none. Blocks are
    dropped with a probability that rises to `stochastic_depth` at the last (arXiv 1603.09382).
    """

    rule: Literal["pycls", "torchvision"] = "pycls"
    area: Annotated[
        Pair, Rule("with 0 < low <= high <= 1", lambda area: 0 < area[0] <= area[1] <= 1)
    ] = (0.08, 1.0)
    flip: Share = 0.5
    lighting: Amount = 0.1
    trivial_augment: bool = False
    erasing: Share = 0.0
    mixup: Amount = 0.0
    cutmix: Amount = 0.0
    mix: Share = 1.0
    noise_bits: Annotated[
        float, Rule("that is 0 or from 1 to 16", lambda bits: bits == 0 or 1 <= bits <= 16)
    ] = 0.0
    stochastic_depth: Probability = 0.0


@dataclass(frozen=True, kw_only=True)
class Loss(Checked, error=RecipeError):
    """Cross entropy with `label_smoothing`.

    `balanced` weighs classes by the inverse of their number of photos. With a teacher, `teacher`
    is the weight of its soft labels at `temperature`, the true label has the rest.
    """

    label_smoothing: Probability = 0.0
    balanced: bool = False
    teacher: Share = 0.5
    temperature: Annotated[float, within(gt=0)] = 1.0


@dataclass(frozen=True, kw_only=True)
class Averages(Checked, error=RecipeError):
    """Averages: of weights by `ema` (the decay per step; 0: none), of BN over `precise_bn`.

    `precise_bn` photos give BN new statistics at the end; 0 keeps the running ones.
    """

    ema: Probability = 0.0
    precise_bn: Annotated[int, within(ge=0)] = 8192


@dataclass(frozen=True, kw_only=True)
class Transfer(Checked, error=RecipeError):
    """How a pretrained network is trained further.

    `pretrained` starts with the model's own weights, a new head if classes differ, and the model's
    input instead of the recipe's. A new `head` is random, or fitted to the features of the photos
    in closed form if they are few. The first `freeze` parts (stem, stages 1 to 4) are frozen.
    `balanced_sampling` draws every class equally often.
    """

    pretrained: bool = False
    head: Literal["random", "fitted"] = "random"
    freeze: Annotated[int, within(ge=0, le=64)] = 0
    balanced_sampling: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe(Checked, error=RecipeError):
    """A recipe: a value for each part, and the random seed.

    `teachers` are models to distil from, as `--teacher` names them. Raises `RecipeError` that
    names what is impossible and what is allowed.
    """

    name: Annotated[
        str, Rule("that is printable and not blank", lambda n: n.isprintable() and n.strip())
    ] = "recipe"
    seed: Annotated[int, within(ge=0, le=2**63 - 1)] = 0
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    input: Input = Input()
    augmentation: Augmentation = Augmentation()
    loss: Loss = Loss()
    averages: Averages = Averages()
    transfer: Transfer = Transfer()
    teachers: tuple[str, ...] = ()

    @property
    def lr(self) -> float:
        """The rate after warm-up, for this recipe's batch: the linear rule."""
        return self.optimizer.lr * self.schedule.batch / self.optimizer.per

    def lr_at(self, progress: float) -> float:
        """Return the head's learning rate after `progress` epochs (a fraction within one counts).

        The warm-up multiplies the cosine, as in the paper's code (arXiv 2003.13678, section 3).
        """
        schedule = self.schedule
        if schedule.every == "epoch":
            progress = math.floor(progress)
        low = schedule.final_factor
        share = min(progress / schedule.epochs, 1.0)
        cosine = low + (1 - low) * 0.5 * (1 + math.cos(math.pi * share))
        warmup = 1.0
        if progress < schedule.warmup_epochs:
            alpha = progress / schedule.warmup_epochs
            warmup = schedule.warmup_factor * (1 - alpha) + alpha
        return self.lr * cosine * warmup

    def crop_at(self, epoch: int) -> int:
        """Return the side in pixels of the training crops of an epoch, counted from 0."""
        side = self.input.crop
        for share, size in self.input.progressive:
            if epoch / self.schedule.epochs >= share:  # 0.07 * 100 would be over 7
                side = size
        return side

    def changed(self, part: str, **values: Any) -> "Recipe":
        """Return the recipe with values of one part replaced; those that are None stay.

        Raises `RecipeError`.
        """
        given = {name: value for name, value in values.items() if value is not None}
        table = getattr(self, part, None)
        known = vars(table) if isinstance(table, Checked) else {}
        return Recipe.from_dict(vars(self) | {part: known | given})

    def to_toml(self) -> str:
        """Return the recipe as the text of a file, all values written out."""
        values = self.to_dict()
        if not self.teachers:
            del values["teachers"]
        plain = [key for key, value in values.items() if not isinstance(value, dict)]
        lines = [f"{key} = {_toml(values.pop(key))}" for key in plain]
        for part, table in values.items():
            lines += ["", f"[{part}]", *(f"{k} = {_toml(v)}" for k, v in table.items())]
        return "\n".join(lines) + "\n"


def read_recipe(name_or_path: str | Path) -> Recipe:
    """Return a recipe by its name, or from a TOML file. Raises `RecipeError`."""
    path = Path(name_or_path)
    if str(name_or_path) in RECIPES:
        file = resources.files(__package__).joinpath("recipes", f"{path}{_SUFFIX}")
        return recipe_from_toml(file.read_text("utf-8"), source=f"recipe {path}")
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as exc:  # the latter for an impossible path
        known = ", ".join(RECIPES)
        reason = reason_of(exc)
        raise RecipeError(
            f"{path}: neither a recipe's name ({known}) nor a file ({reason})"
        ) from exc
    if len(data) > _MAX_BYTES:
        raise RecipeError(f"{path}: is over {_MAX_BYTES:,} bytes, which no recipe is")
    try:
        return recipe_from_toml(data.decode("utf-8-sig"), source=str(path))
    except UnicodeDecodeError as exc:
        raise RecipeError(f"{path}: is not a text in UTF-8 ({exc})") from exc


def recipe_from_toml(text: str, *, source: str) -> Recipe:
    """Return the recipe in a text; `source` names it in errors. Raises `RecipeError`."""
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # also for numbers of over 4,300 digits
        raise RecipeError(f"{source}: is not TOML: {exc}") from exc
    try:
        return Recipe.from_dict({"name": Path(source).stem} | values)
    except RecipeError as exc:
        raise RecipeError(f"{source}: {exc}") from exc


def write_recipe(path: Path, recipe: Recipe, notes: Iterable[str] = ()) -> None:
    """Write a recipe to a file, atomically, with `notes` as comments on top.

    Raises `OutputError`.
    """
    comments = "".join(f"# {note}\n" for note in notes)
    with naming(path):
        write_whole(path, (comments + recipe.to_toml()).encode())


class Changes(Options):
    """Changes to a recipe; None leaves it as it is.

    `lr` is for `per` images a step, as in the recipe; the warm-up keeps its share of the `epochs`.
    """

    epochs: int | None = option(None, "Number of epochs [the recipe's]", min=1)
    batch: int | None = option(None, "Global batch size; 0 = automatic [the recipe's]", min=0)
    lr: float | None = option(None, "Learning rate per 128 images [the recipe's]", "LR")
    crop: int | None = option(
        None, "Crop size; other sizes scale with it [the recipe's]", "PIXELS", min=8
    )
    seed: int | None = option(None, "Random seed [the recipe's]", min=0)
    freeze: int | None = option(
        None, "Freeze the first N parts (stem, then stages) [the recipe's]", min=0
    )


def resolved(recipe: Recipe, changes: Changes, protocol: Preprocess | None) -> Recipe:
    """Return the recipe with the changes and, if it is for pretrained models, this protocol.

    Its batch may still be 0. Raises `RecipeError` for an impossible change.
    """
    if recipe.transfer.pretrained and protocol is not None:
        shared = {f.name for f in fields(Input)} & vars(protocol).keys()
        recipe = replace(recipe, input=Input(**{name: vars(protocol)[name] for name in shared}))
    if changes.crop is not None:
        recipe = replace(recipe, input=_scaled(recipe.input, changes.crop))
    if changes.epochs not in (None, recipe.schedule.epochs):
        share = recipe.schedule.warmup_epochs / recipe.schedule.epochs
        recipe = recipe.changed(
            "schedule", epochs=changes.epochs, warmup_epochs=share * changes.epochs
        )
    recipe = recipe.changed("schedule", batch=changes.batch)
    recipe = recipe.changed("optimizer", lr=changes.lr)
    recipe = recipe.changed("transfer", freeze=changes.freeze)
    return recipe if changes.seed is None else replace(recipe, seed=changes.seed)


def _scaled(input: Input, crop: int) -> Input:
    """Return the input with this crop; other sizes keep their ratio to it, down to 32 pixels."""
    ratio, smallest = crop / input.crop, min(crop, _MIN_GROWING_CROP)
    return replace(
        input,
        crop=crop,
        resize=max(round(input.resize * ratio), crop),
        progressive=tuple(
            (at, max(round(size * ratio / 8) * 8, smallest)) for at, size in input.progressive
        ),
    )
