"""Model repositories: folders that OpenVINO Model Server and Triton load as they are.

    REPOSITORY/NAME/config.pbtxt   Triton reads it
                    labels.txt     a class a line, in Triton's classification results
                    1/model.xml    a version; both servers take the highest
                      model.bin

OpenVINO Model Server takes any .xml, Triton's OpenVINO backend `model.xml` with a config.pbtxt.
Sources: https://docs.openvino.ai/2025/model-server/ovms_docs_models_repository.html,
https://github.com/triton-inference-server/openvino_backend, its README and src/openvino.cc.
"""

import filecmp
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from regnet.ir.graph import graph_metadata, read_graph
from regnet.network.labels import Labels
from regnet.system.errors import ModelError, OutputError, reason_of
from regnet.system.files import new_folder_beside
from regnet.system.json_text import json_text
from regnet.system.runtime import ov

CONFIG: Final = "config.pbtxt"
LABELS: Final = "labels.txt"

_FILES: Final = ("model.bin", "model.xml")
_TYPES: Final = {"f32": "TYPE_FP32", "u8": "TYPE_UINT8"}


@dataclass(frozen=True)
class Entry:
    """A model in a repository: its folder, named as the model, and the version in it.

    `files` are relative to the folder; `new` is False if the same version existed.
    """

    folder: Path
    version: int
    files: tuple[str, ...]
    new: bool
    assumed: tuple[str, ...] = ()


def add_to_repository(path: Path, repository: Path, *, name: str | None = None) -> Entry:
    """Add an IR from `regnet convert` to a repository, atomically; `name` defaults to its file's.

    If the model exists this becomes its next version, unless the newest is the same. Raises
    `ModelError` for another file, `OutputError` if the name is another model's or the repository
    cannot be written to.
    """
    graph = read_graph(path)
    metadata = graph_metadata(graph, source=str(path))
    # A name that is one for files, addresses and config.pbtxt.
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name or path.stem).lstrip(".") or "model"
    texts = {CONFIG: config_text(graph, plain), LABELS: labels_text(metadata.labels)}
    folder = repository / plain
    try:
        version, new = _add(path, folder, texts)
    except OSError as exc:
        raise OutputError(f"cannot write to {folder}: {reason_of(exc)}") from exc
    files = (*texts, *(f"{version}/{name}" for name in _FILES))
    return Entry(folder, version, files, new, metadata.assumed)


def _add(path: Path, folder: Path, texts: dict[str, str]) -> tuple[int, bool]:
    """Add an IR and the texts beside its versions; return the version, and whether it is new."""
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    newest = max((int(name) for name in names if re.fullmatch("[1-9][0-9]*", name)), default=0)
    if names:
        _require_same(folder, texts)
    if newest and _same(path, folder / str(newest)):
        return newest, False
    with new_folder_beside(folder) as scratch:
        version = scratch / str(newest + 1)
        version.mkdir()
        for source, target in zip((path.with_suffix(".bin"), path), _FILES, strict=True):
            shutil.copyfile(source, version / target)
        if names:
            version.replace(folder / version.name)
        else:
            whole = scratch / "whole"
            whole.mkdir()
            for name, text in texts.items():
                (whole / name).write_text(text, "utf-8", newline="\n")
            version.replace(whole / version.name)
            whole.replace(folder)
    return newest + 1, True


def _same(path: Path, version: Path) -> bool:
    """Tell whether a version is this IR, byte by byte."""
    return all(
        (version / name).is_file() and filecmp.cmp(source, version / name, shallow=False)
        for source, name in zip((path.with_suffix(".bin"), path), _FILES, strict=True)
    )


def _require_same(folder: Path, texts: dict[str, str]) -> None:
    """Refuse a folder of another model: what it says of its tensors holds for all its versions."""
    for name, text in texts.items():
        try:
            same = (folder / name).read_text("utf-8") == text
        except (OSError, UnicodeDecodeError):
            same = False
        if not same:
            raise OutputError(
                f"{folder}: holds another model, or one that was changed: its {name} is not this "
                "one's; choose another name with --name, or remove it"
            )


def labels_text(labels: Labels) -> str:
    """Return the file of a class a line, by index."""
    return "".join(f"{' '.join(label.name.split())}\n" for label in labels)


def config_text(graph: ov.Model, name: str) -> str:
    """Return Triton's description of a graph: names, types and shapes are the graph's own.

    The batch is a dimension like any other (`max_batch_size` 0), because Triton's OpenVINO backend,
    which runs on CPUs only, would fill each batch up to the largest or refuse it.
    """
    return "\n".join(
        [
            f"name: {json_text(name)}",
            'backend: "openvino"',
            "max_batch_size: 0",
            *_tensor("input", graph.input(0)),
            *_tensor("output", graph.output(0), f"label_filename: {json_text(LABELS)}"),
            "instance_group [ { count: 1 kind: KIND_CPU } ]",
            "",
        ]
    )


def _tensor(role: str, port: Any, *more: str) -> list[str]:
    kind = port.element_type.to_string()
    if kind not in _TYPES:
        raise ModelError(f"{role} {port.any_name} is {kind}; f32 or u8 is wanted")
    dims = ", ".join(str(-1 if d.is_dynamic else d.get_length()) for d in port.partial_shape)
    fields = (
        f"name: {json_text(port.any_name)}",
        f"data_type: {_TYPES[kind]}",
        f"dims: [ {dims} ]",
        *more,
    )
    return [f"{role} [", "  {", *(f"    {field}" for field in fields), "  }", "]"]
