"""Model cards: what a published set of weights is, where it comes from and how good it is.

A card is data, one TOML file; nothing here knows any model.
"""

import re
import tomllib
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, TypeVar, get_args

from regnet.network.spec import RegNetSpec, canonical_name, spec_by_name, spec_from_dict
from regnet.pixels.protocol import Channels, Preprocess, preprocess_from_dict
from regnet.system.errors import CardError, ProtocolError, SpecError, UnknownModelError

Layout = Literal["pycls", "torchvision", "timm", "transformers", "ir"]

T = TypeVar("T")


def _require(fine: bool, what: str, value: object, allowed: str) -> None:
    if not fine:
        raise CardError(f"{what} = {value!r} is not allowed in a model card: it must be {allowed}")


def _require_text(what: str, value: object) -> None:
    _require(isinstance(value, str) and bool(value), what, value, "text")


def _require_texts(what: str, values: object) -> None:
    fine = isinstance(values, tuple) and all(isinstance(v, str) and v for v in values)
    _require(fine, what, values, "a list of texts")


def _require_count(what: str, value: object) -> None:
    fine = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    _require(fine, what, value, "a whole number from 1")


def _require_url(what: str, value: object) -> None:
    fine = isinstance(value, str) and re.match(r"https?://[^/]", value) is not None
    _require(fine, what, value, "an http or https address")


def _require_percent(what: str, value: object) -> None:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100
    _require(fine, what, value, "a percentage from 0 to 100")


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """The file of the weights: its name, `urls` (mirrors, in order) and what is known of it.

    `size` in bytes and `sha384` (96 hex digits) are as published, None where they were not;
    `sha256_prefix` is the start of the sha256 where the file's name carries it. `size_about` is a
    published size that was rounded, `size_at_least` what the parameters alone take in bytes.
    Raises `CardError`.
    """

    name: str
    urls: tuple[str, ...]
    size: int | None = None
    sha384: str | None = None
    sha256_prefix: str | None = None
    size_about: int | None = None
    size_at_least: int | None = None

    def __post_init__(self) -> None:
        plain = isinstance(self.name, str) and re.fullmatch(r"\w[\w.-]*", self.name) is not None
        _require(plain, "file.name", self.name, "a plain file name")
        _require_texts("file.urls", self.urls)
        for url in self.urls:
            _require_url("file.urls", url)
        for what in ("size", "size_about", "size_at_least"):
            if getattr(self, what) is not None:
                _require_count(f"file.{what}", getattr(self, what))
        _require_hex("file.sha384", self.sha384, 96, 96)
        _require_hex("file.sha256_prefix", self.sha256_prefix, 8, 64)


def _require_hex(what: str, value: object, shortest: int, longest: int) -> None:
    if value is not None:
        digits = rf"[0-9a-f]{{{shortest},{longest}}}"
        fine = isinstance(value, str) and re.fullmatch(digits, value) is not None
        _require(fine, what, value, f"{shortest} to {longest} lower-case hex digits")


@dataclass(frozen=True, kw_only=True)
class Licence:
    """The licence of the weights: SPDX `id`, `url` of its text, and a `notice` to show.

    Weights that are `non_commercial` are only downloaded once the notice has been accepted.
    """

    id: str
    url: str
    non_commercial: bool = False
    notice: str | None = None

    def __post_init__(self) -> None:
        _require_text("licence.id", self.id)
        _require_url("licence.url", self.url)
        yes_or_no = isinstance(self.non_commercial, bool)
        _require(yes_or_no, "licence.non_commercial", self.non_commercial, "true or false")
        if self.notice is not None or self.non_commercial:
            _require_text("licence.notice", self.notice)


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A measured accuracy in percent, with the test set, the protocol and who published it.

    Figures of different protocols are never comparable; `backend` says what resized the images.
    """

    dataset: str
    protocol: str
    resize: int
    crop: int
    interpolation: Literal["bicubic", "bilinear"]
    backend: str
    top1: float
    source: str
    top5: float | None = None

    def __post_init__(self) -> None:
        for what in ("dataset", "protocol", "backend", "source"):
            _require_text(f"accuracies.{what}", getattr(self, what))
        _require_count("accuracies.resize", self.resize)
        _require_count("accuracies.crop", self.crop)
        known = self.interpolation in ("bicubic", "bilinear")
        _require(known, "accuracies.interpolation", self.interpolation, "bicubic or bilinear")
        _require_percent("accuracies.top1", self.top1)
        if self.top5 is not None:
            _require_percent("accuracies.top5", self.top5)
            _require(self.top5 >= self.top1, "accuracies.top5", self.top5, "at least top1")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the weights were trained, as far as it was published."""

    url: str | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    weight_decay: float | None = None
    hours: float | None = None
    hardware: str | None = None
    summary: str | None = None

    def __post_init__(self) -> None:
        if self.url is not None:
            _require_url("recipe.url", self.url)
        for what in ("learning_rate", "weight_decay", "hours", "epochs", "batch_size"):
            value = getattr(self, what)
            number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
            _require(value is None or number, f"recipe.{what}", value, "a number from 0")


@dataclass(frozen=True, kw_only=True)
class Card:
    """One published set of weights.

    `spec` is a network's name in `regnet.network.spec`, or where it has none the network itself (in
    TOML a table of its parameters), `labels` "imagenet-1k" or "in the model", `channels` the order
    the file's weights expect; `preprocess` the protocol to classify with, always BGR, as weights
    are flipped to BGR on load. Either `file` says what to download or `bundled` names a model
    inside the package. The first of `accuracies` is the headline. Raises `CardError`.
    """

    name: str
    spec: str | RegNetSpec
    classes: int
    labels: Literal["imagenet-1k", "in the model"]
    source: str
    layout: Layout
    channels: Channels
    licence: Licence
    preprocess: Preprocess
    accuracies: tuple[Accuracy, ...]
    aliases: tuple[str, ...] = ()
    file: WeightsFile | None = None
    bundled: str | None = None
    recipe: Recipe = Recipe()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = isinstance(self.name, str) and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", self.name)
        _require(bool(named), "name", self.name, "lower-case letters, digits, '.' and '-'")
        _require_texts("aliases", self.aliases)
        _require_texts("notes", self.notes)
        _require_text("source", self.source)
        _require_count("classes", self.classes)
        _require(self.labels in ("imagenet-1k", "in the model"), "labels", self.labels, "known")
        _require(self.layout in get_args(Layout), "layout", self.layout, f"of {get_args(Layout)}")
        _require(self.channels in ("BGR", "RGB"), "channels", self.channels, "BGR or RGB")
        _require(self.preprocess.channels == "BGR", "preprocess.channels", "RGB", "BGR")
        _require(len(self.accuracies) > 0, "accuracies", self.accuracies, "at least one")
        one = (self.file is None) != (self.bundled is None)
        _require(one, "bundled", self.bundled, "set, or [file], and not both")
        _require_spec(self.spec)

    def build_spec(self) -> RegNetSpec:
        """Return the network of these weights, with their number of classes."""
        if isinstance(self.spec, RegNetSpec):
            return self.spec.with_classes(self.classes)
        return spec_by_name(self.spec, classes=self.classes)

    @property
    def headline(self) -> Accuracy:
        """The published accuracy under the protocol nearest to `preprocess`."""
        return self.accuracies[0]

    def to_dict(self) -> dict[str, Any]:
        """Return the card as plain JSON values."""
        return asdict(self)


def _require_spec(name: object) -> None:
    if isinstance(name, RegNetSpec):
        return
    try:
        _require(isinstance(name, str) and canonical_name(name) == name, "spec", name, "canonical")
    except UnknownModelError as exc:
        raise CardError(f"spec = {name!r} is not allowed in a model card: {exc}") from exc


def parse_card(text: str, *, where: str) -> Card:
    """Return the card in a TOML text; `where` names the text in errors. Raises `CardError`."""
    try:
        values = tomllib.loads(text)
        return _card(values)
    except tomllib.TOMLDecodeError as exc:
        raise CardError(f"{where} is not TOML: {exc}") from exc
    except (CardError, ProtocolError) as exc:
        raise CardError(f"{where}: {exc}") from exc


def _card(values: dict[str, Any]) -> Card:
    parts = dict(values)
    if isinstance(parts.get("spec"), dict):
        parts["spec"] = _network(parts["spec"])
    if "file" in parts:
        parts["file"] = _build(WeightsFile, parts["file"], "[file]")
    if "recipe" in parts:
        parts["recipe"] = _build(Recipe, parts["recipe"], "[recipe]")
    if "licence" in parts:
        parts["licence"] = _build(Licence, parts["licence"], "[licence]")
    if "preprocess" in parts:
        parts["preprocess"] = _protocol(parts["preprocess"])
    if "accuracies" in parts:
        rows = parts["accuracies"]
        _require(isinstance(rows, list), "accuracies", rows, "a list of tables")
        parts["accuracies"] = tuple(_build(Accuracy, row, "[[accuracies]]") for row in rows)
    return _build(Card, parts, "the card")


def _network(values: dict[str, Any]) -> RegNetSpec:
    try:
        spec = spec_from_dict(values)
    except SpecError as exc:
        raise CardError(f"[spec]: {exc}") from exc
    if not isinstance(spec, RegNetSpec):
        raise CardError("[spec] lists stages; a card's network is given by d, w0, wa, wm and g")
    return spec


def _protocol(values: object) -> Preprocess:
    if not isinstance(values, dict) or "name" not in values:
        raise CardError("[preprocess] is not a table with a name")
    return preprocess_from_dict(values)


def _build(kind: type[T], values: object, where: str) -> T:
    """Return a dataclass from a table; unknown and missing keys fail and list the known ones."""
    if not isinstance(values, dict):
        raise CardError(f"{where} is not a table")
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := [key for key in values if key not in known]:
        raise CardError(f"{where} has unknown keys {unknown}; known are {list(known)}")
    needed = [name for name, f in known.items() if f.default is MISSING]
    if missing := [name for name in needed if name not in values]:
        raise CardError(f"{where} lacks {missing}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
