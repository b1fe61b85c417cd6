"""Labelled images through a model, batch by batch: figures, worst mistakes, unreadable images.

Knows no engine and no file format. Memory does not grow with the number of images.
"""

import heapq
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from regnet.data.labelled import Dataset, LabelledItem
from regnet.inference.predictors import Predictor
from regnet.statistics.metrics import Metrics, Tally
from regnet.system.errors import DatasetError, ImageError
from regnet.system.notices import about
from regnet.system.parallel import BATCH_SIZE, cores, in_order

WORST: Final = 24
"""Mistakes that are kept: those of the highest probability."""

FAILURES: Final = 100
"""Unreadable images that are kept by name; all are counted."""

_PAIRS: Final = 10_000  # of confused classes, for plots

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Scored:
    """What a model said of a batch.

    `errors` has one entry an image, None for the readable ones; `probabilities` (readable, classes)
    a row for each of those, in the same order.
    """

    errors: tuple[str | None, ...]
    probabilities: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ScoredBatch:
    """Images side by side with what the model said of them."""

    sources: tuple[str, ...]
    truths: tuple[int, ...]
    scored: Scored

    @property
    def readable(self) -> list[int]:
        """The places of the images that could be read; each has its row of probabilities."""
        return [place for place, error in enumerate(self.scored.errors) if error is None]

    @property
    def readable_truths(self) -> NDArray[np.int64]:
        """The true classes of the readable images (readable,)."""
        return np.array([self.truths[place] for place in self.readable], np.int64)

    @property
    def hits(self) -> int:
        """How many of the readable images have the truth as their most probable class."""
        return int((self.scored.probabilities.argmax(axis=1) == self.readable_truths).sum())


@dataclass(frozen=True)
class Mistake:
    """An image taken for `predicted` with `probability`; the truth got `of_truth`."""

    source: str
    truth: int
    predicted: int
    probability: float
    of_truth: float


@dataclass(frozen=True)
class Failure:
    """An image that could not be read, and why."""

    source: str
    error: str


@dataclass(frozen=True)
class Scores:
    """What scoring a data set gave.

    `metrics` are over the readable images, and under `strict` over all. `worst` has the mistakes
    of highest probability first, `failures` the first of `unreadable` images. `resumed` images
    were taken from the journal of an earlier run, `images` were scored in this one, in `seconds`.
    """

    metrics: Metrics
    worst: tuple[Mistake, ...]
    failures: tuple[Failure, ...]
    unreadable: int
    resumed: int
    images: int
    seconds: float

    @property
    def images_per_s(self) -> float | None:
        """Images a second of this run, from bytes to probabilities; None where it had none."""
        return self.images / self.seconds if self.images else None


class Record(Protocol):
    """Where batches are kept in case the run is interrupted."""

    def replay(self) -> Iterator[Scored]:
        """Yield what an earlier run has scored, from the first image on."""

    def append(self, scored: Scored) -> None:
        """Keep the next batch."""


Listener = Callable[[ScoredBatch], None]


def score(
    predictor: Predictor,
    dataset: Dataset,
    *,
    strict: bool = False,
    record: Record | None = None,
    listeners: Sequence[Listener] = (),
) -> Scores:
    """Return the figures of a model on labelled images.

    An unreadable image is counted apart, under `strict` as a wrong answer. What `record` kept of
    an earlier run is not scored again; each batch, kept or new, goes to the `listeners` in order.
    Batches begin at every eighth image whatever was kept, so a resumed run gives the same figures
    to the last bit. Raises `DatasetError` where the images are not those of the record.
    """
    items = dataset.items()
    counts = _Counts(len(predictor.metadata.labels), strict=strict)
    hear: tuple[Listener, ...] = (counts, *listeners)
    for scored in record.replay() if record else ():
        _tell(hear, ScoredBatch(*_names(_taken(items, len(scored.errors))), scored))
    counts.resumed = counts.images
    start = time.perf_counter()
    jobs = _chunks(items, BATCH_SIZE)
    work = partial(_work, predictor)
    for batch in in_order(jobs, work, workers=cores(), batch_size=1):
        if record:
            record.append(batch.scored)
        _tell(hear, batch)
    return counts.result(time.perf_counter() - start)


def _tell(listeners: Iterable[Listener], batch: ScoredBatch) -> None:
    for listener in listeners:
        listener(batch)


def _taken(items: Iterator[LabelledItem], count: int) -> list[LabelledItem]:
    taken = list(itertools.islice(items, count))
    if len(taken) != count:
        raise DatasetError("the images are fewer than were scored before: start over with --fresh")
    return taken


def _chunks(items: Iterator[T], size: int) -> Iterator[list[T]]:
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def _names(items: list[LabelledItem]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return tuple(item.source for item in items), tuple(item.truth for item in items)


def _work(predictor: Predictor, jobs: list[list[LabelledItem]]) -> list[ScoredBatch]:
    return [ScoredBatch(*_names(items), _scored(predictor, items)) for items in jobs]


def _scored(predictor: Predictor, items: list[LabelledItem]) -> Scored:
    """Return what the model says of the images that can be read."""
    pixels: list[NDArray[Any]] = []
    errors: list[str | None] = []
    for item in items:
        try:
            with about(item.source):
                pixels.append(predictor.pixels(item.read()))
            errors.append(None)
        except ImageError as exc:
            errors.append(str(exc))
    classes = len(predictor.metadata.labels)
    rows = predictor.outputs(pixels).probabilities if pixels else np.empty((0, classes))
    return Scored(tuple(errors), np.asarray(rows, np.float32))


@dataclass
class _Counts:
    """Listens to all batches and keeps what the result needs."""

    classes: int
    strict: bool
    images: int = 0
    unreadable: int = 0
    resumed: int = 0
    failures: list[Failure] = field(default_factory=list)
    _worst: list[tuple[float, int, Mistake]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tally = Tally(self.classes)

    def __call__(self, batch: ScoredBatch) -> None:
        self._tally.update(batch.scored.probabilities, batch.readable_truths)
        for place, error in enumerate(batch.scored.errors):
            if error is not None:
                self._fail(batch, place, error)
        self._keep_worst(batch)
        self.images += len(batch.sources)

    def _fail(self, batch: ScoredBatch, place: int, error: str) -> None:
        self.unreadable += 1
        if self.strict:
            self._tally.unreadable([batch.truths[place]])
        if len(self.failures) < FAILURES:
            self.failures.append(Failure(batch.sources[place], error))

    def _keep_worst(self, batch: ScoredBatch) -> None:
        """Push the mistakes on the heap, off which the least falls; of equals the earlier stays."""
        rows, truths = batch.scored.probabilities, batch.readable_truths
        predicted = rows.argmax(axis=1)
        for row in np.flatnonzero(predicted != truths).tolist():
            place = batch.readable[row]
            sure, of_truth = float(rows[row, predicted[row]]), float(rows[row, truths[row]])
            mistake = Mistake(
                batch.sources[place], int(truths[row]), int(predicted[row]), sure, of_truth
            )
            heapq.heappush(self._worst, (sure, -(self.images + place), mistake))
            if len(self._worst) > WORST:
                heapq.heappop(self._worst)

    def result(self, seconds: float) -> Scores:
        return Scores(
            metrics=self._tally.result(confused=_PAIRS),
            worst=tuple(mistake for _, _, mistake in sorted(self._worst, reverse=True)),
            failures=tuple(self.failures),
            unreadable=self.unreadable,
            resumed=self.resumed,
            images=self.images - self.resumed,
            seconds=seconds,
        )
