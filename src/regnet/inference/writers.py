"""Predictions to text or files, one by one: an output is readable at any time."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, TextIO

from regnet.inference.result import IMPROBABLE, Prediction, Wanted
from regnet.system.errors import OutputError
from regnet.system.output_file import naming, open_output, text_of
from regnet.system.row_writers import SUFFIXES, Row, require_parquet, row_writer, score_type
from regnet.system.text import BAR, visible

OutputFormat = Literal["table", "json", "jsonl", "csv", "parquet"]

PLAIN: Final = Wanted()  # neither timestamps, sets nor unknown: the fields that every result has
CSV_COLUMNS: Final = (
    "source", "rank", "index", "wnid", "label", "probability", "error", "model",
)  # fmt: skip

_SUFFIXES: Final[dict[str, OutputFormat]] = {**SUFFIXES, ".txt": "table", "": "table"}


class PredictionWriter:
    """Writes predictions to an open file, text unless the format is Parquet.

    JSON and Parquet have one row per prediction. CSV has one row per class, or one for an error;
    with sets, all classes of the set have rows, and `set` says which are members. The table is for
    people. Raises `MissingExtraError` for Parquet without pyarrow.
    """

    def __init__(self, file: Any, format: OutputFormat, wanted: Wanted = PLAIN) -> None:
        self._rows_of: Callable[[Prediction], Iterator[Any]]
        self._rows: Any
        if format == "table":
            self._rows, self._rows_of = _Lines(file), _table_lines
        else:
            columns, schema = (*CSV_COLUMNS, *wanted.fields), partial(_parquet_schema, wanted)
            self._rows = row_writer(file, format, columns, schema)
            self._rows_of = _csv_rows if format == "csv" else _whole_row

    def write(self, prediction: Prediction) -> None:
        """Write the rows of one prediction."""
        self._rows.write_all(self._rows_of(prediction))

    def close(self) -> None:
        """Complete the output; its file stays open."""
        self._rows.close()


class _Lines:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write_all(self, lines: Iterator[str]) -> None:
        print(*lines, sep="\n", file=self._file, flush=True)

    def close(self) -> None:
        pass


def _table_lines(prediction: Prediction) -> Iterator[str]:
    """Yield an image's name, a line per class with its probability and a bar, and its set.

    An unknown image has no classes but those of its set.
    """
    time = "" if prediction.timestamp is None else f" at {prediction.timestamp:.3f} s"
    yield visible(prediction.source + time)
    if prediction.error is not None:
        yield f"    error: {visible(prediction.error)}"
        return
    coverage = f"{100 * (prediction.coverage or 0):g} %"
    scores = prediction.predictions
    if prediction.unknown:
        scores = ()
        yield f"  unknown: no single class is the true one with probability {coverage}"
    elif not scores:
        yield f"  {IMPROBABLE}"
    for score in scores if prediction.set is None else prediction.set:
        bar = BAR * round(20 * score.probability)
        yield f"  {100 * score.probability:5.1f} %  {bar:20}  {score.label}"
    if prediction.set is not None:
        size = len(prediction.set)
        classes = "1 class" if size == 1 else f"{size} classes"
        yield f"  set of {classes} contains the true class with probability {coverage}"


def _whole_row(prediction: Prediction) -> Iterator[Row]:
    yield prediction.to_dict()


def _csv_rows(prediction: Prediction) -> Iterator[Row]:
    common = {
        "source": prediction.source,
        "model": prediction.model,
        "timestamp": prediction.timestamp,
        "coverage": prediction.coverage,
        "unknown": prediction.unknown,
    }
    members = prediction.set
    scores = max(prediction.predictions, members or (), key=len)
    if not scores:
        yield common | {"error": prediction.error}
    for rank, score in enumerate(scores, start=1):
        row = common | {"rank": rank} | score.to_dict()
        yield row if members is None else row | {"set": rank <= len(members)}


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


def format_of(path: Path) -> OutputFormat:
    """Return the format of a file's suffix; raises `OutputError` for an unknown one."""
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES and (path.is_file() or not path.exists()):
        known = ", ".join(suffix for suffix in _SUFFIXES if suffix)
        raise OutputError(f"{path}: name the format with --format, or end it in one of {known}")
    return _SUFFIXES.get(suffix, "table")


@contextmanager
def open_writer(
    output: Path | TextIO, format: OutputFormat, wanted: Wanted = PLAIN
) -> Iterator[Callable[[Prediction], None]]:
    """Give a function that writes one prediction to a path or an open text file.

    The output is completed at the end of the block. Only then a path gets its name; until then it
    ends in `.part`, and keeps that after an interrupt if there is an older file. A stream, pipe or
    device is written as it is. `wanted` decides the columns. Raises `OutputError` if the output
    cannot be written.
    """
    if not isinstance(output, Path):
        if format == "parquet":
            raise OutputError("Parquet is not text: name a file")
        with closing(PredictionWriter(output, format, wanted)) as writer:
            yield writer.write
        return
    if not output.name or output.is_dir():
        raise OutputError(f"cannot write {output}: it is a folder")
    if format == "parquet":
        require_parquet()
    with naming(output):
        place = open_output(output)
        file: BinaryIO | TextIO = place.file if format == "parquet" else text_of(place.file)
        writer = PredictionWriter(file, format, wanted)

    def finish() -> None:
        writer.close()
        file.flush()

    try:
        yield naming(output)(writer.write)
    except KeyboardInterrupt:
        with naming(output), place.file:
            finish()
            place.keep()
        raise
    except BaseException:
        with suppress(OSError), place.file:
            finish()
        raise
    with naming(output), place.file:
        finish()
        place.complete()
