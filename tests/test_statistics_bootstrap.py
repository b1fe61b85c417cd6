"""EDFs, bootstrap intervals and best values: right in cases that are known by other means."""

import math

import numpy as np
import pytest

from regnet.statistics.bootstrap import (
    Interval,
    best_value,
    edf,
    heights,
    interval,
    power_law,
    rank_correlation,
    ranks,
    resampled_means,
    resamples,
    winners,
)
from regnet.statistics.draws import Uniforms


def noise(count: int, seed: int = 0) -> np.ndarray:
    return Uniforms(seed, "test").draw(count)


def test_resamples_are_of_all_places_and_the_same_for_a_seed() -> None:
    rows = np.concatenate(list(resamples(7, seed=3, purpose="a", draws=4000)))
    assert rows.shape == (4000, 7)
    assert np.unique(rows).tolist() == list(range(7))
    assert np.abs(np.bincount(rows.ravel()) / rows.size - 1 / 7).max() < 0.01
    again = np.concatenate(list(resamples(7, seed=3, purpose="a", draws=4000)))
    assert (rows == again).all()
    other = np.concatenate(list(resamples(7, seed=3, purpose="b", draws=4000)))
    assert (rows != other).any()


def test_resamples_come_in_blocks_that_are_small_and_make_the_whole() -> None:
    blocks = list(resamples(300_000, seed=0, purpose="a", draws=20))
    assert [len(block) for block in blocks] == [6, 6, 6, 2]


def test_the_edf_is_the_share_of_errors_at_most_so_large() -> None:
    found = edf(np.array([0.5, 0.2, 0.2, 0.9]), seed=0, purpose="a")
    assert found.errors.tolist() == [0.2, 0.5, 0.9]
    assert found.share.tolist() == [0.5, 0.75, 1.0]
    assert found.low[-1] == found.high[-1] == 1.0


def test_the_edf_has_the_band_of_the_binomial_distribution() -> None:
    errors = np.arange(40) / 40
    found = edf(errors, seed=0, purpose="a")
    for place in (3, 19, 35):  # a bootstrap's share is binomial, so its quantiles are known
        share = (place + 1) / 40
        mass = [math.comb(40, k) * share**k * (1 - share) ** (40 - k) for k in range(41)]
        low, high = (int(np.searchsorted(np.cumsum(mass), q)) / 40 for q in (0.025, 0.975))
        assert found.low[place] == pytest.approx(low, abs=1 / 40)
        assert found.high[place] == pytest.approx(high, abs=1 / 40)


def test_the_interval_of_a_mean_is_near_the_normal_one() -> None:
    values = noise(200)
    found = interval(values.mean(), resampled_means(values, seed=0, purpose="a"))
    half = 1.96 * values.std() / math.sqrt(200)
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for trial in range(400):
        a, b = noise(20, seed=2 * trial), noise(20, seed=2 * trial + 1)
        means = [
            resampled_means(values, seed=trial, purpose=name, draws=800)
            for name, values in (("a", a), ("b", b))
        ]
        held += interval(a.mean() - b.mean(), means[0] - means[1]).holds(0.0)
    assert 0.90 <= held / 400 <= 0.98


def test_the_mean_height_is_the_area_under_the_edf() -> None:
    errors = noise(30)
    low, high = 0.1, 0.6
    grid = np.linspace(low, high, 200_001)
    area = (errors[None, :] <= grid[::20, None]).mean(axis=1).mean()
    assert heights(errors, low, high).mean() == pytest.approx(area, abs=2e-4)
    assert heights(np.array([0.5, 0.5]), 0.5, 0.5).tolist() == [1.0, 1.0]


def test_equal_values_share_their_rank() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2.5, 0.0, 2.5, 1.0]


def test_rank_correlation_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    a = np.round(noise(50), 1)
    b = a + 0.7 * noise(50, seed=1)
    found = rank_correlation(a, b, seed=0, purpose="a")
    assert found is not None
    assert found.value == pytest.approx(stats.spearmanr(a, b).statistic)
    assert found.low < found.value < found.high


def test_no_rank_correlation_where_nothing_changes() -> None:
    assert rank_correlation(np.ones(9), noise(9), seed=0, purpose="a") is None


def test_winners_are_the_best_of_a_quarter() -> None:
    errors = noise(100)
    won = winners(errors, seed=0, purpose="a")
    assert len(won) == 10_000
    best = int(errors.argmin())
    chance = 1 - 0.99**25  # that a draw of 25 has the best of 100
    assert (won == best).mean() == pytest.approx(chance, abs=0.02)


def test_the_best_value_is_found_where_errors_have_a_valley() -> None:
    values = np.repeat(np.arange(1.0, 11.0), 20)
    errors = 0.4 + 0.02 * (values - 7) ** 2 + 0.01 * noise(200)
    found = best_value(values, winners(errors, seed=0, purpose="a"))
    assert found == Interval(7.0, 7.0, 7.0)


def test_the_best_value_is_unknown_where_errors_are_noise() -> None:
    values = np.tile(np.arange(1.0, 11.0), 20)
    found = best_value(values, winners(noise(200), seed=0, purpose="a"))
    assert found.high - found.low >= 6
    assert found.value in values


def test_the_power_of_a_power_law() -> None:
    x = np.exp(5 * noise(30))
    found = power_law(x, 3 * x**0.5, seed=0, purpose="a")
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
