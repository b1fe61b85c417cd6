"""Temperature scaling and conformal prediction sets: the arithmetic, over arrays, numpy alone.

A set holds the most probable classes of one image, as many as the threshold lets in. It holds the
true class with the chosen probability, the coverage, wherever images are exchangeable with those
the threshold was learnt from: over all images, not class by class.
Sources: Guo et al. 2017 (temperature); Sadinle, Lei, Wasserman 2019 (LAC); Romano, Sesia, Candès
2020 (APS, here without randomisation); Vovk 2012 (the range of coverage).
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from regnet.system.errors import DatasetError
from regnet.system.option import Options, option

if TYPE_CHECKING:
    from fractions import Fraction

Method = Literal["aps", "lac"]

Rows = NDArray[np.floating[Any]]
Truths = NDArray[np.integer[Any]]

LEAST_TEMPERATURE: Final = 0.02
MOST_TEMPERATURE: Final = 50.0

_AS_ONE: Final = 0.005  # a temperature this close to 1 is 1
_CHI_SQUARED: Final = 3.841  # 95 % quantile, one degree of freedom
_FIT_PHOTOS: Final = 100  # they tell a temperature to within about 10 %

_CHUNK: Final = 2048  # rows in float64 at a time
_STEPS: Final = 100
_CLOSE: Final = 1e-10  # relative, of 1 / temperature


class Fit(Options):
    """What prediction sets shall be: their coverage and method, and the seed that splits photos."""

    coverage: float = option(0.9, "Probability that a set contains the true class, 0 to 1")
    method: Method = option(
        "aps", "aps: adaptive, single classes where confident; lac: the smallest sets"
    )
    seed: int = option(0, "Random seed that splits the photos")


def softmax(logits: Rows, temperature: float = 1.0) -> NDArray[np.float32]:
    """Return the probabilities (N, classes) of logits (N, classes) divided by a temperature > 0."""
    rows = np.empty(logits.shape, np.float32)
    for part in _parts(len(logits)):
        rows[part] = softmax64(logits[part].astype(np.float64) / temperature)
    return rows


def softmax64(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probabilities (N, classes) of logits (N, classes), in float64."""
    powers: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def fit_temperature(logits: Rows, truths: Truths) -> float:
    """Return the temperature in [0.02, 50] that minimises the NLL.

    The loss is convex in 1 / T: Newton with bisection. Raises `DatasetError` if no finite minimum
    exists.
    """
    low, high = 1 / MOST_TEMPERATURE, 1 / LEAST_TEMPERATURE
    if _slope(logits, truths, high)[0] <= 0:
        raise DatasetError(
            f"no temperature fits: the model is right on these {len(truths)} photos, too surely to "
            "learn how often it is wrong; calibrate with more photos, or harder ones"
        )
    if _slope(logits, truths, low)[0] >= 0:
        raise DatasetError(
            f"no temperature fits: on these {len(truths)} photos the model does no better than "
            "chance; see whether the labels are the model's"
        )
    inverse = 1.0
    for _ in range(_STEPS):
        slope, curvature = _slope(logits, truths, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= _CLOSE * inverse:
            return 1 / following
        inverse = following
    return 1 / inverse


def supported_temperature(logits: Rows, truths: Truths, *, enough: bool) -> float:
    """Return the temperature of `fit_temperature`, or 1 if the photos do not show that it is not 1.

    That is one within 0.5 % of 1. Of `enough` photos it is also one that the likelihood-ratio test
    does not tell from 1 with 95 % confidence: it would fit chance alone.
    """
    temperature = fit_temperature(logits, truths)
    if abs(temperature - 1) < _AS_ONE:
        return 1.0
    gain = _loss(logits, truths, 1.0) - _loss(logits, truths, temperature)
    if enough and 2 * len(truths) * gain < _CHI_SQUARED:
        return 1.0
    return temperature


def _loss(logits: Rows, truths: Truths, temperature: float) -> float:
    """Return the mean -log p(truth) of softmax(logits / temperature)."""
    total = 0.0
    for part in _parts(len(logits)):
        z = logits[part].astype(np.float64) / temperature
        z -= z[np.arange(len(z)), truths[part]][:, None]
        most = z.max(axis=1)
        total += float((most + np.log(np.exp(z - most[:, None]).sum(axis=1))).sum())
    return total / len(logits)


def _slope(logits: Rows, truths: Truths, inverse: float) -> tuple[float, float]:
    """Return first and second derivative of the mean -log p(truth) by 1 / T."""
    slope = curvature = 0.0
    for part in _parts(len(logits)):
        z = logits[part].astype(np.float64)
        z -= z[np.arange(len(z)), truths[part]][:, None]
        p = softmax64(z * inverse)
        mean = (p * z).sum(axis=1)
        slope += mean.sum()
        curvature += ((p * z * z).sum(axis=1) - mean * mean).sum()
    return slope / len(logits), curvature / len(logits)


def truth_scores(probabilities: Rows, truths: Truths, method: Method) -> NDArray[np.float64]:
    """Return the nonconformity score of each true class, shape (N,); 0 is best.

    "aps": the total probability ranked above it, so 0 for the most probable class; "lac": 1 - its
    probability. Ties rank by class index.
    """
    scores = np.empty(len(probabilities), np.float64)
    for part in _parts(len(probabilities)):
        rows, truth = probabilities[part].astype(np.float64), truths[part]
        if method == "lac":
            scores[part] = 1 - rows[np.arange(len(rows)), truth]
            continue
        order = np.argsort(-rows, axis=1, kind="stable")
        rank = (order == truth[:, None]).argmax(axis=1)
        scores[part] = _before(np.take_along_axis(rows, order, 1))[np.arange(len(rows)), rank]
    return scores


def set_sizes(probabilities: Rows, method: Method, threshold: float) -> NDArray[np.int64]:
    """Return the prediction-set size of each row (N, classes), shape (N,).

    "aps": the classes above which the total is at most the threshold, so at least one; "lac": those
    of at least 1 - threshold, possibly none.
    """
    sizes = np.empty(len(probabilities), np.int64)
    for part in _parts(len(probabilities)):
        rows = probabilities[part].astype(np.float64)
        scores = 1 - rows if method == "lac" else _before(-np.sort(-rows, axis=1))
        sizes[part] = (scores <= threshold).sum(axis=1)
    return sizes


def _before(ranked: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of what is left of each value, exactly 0 for the first."""
    sums = np.zeros_like(ranked)
    np.cumsum(ranked[:, :-1], axis=1, out=sums[:, 1:])
    return sums


def learn_threshold(scores: NDArray[np.float64], coverage: float) -> float:
    """Return the ceil((n + 1) * coverage)-th least of n scores, so that sets have the coverage.

    Raises `DatasetError` where there are fewer scores than `photos_needed`.
    """
    if len(scores) < photos_needed(coverage):
        raise DatasetError(
            f"a coverage of {coverage:g} is learnt from at least {photos_needed(coverage)} photos, "
            f"not {len(scores)}: give more, or ask for less with --coverage"
        )
    return float(np.sort(scores)[math.ceil((len(scores) + 1) * _exact(coverage)) - 1])


def photos_needed(coverage: float) -> int:
    """Return how many photos a threshold of this coverage in (0, 1) needs at least."""
    share = _exact(coverage)
    return math.ceil(share / (1 - share))


def photos_wanted(coverage: float) -> int:
    """Return how many labelled photos make a calibration worth having, in all.

    A quarter sets the threshold: with n photos the true coverage is within 2 sqrt(c (1 - c) / n)
    of c, and that is to be no more than half of 1 - c. Another quarter sets the temperature.
    """
    share = _exact(coverage)
    return 4 * max(_FIT_PHOTOS, math.ceil(16 * share / (1 - share)))


def _exact(coverage: float) -> "Fraction":
    """Return the decimal that was meant: 0.07 * 100 is over 7 in binary."""
    from fractions import Fraction  # not needed for classification, which starts faster without

    return Fraction(repr(float(coverage)))


def coverage_range(photos: int, held_out: int, coverage: float) -> tuple[float, float]:
    """Return between which shares 95 % of all held-out checks lie if the guarantee holds.

    A threshold that is the k-th least of n = `photos` scores holds the truth of a share of all
    images that is Beta(k, n + 1 - k) distributed, so the number held of `held_out` others is
    beta-binomial: the range is exact for scores without ties, which only raise the coverage.
    """
    k = math.ceil((photos + 1) * _exact(coverage))
    hits = np.arange(held_out, dtype=np.float64)
    ratios = np.log(held_out - hits) - np.log(hits + 1)
    ratios += np.log(hits + k) - np.log(held_out - hits - 1 + photos + 1 - k)
    logs = np.concatenate([[0.0], np.cumsum(ratios)])
    sums = np.cumsum(np.exp(logs - logs.max()))
    low, high = np.searchsorted(sums / sums[-1], [0.025, 0.975])
    return float(low) / held_out, float(min(high, held_out)) / held_out


def _parts(rows: int) -> Iterator[slice]:
    """Yield slices that cover the rows: sorting all of them at once would take much memory."""
    for start in range(0, rows, _CHUNK):
        yield slice(start, min(start + _CHUNK, rows))
