"""Which files a checkpoint consists of, and their format; needs no torch.

That is one file, or the folder that Hugging Face's tools write.
"""

import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from regnet.system.errors import UnsafeError, WeightsError
from regnet.system.files import sha384_of

Kind = Literal["zip", "pickle", "safetensors"]

REMEDY: Final = (
    "Save the weights alone, torch.save(model.state_dict(), ...) or as .safetensors, "
    "where you trust the file"
)

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
    try:
        described = not _DESCRIPTIONS.isdisjoint(read_json(path.with_name(CONFIG)))
    except WeightsError:
        described = False
    shard = _SHARD.fullmatch(path.name)
    if not described or not (
        shard or path.name in _WEIGHTS or _only_weights(path.parent) == [path]
    ):
        return ModelFiles((path,))
    if shard is None:
        return _in_folder(path.parent, path)
    index = path.with_name(f"{shard[1]}{shard[2]}.index.json")
    if not index.is_file():
        raise WeightsError(f"{path}: is one of several parts, and their {index.name} is missing")
    return _in_folder(path.parent, index)


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
    preprocessor = folder / _PREPROCESSOR
    return ModelFiles(
        _shards(weights) if weights.suffix == ".json" else (weights,),
        folder / CONFIG,
        preprocessor if preprocessor.is_file() else None,
    )


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


def checked_kind(path: Path) -> Kind:
    """Return a checkpoint file's format by its first bytes, after checking a zip's checksums.

    Raises `UnsafeError` for TorchScript, `WeightsError` if the file is missing, cut, damaged or no
    checkpoint.
    """
    try:
        with path.open("rb") as file:
            head = file.read(512)
            size = file.seek(0, 2)
    except OSError as exc:
        raise WeightsError(f"cannot read {path}: {exc.strerror or exc}") from exc
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path)
        return "zip"
    if head[4:9] == b"\0\0\0\0{":  # the length (below 4 GiB) of a JSON text, and that text
        if int.from_bytes(head[:8], "little") > size - 8:
            raise WeightsError(f"{path} is a truncated safetensors file; download it again")
        return "safetensors"
    if head.startswith(b"\x80"):
        return "pickle"
    raise WeightsError(f"{path} is not a checkpoint: {_what_instead(head)}")


def _what_instead(head: bytes) -> str:
    if not head:
        return "it is empty"
    if head.lstrip().startswith(b"<"):
        return "it is a web page (a server's error page, most likely); download it again"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself with 'git lfs pull'"
    return f"it is neither a PyTorch nor a safetensors file (it begins with {head[:8]!r})"


def _check_zip(path: Path) -> None:
    """Refuse archives that `torch.save` did not write, before torch maps them into memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
            if stored and sum(member.file_size for member in members) > path.stat().st_size:
                raise EOFError("its members are longer than the file")
            for member in members:
                if member.CRC == 0:  # as `set_crc32_options(False)` writes
                    del member.CRC  # so that none is expected
            # torch itself does not look at the checksums.
            damaged = archive.testzip() if stored else None
    # A broken file makes zipfile raise almost anything.
    except Exception as exc:
        raise WeightsError(
            f"{path} is truncated or corrupt: {str(exc) or 'it ends too early'}"
        ) from exc
    names = [member.filename.rpartition("/")[2] for member in members]
    if "constants.pkl" in names:
        raise UnsafeError(f"{path} is a TorchScript archive, which is code. {REMEDY}")
    if "data.pkl" not in names:
        raise WeightsError(f"{path} is not a checkpoint: it is a zip archive of something else")
    if not stored:
        raise WeightsError(f"{path} is a compressed zip archive, which PyTorch never writes")
    if names.count("data.pkl") > 1:
        raise WeightsError(
            f"{path} is not a checkpoint: it holds {names.count('data.pkl')} of them"
        )
    if damaged:
        raise WeightsError(f"{path} is corrupt: {damaged} in it fails its checksum")
