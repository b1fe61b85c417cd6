"""Recipes: how a network is trained, as frozen values in plain TOML files.

A file holds a table for each part below; what it leaves out has the default written here, which
is the paper's recipe (arXiv 2003.13678, section 3 and its training code).
"""

import json
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from regnet.pixels.protocol import Interpolation, Offset, Preprocess, Triple
from regnet.system.errors import ProtocolError, RecipeError, shown
from regnet.system.files import write_whole
from regnet.system.output_file import naming

Pair = tuple[float, float]
Sizes = tuple[tuple[float, int], ...]

RECIPES: Final = ("paper", "modern", "finetune")
_MAX_BYTES: Final = 1 << 20
_SUFFIX: Final = ".toml"

_toml = partial(json.dumps, ensure_ascii=False)  # values of a recipe are written alike in both


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """SGD with Nesterov momentum, or AdamW.

    `lr` is for `per` images a step and grows linearly with their number; a stage has `stage_decay`
    times the rate of the one after it, the head all of it. `weight_decay` leaves out BN and biases
    unless `decay_norms`. `clip_norm` limits the length of the gradient; 0 does not.
    """

    kind: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    per: int = 128
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-5
    decay_norms: bool = True
    stage_decay: float = 1.0
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        _require_types(self)
        _require("lr", self.lr, 0 < self.lr <= 1000, "over 0, at most 1000")
        _require("per", self.per, 1 <= self.per <= 1_000_000, "from 1 to 1000000")
        _require("momentum", self.momentum, 0 <= self.momentum < 1, "from 0 to below 1")
        _require("weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more")
        _require("stage_decay", self.stage_decay, 0 < self.stage_decay <= 1, "over 0, at most 1")
        _require("clip_norm", self.clip_norm, self.clip_norm >= 0, "0 or more")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Linear warm-up from `warmup_factor` of the rate, then half a cosine down to `final_factor`.

    `batch` images make a step; 0 chooses by their number, and by the memory of a GPU. The rate
    changes every "epoch" or every "step". `patience` ends the run after so many epochs without a
    better validation (a higher top-1, or the same with a lower loss); 0 never does.
    """

    epochs: int = 100
    batch: int = 128
    warmup_epochs: float = 5.0
    warmup_factor: float = 0.1
    final_factor: float = 0.0
    every: Literal["epoch", "step"] = "epoch"
    patience: int = 0

    def __post_init__(self) -> None:
        _require_types(self)
        _require("epochs", self.epochs, 1 <= self.epochs <= 100_000, "from 1 to 100000")
        _require("batch", self.batch, 0 <= self.batch <= 1_000_000, "from 0 to 1000000")
        _require("warmup_epochs", self.warmup_epochs, self.warmup_epochs >= 0, "0 or more")
        for name in ("warmup_factor", "final_factor"):
            value = getattr(self, name)
            _require(name, value, 0 <= value <= 1, "from 0 to 1")
        _require("patience", self.patience, self.patience >= 0, "0 or more")


@dataclass(frozen=True, kw_only=True)
class Input:
    """What the trained model takes: the protocol's sizes and rules, channels in BGR.

    `mean` and `scale` are of pixels from 0 to 255, as in `Preprocess`.
    `progressive` lists pairs (share of the epochs, crop): from that share on, training crops have
    that size; before the first pair, and without any, `crop`.
    """

    resize: int = 256
    crop: int = 224
    interpolation: Interpolation = "opencv-linear"
    offset: Offset = "ceil"
    mean: Triple = Preprocess.mean
    scale: Triple = Preprocess.scale
    progressive: Sizes = ()

    def __post_init__(self) -> None:
        _require_types(self)
        self.protocol("recipe")
        shares = [share for share, _ in self.progressive]
        good = all(0 <= share < 1 for share in shares) and shares == sorted(set(shares))
        good = good and all(8 <= size <= 4096 for _, size in self.progressive)
        allowed = "pairs [share, crop]: shares from 0 to below 1 in rising order, crops 8 to 4096"
        _require("progressive", self.progressive, good, allowed)

    def protocol(self, name: str) -> Preprocess:
        """Return the protocol that evaluates and deploys the model."""
        try:
            return Preprocess(
                name=name,
                resize=self.resize,
                crop=self.crop,
                interpolation=self.interpolation,
                offset=self.offset,
                mean=self.mean,
                scale=self.scale,
            )
        except ProtocolError as exc:
            raise RecipeError(str(exc)) from exc


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What happens to a training photo.

    A random crop by the rule of "pycls" or of "torchvision", which covers a share of the photo's
    area in `area`; a `flip` with that probability. PCA `lighting` of that deviation;
    `trivial_augment` (arXiv 2103.10158); `erasing` of a rectangle with that probability (arXiv
    1708.04896); `mixup` and `cutmix`, each the alpha of its Beta distribution (arXiv 1710.09412
    and 1905.04899), one of the two a batch, for a share `mix` of the batches. Noise like that of
    rounding activations to `noise_bits` bits, so that INT8 agrees better; 0 adds none. Blocks are
    left out with a probability that rises to `stochastic_depth` at the last (arXiv 1603.09382).
    """

    rule: Literal["pycls", "torchvision"] = "pycls"
    area: Pair = (0.08, 1.0)
    flip: float = 0.5
    lighting: float = 0.1
    trivial_augment: bool = False
    erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix: float = 1.0
    noise_bits: float = 0.0
    stochastic_depth: float = 0.0

    def __post_init__(self) -> None:
        _require_types(self)
        _require("area", self.area, 0 < self.area[0] <= self.area[1] <= 1, "0 < low <= high <= 1")
        for name in ("flip", "erasing", "mix"):
            value = getattr(self, name)
            _require(name, value, 0 <= value <= 1, "from 0 to 1")
        for name in ("lighting", "mixup", "cutmix"):
            _require(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        bits = self.noise_bits
        _require("noise_bits", bits, bits == 0 or 1 <= bits <= 16, "0, or from 1 to 16")
        depth = self.stochastic_depth
        _require("stochastic_depth", depth, 0 <= depth < 1, "from 0 to below 1")

    @property
    def perturbs(self) -> bool:
        """Whether the network itself is disturbed in training, by hooks."""
        return self.noise_bits > 0 or self.stochastic_depth > 0


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Cross entropy with `label_smoothing`.

    `balanced` weighs classes by the inverse of their number of photos. With a teacher, `teacher`
    is the weight of its soft labels at `temperature`, the truth has the rest.
    """

    label_smoothing: float = 0.0
    balanced: bool = False
    teacher: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _require_types(self)
        smoothing = self.label_smoothing
        _require("label_smoothing", smoothing, 0 <= smoothing < 1, "from 0 to below 1")
        _require("teacher", self.teacher, 0 <= self.teacher <= 1, "from 0 to 1")
        _require("temperature", self.temperature, self.temperature > 0, "over 0")


@dataclass(frozen=True, kw_only=True)
class Averages:
    """What is averaged: weights by `ema` (the decay a step; 0 does not), BN over `precise_bn`.

    `precise_bn` photos give BN's statistics anew at the end; 0 keeps the running ones.
    """

    ema: float = 0.0
    precise_bn: int = 8192

    def __post_init__(self) -> None:
        _require_types(self)
        _require("ema", self.ema, 0 <= self.ema < 1, "from 0 to below 1")
        _require("precise_bn", self.precise_bn, self.precise_bn >= 0, "0 or more")


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """How a network that has learnt before goes on.

    `pretrained` starts with the model's own weights, a new head where classes differ, and the input
    that the model takes instead of the recipe's. `freeze` first parts (stem, stages 1 to 4) do not
    learn. `balanced_sampling` draws every class equally often.
    """

    pretrained: bool = False
    freeze: int = 0
    balanced_sampling: bool = False

    def __post_init__(self) -> None:
        _require_types(self)
        _require("freeze", self.freeze, 0 <= self.freeze <= 64, "from 0 to 64")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A recipe: a value for each part, and the seed of all that is random.

    `teachers` are models to learn from as well, as `--teacher` names them. Raises `RecipeError`
    that names what is impossible and what is allowed.
    """

    name: str = "recipe"
    seed: int = 0
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    input: Input = field(default_factory=Input)
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: Loss = field(default_factory=Loss)
    averages: Averages = field(default_factory=Averages)
    transfer: Transfer = field(default_factory=Transfer)
    teachers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_types(self)
        legible = self.name.isprintable() and bool(self.name.strip())
        _require("name", self.name, legible, "printable and not blank")
        _require("seed", self.seed, 0 <= self.seed < 2**63, f"from 0 to {2**63 - 1}")

    @property
    def lr(self) -> float:
        """The rate after warm-up, for this recipe's batch: the linear rule."""
        return self.optimizer.lr * self.schedule.batch / self.optimizer.per

    def changed(self, part: str, **values: Any) -> "Recipe":
        """Return the recipe with values of one part replaced; those that are None stay.

        Raises `RecipeError`.
        """
        parts = {f.name: f.type for f in fields(self) if is_dataclass(f.type)}
        _require_known([part], parts, "the recipe")
        given = {name: value for name, value in values.items() if value is not None}
        made = _part(part, parts[part], vars(getattr(self, part)) | given)
        return replace(self, **{part: made})

    def to_toml(self) -> str:
        """Return the recipe as the text of a file, all values written out."""
        values = asdict(self)
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
    except (OSError, ValueError) as exc:  # the latter for a path that none can be
        known = ", ".join(RECIPES)
        reason = getattr(exc, "strerror", None) or exc
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
    """Return the recipe that a text holds; `source` names it in errors. Raises `RecipeError`."""
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:  # also for numbers of over 4,300 digits
        raise RecipeError(f"{source}: is not TOML: {exc}") from exc
    try:
        return _recipe(values, Path(source).stem)
    except RecipeError as exc:
        raise RecipeError(f"{source}: {exc}") from exc


def write_recipe(path: Path, recipe: Recipe, notes: Iterable[str] = ()) -> None:
    """Write a recipe to a file, whole or not at all, with `notes` as comments on top.

    Raises `OutputError`.
    """
    comments = "".join(f"# {note}\n" for note in notes)
    with naming(path):
        write_whole(path, (comments + recipe.to_toml()).encode())


def _recipe(values: dict[str, Any], name: str) -> Recipe:
    kinds = {f.name: f.type for f in fields(Recipe)}
    _require_known(values, kinds, "the recipe")
    made: dict[str, Any] = {"name": name}
    for key, value in values.items():
        made[key] = _part(key, kinds[key], value) if is_dataclass(kinds[key]) else value
    return Recipe(**made)


def _part(name: str, kind: Any, values: object) -> Any:
    if not isinstance(values, dict):
        raise RecipeError(f"{name} = {shown(values)} is not allowed: it must be a table, [{name}]")
    _require_known(values, {f.name: f.type for f in fields(kind)}, f"[{name}]")
    try:
        return kind(**values)
    except RecipeError as exc:
        raise RecipeError(f"[{name}] {exc}") from exc


def _require_known(names: Iterable[str], known: dict[str, Any], where: str) -> None:
    if unknown := [name for name in names if name not in known]:
        raise RecipeError(f"{where} has no {shown(unknown[0])}; it has {', '.join(known)}")


def _require(name: str, value: object, good: bool, allowed: str) -> None:
    if not good:
        raise RecipeError(f"{name} = {shown(value)} is not allowed: it must be {allowed}")


def _require_types(part: Any) -> None:
    """Refuse values of another type than their field's; lists become the tuples they stand for."""
    for f in fields(part):
        if get_origin(f.type) is tuple:
            object.__setattr__(part, f.name, _as_tuples(getattr(part, f.name)))
        value = getattr(part, f.name)
        _require(f.name, value, _is_a(value, f.type), _described(f.type))


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def _is_a(value: object, kind: Any) -> bool:
    if kind is float:
        real = isinstance(value, int | float) and not isinstance(value, bool)
        return real and abs(value) <= sys.float_info.max  # type: ignore[arg-type]
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and _members_are(value, get_args(kind))
    return isinstance(value, kind)


def _members_are(values: tuple[Any, ...], kinds: tuple[Any, ...]) -> bool:
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(values)
    return len(values) == len(kinds) and all(map(_is_a, values, kinds))


def _described(kind: Any) -> str:
    """Return a type in words."""
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if get_origin(kind) is tuple:
        first, *rest = map(_described, (k for k in get_args(kind) if k is not Ellipsis))
        several = Ellipsis in get_args(kind)
        return f"a list of {first}" if several else f"[{', '.join([first, *rest])}]"
    named = {float: "a finite number", int: "a whole number", bool: "true or false", str: "a text"}
    return named.get(kind) or f"a table [{kind.__name__.lower()}]"
