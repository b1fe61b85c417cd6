"""Two pipelines on the same photos, stage by stage: where they part, by how much, what it costs."""

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.comparison.differences import (
    STAGES,
    Array,
    Difference,
    Stage,
    StageDifference,
    difference,
)
from regnet.comparison.sides import Answers, Pair, Rows, Trace
from regnet.data.dataset import open_dataset
from regnet.data.labelled import LabelledItem
from regnet.data.sources import STDIN, Item, count_items, iter_items
from regnet.inference.result import ClassScore, top_classes
from regnet.network.labels import Labels
from regnet.statistics.agreement import Agreement, AgreementTally, margin
from regnet.statistics.metrics import Share
from regnet.statistics.paired_test import PairedTest, paired_test
from regnet.system.errors import DatasetError, ImageError, ModelError
from regnet.system.json_text import ToDict
from regnet.system.notices import about
from regnet.system.parallel import cores, in_order

KEPT_FLIPS: Final = 1000
KEPT_ERRORS: Final = 100

DELTA_EDGES: Final = (0.0, *(10.0**power for power in range(-8, 1)))
"""Photos are counted by their largest difference of a probability: 0, to 1e-8, ..., to 1."""


@dataclass(frozen=True)
class ComparedPhoto:
    """One photo: the name it is reported under, its true class if known, its bytes once wanted."""

    source: str
    truth: int | None
    read: Callable[[], bytes]


@dataclass(frozen=True)
class ComparedPhotos:
    """The photos to compare on. `unlabelled` says why their classes are not known, else None."""

    path: str
    items: Callable[[], Iterator[ComparedPhoto]]
    count: Callable[[], int | None]
    unlabelled: str | None = None

    def find(self, sources: Collection[str]) -> dict[str, ComparedPhoto]:
        """Return the photos of these names, in one pass."""
        found = ((photo.source, photo) for photo in self.items() if photo.source in sources)
        return dict(islice(found, len(set(sources))))


def open_photos(
    path: str, labels: Labels, *, truth: str | None = None, offline: bool = False
) -> ComparedPhotos:
    """Return the photos at a path: a data set whose classes are among the labels, or any photos.

    What `open_dataset` takes is labelled; anything else that `regnet classify` takes is not, unless
    `truth` names a file of labels, which then has to fit. With `offline` photos at addresses are
    errors. Raises `DatasetError`.
    """
    reason = "photos at an address or on standard input have no classes"
    if "://" not in path and path != STDIN:
        try:
            dataset = open_dataset(path, labels, truth=truth, subset=True)
        except DatasetError as exc:
            if truth is not None:
                raise
            reason = str(exc)
        else:
            return ComparedPhotos(path, lambda: map(_photo, dataset.items()), lambda: dataset.count)
    items = partial(iter_items, [path], offline=offline)
    return ComparedPhotos(path, lambda: map(_photo, items()), lambda: count_items([path]), reason)


def _photo(item: Item | LabelledItem) -> ComparedPhoto:
    return ComparedPhoto(item.source, getattr(item, "truth", None), item.read)


@dataclass(frozen=True, order=True)
class FlippedPhoto(ToDict):
    """A photo that the two sides put into different classes.

    `margin` is how sure A was: its highest probability less its second. `a` and `b` are the most
    probable classes with each side's own probability; `truth` is the true class, None if not known.
    """

    margin: float
    source: str
    a: ClassScore = field(compare=False)
    b: ClassScore = field(compare=False)
    truth: int | None = field(compare=False)


@dataclass(frozen=True)
class Accuracy:
    """Both sides' top-1 accuracy on the labelled photos, and whether the difference is chance."""

    a: Share
    b: Share
    test: PairedTest


@dataclass(frozen=True)
class Comparison:
    """What was found on all photos.

    `stages` in their order, `agreement` of B's probabilities with A's, the `flips` that A was
    surest of; `accuracy` where the photos are labelled. `deltas` counts photos by their largest
    difference of a probability, up to each of `DELTA_EDGES`. `errors` are the first photos that
    could not be read, of `unreadable` in all.
    """

    stages: tuple[StageDifference, ...]
    agreement: Agreement
    flips: tuple[FlippedPhoto, ...]
    accuracy: Accuracy | None
    deltas: tuple[int, ...]
    errors: tuple[tuple[str, str], ...]
    unreadable: int

    def stage(self, name: Stage) -> StageDifference:
        """Return a stage by its name."""
        return next(stage for stage in self.stages if stage.stage == name)


@dataclass(frozen=True, eq=False)
class _Batch:
    """What both sides made of a few photos, or why those could not be read."""

    photos: list[ComparedPhoto] = field(default_factory=list)
    differences: list[dict[Stage, Difference]] = field(default_factory=list)
    a: Rows | None = None
    b: Rows | None = None
    errors: list[tuple[str, str]] = field(default_factory=list)


class ComparisonTally:
    """Compares photo after photo, and forgets them but for the `keep` flips of largest margin.

    `result` may be asked for at any time, as when interrupted.
    """

    def __init__(self, pair: Pair, *, keep: int = KEPT_FLIPS) -> None:
        self._pair, self._keep = pair, keep
        self._stages = {stage: StageDifference(stage, _hidden(pair, stage)) for stage in STAGES}
        self._agreement = AgreementTally(keep=0)
        self._flips: list[FlippedPhoto] = []
        self._right = np.zeros((2, 2), np.int64)
        self._labelled = True
        self._deltas = np.zeros(len(DELTA_EDGES), np.int64)
        self._errors: list[tuple[str, str]] = []
        self._unreadable = 0

    @property
    def photos(self) -> int:
        """How many photos were compared so far."""
        return int(self._deltas.sum())

    def run(self, photos: Iterable[ComparedPhoto]) -> None:
        """Compare these photos on all cores and count them, in their order."""
        for batch in in_order(photos, partial(_compared, self._pair), workers=cores()):
            self._add(batch)

    def _add(self, batch: _Batch) -> None:
        self._unreadable += len(batch.errors)
        self._errors += batch.errors[: KEPT_ERRORS - len(self._errors)]
        if batch.a is None or batch.b is None:
            return
        try:
            self._agreement.update(batch.a, batch.b)
        except ValueError as exc:
            raise ModelError(f"{self._pair.a.title} and {self._pair.b.title}: {exc}") from exc
        for photo, differences in zip(batch.photos, batch.differences, strict=True):
            for stage, one in differences.items():
                self._stages[stage].add(photo.source, one)
        largest = np.abs(batch.a.astype(np.float64) - batch.b).max(axis=1)
        places = np.searchsorted(DELTA_EDGES[:-1], largest)
        self._deltas += np.bincount(places, minlength=len(DELTA_EDGES))
        self._add_top1(batch.photos, batch.a, batch.b)

    def _add_top1(self, photos: list[ComparedPhoto], p: NDArray[Any], q: NDArray[Any]) -> None:
        first, second = p.argmax(axis=1), q.argmax(axis=1)
        for row in np.flatnonzero(first != second).tolist():
            a, b = (top_classes(x[row], self._pair.labels, 1)[0] for x in (p, q))
            sure = float(margin(p[row : row + 1].astype(np.float64))[0])
            flip = FlippedPhoto(sure, photos[row].source, a, b, photos[row].truth)
            heapq.heappush(self._flips, flip)
            if len(self._flips) > self._keep:
                heapq.heappop(self._flips)
        for photo, x, y in zip(photos, first.tolist(), second.tolist(), strict=True):
            if photo.truth is None:
                self._labelled = False
            else:
                self._right[int(x == photo.truth), int(y == photo.truth)] += 1

    def result(self) -> Comparison:
        """Return what was found so far; raises `DatasetError` where nothing was."""
        if not self.photos:
            first = f": {self._errors[0][0]}: {self._errors[0][1]}" if self._errors else ""
            raise DatasetError(f"no photo could be compared{first}")
        return Comparison(
            stages=tuple(self._stages.values()),
            agreement=self._agreement.result(),
            flips=tuple(sorted(self._flips, key=lambda flip: (-flip.margin, flip.source))),
            accuracy=self._accuracy() if self._labelled else None,
            deltas=tuple(self._deltas.tolist()),
            errors=tuple(self._errors),
            unreadable=self._unreadable,
        )

    def _accuracy(self) -> Accuracy:
        (neither, only_b), (only_a, both) = self._right.tolist()
        photos = both + only_a + only_b + neither
        return Accuracy(
            Share.of(both + only_a, photos),
            Share.of(both + only_b, photos),
            paired_test(both=both, only_a=only_a, only_b=only_b, neither=neither),
        )


def _hidden(pair: Pair, stage: Stage) -> str | None:
    """Return why a stage cannot be compared, None where it can."""
    reasons = [
        f"{name}: {side.hidden[stage]}"
        for name, side in zip("AB", pair.sides, strict=True)
        if stage in side.hidden
    ]
    return "; ".join(reasons) or None


def _compared(pair: Pair, photos: list[ComparedPhoto]) -> list[_Batch]:
    """Return what both sides make of a batch; photos that cannot be read are left out."""
    read: list[tuple[ComparedPhoto, Trace, Trace]] = []
    errors: list[tuple[str, str]] = []
    for photo in photos:
        try:
            with about(photo.source):
                data = photo.read()
                read.append((photo, pair.a.trace(data), pair.b.trace(data)))
        except ImageError as exc:
            errors.append((photo.source, str(exc)))
    return [*_answered(pair, read), _Batch(errors=errors)]


def _answered(pair: Pair, read: list[tuple[ComparedPhoto, Trace, Trace]]) -> list[_Batch]:
    """Return the batch with both models' answers, or photo by photo where one is refused."""
    if not read:
        return []
    photos, first, second = (list(column) for column in zip(*read, strict=True))
    try:
        a = pair.a.answers([trace.given for trace in first])
        b = pair.answers_b([trace.given for trace in second])
    except ImageError as exc:
        if len(read) == 1:
            return [_Batch(errors=[(photos[0].source, str(exc))])]
        return [batch for one in read for batch in _answered(pair, [one])]
    differences = [
        {stage: difference(x[stage], y[stage]) for stage in x if stage in y}
        for x, y in zip(_values(first, a), _values(second, b), strict=True)
    ]
    return [_Batch(photos, differences, a.probabilities, b.probabilities)]


def _values(traces: Sequence[Trace], answers: Answers) -> Iterator[dict[Stage, Array]]:
    """Yield the values of each photo at the stages that are seen."""
    for row, trace in enumerate(traces):
        values = {**trace.pixels, "probabilities": answers.probabilities[row]}
        if answers.logits is not None:
            values["logits"] = answers.logits[row]
        yield values
