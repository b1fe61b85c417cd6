"""From the name of a model to its IR on disk: downloaded once, converted once, kept by content."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from regnet.checkpoints.model_files import ModelFiles, is_model_folder, model_files
from regnet.conversion.foreign_files import foreign_files, foreign_model
from regnet.conversion.values import CHECKPOINT_SUFFIXES, Conversion, Request, read_conversion
from regnet.ir.assumptions import CONVERTED
from regnet.ir.metadata import InferencePrecision, not_ours
from regnet.system.cache import cache_dir
from regnet.system.errors import ConversionError, UnknownModelError, reason_of
from regnet.system.notices import RegNetWarning, give
from regnet.system.version import TOOL_VERSION
from regnet.zoo.card import Card
from regnet.zoo.catalogue import bundled_path, card_by_name, card_names, is_card
from regnet.zoo.events import OnEvent, ignore
from regnet.zoo.record import Expected, SeenHashes, hash_file, read_record


@dataclass(frozen=True, kw_only=True)
class Library:
    """The models on this machine: finds, downloads and converts what a name stands for.

    `folder` is the cache, `mirrors` are base URLs tried first, `entry` chooses a network in a file.
    `say` is called with messages, `on_event` with the progress of a download.
    """

    folder: Path = field(default_factory=cache_dir)
    offline: bool = False
    mirrors: Sequence[str] = ()
    entry: str | None = None
    say: Callable[[str], None] = ignore
    on_event: OnEvent = ignore

    @property
    def compiled(self) -> Path | None:
        """Folder of OpenVINO's compiled models; None where it cannot be written to."""
        folder = self.folder / "compiled"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
        return folder if os.access(folder, os.W_OK) else None

    def ir(self, model: str | Path, *, precision: InferencePrecision = "f32") -> Path:
        """Return the .xml of a card's name, `bundled`, an IR, an ONNX file or a checkpoint.

        Downloads and converts if need be. Raises `UnknownModelError`, `DownloadError`,
        `WeightsError`, `ConversionError`, and for ONNX also `ModelError` and `MissingExtraError`.
        """
        self.note_entry(model)
        path = converted_file(model)
        if precision == "int8":
            if path is None:
                raise UnknownModelError(
                    f"{model}: there is no INT8 model of it yet: make one with "
                    f"`regnet quantize {model} --calibration FOLDER`, and name the .xml it writes"
                )
            model = path = int8_beside(path)
        if path is None and not _names_a_file(model):
            before = self._converted_before(card_by_name(str(model)))
            path = before.path if before else None
        if path is not None and path.suffix == ".xml":
            return path
        if _names_a_file(model) and foreign_model(Path(model)):
            raise not_ours(model)
        return self.convert(self.request(model)).path

    def note_entry(self, model: str | Path) -> None:
        """Warn where an `entry` was given that a model, which is no checkpoint, has no use for."""
        checkpoint = _names_a_file(model) and Path(model).suffix not in CONVERTED
        if self.entry is not None and not checkpoint:
            text = f"{model}: is not a checkpoint with networks to choose from: --entry is not used"
            give(RegNetWarning, text)

    def request(self, model: str | Path) -> Request:
        """Return what to convert for a card's name (downloading it), a checkpoint or ONNX file."""
        self.note_entry(model)
        if _names_a_file(model):
            if foreign := foreign_model(Path(model)):
                return Request(weights=foreign, entry=self.entry)
            if (path := Path(model)).suffix == ".onnx" and path.is_file():
                return Request(weights=path, name=path.stem)
            path = _checkpoint(path)
            return Request(weights=path, card=_card_of_file(path), entry=self.entry)
        card = card_by_name(str(model))
        if card.bundled is not None:
            raise UnknownModelError(
                f"{card.name} is converted already: {bundled_path(card)}; "
                "name a checkpoint or another card"
            )
        weights = self._weights(card)
        record = read_record(weights)
        return Request(weights=weights, card=card, sha384=record.sha384 if record else None)

    def _weights(self, card: Card) -> Path:
        """Return a card's verified weights file, downloaded if need be."""
        from regnet.zoo.download import download

        return download(
            card,
            cache_dir=self.folder,
            mirrors=self.mirrors,
            offline=self.offline,
            on_event=self.on_event,
            instead="use `--model bundled`, the small model in the package",
        )

    def _converted_before(self, card: Card) -> Conversion | None:
        """Return a card's conversion if it is here, even where its weights are not any more."""
        seen = SeenHashes(self.folder / "weights")
        for known in (seen.expected(one).sha384 for one in card.by_file):
            request = Request(weights=Path(card.name), sha384=known, card=card)
            if known and (conversion := read_conversion(self._entry(request))):
                return conversion
        return None

    def _entry(self, request: Request) -> Path:
        """Return the folder of a conversion, named by a hash of all that the result depends on."""
        digest = request.sha384 or _files(request.weights).digest
        parts = request.key_parts() | {"weights": digest, "version": TOOL_VERSION}
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / "converted" / f"{request.model_name}-{key}"

    def convert(self, request: Request) -> Conversion:
        """Return the converted model, from the cache where the same was converted before."""
        entry = self._entry(request)
        if conversion := read_conversion(entry):
            return conversion
        from filelock import FileLock

        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(entry.with_name(f"{entry.name}.lock")):
                return read_conversion(entry) or self._convert_into(entry, request)
        except OSError as exc:
            raise ConversionError(
                f"cannot write to the cache {entry.parent}: {reason_of(exc)}; choose another "
                "folder with --cache-dir or REGNET_CACHE"
            ) from exc

    def _convert_into(self, entry: Path, request: Request) -> Conversion:
        from regnet.conversion.convert import convert  # it imports onnx

        self.say(f"{request.model_name}: converting {request.weights}")
        return convert(request, entry)


def _files(weights: Path) -> ModelFiles:
    return foreign_files(weights) if weights.suffix in CONVERTED else model_files(weights)


def converted_file(model: str | Path) -> Path | None:
    """Return the IR or ONNX file that a name stands for; None if it stands for weights."""
    path = Path(model)
    if path.suffix in CONVERTED:
        return path
    if _names_a_file(model):
        return None
    card = card_by_name(str(model))
    return None if card.bundled is None else bundled_path(card)


def int8_beside(path: Path) -> Path:
    """Return an INT8 model or the `<name>-int8` beside a model; raises `UnknownModelError`."""
    stem = path.stem.removesuffix("-fp16").removesuffix("-int8")
    near = [path.with_name(f"{stem}-int8{suffix}") for suffix in CONVERTED]
    for candidate in [path] if path.stem.endswith("-int8") else near:
        if candidate.is_file():
            return candidate
    raise UnknownModelError(
        f"{path}: no INT8 model beside it ({near[0].name}): make one with "
        f"`regnet quantize {path} --calibration FOLDER`"
    )


def _names_a_file(model: str | Path) -> bool:
    """Tell whether a model is a path; a folder of a card's name is one if it holds a model."""
    path = Path(model)
    exists = os.path.exists(path)  # False, not an error, if the name is too long
    if exists and path.is_dir() and not is_model_folder(path) and is_card(str(model)):
        return False
    return path.suffix in (*CHECKPOINT_SUFFIXES, *CONVERTED) or exists


def _checkpoint(path: Path) -> Path:
    """Return the path of a checkpoint; say what it is where it is none."""
    if not path.exists():
        raise UnknownModelError(f"{path}: no such file")
    if path.suffix in CONVERTED:
        raise UnknownModelError(f"{path}: is a converted model; a checkpoint is wanted here")
    if not path.is_file() and not is_model_folder(path):
        raise UnknownModelError(
            f"{path}: is not a file, nor a folder with the config.json of a model; name a "
            "checkpoint, a folder of Hugging Face's, or a card"
        )
    return path


def _card_of_file(path: Path) -> Card | None:
    """Return the card whose published weights this file is, by its name and hash, if any."""
    for name in card_names():
        card = card_by_name(name)
        if (file := card.file) is not None and file.name == path.name:
            hashes = Expected(model=name, sha384=file.sha384, sha256_prefix=file.sha256_prefix)
            if hashes.hashed and hashes.problem(hash_file(path).digests()) is None:
                return card
    return None
