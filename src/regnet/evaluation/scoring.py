"""Labelled images through a model, batch by batch: figures, worst mistakes, unreadable images.

Knows no engine and no file format. Memory does not grow with the number of images.
"""

import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, tee
from typing import Final

import numpy as np
from numpy.typing import NDArray

from regnet.data.labelled import Dataset, LabelledItem, Unreadable
from regnet.evaluation.journal import Journal
from regnet.inference.decoding import DecodePool, Pixels, decoded
from regnet.inference.predictors import Predictor
from regnet.statistics.metrics import Metrics, Tally
from regnet.system.errors import DatasetError
from regnet.system.parallel import cores, in_order

WORST: Final = 24  # mistakes that are kept: those of the highest probability
FAILURES: Final = 100  # unreadable images that are kept by name; all are counted
_PAIRS: Final = 10_000  # of confused classes, for plots


@dataclass(frozen=True, eq=False)
class ScoredBatch:
    """A batch of images with the model's answers.

    `errors` has one entry per image, None if it was readable; `probabilities` (readable, classes)
    has a row for each readable one, in the same order.
    """

    sources: tuple[str, ...]
    truths: tuple[int, ...]
    errors: tuple[str | None, ...]
    probabilities: NDArray[np.float32]

    @property
    def readable(self) -> list[int]:
        """The positions of the readable images."""
        return [place for place, error in enumerate(self.errors) if error is None]

    @property
    def readable_truths(self) -> NDArray[np.int64]:
        """The true classes of the readable images (readable,)."""
        return np.array([self.truths[place] for place in self.readable], np.int64)

    @property
    def hits(self) -> int:
        """How many of the readable images have the truth as their most probable class."""
        return int((self.probabilities.argmax(axis=1) == self.readable_truths).sum())


@dataclass(frozen=True)
class Mistake:
    """An image taken for `predicted` with `probability`; the truth got `of_truth`."""

    source: str
    truth: int
    predicted: int
    probability: float
    of_truth: float


@dataclass(frozen=True)
class Scores:
    """The result of scoring a data set.

    `metrics` are over the readable images, and under `strict` over all. `worst` has the mistakes
    of highest probability first, `failures` the first of `unreadable` images. `resumed` images
    were taken from the journal of an earlier run, `images` were scored in this one, in `seconds`.
    """

    metrics: Metrics
    worst: tuple[Mistake, ...]
    failures: tuple[Unreadable, ...]
    unreadable: int
    resumed: int
    images: int
    seconds: float

    @property
    def images_per_s(self) -> float | None:
        """Images a second of this run, from bytes to probabilities; None where it had none."""
        return self.images / self.seconds if self.images else None


Listener = Callable[[ScoredBatch], None]


def score(
    predictor: Predictor,
    dataset: Dataset,
    *,
    strict: bool = False,
    record: Journal | None = None,
    listeners: Sequence[Listener] = (),
) -> Scores:
    """Return the figures of a model on labelled images.

    An unreadable image is counted apart, under `strict` as a wrong answer. Images in the journal
    `record` are not scored again; each batch, old or new, goes to the `listeners` in order.
    Batches have the predictor's size and begin at its multiples whatever was kept, so a resumed run
    gives the same figures to the last bit. Raises `DatasetError` where the images are not those of
    the record.
    """
    items = dataset.items()
    counts = _Counts(len(predictor.metadata.labels), strict=strict)

    hear: tuple[Listener, ...] = (counts, *listeners)

    def tell(batch: ScoredBatch) -> None:
        for listener in hear:
            listener(batch)

    for errors, probabilities in record.replay() if record else ():
        known = list(islice(items, len(errors)))
        if len(known) != len(errors):
            raise DatasetError(
                "the images are fewer than were scored before: start over with --fresh"
            )
        tell(_batch(known, errors, probabilities))
    counts.resumed = counts.images
    start = time.perf_counter()
    images = _decoded_ahead(predictor, items)
    chunks = iter(lambda: list(islice(images, predictor.batch)), [])
    for batch in in_order(chunks, partial(_score, predictor), workers=cores(), batch_size=1):
        if record:
            record.append(batch.errors, batch.probabilities)
        tell(batch)
    return counts.result(time.perf_counter() - start)


def _batch(
    items: Sequence[LabelledItem], errors: Sequence[str | None], rows: NDArray[np.float32]
) -> ScoredBatch:
    sources, truths = tuple(item.source for item in items), tuple(item.truth for item in items)
    return ScoredBatch(sources, truths, tuple(errors), rows)


def _decoded_ahead(
    predictor: Predictor, items: Iterator[LabelledItem]
) -> Iterator[tuple[LabelledItem, Pixels | None]]:
    """Yield images with their pixels, or why there are none, if processes decode; else None."""
    if not predictor.outruns_decoding:
        yield from ((item, None) for item in items)
        return
    items, same = tee(items)
    with closing(DecodePool(predictor)) as pool:
        images = pool.ahead((item.source, item.read) for item in same)
        yield from ((item, pixels) for item, (_, pixels) in zip(items, images, strict=True))


def _score(
    predictor: Predictor, chunks: list[list[tuple[LabelledItem, Pixels | None]]]
) -> list[ScoredBatch]:
    """Return each chunk with the model's answers on the images that can be read."""
    batches = []
    for images in chunks:
        every = [
            decoded(predictor.pixels, (item.source, item.read)) if pixels is None else pixels
            for item, pixels in images
        ]
        readable = [pixels for pixels in every if not isinstance(pixels, str)]
        errors = [pixels if isinstance(pixels, str) else None for pixels in every]
        empty = np.empty((0, len(predictor.metadata.labels)))
        rows = predictor.outputs(readable).probabilities if readable else empty
        batches.append(_batch([item for item, _ in images], errors, np.asarray(rows, np.float32)))
    return batches


@dataclass
class _Counts:
    """Listens to all batches and keeps what the result needs."""

    classes: int
    strict: bool
    images: int = 0
    unreadable: int = 0
    resumed: int = 0
    failures: list[Unreadable] = field(default_factory=list)
    _worst: list[tuple[float, int, Mistake]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tally = Tally(self.classes)

    def __call__(self, batch: ScoredBatch) -> None:
        self._tally.update(batch.probabilities, batch.readable_truths)
        for source, truth, error in zip(batch.sources, batch.truths, batch.errors, strict=True):
            if error is None:
                continue
            self.unreadable += 1
            if self.strict:
                self._tally.unreadable([truth])
            if len(self.failures) < FAILURES:
                self.failures.append(Unreadable(source, error))
        self._keep_worst(batch)
        self.images += len(batch.sources)

    def _keep_worst(self, batch: ScoredBatch) -> None:
        """Push the mistakes on the heap, off which the least falls; of equals the earlier stays."""
        rows, truths, readable = batch.probabilities, batch.readable_truths, batch.readable
        predicted = rows.argmax(axis=1)
        for row in np.flatnonzero(predicted != truths).tolist():
            answer, truth = int(predicted[row]), int(truths[row])
            confidence = float(rows[row, answer])
            source = batch.sources[readable[row]]
            mistake = Mistake(source, truth, answer, confidence, float(rows[row, truth]))
            heapq.heappush(self._worst, (confidence, -(self.images + readable[row]), mistake))
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
