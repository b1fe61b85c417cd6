"""The images in a Parquet file: a column of their encoded bytes, of paths, or structs of both."""

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Any, Final

from regnet.data.archives import check_size, failing
from regnet.data.class_names import listed
from regnet.data.parquet_pages import bounded_batches
from regnet.data.remote import is_object_address, open_file, read_object, reason_of
from regnet.data.spool import Spool
from regnet.pixels.formats import checked_read
from regnet.system.errors import DatasetError, ImageError, MissingExtraError

_IMAGE_NAMES: Final = ("image", "img", "picture", "photo", "bytes")
_PATH_NAMES: Final = (
    *("file_name", "filename", "image_path", "file_path", "filepath", "path", "file", "image"),
    *("img_path", "img", "picture", "photo", "image_file", "image_name", "image_id"),
)
_ROWS: Final = 16  # images read at a time
_BUFFER: Final = 1 << 20  # bytes read at a time
_IN_MEMORY: Final = 1 << 20  # bytes of an image that waits for its turn


@contextmanager
def opened_parquet(name: str) -> Iterator[Any]:
    """Give the open Parquet file at a path or address.

    Raises `DatasetError`, and `MissingExtraError` without pyarrow.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        raise MissingExtraError("reading Parquet", "parquet") from exc
    try:
        with (
            open_file(name) as file,
            pyarrow.parquet.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER) as parquet,
        ):
            yield parquet
    except (pyarrow.ArrowException, OSError) as exc:
        raise DatasetError(f"cannot read {name}: {exc}") from exc


def image_rows(name: str) -> tuple[str, int]:
    """Return the column of images in a Parquet file, and how many rows it has."""
    with opened_parquet(name) as file:
        features = described_columns(file.schema_arrow.metadata)
        return image_column(name, file.schema_arrow, features), file.metadata.num_rows


def image_column(path: str, schema: Any, features: dict[str, dict[str, Any]]) -> str:
    """Return the column of images, or of their paths: of structs the field that is there.

    Raises `DatasetError` where it is not clear.
    """
    if any(_holds_bytes(field.type) for field in schema) or not any(
        _holds_paths(field.type) for field in schema
    ):
        image = find_column(path, schema, features, "Image", _IMAGE_NAMES, _holds_bytes)
        return f"{image}.bytes" if _field(schema.field(image).type, "bytes") else image
    labels = [name for name, about in features.items() if about.get("_type") == "ClassLabel"]
    named = [name for name in _PATH_NAMES if name in schema.names and name not in labels]
    for name in named:
        kind = schema.field(name).type
        if _holds_paths(kind):
            return f"{name}.path" if _field(kind, "path") else name
    raise DatasetError(
        f"{path}: which column is the image? There are {listed(schema.names)}; call it 'image', or "
        "'file_name' if it holds paths"
    )


def images_from(
    name: str, column: str, start: int, max_bytes: int
) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """Yield row and reader of each image from a row on, reading only row groups that are needed.

    Where a row has a path instead of bytes, it is relative to the folder of the Parquet file.
    """
    with opened_parquet(name) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = [0, *accumulate(sizes)]
        group = bisect_right(starts, start) - 1
        row = starts[group]
        columns, spool = _with_path(file.schema_arrow, column), Spool()
        for batch in bounded_batches(name, file, columns, rows=_ROWS, first_group=group):
            for value in batch.column(0):
                if row >= start:
                    yield row, _reader(value.as_py(), name, max_bytes, spool)
                row += 1


def _with_path(schema: Any, column: str) -> list[str]:
    """Return the fields to read of a column of images: bytes, and the paths beside them."""
    image = column.removesuffix(".bytes")
    if image == column or image not in schema.names:
        return [column]
    return [column, f"{image}.path"] if _field(schema.field(image).type, "path") else [column]


def described_columns(metadata: dict[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """Return Hugging Face's description of the columns; empty where there is none."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {str(k): v for k, v in features.items() if isinstance(v, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def find_column(
    path: str,
    schema: Any,
    features: dict[str, dict[str, Any]],
    feature: str,
    usual: tuple[str, ...],
    fits: Callable[[Any], bool],
) -> str:
    """Return the column that is described as such, or of a usual name, or the only one to fit."""
    fitting = [field.name for field in schema if fits(field.type)]
    described = [name for name in fitting if features.get(name, {}).get("_type") == feature]
    named = [name for name in usual if name in fitting]
    for choice in (described, named, fitting):
        if len(choice) == 1 or (choice and choice[0] in usual):
            return choice[0]
    raise DatasetError(
        f"{path}: which column is the {usual[0]}? There are {listed(schema.names)}; call it "
        f"{usual[0]!r}"
    )


def _holds_bytes(kind: Any) -> bool:
    """Tell whether a column of this type can hold images."""
    from pyarrow import types

    if (field := _field(kind, "bytes")) is not None:
        return _holds_bytes(field)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _holds_paths(kind: Any) -> bool:
    """Tell whether a column of this type can hold paths."""
    from pyarrow import types

    if (field := _field(kind, "path")) is not None:
        return _holds_paths(field)
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _field(kind: Any, name: str) -> Any:
    """Return the type of a field of structs; None where there is none."""
    from pyarrow import types

    if not types.is_struct(kind):
        return None
    return next((field.type for field in kind if field.name == name), None)


def _reader(value: Any, name: str, max_bytes: int, spool: Spool) -> Callable[[], bytes]:
    """Return the reader of a cell of the Parquet file `name`; large ones are put aside."""
    data, path = (
        (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    )
    if isinstance(data, str):
        data, path = None, data
    if data is None and path:
        return checked_read(path, partial(_read_beside, name, path, max_bytes))
    if data is None:
        return failing("this row holds no bytes of an image")
    try:
        check_size(len(data), max_bytes)
        return spool.put([data]) if len(data) > _IN_MEMORY else lambda: data
    except ImageError as exc:
        return failing(str(exc))


def _read_beside(name: str, path: str, max_bytes: int) -> bytes:
    """Return the bytes of a file at a path relative to the folder of another file."""
    folder, slash, _ = name.replace("\\", "/").rpartition("/")
    path = path.replace("\\", "/")
    if "://" in path:
        raise ImageError(f"{path}: addresses in a Parquet file are not opened")
    place = path if path.startswith("/") else f"{folder}{slash}{path}"
    if is_object_address(place):
        return read_object(place, max_bytes)
    try:
        with open_file(place) as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as exc:
        raise ImageError(f"{path}: cannot be read: {reason_of(exc)}") from exc
    check_size(len(data), max_bytes)
    return data
