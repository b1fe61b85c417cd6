"""Temperature and prediction sets: against scipy, against the definitions, and by simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import optimize, special, stats

from regnet.statistics.conformal import (
    Method,
    coverage_range,
    fit_temperature,
    learn_threshold,
    photos_needed,
    set_sizes,
    softmax,
    truth_scores,
)
from regnet.system.errors import DatasetError

METHODS: list[Method] = ["aps", "lac"]


def drawn(photos: int, classes: int, *, temperature: float, seed: int = 0) -> tuple:
    """Return logits and truths of which softmax(logits / temperature) is the right probability."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (photos, classes)).astype(np.float32)
    sums = special.softmax(logits / temperature, axis=1).cumsum(axis=1)
    truths = (random.random((photos, 1)) > sums).sum(axis=1)
    return logits, np.minimum(truths, classes - 1)


def test_softmax_is_scipys() -> None:
    logits = np.random.default_rng(0).normal(0, 30, (5000, 7)).astype(np.float32)
    expected = special.softmax(logits.astype(np.float64) / 1.7, axis=1)
    assert np.abs(softmax(logits, 1.7) - expected).max() < 1e-7
    assert softmax(np.float32([[1e4, -1e4]])).tolist() == [[1, 0]]


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7, 5.0])
def test_the_temperature_is_scipys_minimum(temperature: float) -> None:
    logits, truths = drawn(3000, 10, temperature=temperature)

    def loss(log_t: float) -> float:
        rows = special.log_softmax(logits.astype(np.float64) / np.exp(log_t), axis=1)
        return -rows[np.arange(len(rows)), truths].mean()

    found = fit_temperature(logits, truths)
    best = optimize.minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9})
    assert np.log(found) == pytest.approx(best.x, abs=1e-5)
    assert loss(np.log(found)) <= best.fun + 1e-12
    assert found == pytest.approx(temperature, rel=0.1)


def test_temperatures_compose() -> None:
    logits, truths = drawn(2000, 10, temperature=2.0)
    once = fit_temperature(logits, truths)
    again = fit_temperature((logits / once).astype(np.float32), truths)
    assert again == pytest.approx(1, abs=1e-5)
    assert fit_temperature(logits + 100, truths) == pytest.approx(once, rel=1e-5)


def test_photos_that_are_all_right_have_no_temperature() -> None:
    logits, _ = drawn(100, 5, temperature=1.0)
    with pytest.raises(DatasetError, match=r"right on these 100 photos.*more photos"):
        fit_temperature(logits, logits.argmax(axis=1))
    with pytest.raises(DatasetError, match="right on these 100 photos"):
        fit_temperature(1000 * logits, logits.argmax(axis=1))


def test_labels_that_are_not_the_models_have_no_temperature() -> None:
    logits, _ = drawn(100, 5, temperature=1.0)
    with pytest.raises(DatasetError, match=r"no better than chance.*labels"):
        fit_temperature(logits, logits.argmin(axis=1))


def plain_score(row: list[float], truth: int, method: Method) -> float:
    if method == "lac":
        return 1 - row[truth]
    order = sorted(range(len(row)), key=lambda i: (-row[i], i))
    return float(np.cumsum([0.0, *(row[i] for i in order)])[order.index(truth)])


some_rows = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(2, 6)),
    elements=st.integers(1, 4).map(float),
).map(lambda a: (a / a.sum(axis=1, keepdims=True)).astype(np.float32))


@pytest.mark.parametrize("method", METHODS)
@given(rows=some_rows, threshold=st.floats(0, 1))
def test_sets_are_what_the_definition_says(
    method: Method, rows: np.ndarray, threshold: float
) -> None:
    """With many equal probabilities: a set is the first classes by rank, and those alone."""
    sizes = set_sizes(rows, method, threshold)
    for row, size in zip(rows, sizes.tolist(), strict=True):
        values = row.astype(np.float64).tolist()
        scores = [plain_score(values, truth, method) for truth in range(len(values))]
        assert size == sum(score <= threshold for score in scores)
        order = np.argsort(-row, kind="stable").tolist()
        for truth in range(len(values)):
            (score,) = truth_scores(row[None], np.array([truth]), method)
            assert score == scores[truth]
            assert (score <= threshold) == (truth in order[:size])


def test_the_most_probable_class_is_in_every_aps_set() -> None:
    rows = softmax(drawn(500, 10, temperature=1.0)[0])
    assert set_sizes(rows, "aps", 0.0).tolist() == [1] * 500
    assert set_sizes(rows, "lac", 0.0).tolist() == [0] * 500
    assert set_sizes(rows, "aps", 1.1).tolist() == set_sizes(rows, "lac", 1.0).tolist()


def test_the_threshold_is_the_right_rank() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1, 100) / 100)
    assert learn_threshold(scores, 0.9) == 0.90
    assert learn_threshold(scores, 0.07) == 0.07  # (99 + 1) * 0.07 is over 7 in binary
    assert learn_threshold(scores, 0.901) == 0.91
    assert learn_threshold(scores, 0.99) == 0.99
    with pytest.raises(DatasetError, match=r"0\.995 is learnt from at least 199 photos, not 99"):
        learn_threshold(scores, 0.995)


def test_how_many_photos_a_coverage_needs() -> None:
    expected = {0.5: 1, 0.9: 9, 0.95: 19, 0.99: 99, 0.999: 999, 0.07: 1}
    assert {coverage: photos_needed(coverage) for coverage in expected} == expected
    for coverage, photos in expected.items():
        learn_threshold(np.zeros(photos), coverage)


@pytest.mark.parametrize(
    ("photos", "held_out", "coverage"), [(9, 20, 0.9), (250, 500, 0.9), (2500, 5000, 0.95)]
)
def test_the_range_of_coverage_is_scipys(photos: int, held_out: int, coverage: float) -> None:
    k = int(np.ceil((photos + 1) * coverage - 1e-9))
    law = stats.betabinom(held_out, k, photos + 1 - k)
    expected = [q / held_out for q in law.ppf([0.025, 0.975])]
    assert list(coverage_range(photos, held_out, coverage)) == pytest.approx(expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("coverage", [0.7, 0.9])
def test_sets_hold_the_truth_as_often_as_asked(method: Method, coverage: float) -> None:
    """Over 400 draws of few photos, where a threshold that is off by one would be seen."""
    logits, truths = drawn(400 * 40, 10, temperature=0.7, seed=1)
    rows = softmax(logits)  # not calibrated: the guarantee does not need that
    scores = truth_scores(rows, truths, method).reshape(400, 40)
    held = [(trial[20:] <= learn_threshold(trial[:20], coverage)).mean() for trial in scores]
    expected = np.ceil(21 * coverage - 1e-9) / 21
    spread = 3 * np.std(held) / 20
    assert np.mean(held) >= coverage - spread
    if method == "lac":  # no ties: exactly the rank's share
        assert np.mean(held) == pytest.approx(expected, abs=spread)


@settings(max_examples=20)
@given(st.integers(1, 3000))
def test_rows_in_parts_are_as_rows_at_once(count: int) -> None:
    rows = softmax(drawn(count, 4, temperature=1.0)[0])
    truths = np.zeros(count, np.int64)
    assert len(truth_scores(rows, truths, "aps")) == len(set_sizes(rows, "aps", 0.5)) == count
    assert truth_scores(rows, truths, "aps")[-1] == truth_scores(rows[-1:], truths[-1:], "aps")[0]
