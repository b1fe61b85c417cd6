"""Rows (dicts of plain values) as JSON, JSON Lines, CSV or Parquet, written one by one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, BinaryIO, Final, Literal, TextIO

from regnet.system.errors import MissingExtraError
from regnet.system.json_text import json_text

Row = Mapping[str, Any]
RowFormat = Literal["json", "jsonl", "csv", "parquet"]

ROW_GROUP: Final = 1024  # rows that are written together to Parquet

SUFFIXES: Final[Mapping[str, RowFormat]] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
"""The format that a file's ending stands for."""


class RowWriter:
    """Takes rows one at a time; `close` completes the output but leaves its file open."""

    def write(self, row: Row) -> None:
        """Write one row."""
        raise NotImplementedError

    def write_all(self, rows: Iterable[Row]) -> None:
        """Write rows that belong together."""
        for row in rows:
            self.write(row)

    def close(self) -> None:
        """Complete the output."""


class JsonLinesRows(RowWriter):
    """One JSON object per line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: Row) -> None:
        """Write one line."""
        print(json_text(row), file=self._file, flush=True)


class JsonRows(RowWriter):
    """A JSON array, one object per line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._before = "[\n"

    def write(self, row: Row) -> None:
        """Write one element."""
        print(self._before, json_text(row), sep="", end="", file=self._file)
        self._before = ",\n"

    def close(self) -> None:
        """End the array."""
        print("[]" if self._before == "[\n" else "\n]", file=self._file)


class CsvRows(RowWriter):
    """CSV with a header line; a missing column or None is empty."""

    def __init__(self, file: TextIO, columns: Sequence[str]) -> None:
        self._file, self._columns = file, tuple(columns)
        file.write(_csv_line(self._columns))

    def write(self, row: Row) -> None:
        """Write one line."""
        self.write_all((row,))

    def write_all(self, rows: Iterable[Row]) -> None:
        """Write a line for each row, all at once."""
        lines = (_csv_line([row.get(column) for column in self._columns]) for row in rows)
        self._file.write("".join(lines))
        self._file.flush()


def _csv_line(values: Sequence[Any]) -> str:
    return ",".join(map(_csv_field, values)) + "\n"


def _csv_field(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else _csv_text(value) if isinstance(value, str) else str(value)


@lru_cache(4096)  # of rows most texts are the same: names of classes and of the model
def _csv_text(text: str) -> str:
    """Return a field, quoted if a reader could split, strip or misread it."""
    plain = text.isprintable() and text == text.strip() and not {",", '"'} & set(text)
    return text if plain else '"' + text.replace('"', '""') + '"'


class ParquetRows(RowWriter):
    """Parquet of a pyarrow `schema`, in groups of rows.

    A file without a position, such as a pipe, is fine too.
    """

    def __init__(self, file: BinaryIO, schema: Any) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._table, self._schema = pa.Table, schema
        self._writer = pq.ParquetWriter(file, schema)
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        """Keep one row; rows are written in groups."""
        self._rows.append(row)
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(self._table.from_pylist(self._rows, self._schema))
        self._rows = []

    def close(self) -> None:
        """Write the remaining rows and the footer."""
        if self._rows:
            self._flush()
        self._writer.close()


def row_writer(
    file: Any, kind: RowFormat, columns: Sequence[str], schema: Callable[[], Any]
) -> RowWriter:
    """Return a writer to an open file: of these `columns` in CSV, of the `schema` in Parquet."""
    if kind == "parquet":
        require_parquet()
        return ParquetRows(file, schema())
    if kind == "csv":
        return CsvRows(file, columns)
    return JsonRows(file) if kind == "json" else JsonLinesRows(file)


def require_parquet() -> None:
    """Raise `MissingExtraError` if Parquet cannot be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as exc:
        raise MissingExtraError("writing Parquet", "parquet") from exc


def score_type() -> Any:
    """Return the pyarrow type of a class and its probability."""
    import pyarrow as pa

    text = pa.string()
    fields = [("index", pa.int32()), ("wnid", text), ("label", text), ("probability", pa.float64())]
    return pa.struct(fields)
