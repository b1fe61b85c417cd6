"""Groups of options that several commands share."""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regnet.cli.console import require_html, say
from regnet.cli.progress import download_display
from regnet.conversion.store import Library
from regnet.inference.predictors import Choice, parse_choice, parse_ir_choice
from regnet.ir.assumptions import CONVERTED
from regnet.ir.metadata import InferencePrecision
from regnet.system.cache import cache_dir
from regnet.system.devices import CPU, require_device
from regnet.system.errors import DatasetError, UnknownModelError
from regnet.system.option import Options, argument, option
from regnet.zoo.catalogue import DEFAULT_MODEL, is_card

if TYPE_CHECKING:
    from regnet.inference.classify import Classifier

MODEL: Final = "Model card, `bundled`, IR (.xml), ONNX or checkpoint"
AS_OPTION: Final = ("--model", "-m")


class Precision(Options):
    """What a model computes in."""

    precision: InferencePrecision | None = option(
        None, "f32 (exact), bf16 (faster on CPUs with bf16) or int8 [f32; cuda: bf16]", "TYPE"
    )


class Device(Options):
    """Where a model runs."""

    device: str | None = option(None, "CPU, GPU, NPU, AUTO or cuda [CPU]", "DEVICE")

    def __post_init__(self) -> None:
        if self.device is not None:
            require_device(self.device)


class Execution(Precision, Device):
    """What a model computes in, and where."""


class Model(Execution):
    """A model, by default the one that the documentation names, and how it is run."""

    model: str | None = option(None, f"{MODEL} [{DEFAULT_MODEL}]", "-m", "MODEL")

    def chosen(self, command: str, default: str = DEFAULT_MODEL) -> Choice:
        """Return the model and its precision; raises `UnknownModelError`."""
        model = default if self.model is None else self.model
        return parse_ir_choice(model, command, device=self.device, precision=self.precision)


class Truth(Options):
    """The labels of photos."""

    truth: Path | None = option(None, "Labels of a flat folder of photos", "FILE")


class Labelled(Truth):
    """A model and labelled photos."""

    model: str = argument(MODEL, "MODEL", ..., *AS_OPTION)
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

    @contextmanager
    def library(self) -> Iterator[Library]:
        """Give the library of these options, which shows its downloads on standard error."""
        with download_display() as on_event:
            yield Library(
                folder=cache_dir(self.cache_dir),
                offline=self.offline,
                mirrors=self.mirror,
                entry=self.entry,
                say=say,
                on_event=on_event,
            )

    def classifier(self, choice: Choice, **options: Any) -> "Classifier":
        """Return the classifier of a choice; `options` are other arguments of `Classifier`."""
        with self.library() as library:
            path = library.ir(choice.model, precision=choice.precision)
        from regnet.inference.classify import Classifier

        classifier = Classifier(
            path,
            device=choice.device,
            precision=choice.precision,
            compiled_cache=library.compiled,
            name=choice.model,
            **options,
        )
        if choice.device != CPU:
            say(str(classifier.agreement))
        return classifier


def require_sources(command: str, sources: Sequence[str]) -> None:
    """Raise, before a model is downloaded, if no source is there or one is a model's name."""
    from regnet.data.sources import is_absent

    absent = list(filter(is_absent, sources))
    for source in sources:
        if _is_model(source, absent=source in absent):
            others = [other for other in sources if other != source] or ["PHOTO"]
            meant = shlex.join(["regnet", command, "--model", source, *others])
            raise UnknownModelError(f"{source} is a model, not a photo; did you mean: {meant}")
    if len(absent) == len(sources):
        raise DatasetError(f"no such file or folder: {', '.join(absent)}")
    _name_extras(sources)


def require_photos(command: str, sources: Sequence[str]) -> None:
    """Raise as `require_sources`, and if no source holds an image."""
    from regnet.data.sources import is_absent, is_empty

    require_sources(command, sources)
    if all(is_absent(source) or is_empty(source) for source in sources):
        raise DatasetError(f"no images in {', '.join(sources)}")


def _name_extras(sources: Sequence[str]) -> None:
    """Warn, before a model is downloaded, if a file needs an extra; the rows say so later."""
    from regnet.pixels.formats import HEAD, name_extra, refused

    for path in map(Path, filter(os.path.isfile, sources)):
        with suppress(OSError), path.open("rb") as file:
            kind = refused(file.read(HEAD))
            if kind and kind.extra:
                name_extra(kind)
                return


def _is_model(source: str, *, absent: bool) -> bool:
    """Tell whether a source is a converted model, or the name of a card and of no file."""
    model = parse_choice(source).model
    if Path(model).suffix in CONVERTED:
        return Path(model).is_file()
    return absent and is_card(model)
