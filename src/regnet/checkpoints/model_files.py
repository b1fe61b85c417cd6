"""Which files a checkpoint consists of.

That is one file, or the folder that Hugging Face's tools write.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regnet.system.errors import WeightsError
from regnet.system.files import sha384_of

CONFIG = "config.json"
_PREPROCESSOR = "preprocessor_config.json"
# In the order in which they are taken.
_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "pytorch_model.pth",
    "model.pth",
)
_WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
_DESCRIPTIONS = frozenset({"model_type", "architecture", "pretrained_cfg"})
_SHARD = re.compile(r"(model|pytorch_model)-\d{5}-of-\d{5}(\.safetensors|\.bin)")


@dataclass(frozen=True)
class ModelFiles:
    """The files of a checkpoint: its weights (several if sharded), and JSON files beside them."""

    weights: tuple[Path, ...]
    config: Path | None = None
    preprocessor: Path | None = None

    @property
    def weights_sha384(self) -> str:
        """The SHA-384 of the weights: of their file or, if sharded, of all files' hashes."""
        return _combined_hash(self.weights)

    @property
    def digest(self) -> str:
        """A hash of all files; without JSON files that of the weights."""
        settings = (path for path in (self.config, self.preprocessor) if path)
        return _combined_hash((*self.weights, *settings))


def _combined_hash(paths: tuple[Path, ...]) -> str:
    hashes = [sha384_of(path) for path in paths]
    return hashes[0] if len(hashes) == 1 else hashlib.sha384("\n".join(hashes).encode()).hexdigest()


def is_model_folder(path: Path) -> bool:
    """Tell whether a path is a folder with the description of a model."""
    return (path / CONFIG).is_file()


def model_files(path: Path) -> ModelFiles:
    """Return the files of a checkpoint: a file, a folder of Hugging Face's, or a file in one.

    A file of another name than Hugging Face's that is not alone, or without a description beside
    it, is a checkpoint of its own. Raises `WeightsError` where a folder has no description or no
    weights, or a shard is missing.
    """
    if path.is_dir():
        return _in_folder(path, _weights_in(path))
    shard = _SHARD.fullmatch(path.name)
    if not _is_described(path.parent) or not (
        shard or path.name in _WEIGHTS or _only_weights(path.parent) == [path]
    ):
        return ModelFiles((path,))
    if shard is None:
        return _in_folder(path.parent, path)
    index = path.with_name(f"{shard[1]}{shard[2]}.index.json")
    if not index.is_file():
        raise WeightsError(f"{path}: is one of several parts, and their {index.name} is missing")
    return _in_folder(path.parent, index)


def described_by(folder: Path, weights: tuple[Path, ...]) -> ModelFiles:
    """Return weights with the description in a folder, if it is one of a model."""
    return _with_settings(folder, weights) if _is_described(folder) else ModelFiles(weights)


def _is_described(folder: Path) -> bool:
    with suppress(WeightsError):
        return not _DESCRIPTIONS.isdisjoint(read_json(folder / CONFIG))
    return False


def _weights_in(folder: Path) -> Path:
    present = [folder / name for name in _WEIGHTS if (folder / name).is_file()]
    present = present or _only_weights(folder)
    if present and is_model_folder(folder):
        return present[0]
    missing = [] if is_model_folder(folder) else [CONFIG]
    missing += [] if present else ["weights (model.safetensors or pytorch_model.bin)"]
    raise WeightsError(
        f"{folder}: a folder is a model if it is one of Hugging Face's: it lacks "
        f"{' and '.join(missing)}. Name a checkpoint file"
    )


def _only_weights(folder: Path) -> list[Path]:
    """Return the one file of weights in a folder; none if there are several."""
    paths = [path for path in folder.iterdir() if path.suffix in _WEIGHTS_SUFFIXES]
    return paths if len(paths) == 1 and paths[0].is_file() else []


def _in_folder(folder: Path, weights: Path) -> ModelFiles:
    return _with_settings(folder, _shards(weights) if weights.suffix == ".json" else (weights,))


def _with_settings(folder: Path, weights: tuple[Path, ...]) -> ModelFiles:
    preprocessor = folder / _PREPROCESSOR
    beside = preprocessor if preprocessor.is_file() else None
    return ModelFiles(weights, folder / CONFIG, beside)


def _shards(index: Path) -> tuple[Path, ...]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise WeightsError(f"{index}: has no weight_map")
    names = sorted({str(name) for name in places.values()})
    if strange := [name for name in names if not _is_file_name(name)]:
        raise WeightsError(f"{index}: {strange[0]!r:.80} is not a file of its folder")
    if missing := [name for name in names if not index.with_name(name).is_file()]:
        raise WeightsError(f"{index}: {missing[0]} is missing")
    return tuple(index.with_name(name) for name in names)


def _is_file_name(name: str) -> bool:
    size = len(name.encode("utf-8", "replace"))
    return 0 < size <= 255 and Path(name).name == name and name != ".."


def read_json(path: Path) -> Mapping[str, Any]:
    """Return the object in a JSON file; raises `WeightsError`."""
    try:
        value = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as exc:
        raise WeightsError(f"{path}: cannot be read as JSON ({exc})") from exc
    if not isinstance(value, dict):
        raise WeightsError(f"{path}: is not a JSON object")
    return value
