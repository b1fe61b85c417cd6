"""The files of image classifiers that regnet did not write: found, and whole.

An ONNX file may keep weights in other files. They must lie in its folder: a file from elsewhere
could otherwise name any file of this machine.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regnet.checkpoints.model_files import ModelFiles, described_by
from regnet.ir.assumptions import CONVERTED
from regnet.ir.metadata import KNOWN_BY
from regnet.system.errors import ModelError, UnknownModelError
from regnet.system.text import last_line, visible

if TYPE_CHECKING:
    from onnx import ModelProto

_MAX_GRAPH: Final = 2 << 30  # bytes of the file of a graph: ONNX's own limit
_MAX_FILES: Final = 8 << 30  # bytes of a graph and its weights


def foreign_model(path: Path) -> Path | None:
    """Return the .onnx or .xml that a file or folder is, if regnet did not write it, else None.

    A folder is the one model in it; one with a checkpoint is that checkpoint. Raises
    `UnknownModelError` if a folder has several models.
    """
    if path.is_dir():
        models = _models_in(path)
        if len(models) > 1:
            names = ", ".join(visible(model.name) for model in models[:3])
            raise UnknownModelError(f"{path}: holds {len(models)} models ({names}); name one")
        path = models[0] if models else path
    return path if path.suffix in CONVERTED and path.is_file() and not _is_ours(path) else None


def foreign_files(path: Path) -> ModelFiles:
    """Return the files of a foreign model: its weights, and the descriptions in its folder.

    Raises `ModelError` if a file of its weights is missing or outside its folder, or all are huge.
    """
    _require_few_bytes(path)
    if path.suffix == ".xml" and not _is_ir(path):
        raise ModelError(f"{path}: not an OpenVINO model")
    data = [path.with_suffix(".bin")] if path.suffix == ".xml" else _external(path)
    for file in data:
        if not os.path.isfile(file):  # False, not an error, if the name is too long
            raise ModelError(f"{path}: its weights {visible(file.name)[:200]} are missing")
    _require_few_bytes(path, data)
    alone = path.parent.is_dir() and _models_in(path.parent) == [path]
    return described_by(path.parent, (path, *data)) if alone else ModelFiles((path, *data))


def read_onnx(path: Path) -> "ModelProto":
    """Return an ONNX file without its external weights; raises `ModelError`."""
    import onnx

    _require_few_bytes(path)
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as exc:  # protobuf's errors are untyped
        raise ModelError(f"{path}: not an ONNX model, or damaged ({last_line(exc)})") from exc
    if not model.graph.node:
        raise ModelError(f"{path}: not an ONNX model, or damaged (it has no operations)")
    return model


def _models_in(folder: Path) -> list[Path]:
    """Return the models in a folder; none if it has a checkpoint."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    models = [f for f in files if f.suffix == ".onnx" or (f.suffix == ".xml" and _is_ir(f))]
    data = {model.with_suffix(".bin") for model in models}
    checkpoints = (".bin", ".safetensors", ".pth", ".pt")
    return [] if any(f.suffix in checkpoints and f not in data for f in files) else models


def _is_ir(path: Path) -> bool:
    with path.open("rb") as file:
        return b"<net" in file.read(1024)


def _is_ours(path: Path) -> bool:
    """Tell whether `regnet convert` wrote a file."""
    with suppress(ModelError):
        if path.suffix == ".xml":
            _require_few_bytes(path)
            return b"<regnet>" in path.read_bytes()
        return any(prop.key == KNOWN_BY for prop in read_onnx(path).metadata_props)
    return False


def _require_few_bytes(path: Path, data: Iterable[Path] = ()) -> None:
    """Raise `ModelError` if a graph's file, or it and its weights, are larger than allowed."""
    graph = path.stat().st_size
    total = graph + sum(file.stat().st_size for file in data)
    for size, allowed, what in ((graph, _MAX_GRAPH, ""), (total, _MAX_FILES, " with its weights")):
        if size > allowed:
            raise ModelError(
                f"{path}: has {size / 2**30:,.1f} GiB{what}; at most {allowed >> 30} are read"
            )


def _external(path: Path) -> list[Path]:
    """Return the files of an ONNX file's external weights; raises `ModelError`."""
    folder = path.parent.resolve()
    names = sorted(set(_locations(read_onnx(path))))
    for name in names:
        if not _is_inside(folder, name):
            raise ModelError(
                f"{path}: its weights {visible(name)[:200]!r} are outside its folder; only files "
                "of its own folder are read"
            )
    return [path.parent / name for name in names]


def _is_inside(folder: Path, name: str) -> bool:
    """Tell whether a relative path ends inside a folder, links followed."""
    with suppress(OSError, ValueError, RuntimeError):  # too long, a null byte, a loop of links
        whole = (folder / name).resolve()
        return whole != folder and whole.is_relative_to(folder)
    return False


def _locations(message: Any) -> Iterator[str]:
    """Yield the place of the external data of every tensor in a protobuf message."""
    for field, value in message.ListFields():
        if field.name == "external_data":
            yield from (entry.value for entry in value if entry.key == "location")
        elif field.type == field.TYPE_MESSAGE:
            for child in value if hasattr(value, "__len__") else [value]:
                yield from _locations(child)
