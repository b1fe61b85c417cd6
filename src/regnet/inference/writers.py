"""Predictions to text or files, one by one, so that what is written is readable at any time."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, Protocol, TextIO

from regnet.inference.result import Prediction, Wanted
from regnet.system.errors import OutputError
from regnet.system.output_file import naming, open_output, text_of
from regnet.system.row_writers import (
    SUFFIXES,
    CsvRows,
    JsonLinesRows,
    JsonRows,
    ParquetRows,
    Row,
    RowWriter,
    require_parquet,
    score_type,
)

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


class _RowsWriter:
    """Writes predictions as rows: `rows_of` makes those of one prediction."""

    def __init__(self, rows: RowWriter, rows_of: Callable[[Prediction], Iterable[Row]]) -> None:
        self._rows, self._rows_of = rows, rows_of

    def write(self, prediction: Prediction) -> None:
        """Write the rows of one prediction."""
        for row in self._rows_of(prediction):
            self._rows.write(row)

    def close(self) -> None:
        """Complete the output."""
        self._rows.close()


def _one_row(prediction: Prediction) -> tuple[Row, ...]:
    return (prediction.to_dict(),)


class CsvWriter(_RowsWriter):
    """A row a class, `rank` 1 first; an image that failed has one row with its `error`.

    With sets there are rows for all classes of the set, and `set` says which rows are of it.
    """

    COLUMNS = ("source", "rank", "index", "wnid", "label", "probability", "error", "model")

    def __init__(self, file: TextIO, wanted: Wanted = PLAIN) -> None:
        super().__init__(CsvRows(file, (*self.COLUMNS, *wanted.fields)), _csv_rows)


def _csv_rows(prediction: Prediction) -> Iterator[Row]:
    """Yield a row of each class, the most probable ones and those of the set; or of the error."""
    common = {
        "source": prediction.source,
        "model": prediction.model,
        "timestamp": prediction.timestamp,
        "coverage": prediction.coverage,
        "unknown": prediction.unknown,
    }
    if prediction.error is not None:
        yield common | {"error": prediction.error}
    members = prediction.set
    scores = max(prediction.predictions, members or (), key=len)
    for rank, score in enumerate(scores, start=1):
        row = common | {"rank": rank} | score.to_dict()
        yield row if members is None else row | {"set": rank <= len(members)}


class ParquetWriter(_RowsWriter):
    """Rows as in JSON: source, predictions (a list of structs), error, model and what is wanted.

    Raises `MissingExtraError` without pyarrow.
    """

    def __init__(self, file: BinaryIO, wanted: Wanted = PLAIN) -> None:
        require_parquet()
        super().__init__(ParquetRows(file, _parquet_schema(wanted)), _one_row)


def _parquet_schema(wanted: Wanted) -> Any:
    import pyarrow as pa

    text, scores = pa.string(), pa.list_(score_type())
    kinds = {
        "timestamp": pa.float64(),
        "set": scores,
        "coverage": pa.float64(),
        "unknown": pa.bool_(),
    }
    columns = [("source", text), ("predictions", scores), ("error", text), ("model", text)]
    return pa.schema([*columns, *((name, kinds[name]) for name in wanted.fields)])


_SUFFIXES: dict[str, OutputFormat] = {**SUFFIXES, ".txt": "table", "": "table"}


def format_of(path: Path) -> OutputFormat:
    """Return the format that a file's ending stands for; raises `OutputError` for unknown ones."""
    ending = path.suffix.lower()
    if ending not in _SUFFIXES and (path.is_file() or not path.exists()):
        known = ", ".join(suffix for suffix in _SUFFIXES if suffix)
        raise OutputError(f"{path}: name the format with --format, or end it in one of {known}")
    return _SUFFIXES.get(ending, "table")


@contextmanager
def open_writer(
    output: Path | TextIO, format: OutputFormat, wanted: Wanted = PLAIN
) -> Iterator[Writer]:
    """Give a writer to a path or an open text file, and complete what it wrote at the end.

    `wanted` is what predictions will be written with: their columns.

    A path gets its final name only then; until then it ends in `.part`, and keeps that after an
    interrupt if there is an older file. A stream, pipe or device is written as it is. Raises
    `OutputError` where it cannot be written.
    """
    if not isinstance(output, Path):
        if format == "parquet":
            raise OutputError("Parquet is not text: name a file")
        with closing(_text_writer(output, format, wanted)) as writer:
            yield writer
        return
    if not output.name or output.is_dir():
        raise OutputError(f"cannot write {output}: it is a folder")
    if format == "parquet":
        require_parquet()
    with naming(output):
        place = open_output(output)
        writer = _file_writer(place.file, format, wanted)
    try:
        yield _NamingWriter(writer, output)
    except KeyboardInterrupt:
        with naming(output), place.file:
            writer.close()
            place.keep()
        raise
    except BaseException:
        with suppress(OSError), place.file:
            writer.close()
        raise
    with naming(output), place.file:
        writer.close()
        place.complete()


class _NamingWriter:
    """A writer whose errors name the output."""

    def __init__(self, writer: Writer, output: Path) -> None:
        self._writer = writer
        self._output = output

    def write(self, prediction: Prediction) -> None:
        with naming(self._output):
            self._writer.write(prediction)

    def close(self) -> None:
        self._writer.close()


class _FileWriter:
    """A writer of text to a binary file, which stays open."""

    def __init__(self, file: BinaryIO, format: OutputFormat, wanted: Wanted) -> None:
        self._text = text_of(file)
        self._writer = _text_writer(self._text, format, wanted)

    def write(self, prediction: Prediction) -> None:
        self._writer.write(prediction)

    def close(self) -> None:
        self._writer.close()
        self._text.flush()


def _file_writer(file: BinaryIO, format: OutputFormat, wanted: Wanted) -> Writer:
    if format == "parquet":
        return ParquetWriter(file, wanted)
    return _FileWriter(file, format, wanted)


def _text_writer(file: TextIO, format: OutputFormat, wanted: Wanted) -> Writer:
    if format == "csv":
        return CsvWriter(file, wanted)
    if format == "table":
        return TableWriter(file)
    rows = JsonRows(file) if format == "json" else JsonLinesRows(file)
    return _RowsWriter(rows, _one_row)
