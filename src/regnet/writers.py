"""Predictions to text or files, one by one, so that what is written is readable at any time."""

import contextlib
import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

from regnet.errors import MissingExtraError, OutputError
from regnet.result import Prediction

OutputFormat = Literal["table", "json", "jsonl", "csv", "parquet"]


class Writer(Protocol):
    """Takes predictions one at a time; `close` completes what was written."""

    def write(self, prediction: Prediction) -> None:
        """Write one prediction."""

    def close(self) -> None:
        """Complete the output; what was written before is then readable as a whole."""


class TableWriter:
    """For people: each image with its classes below, probability in percent and as a bar."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, prediction: Prediction) -> None:
        """Write an image's name and a line a class."""
        print(_visible(prediction.source), file=self._file)
        if prediction.error is not None:
            print(f"    error: {_visible(prediction.error)}", file=self._file, flush=True)
        for score in prediction.predictions:
            bar = "█" * round(20 * score.probability)
            line = f"  {100 * score.probability:5.1f} %  {bar:20}  {score.label}"
            print(line, file=self._file, flush=True)

    def close(self) -> None:
        """Nothing is left to write."""


def _visible(text: str) -> str:
    """Return a text whose control characters are written out, so that none reaches a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class JsonLinesWriter:
    """A JSON object a line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, prediction: Prediction) -> None:
        """Write one line."""
        print(json.dumps(prediction.to_dict()), file=self._file, flush=True)

    def close(self) -> None:
        """Nothing is left to write."""


class JsonWriter:
    """A JSON array of objects, an object a line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._before = "[\n"

    def write(self, prediction: Prediction) -> None:
        """Write one element."""
        print(self._before, json.dumps(prediction.to_dict()), sep="", end="", file=self._file)
        self._before = ",\n"

    def close(self) -> None:
        """End the array."""
        print("[]" if self._before == "[\n" else "\n]", file=self._file)


class CsvWriter:
    """A row a class, `rank` 1 first; an image that failed has one row with its `error`."""

    COLUMNS = ("source", "rank", "index", "wnid", "label", "probability", "error", "model")

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._rows = csv.DictWriter(file, self.COLUMNS, lineterminator="\n")
        self._rows.writeheader()

    def write(self, prediction: Prediction) -> None:
        """Write the rows of one image."""
        common = {"source": prediction.source, "model": prediction.model}
        if prediction.error is not None:
            self._rows.writerow(common | {"error": prediction.error})
        for rank, score in enumerate(prediction.predictions, start=1):
            self._rows.writerow(common | {"rank": rank} | score.to_dict())
        self._file.flush()

    def close(self) -> None:
        """Nothing is left to write."""


class ParquetWriter:
    """Rows as in JSON: source, predictions (a list of structs), error, model."""

    ROW_GROUP = 1024

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as exc:
            raise MissingExtraError("writing Parquet", "parquet") from exc
        score = pa.struct(
            [
                ("index", pa.int32()),
                ("wnid", pa.string()),
                ("label", pa.string()),
                ("probability", pa.float64()),
            ]
        )
        text = pa.string()
        columns = [("source", text), ("predictions", pa.list_(score)), ("error", text)]
        self._schema = pa.schema([*columns, ("model", text)])
        self._table = pa.Table
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, prediction: Prediction) -> None:
        """Keep one row; rows are written in groups."""
        self._rows.append(prediction.to_dict())
        if len(self._rows) >= self.ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(self._table.from_pylist(self._rows, self._schema))
        self._rows = []

    def close(self) -> None:
        """Write the remaining rows and the footer."""
        if self._rows:
            self._flush()
        self._writer.close()


_TEXT_WRITERS: dict[str, type[TableWriter | JsonWriter | JsonLinesWriter | CsvWriter]] = {
    "table": TableWriter,
    "json": JsonWriter,
    "jsonl": JsonLinesWriter,
    "csv": CsvWriter,
}
_SUFFIXES: dict[str, OutputFormat] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".txt": "table",
    "": "table",
}


def format_of(path: Path) -> OutputFormat:
    """Return the format that a file's ending stands for; raises `OutputError` for unknown ones."""
    ending = path.suffix.lower()
    if ending not in _SUFFIXES and (path.is_file() or not path.exists()):
        known = ", ".join(suffix for suffix in _SUFFIXES if suffix)
        raise OutputError(f"{path}: name the format with --format, or end it in one of {known}")
    return _SUFFIXES.get(ending, "table")


def part_of(output: Path) -> Path:
    """Return the path of an output file until it is complete."""
    output = output.resolve()
    return output.with_name(output.name + ".part")


@contextmanager
def open_writer(output: Path | TextIO, format: OutputFormat) -> Iterator[Writer]:
    """Give a writer to a path or an open text file, and complete what it wrote at the end.

    A path gets its final name only then; until then it ends in `.part`, and keeps that after an
    interrupt if there is an older file. Raises `OutputError` where it cannot be written.
    """
    if not isinstance(output, Path):
        if format == "parquet":
            raise OutputError("Parquet is not text: name a file")
        with _closing(_TEXT_WRITERS[format](output)) as writer:
            yield writer
        return
    if not output.name or output.is_dir():
        raise OutputError(f"cannot write {output}: it is a folder")
    output = output.resolve()  # a link stays one
    direct = output.exists() and not output.is_file()  # a pipe or device is written as it is
    part = output if direct else part_of(output)
    with _naming(output):
        writer = _file_writer(part, format)
    try:
        yield _NamingWriter(writer, output)
    except KeyboardInterrupt:
        _complete(writer, part, part if output.exists() else output)
        raise
    except BaseException:
        with contextlib.suppress(OSError):
            writer.close()
        raise
    _complete(writer, part, output)


def _complete(writer: Writer, part: Path, output: Path) -> None:
    with _naming(output):
        writer.close()
        if part != output:
            part.replace(output)


@contextmanager
def _naming(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise OutputError(f"cannot write {output}: {exc.strerror or exc}") from exc


class _NamingWriter:
    """A writer whose errors name the output."""

    def __init__(self, writer: Writer, output: Path) -> None:
        self._writer = writer
        self._output = output

    def write(self, prediction: Prediction) -> None:
        with _naming(self._output):
            self._writer.write(prediction)

    def close(self) -> None:
        self._writer.close()


class _FileWriter:
    """A text writer and the file it owns."""

    def __init__(self, path: Path, format: OutputFormat) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = _TEXT_WRITERS[format](self._file)

    def write(self, prediction: Prediction) -> None:
        self._writer.write(prediction)

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._file.close()


def _file_writer(path: Path, format: OutputFormat) -> Writer:
    return ParquetWriter(path) if format == "parquet" else _FileWriter(path, format)


@contextmanager
def _closing(writer: Writer) -> Iterator[Writer]:
    try:
        yield writer
    finally:
        writer.close()
