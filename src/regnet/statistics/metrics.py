"""Figures of a classifier from its probabilities and the truth: accuracy, per class, calibration.

A `Tally` takes batches and forgets them, so memory does not grow with the number of images.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

BINS: Final = 15  # confidence bins of the calibration error, as in Guo et al. 2017
Z95: Final = 1.959963984540054
"""The standard normal's 97.5 % quantile: 95 % of it lies within plus and minus this."""

LEAST: Final = float(np.finfo(np.float32).tiny)
"""Keeps the log of a probability finite."""

_ARRAYS: Final = ("support", "predicted", "hits", "bin_images", "bin_hits", "bin_confidence")
_SUM_TOLERANCE: Final = 0.02  # of a row of probabilities; bf16 rounds each by up to 0.4 %


@dataclass(frozen=True)
class Share:
    """`value` = hits / images, in [0, 1], with its 95 % interval from `low` to `high`.

    The interval is Wilson's score interval (J. Am. Stat. Assoc. 22, 1927, p. 209). Of no images the
    value is 0 and the interval all of [0, 1].
    """

    hits: int
    images: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, images: int) -> "Share":
        """Return the share of hits among images; raises `ValueError` unless 0 <= hits <= images."""
        if not 0 <= hits <= images:
            raise ValueError(f"{hits} hits among {images} images")
        if images == 0:
            return cls(0, 0, 0.0, 0.0, 1.0)
        low, high = wilson(hits, images)
        return cls(hits, images, hits / images, low, high)

    def holds(self, value: float) -> bool:
        """Tell whether a value in [0, 1], such as a card's published accuracy, is inside."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class ClassMetrics:
    """One class: `support` images of it, of which `hits` were found; `predicted` images called so.

    precision = hits / predicted, recall = hits / support, f1 = 2 hits / (predicted + support), each
    in [0, 1]; None where it would divide by zero.
    """

    index: int
    support: int
    predicted: int
    hits: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Confusion:
    """`count` images of the class `truth` were taken for the class `predicted`."""

    truth: int
    predicted: int
    count: int


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose highest probability is in (low, high]: their mean of it, and accuracy.

    Both means are None in a bin without images.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Metrics:
    """What a `Tally` found. `classes` has one entry a class of the model, in index order.

    `macro_precision`, `macro_recall` and `macro_f1` are means over the classes that have images; a
    class that was never predicted counts with precision 0. `confused` has the most frequent
    mistakes first. `ece` (in [0, 1]) and `nll` (nats) are over the readable images; both None where
    there is none. `unreadable` images are in `images` and wrong.
    """

    images: int
    unreadable: int
    top1: Share
    top5: Share
    macro_precision: float
    macro_recall: float
    macro_f1: float
    ece: float | None
    nll: float | None
    bins: tuple[ReliabilityBin, ...]
    classes: tuple[ClassMetrics, ...]
    confused: tuple[Confusion, ...]


class Tally:
    """Counts batch by batch what the figures of a classifier need. Not thread-safe."""

    def __init__(self, classes: int) -> None:
        if classes < 1:
            raise ValueError(f"classes={classes} must be at least 1")
        self.classes = classes
        self._support, self._predicted, self._hits = np.zeros((3, classes), np.int64)
        self._bin_images, self._bin_hits = np.zeros((2, BINS), np.int64)
        self._bin_confidence = np.zeros(BINS, np.float64)
        self._top5 = 0
        self._nll = 0.0
        self._confused: Counter[tuple[int, int]] = Counter()

    @property
    def images(self) -> int:
        """How many images were counted."""
        return int(self._support.sum())

    @property
    def top1(self) -> Share:
        """The accuracy so far."""
        return Share.of(int(self._hits.sum()), self.images)

    @property
    def top5(self) -> Share:
        """The share so far of images whose truth is among the five most probable classes."""
        return Share.of(self._top5, self.images)

    def update(self, probabilities: NDArray[np.floating[Any]], truths: ArrayLike) -> None:
        """Count a batch: probabilities (N, classes) in [0, 1] and the true classes (N,).

        Equal probabilities rank by index. Raises `ValueError` where the rows are not probabilities
        (NaN, logits) or do not fit; nothing is counted then.
        """
        rows = checked_probabilities(probabilities, self.classes)
        truth = self._checked(truths, len(rows))
        predicted = rows.argmax(axis=1)
        hit = predicted == truth
        self._support += self._per_class(truth)
        self._predicted += self._per_class(predicted)
        self._hits += self._per_class(truth[hit])
        self._top5 += int((ranks(rows, truth) < 5).sum())
        wrong = zip(truth[~hit].tolist(), predicted[~hit].tolist(), strict=True)
        self._confused.update(wrong)
        confidence = rows.max(axis=1).astype(np.float64)
        place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        self._bin_images += np.bincount(place, minlength=BINS)
        self._bin_hits += np.bincount(place[hit], minlength=BINS)
        self._bin_confidence += np.bincount(place, weights=confidence, minlength=BINS)
        of_truth = rows[np.arange(len(rows)), truth].astype(np.float64)
        self._nll -= float(np.log(np.clip(of_truth, LEAST, 1.0)).sum())

    def unreadable(self, truths: ArrayLike) -> None:
        """Count images of these classes (N,) as wrong without a prediction."""
        self._support += self._per_class(self._checked(truths, None))

    def _checked(self, truths: ArrayLike, count: int | None) -> NDArray[np.int64]:
        array = np.asarray(truths)
        if array.size == 0:
            array = array.astype(np.int64)
        if array.ndim != 1 or (count is not None and len(array) != count):
            raise ValueError(f"truths of shape {array.shape} for {count} rows")
        if not np.issubdtype(array.dtype, np.integer):
            raise ValueError(f"truths must be class indices, not {array.dtype}")
        if len(array) and not 0 <= array.min() <= array.max() < self.classes:
            raise ValueError(f"truths must be in 0..{self.classes - 1}")
        return array.astype(np.int64)

    def _per_class(self, indices: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        return np.bincount(indices, minlength=self.classes).astype(np.int64)

    def result(self, *, confused: int = 50) -> Metrics:
        """Return the figures so far, with that many of the most confused pairs."""
        readable = int(self._bin_images.sum())
        gaps = np.abs(self._bin_hits - self._bin_confidence).sum()
        classes = tuple(self._class(index) for index in range(self.classes))
        seen = [c for c in classes if c.support]
        pairs = sorted(self._confused.items(), key=lambda pair: (-pair[1], pair[0]))[:confused]
        return Metrics(
            images=self.images,
            unreadable=self.images - readable,
            top1=self.top1,
            top5=self.top5,
            macro_precision=_mean([c.precision or 0.0 for c in seen]),
            macro_recall=_mean([c.recall or 0.0 for c in seen]),
            macro_f1=_mean([c.f1 or 0.0 for c in seen]),
            ece=float(gaps / readable) if readable else None,
            nll=self._nll / readable if readable else None,
            bins=tuple(self._bin(number) for number in range(BINS)),
            classes=classes,
            confused=tuple(Confusion(*pair, count) for pair, count in pairs),
        )

    def _class(self, index: int) -> ClassMetrics:
        counts = (self._support[index], self._predicted[index], self._hits[index])
        support, predicted, hits = map(int, counts)
        precision = hits / predicted if predicted else None
        recall = hits / support if support else None
        f1 = 2 * hits / (predicted + support) if predicted + support else None
        return ClassMetrics(index, support, predicted, hits, precision, recall, f1)

    def _bin(self, number: int) -> ReliabilityBin:
        images, hits = int(self._bin_images[number]), int(self._bin_hits[number])
        confidence = float(self._bin_confidence[number]) / images if images else None
        accuracy = hits / images if images else None
        return ReliabilityBin(number / BINS, (number + 1) / BINS, images, confidence, accuracy)

    def to_dict(self) -> dict[str, Any]:
        """Return all that was counted as plain JSON values, to go on later."""
        return {
            "classes": self.classes,
            **{name: getattr(self, f"_{name}").tolist() for name in _ARRAYS},
            "top5": self._top5,
            "nll": self._nll,
            "confused": [[*pair, count] for pair, count in self._confused.items()],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Tally":
        """Return the tally that `to_dict` described; raises `ValueError` for others."""
        try:
            tally = cls(fields["classes"])
            for name in _ARRAYS:
                array = getattr(tally, f"_{name}")
                array[:] = np.array(fields[name], array.dtype)
            tally._top5, tally._nll = int(fields["top5"]), float(fields["nll"])
            tally._confused.update({(t, p): count for t, p, count in fields["confused"]})
        except (KeyError, TypeError) as exc:
            raise ValueError(f"not a saved tally: {exc!r}") from exc
        return tally


def wilson(hits: int, images: int) -> tuple[float, float]:
    """Return Wilson's score interval for a share of images > 0, both ends in [0, 1]."""
    share, z2n = hits / images, Z95 * Z95 / images
    centre = share + z2n / 2
    spread = Z95 * math.sqrt(share * (1 - share) / images + z2n / (4 * images))
    low = 0.0 if hits == 0 else max(0.0, (centre - spread) / (1 + z2n))
    high = 1.0 if hits == images else min(1.0, (centre + spread) / (1 + z2n))
    return low, high


def ranks(scores: NDArray[np.floating[Any]], truths: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return how many classes rank before the true one in scores (N, classes): 0 is best."""
    of_truth = scores[np.arange(len(scores)), truths][:, None]
    before = np.arange(scores.shape[1])[None, :] < truths[:, None]
    above = (scores > of_truth) | ((scores == of_truth) & before)
    counts: NDArray[np.int64] = above.sum(axis=1)
    return counts


def checked_probabilities(
    probabilities: NDArray[np.floating[Any]], classes: int | None
) -> NDArray[np.floating[Any]]:
    """Return rows of probabilities (N, classes) as they are; raises `ValueError` for others."""
    rows = np.asarray(probabilities)
    if rows.ndim != 2 or rows.shape[1] != (classes or rows.shape[1]):
        raise ValueError(f"probabilities of shape {rows.shape} for {classes} classes")
    if not np.isfinite(rows).all():
        raise ValueError("there are NaN or infinite probabilities")
    if len(rows) and (
        rows.min() < 0 or np.abs(rows.sum(axis=1, dtype=np.float64) - 1).max() > _SUM_TOLERANCE
    ):
        raise ValueError("the rows are not probabilities: they must be >= 0 and sum to 1")
    return rows


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
