"""Groups of options that several commands share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from regnet.cli.console import require_html, say
from regnet.cli.progress import download_display
from regnet.conversion.store import Library
from regnet.ir.metadata import InferencePrecision
from regnet.system.cache import cache_dir
from regnet.system.option import Options, argument, option

MODEL: Final = "Model card, `bundled`, IR (.xml) or checkpoint"
DEFAULT_MODEL: Final = "regnetx-3.2gf"


class Named(Options):
    """A model, by default the one that the documentation names."""

    model: str = option(DEFAULT_MODEL, MODEL, "-m", "MODEL")


class Precision(Options):
    """What a model computes in."""

    precision: InferencePrecision = option(
        "f32", "f32 (exact), bf16 (faster on CPUs with bf16) or int8", "TYPE"
    )


class Model(Named, Precision):
    """A model and what it computes in."""


class Truth(Options):
    """The labels of photos."""

    truth: Path | None = option(None, "Labels of a flat folder of photos", "FILE")


class Labelled(Truth):
    """A model and labelled photos."""

    model: str = argument(MODEL, "MODEL")
    dataset: str = argument("Labelled photos, see above", "DATASET")
    subset: bool = option(False, "Accept photos of only some of the model's classes")


class SmallStem(Options):
    """The stem of a network."""

    small_stem: bool = option(False, "Use the stem for images of 32 to 64 pixels")


class Json(Options):
    """A result as JSON."""

    json: bool = option(False, "Print the result as one JSON object")


class Report(Json):
    """A result as JSON and as a page."""

    html: Path | None = option(None, "Also write a report with plots", "FILE")

    def __post_init__(self) -> None:
        require_html(self.html)


class Cache(Options):
    """Where models are kept."""

    cache_dir: Path | None = option(
        None, "Cache folder [$REGNET_CACHE, else the platform's]", "DIR"
    )


class Download(Cache):
    """Where models come from."""

    offline: bool = option(False, "Never use the network")
    mirror: tuple[str, ...] = option(
        (), "Download from URL first; repeatable [$REGNET_MIRROR]", "URL"
    )


class Entry(Options):
    """The network in a checkpoint."""

    entry: str | None = option(None, "Network to take from a checkpoint that holds several", "NAME")


class Store(Download, Entry):
    """The models on this machine."""

    def silent_library(self) -> Library:
        """Return the library of these options, which shows no progress of downloads."""
        return Library(
            folder=cache_dir(self.cache_dir),
            offline=self.offline,
            mirrors=self.mirror,
            entry=self.entry,
            say=say,
        )

    @contextmanager
    def library(self) -> Iterator[Library]:
        """Give the library of these options, which shows its downloads on standard error."""
        with download_display() as on_event:
            yield replace(self.silent_library(), on_event=on_event)
