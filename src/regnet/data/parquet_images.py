"""The images in a Parquet file, in bounded memory: a column of encoded bytes, paths, or both.

A page says in its header how many bytes it unpacks to, and pyarrow takes that much memory, so the
headers are read first. They are structs of Thrift's compact protocol (parquet.thrift: PageHeader;
thrift-compact-protocol.md).
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BytesIO
from itertools import accumulate
from typing import Any, BinaryIO, Final

from regnet.data.archives import BEYOND, BOMB_BYTES, RATIO, Spool, check_size, failing
from regnet.data.class_names import listed
from regnet.data.remote import file_size, is_object_address, open_file, read_file, read_object
from regnet.pixels.formats import checked_read
from regnet.system.errors import DatasetError, ImageError, MissingExtraError, reason_of

MAX_PAGE: Final = 288 << 20
"""Bytes that a page may unpack to; one that hardly shrank when it was packed may be larger."""

_BYTES: Final = ("binary", "large_binary")
_TEXT: Final = ("string", "large_string")
_IMAGE_NAMES: Final = ("image", "img", "picture", "photo", "bytes")
_PATH_NAMES: Final = (
    *("file_name", "filename", "image_path", "file_path", "filepath", "path", "file", "image"),
    *("img_path", "img", "picture", "photo", "image_file", "image_name", "image_id"),
)
_ROWS: Final = 16  # images read at a time
_BATCH: Final = 64 << 20  # bytes of rows read at a time, if one is not longer
_BUFFER: Final = 1 << 20  # bytes read at a time
_IN_MEMORY: Final = 1 << 20  # bytes of an image that waits for its turn
_HEADERS: Final = (16 << 10, 1 << 20)  # bytes read for a page's header: most need the first
_NUMBERS: Final = ("BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE")
_MAX_DEPTH: Final = 8  # structs in structs

Features = dict[str, dict[str, Any]]
"""Hugging Face's description of each column."""


@contextmanager
def opened_parquet(name: str) -> Iterator[Any]:
    """Give the open Parquet file at a path or address; maps its errors to `DatasetError`."""
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
        raise DatasetError(f"cannot read {name}: {reason_of(exc)}") from exc


def image_rows(name: str) -> tuple[str, int]:
    """Return the column of images in a Parquet file, and how many rows it has."""
    with opened_parquet(name) as file:
        features = described_columns(file.schema_arrow.metadata)
        return image_column(name, file.schema_arrow, features), file.metadata.num_rows


def described_columns(metadata: dict[bytes, bytes] | None) -> Features:
    """Return Hugging Face's description of the columns, or {}."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {str(k): v for k, v in features.items() if isinstance(v, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def image_column(path: str, schema: Any, features: Features) -> str:
    """Return the column, or field of structs, of images or paths. Raises `DatasetError`."""
    kinds = dict(zip(schema.names, schema.types, strict=True))
    with_paths = [name for name, kind in kinds.items() if _holds(kind, "path", _TEXT)]
    if not with_paths or any(_holds(kind, "bytes", _BYTES) for kind in kinds.values()):
        fits = partial(_holds, field="bytes", words=_BYTES)
        image = find_column(path, schema, features, "Image", _IMAGE_NAMES, fits)
        return f"{image}.bytes" if _field(kinds[image], "bytes") else image
    for name in _PATH_NAMES:
        if name in with_paths and features.get(name, {}).get("_type") != "ClassLabel":
            return f"{name}.path" if _field(kinds[name], "path") else name
    raise DatasetError(
        f"{path}: which column is the image? There are {listed(schema.names)}; call it 'image', or "
        "'file_name' if it holds paths"
    )


def find_column(
    path: str,
    schema: Any,
    features: Features,
    feature: str,
    usual: tuple[str, ...],
    fits: Callable[[Any], bool],
) -> str:
    """Return the column described as `feature`, or of a usual name, or the only one that fits."""
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


def _holds(kind: Any, field: str, words: Sequence[str]) -> bool:
    """Tell whether a column, or this field of its structs, has one of these types."""
    return str(_field(kind, field) or kind) in words


def _field(kind: Any, name: str) -> Any:
    """Return the type of a field of structs, or None."""
    fields = kind if str(kind).startswith("struct<") else ()
    return next((field.type for field in fields if field.name == name), None)


def images_from(
    name: str, column: str, start: int, max_bytes: int
) -> Iterator[tuple[int, Callable[[], bytes]]]:
    """Yield row and reader of each image from a row on; paths are relative to the file's folder."""
    with opened_parquet(name) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = [0, *accumulate(sizes)]
        group = bisect_right(starts, start) - 1
        row = starts[group]
        columns, spool = [column], Spool()
        image, schema = column.removesuffix(".bytes"), file.schema_arrow
        if image != column and image in schema.names and _field(schema.field(image).type, "path"):
            columns.append(f"{image}.path")
        for batch in bounded_batches(name, file, columns, rows=_ROWS, first_group=group):
            for value in batch.column(0):
                if row >= start:
                    yield row, _reader(value.as_py(), name, max_bytes, spool)
                row += 1


def _reader(value: Any, name: str, max_bytes: int, spool: Spool) -> Callable[[], bytes]:
    """Return the reader of a cell of the Parquet file `name`; large images are put aside."""
    cell = value if isinstance(value, dict) else {"bytes": value}
    data, path = cell.get("bytes"), cell.get("path")
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
        return read_file(place, max_bytes)
    except ImageError as exc:
        raise ImageError(f"{path}: {exc}") from exc


def bounded_batches(
    name: str, file: Any, columns: Sequence[str], *, rows: int, first_group: int = 0
) -> Iterator[Any]:
    """Yield batches of at most `rows` rows of some columns. Raises `DatasetError` for bombs."""
    size = file_size(name)
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    if max(file.metadata.num_rows, sum(group.num_rows for group in groups)) > size:
        raise _bomb(name, f"It claims {file.metadata.num_rows:,} rows in {size:,} bytes")
    left = RATIO * size + BEYOND
    with open_file(name) as pages:
        for number in range(first_group, len(groups)):
            largest = _largest_value(name, pages, groups[number], columns)
            count = max(1, min(rows, _BATCH // largest))
            for batch in file.iter_batches(
                batch_size=count, row_groups=[number], columns=columns, use_threads=False
            ):
                left -= batch.nbytes
                if left < 0:
                    over = f"{RATIO} times its size and {BEYOND >> 20:,} MiB more"
                    raise _bomb(name, f"It unpacks to over {over}")
                yield batch


def _largest_value(name: str, file: BinaryIO, group: Any, columns: Sequence[str]) -> int:
    """Return the maximum bytes of a value of these columns in a row group."""
    largest = 8
    for chunk in map(group.column, range(group.num_columns)):
        if not any(f"{chunk.path_in_schema}.".startswith(f"{column}.") for column in columns):
            continue
        for packed, unpacked in _pages(name, file, chunk):
            if unpacked > max(BOMB_BYTES, RATIO * packed):
                raise _bomb(name, f"A page of {packed:,} bytes unpacks to {unpacked:,}")
            if unpacked > max(MAX_PAGE, 2 * packed):
                raise DatasetError(
                    f"{name}: a page unpacks to {unpacked:,} bytes, over the limit of "
                    f"{MAX_PAGE:,}: write it with smaller pages"
                )
            if chunk.physical_type not in _NUMBERS:
                largest = max(largest, unpacked)
    return largest


def _bomb(name: str, why: str) -> DatasetError:
    return DatasetError(f"{name}: a Parquet bomb? {why}")


def _pages(name: str, file: BinaryIO, chunk: Any) -> Iterator[tuple[int, int]]:
    """Yield the bytes of each page of a column, packed and unpacked."""
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < at:
        at = chunk.dictionary_page_offset
    end = at + chunk.total_compressed_size
    while 0 <= at < end:
        length, packed, unpacked = _header(name, file, at)
        yield packed, unpacked
        at += length + packed


def _header(name: str, file: BinaryIO, at: int) -> tuple[int, int, int]:
    """Return the length of the header of a page, and the page's bytes packed and unpacked."""
    for size in _HEADERS:
        file.seek(at)
        data = BytesIO(file.read(size))
        try:
            values = _struct(data)
            packed, unpacked = values[3], values[2]
        except (IndexError, KeyError):  # longer, or none
            continue
        if min(packed, unpacked) >= 0:
            return data.tell(), packed, unpacked
    raise DatasetError(f"{name}: a page of this Parquet file is damaged: it has no header")


def _struct(data: BytesIO, depth: int = 0) -> dict[int, int]:
    """Read a struct and return the numbers among its fields; `IndexError` if it ends early."""
    if depth > _MAX_DEPTH:
        raise IndexError
    numbers, field = {}, 0
    while head := data.read(1)[0]:
        field = field + (head >> 4) if head >> 4 else _zigzag(data)
        kind = head & 15
        if kind in (4, 5, 6):  # integers
            numbers[field] = _zigzag(data)
        elif kind in (3, 7):  # a byte, a double
            data.read(1 if kind == 3 else 8)
        elif kind == 8:
            data.read(min(_varint(data), _HEADERS[-1]))
        elif kind == 12:
            _struct(data, depth + 1)
        elif kind not in (1, 2):  # those are the booleans; lists and maps a header has none
            raise IndexError
    return numbers


def _varint(data: BytesIO) -> int:
    value = shift = 0
    while (byte := data.read(1)[0]) & 0x80 and shift < 63:
        value, shift = value | (byte & 0x7F) << shift, shift + 7
    return value | byte << shift


def _zigzag(data: BytesIO) -> int:
    value = _varint(data)
    return value >> 1 ^ -(value & 1)
