"""Linear discriminant analysis in closed form: a head on features, and its leave-one-out scores.

Classes have equal priors and one covariance, shrunk towards a multiple of the identity (Friedman,
Regularized discriminant analysis, J. Am. Stat. Assoc. 84, 1989) by as much as leave-one-out likes
best. A photo that is left out changes the scatter by one outer product, so its inverse follows by
Sherman and Morrison's formula: nothing is fitted again.

The mean of n photos is off: its squared Mahalanobis distance from the true one is `noise` / n. A
score has half of that added, or else classes with few photos would seldom win.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from regnet.statistics.conformal import softmax64

Floats = NDArray[np.float64]
Truths = NDArray[np.int64]
Root = Literal["none", "root", "signed"]

SHRINKAGES: Final = (0.95, 0.9, 0.8, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02)
GUESS: Final = 0.9
"""The mean probability that the photos' own classes get where no photo can be left out."""

_LEAST_RIDGE: Final = 1e-6  # of the mean variance
_CHUNK: Final = 2048  # rows at a time
_MOST_SCORES: Final = 4_000_000  # from which the temperature is fitted
_HALVINGS: Final = 40
_INVERSES: Final = (1e-6, 1e3)  # of temperatures


def rooted(features: NDArray[np.floating[Any]], root: Root) -> Floats:
    """Return features (N, width) as the head takes them: as they are, or square roots.

    "root" takes negative ones for 0; "signed" is sign(x) sqrt(|x|).
    """
    values = features.astype(np.float64)
    if root == "root":
        return np.sqrt(np.maximum(values, 0))
    return np.sign(values) * np.sqrt(np.abs(values)) if root == "signed" else values


@dataclass(frozen=True, eq=False)
class Moments:
    """What a head needs of the photos: `counts` (classes,), `means` (classes, width), the scatter.

    The scatter within classes is factor.T @ factor, of so many `degrees` of freedom; `centre`
    (width,) is the origin of all scores. In float32, so that stored ones give the same head.
    """

    counts: Truths
    means: NDArray[np.float32]
    centre: NDArray[np.float32]
    factor: NDArray[np.float32]
    degrees: int

    @classmethod
    def of(cls, values: Floats, truths: Truths, classes: int) -> Self:
        """Return the moments of values (N, width); each class has a photo."""
        counts, means = _means(values, truths, classes)
        _, lengths, axes = np.linalg.svd(values - means[truths], full_matrices=False)
        kept = lengths > 1e-7 * max(lengths.max(initial=0), 1e-30)
        return cls(
            counts,
            means.astype(np.float32),
            values.mean(axis=0).astype(np.float32),
            (lengths[:, None] * axes)[kept].astype(np.float32),
            len(values) - classes,
        )

    def adding(self, values: Floats) -> "Moments":
        """Return the moments with one more class; the scatter stays."""
        return Moments(
            np.append(self.counts, len(values)),
            np.vstack([self.means, values.mean(axis=0, dtype=np.float64).astype(np.float32)]),
            self.centre,
            self.factor,
            self.degrees,
        )


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What the moments do not say: `root` of the features, `shrinkage`, `noise`, `temperature`."""

    root: Root
    shrinkage: float
    noise: float
    temperature: float


@dataclass(frozen=True, eq=False)
class Head:
    """logits = rooted features @ weights (width, classes) + bias (classes,).

    `separation` (classes, classes) are squared Mahalanobis distances over the temperature.
    """

    weights: Floats
    bias: Floats
    separation: Floats

    def logits(self, values: Floats) -> Floats:
        """Return the logits (N, classes) of rooted features (N, width)."""
        return np.asarray(values @ self.weights + self.bias)


def head(moments: Moments, tuning: Tuning) -> Head:
    """Return the head of these moments."""
    solved, means = _solved(moments, tuning, moments.means)
    products = solved @ means.T
    squares = np.diag(products)
    bias = tuning.noise / (2 * tuning.temperature * moments.counts) - squares / 2
    bias -= solved @ moments.centre
    return Head(solved.T, bias, squares[:, None] + squares - products - products.T)


def share_changed(moments: Moments, tuning: Tuning) -> float:
    """Return an upper estimate of the share of the other classes' photos that the last class takes.

    A photo is normal around its class's mean, and counts if the last class's logit is higher than
    its own class's; what the means are off by is taken into account.
    """
    separation = head(moments, tuning).separation[:-1, -1]
    error = tuning.noise / tuning.temperature * (1 / moments.counts[:-1] + 1 / moments.counts[-1])
    z = (separation - error) / (2 * np.sqrt(np.maximum(separation, 1e-12)))
    shares = [math.erfc(value / math.sqrt(2)) / 2 for value in z]
    return float(np.average(shares, weights=moments.counts[:-1]))


def left_out_logits(moments: Moments, tuning: Tuning, values: Floats) -> Floats:
    """Return the logit (N,) of each photo of a class to add, by the class's other photos.

    `values` (N, width) are the rooted features of its photos, N > 1.
    """
    others = len(values) - 1
    solved, means = _solved(moments, tuning, (values.sum(axis=0) - values) / others)
    bias = tuning.noise / (2 * tuning.temperature * others) - (solved * means).sum(axis=1) / 2
    return np.asarray((solved * (values - moments.centre)).sum(axis=1) + bias)


def _solved(
    moments: Moments, tuning: Tuning, means: NDArray[np.floating[Any]]
) -> tuple[Floats, Floats]:
    """Return the inverse covariance times means (N, width), over the temperature, and the means.

    Both are from the centre.
    """
    factor = moments.factor.astype(np.float64)
    centred = np.asarray(means - moments.centre, np.float64)
    _, lengths, axes = np.linalg.svd(factor, full_matrices=False)
    ridge = float(_ridge(tuning.shrinkage, float((lengths**2).sum()), means.shape[1]))
    inner = centred @ axes.T
    solved = (centred - inner @ axes) / ridge + inner / (lengths**2 + ridge) @ axes
    return solved * (_scale(moments.degrees, tuning.shrinkage) / tuning.temperature), centred


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """A head chosen by leave-one-out.

    `rows` are the photos that can be left out, by index: not the only ones of their class. Each has
    `logits` (rows, classes) by the photos without it. `assumed` if there are none: the temperature
    is a guess then.
    """

    moments: Moments
    tuning: Tuning
    rows: NDArray[np.intp]
    logits: Floats
    assumed: bool


def fit(
    features: NDArray[np.floating[Any]], truths: Truths, classes: int, roots: Sequence[Root] = ()
) -> Fitted:
    """Return the head whose leave-one-out probabilities fit best: root, shrinkage, temperature.

    Features (N, width) of photos of `truths` (N,); each of the classes has a photo. `roots` are
    those to try, by default what suits features of this sign.
    """
    roots = roots or (("root",) if features.min() >= 0 else ("signed", "none"))
    candidates = [_fit(features, truths, classes, root) for root in roots]
    return min(candidates, key=lambda candidate: candidate[0])[1]


def _fit(
    features: NDArray[np.floating[Any]], truths: Truths, classes: int, root: Root
) -> tuple[float, Fitted]:
    """Return the best head with a root, and its loss."""
    values = rooted(features, root)
    moments = Moments.of(values, truths, classes)
    left = LeaveOneOut(values, truths, classes)
    if moments.degrees < 2 or not len(left.rows):
        tuning = Tuning(root=root, shrinkage=SHRINKAGES[0], noise=0.0, temperature=1.0)
        logits = head(moments, tuning).logits(values)
        temperature, loss = fit_smoothly(logits, truths, 1 - GUESS)
        tuning = Tuning(root=root, shrinkage=SHRINKAGES[0], noise=0.0, temperature=temperature)
        none = np.empty((0, classes))
        return loss, Fitted(
            moments=moments, tuning=tuning, rows=left.rows[:0], logits=none, assumed=True
        )
    best = None
    for shrinkage in SHRINKAGES:
        scores, noise = left.scores(shrinkage)
        temperature, loss = fit_smoothly(scores, truths[left.rows], 1 / (len(left.rows) + 2))
        if best is not None and loss >= best[0]:
            break
        tuning = Tuning(root=root, shrinkage=shrinkage, noise=noise, temperature=temperature)
        best = loss, tuning, scores
    assert best is not None
    loss, tuning, scores = best
    logits = scores / tuning.temperature
    return loss, Fitted(
        moments=moments, tuning=tuning, rows=left.rows, logits=logits, assumed=False
    )


class LeaveOneOut:
    """Scores of photos by the other photos; `rows` are those that can be left out, by index."""

    def __init__(self, values: Floats, truths: Truths, classes: int) -> None:
        self._width = values.shape[1]
        values = values - values.mean(axis=0)
        if len(values) < self._width:  # all lies in the span of the photos
            turned, lengths, _ = np.linalg.svd(values, full_matrices=False)
            values = turned * lengths
        self._counts, means = _means(values, truths, classes)
        scatter = values - means[truths]
        variances, axes = np.linalg.eigh(scatter.T @ scatter)
        self._variances = np.maximum(variances, 0)
        self._values, self._means = values @ axes, means @ axes
        self._truths, self._degrees = truths, len(values) - classes
        self.rows = np.flatnonzero(self._counts[truths] > 1)

    def scores(self, shrinkage: float) -> tuple[Floats, float]:
        """Return the scores (rows, classes) of heads without the photo, and the noise.

        The noise is the same for all: the mean of what each photo's distance from the mean of its
        class's others shows.
        """
        parts = [self._part(rows, shrinkage) for rows in _chunks(self.rows)]
        scores, noises = (np.concatenate(each) for each in zip(*parts, strict=True))
        noise = float(noises.mean())
        own = self._counts[self._truths[self.rows]]
        scores += noise / 2 / self._counts
        places = np.arange(len(own)), self._truths[self.rows]
        scores[places] += noise / 2 * (1 / (own - 1) - 1 / own)
        return scores, noise

    def _part(self, rows: NDArray[np.intp], shrinkage: float) -> tuple[Floats, Floats]:
        """Return the scores of some photos without the noise, and what each says about it."""
        x, truths, means = self._values[rows], self._truths[rows], self._means
        apart = x - means[truths]
        own = self._counts[truths].astype(np.float64)
        share = own / (own - 1)  # of the photo's outer product in the scatter
        trace = float(self._variances.sum())
        traces = np.maximum(trace - share * (apart**2).sum(axis=1), 0)
        least = _LEAST_RIDGE * trace / self._width
        ridges = np.maximum(_ridge(shrinkage, traces, self._width), least or 1.0)
        inverse = 1 / (self._variances + ridges[:, None])
        solved = inverse * apart
        inner = (solved * apart).sum(axis=1)
        factor = share / np.maximum(1 - share * inner, 1e-12)  # Sherman and Morrison's
        to_photo, to_means = (solved * x).sum(axis=1), solved @ means.T
        scores = (inverse * x) @ means.T + (factor * to_photo)[:, None] * to_means
        scores -= (inverse @ (means**2).T + factor[:, None] * to_means**2) / 2
        mean = means[truths] - apart / (own - 1)[:, None]  # of the others of its class
        to_mean = (solved * mean).sum(axis=1)
        scores[np.arange(len(rows)), truths] = (
            (inverse * mean * (x - mean / 2)).sum(axis=1)
            + factor * to_mean * (to_photo - to_mean / 2)
        )  # fmt: skip
        scale = _scale(self._degrees - 1, shrinkage)
        return scores * scale, share * (inner + factor * inner**2) * scale


def fit_smoothly(scores: Floats, truths: Truths, doubt: float) -> tuple[float, float]:
    """Return the temperature of scores (N, classes) that minimises the loss, and the loss in nats.

    Each photo is of its class with probability 1 - `doubt`, else of another, so that there is a
    minimum even if all scores are right.
    """
    step = -(-scores.size // _MOST_SCORES)
    rows, own = scores[::step], truths[::step]
    places = np.arange(len(rows)), own
    others = max(scores.shape[1] - 1, 1)
    target = np.full(rows.shape, doubt / others)
    target[places] = 1 - doubt
    expected = float((target * rows).sum())

    def slope(inverse: float) -> float:
        return float((softmax64(rows * inverse) * rows).sum()) - expected

    low, high = np.log(_INVERSES)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(np.exp(middle)) < 0 else (low, middle)
    temperature = float(np.exp(-(low + high) / 2))
    logits = rows / temperature
    most = logits.max(axis=1)
    total = most + np.log(np.exp(logits - most[:, None]).sum(axis=1))
    return temperature, float(total.mean() - expected / temperature / len(rows))


def _means(values: Floats, truths: Truths, classes: int) -> tuple[Truths, Floats]:
    """Return the photos of each class (classes,) and the means (classes, width)."""
    counts = np.bincount(truths, minlength=classes)
    means = np.zeros((classes, values.shape[1]))
    np.add.at(means, truths, values)
    return counts.astype(np.int64), means / counts[:, None]


def _ridge(shrinkage: float, trace: Any, width: int) -> Any:
    """Return what is added to the scatter's diagonal; 1 where there is no scatter."""
    ridge = shrinkage / (1 - shrinkage) * trace / width
    return np.where(np.asarray(trace) > 0, ridge, 1.0)


def _scale(degrees: int, shrinkage: float) -> float:
    """Return the factor from the inverse of scatter and ridge to that of the covariance."""
    return max(degrees, 1) / (1 - shrinkage)


def _chunks(rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(rows), _CHUNK):
        yield rows[start : start + _CHUNK]
