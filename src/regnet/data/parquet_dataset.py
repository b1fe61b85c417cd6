"""Labelled images in Parquet files, as Hugging Face's datasets lay them out."""

import hashlib
import re
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from regnet.data.archives import MAX_BYTES
from regnet.data.class_names import ClassNames, listed
from regnet.data.folders import role_of
from regnet.data.labelled import Dataset, LabelledItem
from regnet.data.parquet_images import (
    bounded_batches,
    described_columns,
    find_column,
    image_column,
    images_from,
    opened_parquet,
)
from regnet.data.photo_files import image_files
from regnet.system.errors import DatasetError

_LABEL_NAMES: Final = ("label", "labels", "class", "wnid", "target", "category", "class_name")
_PARQUET: Final = ".parquet"
_SHARD: Final = re.compile(r"(.+?)[-_.]\d+(?:-of-\d+)?")


@dataclass(frozen=True)
class _Columns:
    """The columns of images and labels; `names` is the file's own class list."""

    image: str
    label: str
    names: tuple[str, ...] | None


class ParquetDataset(Dataset):
    """The labelled images of Parquet files, read a few rows at a time."""

    def __init__(
        self,
        files: Sequence[Path],
        column: str,
        rows: Sequence[int],
        truths: "array[int]",
        *,
        path: str,
        classes: int,
    ) -> None:
        self._column = column
        self._starts = dict(zip(map(str, files), (0, *accumulate(rows)), strict=False))
        whole = hashlib.sha256(truths.tobytes())
        for file, count in zip(files, rows, strict=True):
            whole.update(f"{file.name}\0{file.stat().st_size}\0{count}\n".encode())
        super().__init__(path, truths, self._from, classes=classes, fingerprint=whole.hexdigest())

    def _from(self, start: int) -> Iterator[LabelledItem]:
        ends = [*self._starts.values(), self.count][1:]
        for (file, first), end in zip(self._starts.items(), ends, strict=True):
            if start < end:
                for row, read in images_from(file, self._column, max(0, start - first), MAX_BYTES):
                    if first + row >= end:
                        break
                    yield LabelledItem(f"{file}#{row}", self.truths[first + row], read)

    def find(self, sources: Collection[str]) -> dict[str, LabelledItem]:
        """Return the images of these names; unknown names are left out."""
        items = {}
        for source in sources:
            name, _, row = source.rpartition("#")
            if name in self._starts and row.isdecimal():
                item = next(self.items(self._starts[name] + int(row)), None)
                if item is not None and item.source == source:
                    items[source] = item
        return items


@dataclass(frozen=True)
class ParquetSplit:
    """The files of one split by its name, and a pattern or folder that names them all."""

    name: str
    role: str
    files: tuple[Path, ...]
    place: str


def parquet_files(paths: Sequence[Path], path: str, truth: Path | None = None) -> list[Path]:
    """Return the Parquet files at the paths, or in the one folder that holds no images; or [].

    Raises `DatasetError` for other files beside them, and for a file of labels.
    """
    if len(paths) == 1 and paths[0].is_dir() and next(image_files(str(paths[0])), None) is None:
        paths = sorted(paths[0].rglob(f"*{_PARQUET}"))
    files = [file for file in paths if file.suffix.lower() == _PARQUET]
    if files and len(files) < len(paths):
        raise DatasetError(f"{path} matches Parquet files and others: name one kind")
    if files and truth is not None:
        raise DatasetError(f"{path} has its labels in itself: leave out {truth}")
    return files


def parquet_splits(files: Sequence[Path]) -> tuple[ParquetSplit, ...]:
    """Return the splits of Parquet files, by their names or folders; () if there are none."""
    splits: dict[str, list[Path]] = {}
    places: dict[str, str] = {}
    for file in files:
        shard = _SHARD.fullmatch(file.stem)
        stem = shard[1] if shard else file.stem
        in_name = role_of(stem) is not None
        name = stem.lower() if in_name else file.parent.name.lower()
        if role_of(name):
            splits.setdefault(name, []).append(file)
            places[name] = str(file.with_name(f"{stem}*{_PARQUET}") if in_name else file.parent)
    return tuple(
        ParquetSplit(name, role_of(name) or "", tuple(parts), places[name])
        for name, parts in splits.items()
    )


def parquet_class_names(files: Sequence[Path], path: str) -> tuple[str, ...]:
    """Return the classes of Parquet files: their class list, or the labels sorted."""
    columns = _columns(files[0])
    if columns.names is not None:
        return columns.names
    tokens = {token for file in files for token in _labels(file, columns.label)}
    _refuse_unlabelled(tokens, path)
    return tuple(map(str, sorted(tokens)))


def open_parquet(files: Sequence[Path], names: ClassNames, *, path: str) -> ParquetDataset:
    """Return the labelled images of Parquet files, each with its class among a model's labels.

    Images are a column of encoded bytes, or of structs with them in `bytes`; labels are indices
    (by the class list in the file's own metadata, else the model's) or names. Raises
    `DatasetError`, and `MissingExtraError` without pyarrow.
    """
    if len(splits := parquet_splits(files)) > 1:
        parts = ", ".join(split.name for split in splits)
        places = " or ".join(split.place for split in splits)
        raise DatasetError(f"{path} holds the splits {parts}: name one, {places}")
    columns = _columns(files[0])
    tokens: dict[Any, int] = {}
    codes, rows = array("i"), []
    for file in files:
        before = len(codes)
        codes.extend(tokens.setdefault(t, len(tokens)) for t in _labels(file, columns.label))
        rows.append(len(codes) - before)
    if not codes:
        raise DatasetError(f"{path} has no rows")
    classes = _classes(list(tokens), columns, names, path)
    truths = array("i", (classes[code] for code in codes))
    return ParquetDataset(files, columns.image, rows, truths, path=path, classes=len(names.labels))


def _classes(tokens: list[Any], columns: _Columns, names: ClassNames, path: str) -> list[int]:
    """Return the model's class of each distinct label."""
    what = f"labels in {path}"
    _refuse_unlabelled(tokens, path)
    texts = list(map(str, tokens))
    if isinstance(tokens[0], str) or (columns.names is None and not names.are_indices(texts)):
        classes = names.match(texts, what=what)  # also numbers that are the classes' names
        return [classes[text] for text in texts]
    count = len(columns.names or names.labels)
    wrong = [str(token) for token in sorted(tokens) if not 0 <= token < count]
    if wrong:
        raise DatasetError(f"{path}: labels are 0 to {count - 1}, not {listed(wrong)}")
    return names.match_list(columns.names, tokens, what=what) if columns.names else tokens


def _refuse_unlabelled(tokens: Collection[Any], path: str) -> None:
    if any(token is None or token == -1 for token in tokens):
        raise DatasetError(
            f"{path} has images without a label (null or -1): this may be a test set"
        )


def _columns(path: Path) -> _Columns:
    with opened_parquet(str(path)) as file:
        schema = file.schema_arrow
        features = described_columns(schema.metadata)
        image = image_column(str(path), schema, features)
        if image in schema.names:
            schema = schema.remove(schema.names.index(image))  # paths are text, as labels are
        label = find_column(str(path), schema, features, "ClassLabel", _LABEL_NAMES, _holds_labels)
        names = features.get(label, {}).get("names")
        return _Columns(image, label, tuple(map(str, names)) if names else None)


def _holds_labels(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))


def _labels(path: Path, column: str) -> Iterator[Any]:
    with opened_parquet(str(path)) as file:
        kinds = dict(zip(file.schema_arrow.names, file.schema_arrow.types, strict=True))
        if column not in kinds or not _holds_labels(kinds[column]):
            raise DatasetError(f"{path} has no column {column!r} of labels as the first file has")
        for batch in bounded_batches(str(path), file, [column], rows=4096):
            yield from batch.column(0).to_pylist()
