"""Predictions to text or files, one by one, so that what is written is readable at any time."""

import contextlib
import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TextIO

from regnet.errors import MissingExtraError, OutputError
from regnet.result import Prediction, Wanted

OutputFormat = Literal["table", "json", "jsonl", "csv", "parquet"]

PLAIN: Final = Wanted()
"""Neither timestamps, sets nor unknown: the fields that every result has."""


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
        print(visible(_place(prediction)), file=self._file)
        if prediction.error is not None:
            print(f"    error: {visible(prediction.error)}", file=self._file, flush=True)
        for line in _table_lines(prediction):
            print(line, file=self._file, flush=True)

    def close(self) -> None:
        """Nothing is left to write."""


def _place(prediction: Prediction) -> str:
    if prediction.timestamp is None:
        return prediction.source
    return f"{prediction.source} at {prediction.timestamp:.3f} s"


def _table_lines(prediction: Prediction) -> Iterator[str]:
    """Yield a line a class and what is said of the set; an unknown image has no classes but it."""
    if prediction.error is not None:
        return
    shown = prediction.predictions
    if prediction.unknown:
        shown = ()
        sure = f"{100 * (prediction.coverage or 0):g} %"
        yield f"  unknown: no single class holds the truth with probability {sure}"
    for score in shown if prediction.set is None else prediction.set:
        bar = "█" * round(20 * score.probability)
        yield f"  {100 * score.probability:5.1f} %  {bar:20}  {score.label}"
    if prediction.set is not None:
        yield f"  {_set_text(len(prediction.set), prediction.coverage or 0)}"


def _set_text(size: int, coverage: float) -> str:
    classes = "1 class" if size == 1 else f"{size} classes"
    return f"set of {classes} holds the truth with probability {100 * coverage:g} %"


def visible(text: str) -> str:
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
    """A row a class, `rank` 1 first; an image that failed has one row with its `error`.

    With sets there are rows for all classes of the set, and `set` says which rows are of it.
    """

    COLUMNS = ("source", "rank", "index", "wnid", "label", "probability", "error", "model")

    def __init__(self, file: TextIO, wanted: Wanted = PLAIN) -> None:
        self._file = file
        self._rows = csv.DictWriter(file, (*self.COLUMNS, *wanted.fields), lineterminator="\n")
        self._rows.writeheader()

    def write(self, prediction: Prediction) -> None:
        """Write the rows of one image."""
        common = {"source": prediction.source, "model": prediction.model}
        if prediction.timestamp is not None:
            common["timestamp"] = str(prediction.timestamp)
        if prediction.coverage is not None:
            common["coverage"] = str(prediction.coverage)
        if prediction.unknown is not None:
            common["unknown"] = _truth_value(prediction.unknown)
        if prediction.error is not None:
            self._rows.writerow(common | {"error": prediction.error})
        for row in _csv_rows(prediction):
            self._rows.writerow(common | row)
        self._file.flush()

    def close(self) -> None:
        """Nothing is left to write."""


def _csv_rows(prediction: Prediction) -> Iterator[dict[str, Any]]:
    """Yield the fields of each class: the most probable ones, and those of the set."""
    members = prediction.set
    scores = max(prediction.predictions, members or (), key=len)
    for rank, score in enumerate(scores, start=1):
        row = {"rank": rank} | score.to_dict()
        yield row if members is None else row | {"set": _truth_value(rank <= len(members))}


def _truth_value(value: bool) -> str:
    return "true" if value else "false"


class ParquetWriter:
    """Rows as in JSON: source, predictions (a list of structs), error, model and what is wanted."""

    ROW_GROUP = 1024

    def __init__(self, path: Path, wanted: Wanted = PLAIN) -> None:
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
        kinds = {
            "timestamp": pa.float64(),
            "set": pa.list_(score),
            "coverage": pa.float64(),
            "unknown": pa.bool_(),
        }
        added = [(name, kinds[name]) for name in wanted.fields]
        self._schema = pa.schema([*columns, ("model", text), *added])
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


_TEXT_WRITERS: dict[str, type[TableWriter | JsonWriter | JsonLinesWriter]] = {
    "table": TableWriter,
    "json": JsonWriter,
    "jsonl": JsonLinesWriter,
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
def open_writer(
    output: Path | TextIO, format: OutputFormat, wanted: Wanted = PLAIN
) -> Iterator[Writer]:
    """Give a writer to a path or an open text file, and complete what it wrote at the end.

    `wanted` is what predictions will be written with: their columns.

    A path gets its final name only then; until then it ends in `.part`, and keeps that after an
    interrupt if there is an older file. Raises `OutputError` where it cannot be written.
    """
    if not isinstance(output, Path):
        if format == "parquet":
            raise OutputError("Parquet is not text: name a file")
        with _closing(_text_writer(output, format, wanted)) as writer:
            yield writer
        return
    if not output.name or output.is_dir():
        raise OutputError(f"cannot write {output}: it is a folder")
    output = output.resolve()  # a link stays one
    direct = output.exists() and not output.is_file()  # a pipe or device is written as it is
    part = output if direct else part_of(output)
    with _naming(output):
        writer = _file_writer(part, format, wanted)
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

    def __init__(self, path: Path, format: OutputFormat, wanted: Wanted) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = _text_writer(self._file, format, wanted)

    def write(self, prediction: Prediction) -> None:
        self._writer.write(prediction)

    def close(self) -> None:
        try:
            self._writer.close()
        finally:
            self._file.close()


def _file_writer(path: Path, format: OutputFormat, wanted: Wanted) -> Writer:
    if format == "parquet":
        return ParquetWriter(path, wanted)
    return _FileWriter(path, format, wanted)


def _text_writer(file: TextIO, format: OutputFormat, wanted: Wanted) -> Writer:
    if format == "csv":
        return CsvWriter(file, wanted)
    return _TEXT_WRITERS[format](file)


@contextmanager
def _closing(writer: Writer) -> Iterator[Writer]:
    try:
        yield writer
    finally:
        writer.close()
