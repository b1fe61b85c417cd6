"""Figures of classifiers against scipy, scikit-learn and published examples."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from regnet.inference.result import top_classes
from regnet.network.labels import Label
from regnet.statistics.agreement import AgreementTally, Flip, agreement, kl_divergence, lower_bound
from regnet.statistics.metrics import BINS, Share, Tally, ranks
from regnet.statistics.paired_test import mcnemar, paired_test

Rows = NDArray[np.float32]


def softmax(logits: NDArray[Any]) -> Rows:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    rows: Rows = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return rows


def random_rows(images: int, classes: int, *, seed: int = 0) -> tuple[Rows, NDArray[np.int64]]:
    """Return probabilities that are right more often than not, and truths."""
    source = np.random.default_rng(seed)
    truths = source.integers(classes, size=images)
    logits = source.normal(size=(images, classes))
    logits[np.arange(images), truths] += 1.5
    return softmax(logits * 2), truths


def tally_of(rows: Rows, truths: NDArray[np.int64]) -> Tally:
    tally = Tally(rows.shape[1])
    tally.update(rows, truths)
    return tally


counts = st.integers(1, 60_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_share_is_wilsons_interval(count: tuple[int, int]) -> None:
    stats = pytest.importorskip("scipy.stats")
    share = Share.of(*count)
    expected = stats.binomtest(*count).proportion_ci(0.95, "wilson")
    assert share.low == pytest.approx(expected.low, abs=1e-12)
    assert share.high == pytest.approx(expected.high, abs=1e-12)
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_share_tells_whether_a_published_figure_is_within() -> None:
    measured = Share.of(5298, 10_000)
    assert measured.holds(0.5350)
    assert not measured.holds(0.5500)


def test_share_of_nothing_says_nothing() -> None:
    share = Share.of(0, 0)
    assert (share.value, share.low, share.high) == (0, 0, 1)
    with pytest.raises(ValueError, match="5 hits among 3 images"):
        Share.of(5, 3)


@pytest.mark.parametrize("classes", [2, 7, 40])
def test_figures_are_scikit_learns(classes: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rows, truths = random_rows(900, classes)
    result = tally_of(rows, truths).result()
    predicted, all_classes = rows.argmax(axis=1), list(range(classes))

    per_class = sklearn.precision_recall_fscore_support(
        truths, predicted, labels=all_classes, zero_division=0
    )
    mine = [(c.precision or 0, c.recall or 0, c.f1 or 0, c.support) for c in result.classes]
    np.testing.assert_allclose(np.array(mine).T, per_class)
    macro = sklearn.precision_recall_fscore_support(
        truths, predicted, average="macro", zero_division=0
    )
    assert (result.macro_precision, result.macro_recall, result.macro_f1) == pytest.approx(
        macro[:3]
    )
    assert result.top1.value == sklearn.accuracy_score(truths, predicted)
    if classes > 5:
        top5 = sklearn.top_k_accuracy_score(truths, rows, k=5, labels=all_classes)
        assert result.top5.value == top5
    nll = sklearn.log_loss(truths, rows, labels=all_classes)
    assert result.nll == pytest.approx(nll, rel=1e-5)

    confusion = sklearn.confusion_matrix(truths, predicted, labels=all_classes)
    every = tally_of(rows, truths).result(confused=classes * classes).confused
    for pair in every:
        assert confusion[pair.truth, pair.predicted] == pair.count
    assert sum(pair.count for pair in every) == confusion.sum() - confusion.trace()
    assert [p.count for p in every] == sorted((p.count for p in every), reverse=True)


def naive_ece(rows: Rows, truths: NDArray[np.int64]) -> float:
    """Return the calibration error as equation 3 of Guo et al. 2017 writes it."""
    confidence, hit = rows.max(axis=1).astype(np.float64), rows.argmax(axis=1) == truths
    total = 0.0
    for m in range(1, BINS + 1):
        inside = (confidence > (m - 1) / BINS) & (confidence <= m / BINS)
        if inside.any():
            total += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return float(total)


def test_calibration_error_is_guos() -> None:
    rows, truths = random_rows(2000, 10, seed=3)
    result = tally_of(rows, truths).result()
    assert result.ece == pytest.approx(naive_ece(rows, truths), abs=1e-12)
    assert sum(b.images for b in result.bins) == 2000
    for b in result.bins:
        assert b.confidence is None or b.low < b.confidence <= b.high


def test_calibration_by_hand() -> None:
    tally = Tally(2)
    tally.update(np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 6), [0, 0, 0, 1, 1, 1, 1, 0, 0, 0])
    result = tally.result()
    assert result.ece == pytest.approx(0.4 * (0.9 - 0.75) + 0.6 * (0.6 - 0.5))
    assert result.nll == pytest.approx(
        -(3 * math.log(0.9) + math.log(0.1) + 3 * math.log(0.6) + 3 * math.log(0.4)) / 10
    )
    assert [(b.images, b.accuracy) for b in result.bins if b.images] == [(6, 0.5), (4, 0.75)]


def test_certain_and_wrong_stays_finite() -> None:
    tally = Tally(2)
    tally.update(np.array([[1.0, 0.0]], np.float32), [1])
    assert tally.result().nll == pytest.approx(-math.log(np.finfo(np.float32).tiny))
    assert tally.result().ece == 1.0


@given(
    arrays(np.int64, st.tuples(st.integers(1, 12), st.just(8)), elements=st.integers(0, 3)),
    st.integers(0, 7),
)
def test_ties_rank_by_index_as_predictions_do(levels: NDArray[np.int64], truth: int) -> None:
    rows = ((levels + 0.5) / (levels + 0.5).sum(axis=1, keepdims=True)).astype(np.float32)
    labels = tuple(Label("", str(i)) for i in range(8))
    place = ranks(rows, np.full(len(rows), truth))
    for row, rank in zip(rows, place.tolist(), strict=True):
        assert [score.index for score in top_classes(row, labels, 8)].index(truth) == rank


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 99))
def test_batches_do_not_matter_nor_a_break(sizes: list[int], seed: int) -> None:
    rows, truths = random_rows(sum(sizes), 6, seed=seed)
    whole, tally, start = tally_of(rows, truths), Tally(6), 0
    for size in sizes:
        tally.update(rows[start : start + size], truths[start : start + size])
        tally = Tally.from_dict(json.loads(json.dumps(tally.to_dict())))
        start += size
    parts, expected = tally.result(), whole.result()
    assert parts.ece == pytest.approx(expected.ece)
    assert parts.nll == pytest.approx(expected.nll)
    for field in ("images", "top1", "top5", "classes", "confused", "macro_f1"):
        assert getattr(parts, field) == getattr(expected, field)


def test_a_class_never_seen_or_predicted_has_no_figures() -> None:
    tally = Tally(4)
    tally.update(np.array([[1, 0, 0, 0], [0.6, 0.4, 0, 0]], np.float32), [0, 1])
    first, second, third, _ = tally.result().classes
    assert (first.precision, first.recall) == (0.5, 1.0)
    assert (second.precision, second.recall, second.f1) == (None, 0.0, 0.0)
    assert (third.precision, third.recall, third.f1) == (None, None, None)
    assert tally.result().macro_recall == 0.5


def test_unreadable_images_count_as_wrong_and_in_nothing_else() -> None:
    tally = Tally(3)
    tally.update(np.array([[0.8, 0.1, 0.1]], np.float32), [0])
    before = tally.result()
    tally.unreadable([0, 2])
    after = tally.result()
    assert (after.images, after.unreadable, after.top1.hits) == (3, 2, 1)
    assert (after.ece, after.nll, after.bins) == (before.ece, before.nll, before.bins)
    assert after.classes[0].recall == 0.5
    assert Tally(3).result().ece is None


GOOD = np.array([[0.5, 0.5]], np.float32)


@pytest.mark.parametrize(
    ("rows", "truths", "message"),
    [
        (np.array([[np.nan, 0.5]]), [0], "NaN"),
        (np.array([[np.inf, 0.5]]), [0], "infinite"),
        (np.array([[3.0, -2.0]]), [0], "not probabilities"),
        (np.array([[3.0, 2.0]]), [0], "not probabilities"),
        (np.array([[0.5, 0.3, 0.2]]), [0], "shape"),
        (np.array([0.5, 0.5]), [0], "shape"),
        (GOOD, [0, 1], "truths of shape"),
        (GOOD, [2], "0..1"),
        (GOOD, [-1], "0..1"),
        (GOOD, [0.0], "class indices"),
    ],
)
def test_what_does_not_fit_is_refused_and_not_counted(
    rows: NDArray[Any], truths: list[Any], message: str
) -> None:
    tally = Tally(2)
    with pytest.raises(ValueError, match=message):
        tally.update(rows, truths)
    assert tally.to_dict() == Tally(2).to_dict()


@pytest.mark.parametrize("fields", [{}, {"classes": 3}, {**Tally(3).to_dict(), "hits": [1, 2]}])
def test_a_damaged_tally_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"tally|broadcast"):
        Tally.from_dict(fields)


def test_a_tally_does_not_grow_with_the_images() -> None:
    rows, truths = random_rows(500, 20)
    tally = tally_of(rows, truths)
    size = len(json.dumps(tally.to_dict()))
    for _ in range(20):
        tally.update(rows, truths)
    assert tally.images == 500 * 21
    assert len(json.dumps(tally.to_dict())) < 1.5 * size


def test_empty_batches_change_nothing() -> None:
    tally = Tally(2)
    tally.update(np.zeros((0, 2), np.float32), [])
    tally.unreadable([])
    assert tally.result().images == 0


# Agreement


def test_agreement_with_itself() -> None:
    rows, _ = random_rows(300, 10)
    same = agreement(rows, rows)
    assert (same.top1.value, same.flips, same.mean_kl, same.max_delta) == (1.0, (), 0.0, 0.0)
    assert same.top1_at_least == pytest.approx(0.05 ** (1 / 300))


def test_agreement_counts_flips_with_the_references_margin() -> None:
    reference = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1]])
    other = np.array([[0.2, 0.7, 0.1], [0.4, 0.5, 0.1], [0.1, 0.8, 0.1]])
    result = agreement(reference, other, ["a", "b", "c"])
    assert result.flips == (
        Flip(pytest.approx(0.5), "a", 0, 1),
        Flip(pytest.approx(0.1), "b", 0, 1),
    )
    assert (result.flipped, result.top1.hits) == (2, 1)
    assert result.max_delta == pytest.approx(0.5)


def test_only_the_surest_flips_are_kept() -> None:
    reference, _ = random_rows(200, 5, seed=1)
    other, _ = random_rows(200, 5, seed=2)
    all_flips = agreement(reference, other).flips
    tally = AgreementTally(keep=3)
    for start in range(0, 200, 7):
        tally.update(reference[start : start + 7], other[start : start + 7])
    assert tally.result().flips == all_flips[:3]
    assert tally.result().flipped == len(all_flips) > 3


def test_kl_divergence_is_scipys() -> None:
    special = pytest.importorskip("scipy.special")
    p, q = (random_rows(50, 9, seed=s)[0].astype(np.float64) for s in (1, 2))
    p[0, 0] = 0.0
    np.testing.assert_allclose(kl_divergence(p, q), special.rel_entr(p, q).sum(axis=1), rtol=1e-9)


@given(counts)
def test_lower_bound_is_clopper_pearsons(count: tuple[int, int]) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(*count, alternative="greater").proportion_ci(0.95, "exact")
    assert lower_bound(*count) == pytest.approx(expected.low, abs=1e-9)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_the_binomial_test(only_a: int, only_b: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_mcnemar_of_many_images() -> None:
    assert mcnemar(0, 50_000) == 0.0  # less than a float can hold
    assert mcnemar(25_000, 25_000) == 1.0
    assert mcnemar(20_000, 21_000) == pytest.approx(8.0586e-7, rel=1e-4)


def test_paired_interval_is_newcombes() -> None:
    """Newcombe 1998, his example of 36, 12, 2, 0: method 10 gives 0.0569 to 0.3404."""
    result = paired_test(both=36, only_a=2, only_b=12, neither=0)
    assert result.difference == pytest.approx(0.2)
    assert (result.low, result.high) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    assert result.p_value == pytest.approx(0.01293, abs=1e-5)
    assert result.images == 50


@given(*[st.integers(0, 5000)] * 4)
def test_paired_test_mirrors(both: int, only_a: int, only_b: int, neither: int) -> None:
    if not both + only_a + only_b + neither:
        return
    one = paired_test(both=both, only_a=only_a, only_b=only_b, neither=neither)
    two = paired_test(both=both, only_a=only_b, only_b=only_a, neither=neither)
    assert -1 <= one.low <= one.difference <= one.high <= 1
    assert (one.low, one.high) == pytest.approx((-two.high, -two.low))
    assert one.p_value == two.p_value


def test_paired_interval_holds_the_truth_as_often_as_it_says() -> None:
    source = np.random.default_rng(5)
    draws = source.multinomial(400, [0.5, 0.08, 0.05, 0.37], size=2000)
    held = 0
    for both, only_a, only_b, neither in draws.tolist():
        result = paired_test(both=both, only_a=only_a, only_b=only_b, neither=neither)
        held += result.low <= -0.03 <= result.high
    assert 0.94 < held / 2000 < 0.97


@pytest.mark.parametrize(
    "call",
    [
        lambda: mcnemar(-1, 2),
        lambda: lower_bound(3, 2),
        lambda: lower_bound(0, 0),
        lambda: paired_test(both=0, only_a=0, only_b=0, neither=0),
        lambda: AgreementTally().result(),
        lambda: AgreementTally().update(GOOD, np.concatenate([GOOD, GOOD])),
        lambda: AgreementTally().update(GOOD, GOOD, ["a", "b"]),
        lambda: Tally(0),
    ],
)
def test_impossible_counts_are_refused(call: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        call()
