"""The images in a Parquet file: a column of their encoded bytes, or of structs with `bytes`."""

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, Final

from regnet.data.archives import check_size, failing
from regnet.data.class_names import listed
from regnet.data.object_store import open_file
from regnet.errors import DatasetError, ImageError, MissingExtraError

IMAGE_NAMES: Final = ("image", "img", "picture", "photo", "bytes")
_ROWS: Final = 16  # images read at a time
_BUFFER: Final = 1 << 20  # bytes read at a time


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
        schema = file.schema_arrow
        features = described_columns(schema.metadata)
        column = find_column(name, schema, features, "Image", IMAGE_NAMES, holds_images)
        return inner_column(schema, column), file.metadata.num_rows


def inner_column(schema: Any, image: str) -> str:
    """Return the path of the bytes in a column of images."""
    import pyarrow

    return f"{image}.bytes" if pyarrow.types.is_struct(schema.field(image).type) else image


def images_from(
    name: str, column: str, start: int, max_bytes: int
) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """Yield row and reader of each image from a row on, reading only row groups that are needed."""
    import pyarrow

    with opened_parquet(name) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = [0, *accumulate(sizes)]
        group = bisect_right(starts, start) - 1
        row = starts[group]
        groups = list(range(group, file.num_row_groups))
        for batch in file.iter_batches(batch_size=_ROWS, row_groups=groups, columns=[column]):
            values = batch.column(0)
            is_struct = pyarrow.types.is_struct(values.type)
            for data in values.field("bytes") if is_struct else values:
                if row >= start:
                    yield row, _reader(data.as_py(), max_bytes)
                row += 1


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


def holds_images(kind: Any) -> bool:
    """Tell whether a column of this type can hold images."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(field.name == "bytes" and holds_images(field.type) for field in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _reader(data: bytes | None, max_bytes: int) -> Callable[[], bytes]:
    if data is None:
        return failing("this row holds no bytes of an image")
    try:
        check_size(len(data), max_bytes)
    except ImageError as exc:
        return failing(str(exc))
    return lambda: data
