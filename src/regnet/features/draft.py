"""A file of embeddings while it is written, so that an interrupted run resumes.

Rows and lines are appended to two files beside the result: FILE.part and FILE.part.jsonl. What a
kill tears is cut off when the next run opens them.
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from regnet.data.sources import Item, Video
from regnet.features.embeddings_file import KEY, Description, is_parquet, sidecar, stamp_of
from regnet.inference.result import readable
from regnet.system.errors import OutputError
from regnet.system.files import is_stream, whole_file
from regnet.system.json_text import json_bytes
from regnet.system.output_file import naming, part_of

Line = dict[str, Any]
"""What the sidecar has of a photo: row, source, stamp, digest, perhaps timestamp and error."""

_TOGETHER: Final = 1024  # rows of a Parquet group


@contextmanager
def open_draft(path: Path, description: Description) -> Iterator["Draft"]:
    """Give the draft of a file, as an interrupted run of the same description left it.

    The files of the draft stay if the block raises. Raises `OutputError`, also if another process
    writes the same file.
    """
    from filelock import FileLock, Timeout

    if not path.name or path.is_dir() or is_stream(path):
        raise OutputError(f"cannot write {path}: name a file of .npy or .parquet")
    path = path.resolve()
    lock = FileLock(path.with_name(f"{path.name}.lock"), blocking=False)
    try:
        with naming(path):
            lock.acquire()
    except Timeout as exc:
        raise OutputError(f"{path}: another process is writing it") from exc
    with lock, ExitStack() as stack:
        stack.callback(Path(lock.lock_file).unlink, missing_ok=True)
        with naming(path):
            draft = stack.enter_context(closing(Draft(path, description)))
            yield draft


class Draft:
    """The open files of a draft. For one thread."""

    def __init__(self, path: Path, description: Description) -> None:
        self._path, self._rows_path = path, part_of(path)
        self._lines_path = sidecar(self._rows_path)
        self.description = description
        self._npy = replace(description, rows=0, failed=0).npy_head()
        self._row_bytes = np.dtype(description.dtype).itemsize * description.width
        self._rows, self._lines = (_opened(p) for p in (self._rows_path, self._lines_path))
        first = description.line()
        if self._lines.readline() != first or self._rows.read(len(self._npy)) != self._npy:
            for file, head in ((self._lines, first), (self._rows, self._npy)):
                file.seek(0)
                file.truncate()
                file.write(head)
                file.flush()

    def resume(self, items: Iterator[Item]) -> Iterator[Item]:
        """Keep the lines of the first photos if they are those of the items; return the others.

        What comes after a video, or a file that has changed, is embedded again.
        """
        end = self._lines.tell()
        for line, length in self._intact():
            item = next(items, None)
            if item is None:
                break
            same = (item.source, stamp_of(item.source)) == (line.get("source"), line.get("stamp"))
            if isinstance(item, Video) or not same:
                items = chain([item], items)
                break
            end += length
            self._count(line)
        self._lines.seek(end)
        self._lines.truncate()
        self._rows.seek(len(self._npy) + self.description.rows * self._row_bytes)
        self._rows.truncate()
        return items

    def add(self, line: Line, vector: NDArray[np.float32] | None) -> None:
        """Write a photo; it outlives the process. Raises `OutputError` for what float16 lacks."""
        row = None if vector is None else self.description.rows
        if vector is not None:
            try:
                with np.errstate(over="raise"):
                    stored = np.ascontiguousarray(vector, np.dtype(self.description.dtype))
            except FloatingPointError as exc:
                raise OutputError(
                    f"{readable(line['source'])}: its embedding has values beyond float16: take "
                    "--dtype float32, or --normalise"
                ) from exc
            self._rows.write(stored.tobytes())
            self._rows.flush()
        self._lines.write(json_bytes({"row": row, **line}) + b"\n")
        self._lines.flush()
        self._count({"row": row})

    def complete(self) -> None:
        """Give the result its name, and remove the draft."""
        if is_parquet(self._path):
            self._write_parquet()
            self.discard()
            return
        for file, head in (
            (self._rows, self.description.npy_head()),
            (self._lines, self.description.line()),
        ):
            file.seek(0)
            file.write(head)
            file.flush()
            os.fsync(file.fileno())
        self.close()
        sidecar(self._path).unlink(missing_ok=True)  # an older one is never beside new rows
        self._rows_path.replace(self._path)
        self._lines_path.replace(sidecar(self._path))

    def discard(self) -> None:
        """Remove the draft."""
        self.close()
        for path in (self._rows_path, self._lines_path):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files."""
        self._rows.close()
        self._lines.close()

    def _count(self, line: Line) -> None:
        done = self.description
        failed = line["row"] is None
        self.description = replace(done, rows=done.rows + (not failed), failed=done.failed + failed)

    def _intact(self) -> Iterator[tuple[Line, int]]:
        """Yield the whole lines, with their lengths, whose rows are whole."""
        size = self._rows.seek(0, os.SEEK_END) - len(self._npy)
        rows = 0
        for text in self._lines:
            try:
                line = json.loads(text)
                is_whole = text.endswith(b"\n") and line["row"] in (None, rows)
            except (ValueError, KeyError, TypeError):
                return
            rows += line["row"] is not None
            if not is_whole or rows * self._row_bytes > size:
                return
            yield line, len(text)

    def _write_parquet(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        width, dtype = self.description.width, np.dtype(self.description.dtype)
        kind = pa.list_(pa.from_numpy_dtype(dtype), width)
        text, number = pa.string(), pa.float64()
        schema = pa.schema(
            [("source", text), ("timestamp", number), ("embedding", kind), ("error", text)],
            {KEY: self.description.line()},
        )
        self._rows.seek(len(self._npy))
        self._lines.seek(len(self.description.line()))
        with whole_file(self._path) as file, pq.ParquetWriter(file, schema) as writer:
            while lines := list(map(json.loads, islice(self._lines, _TOGETHER))):
                missing = np.array([line["row"] is None for line in lines])
                vectors = np.zeros((len(lines), width), dtype)
                count = int((~missing).sum())
                data = self._rows.read(count * self._row_bytes)
                vectors[~missing] = np.frombuffer(data, dtype).reshape(count, width)
                flat, mask = pa.array(vectors.ravel()), pa.array(missing)
                columns = {
                    "source": [readable(line["source"]) for line in lines],
                    "timestamp": [line.get("timestamp") for line in lines],
                    "embedding": pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=mask),
                    "error": [line.get("error") for line in lines],
                }
                writer.write_table(pa.table(columns, schema))


def _opened(path: Path) -> BinaryIO:
    path.touch()
    return path.open("r+b")
