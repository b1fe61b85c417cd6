"""Linear discriminant analysis: leave-one-out equals refits, and what it is honest about."""

import numpy as np
import pytest

from regnet.statistics.discriminant import (
    Floats,
    LeaveOneOut,
    Moments,
    Truths,
    Tuning,
    fit,
    fit_smoothly,
    head,
    left_out_logits,
    rooted,
)


def drawn(
    counts: list[int], width: int, *, apart: float = 1.0, seed: int = 0
) -> tuple[Floats, Truths]:
    """Return photos of so many per class, whose means are `apart` and whose values correlate."""
    random = np.random.default_rng(seed)
    truths = np.repeat(np.arange(len(counts)), counts)
    mixed = random.normal(size=(width, width)) / np.sqrt(width)
    means = random.normal(0, apart, (len(counts), width))
    return means[truths] + random.normal(size=(len(truths), width)) @ mixed, truths


@pytest.mark.parametrize(
    ("counts", "width"), [([30, 12, 2], 6), ([4, 4, 3, 1], 25)], ids=["many", "fewer than values"]
)
@pytest.mark.parametrize("shrinkage", [0.9, 0.05])
def test_leave_one_out_equals_refits(counts: list[int], width: int, shrinkage: float) -> None:
    values, truths = drawn(counts, width)
    left = LeaveOneOut(values, truths, len(counts))
    scores, noise = left.scores(shrinkage)
    assert left.rows.tolist() == [i for i, t in enumerate(truths) if counts[t] > 1]
    tuning = Tuning(root="none", shrinkage=shrinkage, noise=noise, temperature=1.0)
    for row, score in zip(left.rows, scores, strict=True):
        others = np.arange(len(truths)) != row
        refit = head(Moments.of(values[others], truths[others], len(counts)), tuning)
        # Scores are equal but for what is the same for all classes.
        difference = score - refit.logits(values[row : row + 1])[0]
        assert np.ptp(difference) <= 1e-5 * max(1.0, np.abs(score).max())


def test_leave_one_out_expects_what_held_out_photos_show() -> None:
    values, truths = drawn([400] * 4, 20, apart=0.35)
    chosen = np.random.default_rng(1).permutation(len(truths))
    some, others = chosen[:80], chosen[80:]
    fitted = fit(values[some], truths[some], 4)
    assert not fitted.assumed
    expected = (fitted.logits.argmax(axis=1) == truths[some]).mean()
    logits = head(fitted.moments, fitted.tuning).logits(rooted(values[others], fitted.tuning.root))
    assert (logits.argmax(axis=1) == truths[others]).mean() == pytest.approx(expected, abs=0.08)


def test_classes_of_few_photos_are_found_as_often_as_others() -> None:
    values, truths = drawn([300, 303], 30, apart=0.3, seed=3)
    some = np.r_[np.arange(6), np.arange(303, 603)]  # 6 of the first class
    fitted = fit(values[some], truths[some], 2)
    logits = head(fitted.moments, fitted.tuning).logits(rooted(values[6:300], fitted.tuning.root))
    assert (logits.argmax(axis=1) == 0).mean() > 0.5


def test_the_root_follows_from_the_features() -> None:
    values, truths = drawn([300, 300], 5, apart=0.5)
    assert fit(np.abs(values), truths, 2).tuning.root == "root"
    assert fit(values, truths, 2).tuning.root == "none"
    assert fit(np.sign(values) * values**2, truths, 2).tuning.root == "signed"
    assert rooted(np.array([[4.0, -9.0]]), "root").tolist() == [[2, 0]]
    assert rooted(np.array([[4.0, -9.0]]), "signed").tolist() == [[2, -3]]


def test_one_photo_per_class_gives_the_nearest_mean_and_a_guess() -> None:
    values, truths = drawn([1, 1, 1], 8)
    fitted = fit(np.abs(values), truths, 3)
    assert fitted.assumed
    assert len(fitted.rows) == 0
    logits = head(fitted.moments, fitted.tuning).logits(np.sqrt(np.abs(values)))
    assert logits.argmax(axis=1).tolist() == [0, 1, 2]


def test_equal_photos_do_no_harm() -> None:
    values = np.repeat(np.eye(3), 4, axis=0)
    fitted = fit(values, np.repeat(np.arange(3), 4), 3)
    assert np.isfinite(fitted.logits).all()
    assert (fitted.logits.argmax(axis=1) == np.repeat(np.arange(3), 4)).all()


def test_a_class_is_added_as_if_it_had_been_there() -> None:
    values, truths = drawn([20, 20, 5], 6)
    old = truths < 2
    moments = Moments.of(values[old], truths[old], 2)
    tuning = Tuning(root="none", shrinkage=0.3, noise=4.0, temperature=2.0)
    more = head(moments.adding(values[~old]), tuning)
    np.testing.assert_array_equal(more.logits(values)[:, :2], head(moments, tuning).logits(values))
    for row, logit in enumerate(left_out_logits(moments, tuning, values[~old])):
        others = np.delete(values[~old], row, axis=0)
        expected = head(moments.adding(others), tuning).logits(values[~old][row : row + 1])[0, 2]
        assert logit == pytest.approx(expected, abs=1e-4)


def test_a_temperature_is_finite_even_if_all_is_right() -> None:
    scores = 10 * np.eye(4)
    temperature, _ = fit_smoothly(scores, np.arange(4), 0.1)
    assert 0.01 < temperature < 100
    assert np.exp(10 / temperature) / (np.exp(10 / temperature) + 3) == pytest.approx(0.9)


def test_a_single_photo_to_leave_out_measures_nothing() -> None:
    values, truths = drawn([2, 1, 1], 5)
    fitted = fit(values, truths, 3)
    assert (fitted.assumed, len(fitted.rows), len(fitted.logits)) == (True, 0, 0)
