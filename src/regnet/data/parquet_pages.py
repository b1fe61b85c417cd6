"""Rows of a Parquet file in bounded memory: what its pages claim is looked at before they are read.

A page says in its header how many bytes it unpacks to, and pyarrow takes that much memory. Headers
are structs of Thrift's compact protocol (parquet.thrift: PageHeader; thrift-compact-protocol.md).
"""

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Final

from regnet.data.archives import BEYOND, BOMB_BYTES, RATIO
from regnet.data.remote import file_size, open_file
from regnet.system.errors import DatasetError

MAX_PAGE: Final = 288 << 20
"""Bytes that a page may unpack to; one that hardly shrank when it was packed may be larger."""

_BATCH: Final = 64 << 20  # bytes of rows read at a time, if one is not longer
_HEADERS: Final = (16 << 10, 1 << 20)  # bytes read for a page's header: most need the first
_NUMBERS: Final = ("BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE")
_MAX_DEPTH: Final = 8  # structs in structs


def bounded_batches(
    name: str, file: Any, columns: Sequence[str], *, rows: int, first_group: int = 0
) -> Iterator[Any]:
    """Yield batches of at most so many rows of an open file's columns, from a row group on.

    Raises `DatasetError` where they would take more time or memory than what an honest file does.
    """
    size = file_size(name)
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    if max(file.metadata.num_rows, sum(group.num_rows for group in groups)) > size:
        raise _bomb(name, f"it claims {file.metadata.num_rows:,} rows in {size:,} bytes")
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
                    raise _bomb(name, f"it unpacks to over {over}")
                yield batch


def _largest_value(name: str, file: BinaryIO, group: Any, columns: Sequence[str]) -> int:
    """Return the most bytes that a value of these columns in a row group may have."""
    largest = 8
    for number in range(group.num_columns):
        chunk = group.column(number)
        if not any(f"{chunk.path_in_schema}.".startswith(f"{column}.") for column in columns):
            continue
        for packed, unpacked in _pages(name, file, chunk):
            if unpacked > max(BOMB_BYTES, RATIO * packed):
                raise _bomb(name, f"a page of {packed:,} bytes unpacks to {unpacked:,}")
            if unpacked > max(MAX_PAGE, 2 * packed):
                raise DatasetError(
                    f"{name}: a page unpacks to {unpacked:,} bytes, over the limit of "
                    f"{MAX_PAGE:,}: write it with smaller pages"
                )
            if chunk.physical_type not in _NUMBERS:
                largest = max(largest, unpacked)
    return largest


def _bomb(name: str, why: str) -> DatasetError:
    return DatasetError(f"{name}: a Parquet bomb? {why[:1].upper()}{why[1:]}")


def _pages(name: str, file: BinaryIO, chunk: Any) -> Iterator[tuple[int, int]]:
    """Yield how many bytes each page of a column has, packed and unpacked."""
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
        reader = _Compact(file.read(size))
        try:
            values = reader.struct()
            packed, unpacked = values[3], values[2]
        except (IndexError, KeyError):  # longer, or none
            continue
        if min(packed, unpacked) >= 0:
            return reader.at, packed, unpacked
    raise DatasetError(f"{name}: a page of this Parquet file is damaged: it has no header")


class _Compact:
    """What reads a struct of Thrift's compact protocol; raises `IndexError` where it ends early."""

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def struct(self, depth: int = 0) -> dict[int, int]:
        """Go behind the struct, and return the numbers among its fields."""
        if depth > _MAX_DEPTH:
            raise IndexError
        found, field = {}, 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._zigzag()
            value = self._value(head & 15, depth)
            if value is not None:
                found[field] = value
        return found

    def _value(self, kind: int, depth: int) -> int | None:
        if kind in (4, 5, 6):  # integers
            return self._zigzag()
        if kind in (3, 7):  # a byte, a double
            self.at += 1 if kind == 3 else 8
        elif kind == 8:
            length = self._varint()
            self.at += length
        elif kind == 12:
            self.struct(depth + 1)
        elif kind not in (1, 2):  # those are the booleans; lists and maps a header has none
            raise IndexError
        return None

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80 and shift < 63:
            value, shift = value | (byte & 0x7F) << shift, shift + 7
        return value | byte << shift

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)
