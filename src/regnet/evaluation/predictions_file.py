"""Every prediction of an evaluation, one row per image, in a file of CSV, JSON or Parquet."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from regnet.evaluation.scoring import Listener, ScoredBatch
from regnet.inference.result import readable, top_classes
from regnet.network.labels import Labels
from regnet.system.errors import OutputError
from regnet.system.files import is_stream
from regnet.system.output_file import naming, open_output, text_of
from regnet.system.row_writers import (
    SUFFIXES,
    Row,
    RowFormat,
    require_parquet,
    row_writer,
    score_type,
)

TOP: Final = 5

_SCORE: Final = ("index", "wnid", "label", "probability")
_COLUMNS: Final = (
    *("source", "truth", "truth_label", "probability_of_truth", "correct", "error"),
    *(f"top{rank}_{name}" for rank in range(1, TOP + 1) for name in _SCORE),
)  # of CSV


def predictions_format(path: Path) -> RowFormat:
    """Return the format that a file's ending stands for; JSON Lines for a stream without one.

    Raises `OutputError` for another ending, `MissingExtraError` if Parquet cannot be written.
    """
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None and not path.suffix and is_stream(path):
        kind = "jsonl"
    if kind is None:
        *known, last = SUFFIXES
        raise OutputError(
            f"{path}: the ending says the format of predictions: {', '.join(known)} or {last}"
        )
    if kind == "parquet":
        require_parquet()
    return kind


@contextmanager
def open_predictions(path: Path, labels: Labels) -> Iterator[Listener]:
    """Give a listener that writes every prediction; the file gets its name once it is complete.

    Raises `OutputError` if it cannot be written, and as `predictions_format`.
    """
    kind = predictions_format(path)
    with naming(path):
        place = open_output(path)
        file = place.file if kind == "parquet" else text_of(place.file)
        rows = row_writer(file, kind, _COLUMNS, _schema)
    try:

        def write(batch: ScoredBatch) -> None:
            with naming(path):
                for row in _rows(batch, labels):
                    rows.write(_flat(row) if kind == "csv" else row)

        yield write
        with naming(path):
            rows.close()
            file.flush()
            place.complete()
    except BaseException:
        with suppress(OSError):
            rows.close()
        raise
    finally:
        place.discard()


def _rows(batch: ScoredBatch, labels: Labels) -> Iterator[dict[str, Any]]:
    """Yield a row for each image; an unreadable one has its `source`, `truth` and `error`."""
    scores = iter(batch.probabilities)
    for source, truth, error in zip(batch.sources, batch.truths, batch.errors, strict=True):
        row = next(scores) if error is None else None
        top = () if row is None else top_classes(row, labels, TOP)
        yield {
            "source": readable(source),
            "truth": truth,
            "truth_label": labels[truth].name,
            "top5": [score.to_dict() for score in top] if top else None,
            "probability_of_truth": None if row is None else float(row[truth]),
            "correct": top[0].index == truth if top else None,
            "error": error,
        }


def _flat(row: dict[str, Any]) -> Row:
    """Return a row whose `top5` are columns: `top1_index`, `top1_wnid`, ... `top5_probability`."""
    for rank, score in enumerate(row.pop("top5") or (), 1):
        row |= {f"top{rank}_{name}": value for name, value in score.items()}
    return row


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("source", pa.string()),
            ("truth", pa.int32()),
            ("truth_label", pa.string()),
            ("top5", pa.list_(score_type())),
            ("probability_of_truth", pa.float64()),
            ("correct", pa.bool_()),
            ("error", pa.string()),
        ]
    )
