"""Photos to a file of embeddings: streaming, resumed after an interrupt, updated if it exists."""

import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.data.sources import Item, Video
from regnet.features.draft import Line, open_draft
from regnet.features.embeddings_file import (
    SUFFIXES,
    Description,
    DType,
    is_parquet,
    open_embeddings,
    stamp_of,
)
from regnet.inference.classify import Classifier
from regnet.inference.result import Embedding
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.system.errors import DatasetError, ImageError, OutputError, RegNetError
from regnet.system.json_text import ToDict
from regnet.system.output_file import naming
from regnet.system.row_writers import require_parquet

Show = Callable[[Iterator[Any]], Iterator[Any]]

TINY: Final = np.float32(1e-12)
"""Vectors that are shorter count as zeros."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """How embeddings are stored, and computed in which precision by a model of which name."""

    model: str
    precision: InferencePrecision = "f32"
    dtype: DType = "float32"
    normalise: bool = False

    def describe(self, classifier: Classifier) -> Description:
        """Return the description of a file; raises `ModelError` for a model without features."""
        return Description(
            model=self.model,
            features=features_id(classifier.metadata),
            precision=self.precision,
            width=classifier.width,
            dtype=self.dtype,
            normalised=self.normalise,
            device=classifier.device,
        )


@dataclass(frozen=True, kw_only=True)
class Summary(ToDict):
    """A written file: `rows` with a vector, and how many photos `failed`.

    `embedded` rows were computed in this run, `reused` ones in an earlier run. `first_error` is
    that of the first photo that failed in this run.
    """

    file: Path
    model: str
    width: int
    dtype: DType
    normalised: bool
    rows: int
    failed: int
    embedded: int
    reused: int
    seconds: float
    first_error: str | None


def features_id(metadata: ModelMetadata) -> str:
    """Return what two models have in common if their embeddings can be compared."""
    protocol = metadata.preprocess.to_dict() | {"name": ""}
    parts = [metadata.weights_sha384, metadata.precision, protocol]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def normalised(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return vectors (N, width) of length 1; zeros stay zeros."""
    values = np.asarray(vectors, np.float64)  # whose squares are finite
    lengths = np.sqrt(np.vecdot(values, values))
    unit: NDArray[np.float64] = values / np.maximum(lengths, TINY)[:, None]
    return unit.astype(np.float32)


def require_file(path: Path) -> None:
    """Raise `OutputError` unless a file's name ends as one of embeddings."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path}: embeddings are written to {' or '.join(SUFFIXES)}")
    if is_parquet(path):
        require_parquet()


def embed_to(
    path: Path,
    classifier: Classifier,
    items: Iterable[Item],
    form: Form,
    *,
    batch_size: int | None = None,
    every: float = 1.0,
    show: Show = lambda lines: lines,
) -> Summary:
    """Write the embeddings of items to an .npy with its sidecar, or to a Parquet file.

    An interrupted run leaves FILE.part and FILE.part.jsonl, with which the next one resumes. From
    an existing .npy of the same form, photos are taken that have not changed: files of the same
    name, size and time, or of the same content. `show` gets the photos one by one, for progress.
    Raises `OutputError`, `ModelError` for a model without features, `DatasetError` if no photo
    can be read.
    """
    require_file(path)
    start = time.perf_counter()
    description = form.describe(classifier)
    known = _Known.of(path, description)
    embedded, error = 0, ""
    with naming(path), open_draft(path, description) as draft:
        new = draft.resume(iter(items))
        rows = _in_turn(classifier, new, known, batch_size=batch_size, every=every)
        for note, embedding in show(rows):
            vector = embedding.vector
            if vector is None:
                error = error or f"{embedding.source}: {embedding.error}"
            elif note.row is None:
                embedded += 1
                vector = normalised(vector[None])[0] if form.normalise else vector
            draft.add(note.line(embedding), vector)
        done = draft.description
        if not done.rows:
            draft.discard()
            raise DatasetError(f"no photo could be read: {error}")
        draft.complete()
    return Summary(
        file=path,
        model=form.model,
        width=done.width,
        dtype=form.dtype,
        normalised=form.normalise,
        rows=done.rows,
        failed=done.failed,
        embedded=embedded,
        reused=done.rows - embedded,
        seconds=time.perf_counter() - start,
        first_error=error or None,
    )


@dataclass(frozen=True)
class _Known:
    """The rows of an earlier file, with their hashes: by source and stamp of a photo, by hash."""

    vectors: NDArray[Any]
    by_place: dict[tuple[str, str | None], tuple[int, str]] = field(default_factory=dict)
    by_digest: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, description: Description) -> "_Known":
        """Return those of a file; none if it is of another form, damaged or not there."""
        if not is_parquet(path):
            with suppress(RegNetError, OSError, TypeError, KeyError):
                file = open_embeddings(path)
                known = cls(file.vectors)
                form = replace(file.description, model=description.model, rows=0, failed=0)
                for row, line in file.lines() if form == description else ():
                    if line["stamp"] and "timestamp" not in line:
                        known.by_place[line["source"], line["stamp"]] = row, line["digest"]
                        known.by_digest[line["digest"]] = row
                return known
        return cls(np.empty((0, description.width)))

    def embedding(self, note: "_Note") -> Embedding:
        """Return the embedding of a photo that is known."""
        return Embedding(note.item.source, self.vectors[note.row])


class _Note:
    """A photo in its turn: the row in an earlier file, if it is there, and the hash."""

    def __init__(self, item: Item, known: _Known) -> None:
        self.item, self.stamp = item, stamp_of(item.source)
        self._data: bytes | None = None
        self.row: int | None
        self.row, self.digest = known.by_place.get((item.source, self.stamp), (None, ""))
        if self.row is None and self.stamp and known.by_digest and not self.is_video:
            with suppress(ImageError):  # it is read, and fails, again
                self._data = self._read()
                self.row = known.by_digest.get(self.digest)
        if self.row is not None and not np.isfinite(known.vectors[self.row]).all():
            self.row = None

    @property
    def is_video(self) -> bool:
        """Whether it has many embeddings."""
        return isinstance(self.item, Video)

    def read(self) -> bytes:
        """Return the photo's bytes, whose hash is noted."""
        data, self._data = self._data, None
        return self._read() if data is None else data

    def _read(self) -> bytes:
        data = self.item.read()
        self.digest = hashlib.sha256(data).hexdigest()[:32]
        return data

    def makes(self, embedding: Embedding) -> bool:
        """Tell whether the next computed embedding is of this photo or video."""
        return self.row is None and (not self.is_video or self.item.source == embedding.source)

    def line(self, embedding: Embedding) -> Line:
        """Return what the sidecar has of an embedding."""
        more = {"timestamp": embedding.timestamp, "error": embedding.error}
        line: Line = {"source": self.item.source, "stamp": self.stamp, "digest": self.digest}
        return line | {name: value for name, value in more.items() if value is not None}


def _in_turn(
    classifier: Classifier, items: Iterable[Item], known: _Known, **options: Any
) -> Iterator[tuple[_Note, Embedding]]:
    """Yield the embeddings of all items in their order, those that are known uncomputed."""
    notes: deque[_Note] = deque()

    def unknown() -> Iterator[Item]:
        for item in items:
            notes.append(note := _Note(item, known))
            if note.row is None:
                yield replace(item, read=note.read)

    for embedding in classifier.embed_items(unknown(), **options):
        while not notes[0].makes(embedding):
            note = notes.popleft()
            if note.row is not None:
                yield note, known.embedding(note)
        yield notes[0] if notes[0].is_video else notes.popleft(), embedding
    for note in notes:
        if note.row is not None:
            yield note, known.embedding(note)
