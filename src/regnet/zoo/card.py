"""Model cards: what a published set of weights is, where it comes from and how good it is.

A card is data, one TOML file; nothing here knows any model.
"""

import re
import tomllib
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

from regnet.network.spec import RegNetSpec, Spec, canonical_name, spec_by_name
from regnet.pixels.protocol import Channels, Preprocess
from regnet.system.checked import Checked, Rule, refused, within
from regnet.system.errors import CardError, UnknownModelError

Layout = Literal["pycls", "torchvision", "timm", "transformers", "ir"]

Text = Annotated[str, Rule("that is not empty", bool)]
Url = Annotated[
    str, Rule("that is an http or https address", re.compile(r"https?://[^/].*").fullmatch)
]
Count = Annotated[int, within(ge=1)]
Amount = Annotated[float, within(ge=0)]
Percent = Annotated[float, within(ge=0, le=100)]


@dataclass(frozen=True, kw_only=True)
class WeightsFile(Checked, error=CardError):
    """The file of the weights: its name, `urls` (mirrors, in order) and what is known of it.

    `size` in bytes and `sha384` (96 hex digits) are as published, None where they were not;
    `sha256_prefix` is the start of the sha256 where the file's name carries it. `size_about` is a
    published size that was rounded, `size_at_least` what the parameters alone take in bytes.
    Raises `CardError`.
    """

    name: Annotated[str, Rule("that is a plain file name", re.compile(r"\w[\w.-]*").fullmatch)]
    urls: tuple[Url, ...]
    size: Count | None = None
    sha384: (
        Annotated[str, Rule("of 96 lower-case hex digits", re.compile("[0-9a-f]{96}").fullmatch)]
        | None
    ) = None
    sha256_prefix: (
        Annotated[
            str, Rule("of 8 to 64 lower-case hex digits", re.compile("[0-9a-f]{8,64}").fullmatch)
        ]
        | None
    ) = None
    size_about: Count | None = None
    size_at_least: Count | None = None


@dataclass(frozen=True, kw_only=True)
class Licence(Checked, error=CardError):
    """The licence of the weights: SPDX `id`, `url` of its text, and a `notice` to show.

    Weights that are `non_commercial` are only downloaded once the notice has been accepted.
    """

    id: Text
    url: Url
    non_commercial: bool = False
    notice: Text | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.notice or not self.non_commercial, "notice", "a text")


@dataclass(frozen=True, kw_only=True)
class Accuracy(Checked, error=CardError):
    """A measured accuracy in percent, with the test set, the protocol and who published it.

    Figures of different protocols are never comparable; `backend` says what resized the images.
    """

    dataset: Text
    protocol: Text
    resize: Count
    crop: Count
    interpolation: Literal["bicubic", "bilinear"]
    backend: Text
    top1: Percent
    source: Text
    top5: Percent | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.top5 is None or self.top5 >= self.top1, "top5", "at least top1")


@dataclass(frozen=True, kw_only=True)
class Recipe(Checked, error=CardError):
    """How the weights were trained, as far as it was published."""

    url: Url | None = None
    epochs: Annotated[int, within(ge=0)] | None = None
    learning_rate: Amount | None = None
    batch_size: Annotated[int, within(ge=0)] | None = None
    weight_decay: Amount | None = None
    hours: Amount | None = None
    hardware: str | None = None
    summary: str | None = None


@dataclass(frozen=True, kw_only=True)
class Card(Checked, error=CardError):
    """One published set of weights.

    `spec` is a network's name in `regnet.network.spec`, or where it has none the network itself (in
    TOML a table of its parameters), `labels` "imagenet-1k", "in the model" or "numbered" (nobody
    published their names), `channels` the order the file's weights expect; `preprocess` the
    protocol to classify with, always BGR, as weights are flipped to BGR on load; `sizes` has those
    of all image sizes where there are several, the default first. Either `file` says what to
    download or `bundled` names a model inside the package; `other_files` hold the same weights.
    Raises `CardError`.
    """

    name: Annotated[
        str,
        Rule(
            "of lower-case letters, digits, '.' and '-'", re.compile(r"[a-z0-9][a-z0-9.-]*").match
        ),
    ]
    spec: str | RegNetSpec
    classes: Count
    labels: Literal["imagenet-1k", "in the model", "numbered"]
    source: Text
    layout: Layout
    channels: Channels
    licence: Licence
    preprocess: Preprocess
    accuracies: tuple[Accuracy, ...] = ()
    sizes: tuple[Preprocess, ...] = ()
    aliases: tuple[Text, ...] = ()
    file: WeightsFile | None = None
    other_files: tuple[WeightsFile, ...] = ()
    bundled: str | None = None
    recipe: Recipe = Recipe()
    notes: tuple[Text, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            (self.file is None) != (self.bundled is None), "bundled", "set, or [file], and not both"
        )
        protocols = (self.preprocess, *self.sizes)
        in_bgr = all(protocol.channels == "BGR" for protocol in protocols)
        self._require(in_bgr, "preprocess", "for channels in BGR")
        known = not self.sizes or self.preprocess in self.sizes
        self._require(known, "preprocess", "one of the sizes")
        if isinstance(self.spec, str):
            try:
                self._require(canonical_name(self.spec) == self.spec, "spec", "a canonical name")
            except UnknownModelError as exc:
                raise refused(CardError, "spec", self.spec, f"a canonical name ({exc})") from exc

    def build_spec(self) -> Spec:
        """Return the network of these weights, with their number of classes."""
        if isinstance(self.spec, RegNetSpec):
            return self.spec.with_classes(self.classes)
        return spec_by_name(self.spec, classes=self.classes)

    @property
    def headline(self) -> Accuracy | None:
        """The first accuracy under `preprocess`, else the first: the protocol nearest to it."""
        rows = self.accuracies
        own = (row for row in rows if row.protocol == self.preprocess.name)
        return next(own, rows[0] if rows else None)

    @property
    def title(self) -> str:
        """The name, with the image size where that is not the default: `regnety-3.2gf-ra:288`."""
        default = not self.sizes or self.preprocess == self.sizes[0]
        return self.name if default else f"{self.name}:{self.preprocess.crop}"

    @property
    def at_each_size(self) -> tuple[Self, ...]:
        """This card under each of its protocols."""
        return tuple(replace(self, preprocess=protocol) for protocol in self.sizes) or (self,)

    def at(self, size: int) -> Self:
        """Return this card under its protocol of an image size; raises `UnknownModelError`."""
        for card in self.at_each_size:
            if card.preprocess.crop == size:
                return card
        known = " and ".join(str(card.preprocess.crop) for card in self.at_each_size)
        raise UnknownModelError(
            f"{self.name}: no protocol of {size} pixels was published; known is {known}"
        )

    @property
    def by_file(self) -> tuple[Self, ...]:
        """This card with each of its files as the only one."""
        files = (self.file, *self.other_files)
        return tuple(replace(self, file=file, other_files=()) for file in files)


def parse_card(text: str, *, where: str) -> Card:
    """Return the card in a TOML text; `where` names the text in errors. Raises `CardError`."""
    try:
        return Card.from_dict(tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise CardError(f"{where} is not TOML: {exc}") from exc
    except CardError as exc:
        raise CardError(f"{where}: {exc}") from exc
