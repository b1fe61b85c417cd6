"""Files of embeddings: `.npy` with a sidecar of sources in JSON lines, or Parquet.

The first line of the sidecar describes the file, each other one a photo: its row in the .npy, or
its error. It is as long before the number of rows is known, so that it is completed in place.
"""

import io
import json
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from regnet.ir.metadata import InferencePrecision
from regnet.system.checked import Checked, Rule
from regnet.system.devices import CPU
from regnet.system.errors import DatasetError, MissingExtraError, ModelError
from regnet.system.files import is_file_name
from regnet.system.json_text import json_bytes
from regnet.system.text import last_line

DType = Literal["float32", "float16"]
Block = tuple[NDArray[np.int64], NDArray[Any]]
"""Numbers of rows (n,), and these rows (n, width)."""

PARQUET: Final = ".parquet"
SUFFIXES: Final = (".npy", PARQUET)
KEY: Final = b"regnet_embeddings"
"""The key of the description in a Parquet file's metadata."""

_NO_ROW: Final = b'{"row": null'
_ROOM: Final = 32  # characters more, for the numbers of rows and failures
_CHUNK: Final = 1 << 20  # bytes
_BLOCK: Final = 1024  # rows, few enough to stay in the processor's cache


@dataclass(frozen=True, kw_only=True)
class Description(Checked, error=ModelError):
    """How embeddings were made: `model` as it was named, what identifies its `features`, the rest.

    Files of older versions do not name the `device`; nearly all are of the CPU.
    Embeddings can be compared if their `features` are the same. `rows` have a vector, `failed`
    photos an error.
    """

    model: str
    features: str
    precision: InferencePrecision
    width: int
    dtype: DType
    normalised: bool
    device: str = CPU
    rows: int = 0
    failed: int = 0

    def line(self) -> bytes:
        """Return the first line of a sidecar; its length does not depend on `rows` and `failed`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        counts = len(f"{self.rows}{self.failed}")
        return json_bytes(values) + b" " * (_ROOM - counts) + b"\n"

    @classmethod
    def read(cls, text: bytes, source: Path) -> Self:
        """Return what `line` wrote; raises `ModelError`."""
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, RecursionError, ModelError) as exc:
            raise ModelError(f"{source}: does not describe embeddings; embed them again") from exc

    def npy_head(self) -> bytes:
        """Return the first bytes of the .npy, always as many."""
        buffer = io.BytesIO()
        shape = (self.rows, self.width)
        descr = np.dtype(self.dtype).newbyteorder("<").str
        head = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(buffer, head)
        return buffer.getvalue()


def sidecar(path: Path) -> Path:
    """Return the file of sources beside an .npy."""
    return path.with_name(f"{path.name}.jsonl")


@dataclass(frozen=True)
class Photo(Checked, error=ModelError):
    """Where a row comes from: an image, or the frame of a video at `timestamp`."""

    source: Annotated[str, Rule("that can name a file", is_file_name)]
    timestamp: float | None = None


@dataclass(frozen=True)
class Embeddings:
    """An open file of embeddings; little of it is in memory. Raises `DatasetError` if damaged."""

    path: Path
    description: Description

    def blocks(self) -> Iterator[Block]:
        """Yield all rows, a few at a time."""
        if is_parquet(self.path):
            with self._reading():
                yield from self._parquet_blocks()
            return
        for start in range(0, len(self.vectors), _BLOCK):
            rows = self.vectors[start : start + _BLOCK]
            yield np.arange(start, start + len(rows)), rows

    @cached_property
    def vectors(self) -> NDArray[Any]:
        """The rows (N, width) of an .npy, which stay on disk."""
        try:
            vectors: NDArray[Any] = np.lib.format.open_memmap(self.path, mode="r")
        except (
            OSError,
            ValueError,
            ArithmeticError,
            MemoryError,
            RecursionError,
            SyntaxError,
            TokenError,
        ) as exc:
            raise self._damaged(last_line(exc)) from exc
        made = self.description
        if (vectors.shape, vectors.dtype) != ((made.rows, made.width), np.dtype(made.dtype)):
            raise self._damaged(f"{sidecar(self.path).name} is of another file")
        return vectors

    def photos(self, rows: Collection[int]) -> dict[int, Photo]:
        """Return the photos of these rows."""
        with self._reading():
            if is_parquet(self.path):
                return self._parquet_photos(rows)
            return self._sidecar_photos(rows)

    def _sidecar_photos(self, rows: Collection[int]) -> dict[int, Photo]:
        text = np.memmap(sidecar(self.path), np.uint8, "r")
        ends = np.concatenate(
            [
                start + np.flatnonzero(text[start : start + _CHUNK] == ord("\n"))
                for start in range(0, len(text), _CHUNK)
            ]
        )
        starts = ends[:-1] + 1
        has_row = text[starts + len(_NO_ROW) - len("null")] != ord("n")
        starts, ends = starts[has_row], ends[1:][has_row]
        if len(starts) != self.description.rows:
            raise self._damaged(f"{sidecar(self.path).name} ends too early")
        lines = {row: json.loads(bytes(text[starts[row] : ends[row]])) for row in rows}
        self._require_order(all(line["row"] == row for row, line in lines.items()))
        return {r: Photo(line["source"], line.get("timestamp")) for r, line in lines.items()}

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield all rows and their lines of the sidecar."""
        with self._reading(), sidecar(self.path).open("rb") as file:
            file.readline()
            texts = (text for text in file if not text.startswith(_NO_ROW))
            for row, text in zip(range(self.description.rows), texts, strict=True):
                line = json.loads(text)
                self._require_order(line["row"] == row)
                yield row, line

    def _require_order(self, is_right: bool) -> None:
        if not is_right:
            raise self._damaged(f"the rows of {sidecar(self.path).name} are not in order")

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Raise `DatasetError` for what reading damaged or foreign content raises."""
        try:
            yield
        except (
            OSError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            RuntimeError,
            ModelError,
        ) as exc:
            raise self._damaged(last_line(exc)) from exc

    def _damaged(self, why: str) -> DatasetError:
        return DatasetError(f"{self.path}: is damaged ({why}); embed the photos again")

    def _parquet_blocks(self) -> Iterator[Block]:
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        first, made = 0, self.description
        file = pq.ParquetFile(self.path)
        if file.metadata.num_rows != made.rows + made.failed:
            raise self._damaged("its description is of another file")
        for batch in file.iter_batches(_BLOCK, columns=["embedding"]):
            column = batch.column(0)
            numbers = first + np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
            rows = column.drop_null()
            flat, widths = rows.flatten(), pc.list_value_length(rows).to_numpy()
            if not pa.types.is_floating(flat.type) or (widths != made.width).any():
                raise self._damaged(f"its embeddings are not {made.width} floats each")
            yield numbers, flat.to_numpy(zero_copy_only=False).reshape(-1, made.width)
            first += len(column)

    def _parquet_photos(self, rows: Collection[int]) -> dict[int, Photo]:
        import pyarrow.parquet as pq

        numbers = list(rows)
        table = pq.read_table(self.path, columns=["source", "timestamp"]).take(numbers)
        columns = (table.column(name).to_pylist() for name in ("source", "timestamp"))
        return {n: Photo(*values) for n, *values in zip(numbers, *columns, strict=True)}


def is_parquet(path: Path) -> bool:
    """Tell a Parquet file by its name."""
    return path.suffix.lower() == PARQUET


def is_embeddings_file(path: Path) -> bool:
    """Tell a file that `regnet embed` writes by its name, a Parquet file by what is in it."""
    if is_parquet(path) and path.is_file():
        return _parquet_description(path) is not None
    return path.suffix.lower() == ".npy"


def open_embeddings(path: Path) -> Embeddings:
    """Open a file of embeddings. Raises `DatasetError`, and `ModelError` for another file."""
    if not path.is_file():
        raise DatasetError(f"{path}: no such file")
    if is_parquet(path):
        text = _parquet_description(path)
        if text is None:
            raise ModelError(f"{path}: does not describe embeddings; embed them again")
        return Embeddings(path, Description.read(text, path))
    if not sidecar(path).is_file():
        raise DatasetError(
            f"{path}: its sources {sidecar(path).name} are missing; `regnet embed` writes both"
        )
    with sidecar(path).open("rb") as file:
        found = Embeddings(path, Description.read(file.readline(), sidecar(path)))
    found.vectors.shape  # noqa: B018  (raises)
    return found


def _parquet_description(path: Path) -> bytes | None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as exc:
        raise MissingExtraError("reading Parquet", "parquet") from exc
    try:
        text: bytes | None = (pq.read_schema(path).metadata or {}).get(KEY)
    except (OSError, ValueError, pa.ArrowException) as exc:
        raise DatasetError(f"{path}: is not a whole Parquet file ({last_line(exc)})") from exc
    return text


def stamp_of(source: str) -> str | None:
    """Return size and time of the file that a photo is (in); None for addresses and the like."""
    path = Path(source)
    for place in (path, Path(source.rpartition("#")[0]), *path.parents):  # data.parquet#3
        with suppress(OSError, ValueError):
            status = place.stat()
            is_file = stat.S_ISREG(status.st_mode)
            return f"{status.st_size}-{status.st_mtime_ns}" if is_file else None
    return None
