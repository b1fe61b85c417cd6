"""Every prediction of an evaluation, a row an image, in a Parquet file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from regnet.errors import MissingExtraError, OutputError
from regnet.evaluation.scoring import Batch, Listener
from regnet.labels import Labels
from regnet.result import top_classes
from regnet.writers import part_of

TOP: Final = 5
ROW_GROUP: Final = 1024


def require_parquet() -> None:
    """Raise `MissingExtraError` where Parquet cannot be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as exc:
        raise MissingExtraError("writing Parquet", "parquet") from exc


@contextmanager
def open_predictions(path: Path, labels: Labels) -> Iterator[Listener]:
    """Give what writes every prediction; the file gets its name once all are in it.

    Raises `OutputError` where it cannot be written, `MissingExtraError` without pyarrow.
    """
    part = part_of(path)
    try:
        with _naming(path):
            rows = _Rows(part, labels)

        def write(batch: Batch) -> None:
            with _naming(path):
                rows.add(batch)

        yield write
        with _naming(path):
            rows.close()
            part.replace(path.resolve())
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise OutputError(f"cannot write {path}: {exc.strerror or exc}") from exc


class _Rows:
    """Takes batches in order and writes their rows in groups; `close` writes the footer.

    Columns: `source`; `truth`, `truth_label`; `top5` (structs of index, wnid, label, probability,
    best first); `probability_of_truth`; `correct`; `error`. An unreadable image has only the first
    three and the last.
    """

    def __init__(self, path: Path, labels: Labels) -> None:
        require_parquet()
        import pyarrow.parquet as pq

        self._labels = labels
        self._schema = _schema()
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[dict[str, Any]] = []

    def add(self, batch: Batch) -> None:
        """Keep a batch's rows."""
        rows = iter(batch.scored.probabilities)
        for source, truth, error in zip(
            batch.sources, batch.truths, batch.scored.errors, strict=True
        ):
            self._rows.append(
                {
                    "source": source.encode("utf-8", "backslashreplace").decode(),
                    "truth": truth,
                    "truth_label": self._labels[truth].name,
                    "error": error,
                }
                | (self._scores(next(rows), truth) if error is None else {})
            )
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def _scores(self, row: np.ndarray[Any, Any], truth: int) -> dict[str, Any]:
        top = top_classes(row, self._labels, TOP)
        return {
            "top5": [score.to_dict() for score in top],
            "probability_of_truth": float(row[truth]),
            "correct": top[0].index == truth,
        }

    def close(self) -> None:
        """Write the remaining rows and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows = []


def _schema() -> Any:
    import pyarrow as pa

    score = pa.struct(
        [
            ("index", pa.int32()),
            ("wnid", pa.string()),
            ("label", pa.string()),
            ("probability", pa.float64()),
        ]
    )
    return pa.schema(
        [
            ("source", pa.string()),
            ("truth", pa.int32()),
            ("truth_label", pa.string()),
            ("top5", pa.list_(score)),
            ("probability_of_truth", pa.float64()),
            ("correct", pa.bool_()),
            ("error", pa.string()),
        ]
    )
