"""The rule of `regnet quantize`: what chooses, what certifies, and how often it claims too much."""

import numpy as np
import pytest
from simulated_certificates import World, outcome

from regnet.quantization.trial import Verdict, certify, fewest, hits_needed
from regnet.statistics.agreement import lower_bound


@pytest.mark.parametrize("needed", [0, 1, 2, 7, 8])
def test_the_fewest_are_found(needed: int) -> None:
    asked: list[int] = []

    def holds(count: int) -> bool:
        asked.append(count)
        return count >= needed

    assert fewest(8, holds) == needed
    assert len(asked) <= 5
    assert fewest(8, lambda count: False) is None


@pytest.mark.parametrize(("images", "share"), [(1000, 0.99), (5000, 0.99), (500, 0.5)])
def test_choosing_asks_for_a_lower_bound(images: int, share: float) -> None:
    hits = hits_needed(images, share)
    assert lower_bound(hits, images) >= share > lower_bound(hits - 1, images)


def test_few_photos_must_all_agree() -> None:
    assert lower_bound(50, 50) < 0.99
    assert hits_needed(50, 0.99) == hits_needed(50, 1.0) == 50
    assert hits_needed(50, 0.0) == 0


def counted(agrees: np.ndarray, looks: list[tuple[int, int]], least: float) -> Verdict | None:
    """Apply the rule to photos that agree (layers + 1, photos), and note what it looks at."""

    def agreeing(count: int, part: slice) -> int:
        looks.append((count, part.start or 0))
        return int(agrees[count, part].sum())

    return certify(len(agrees) - 1, agrees.shape[1], agreeing, least)


def test_photos_that_certify_are_looked_at_once() -> None:
    agrees = np.ones((9, 400), np.bool_)
    agrees[:5, :20] = False  # four layers are not enough, five are
    agrees[5, 200:203] = False
    looks: list[tuple[int, int]] = []
    found = counted(agrees, looks, 0.98)
    assert found == Verdict(
        restored=5, agreeing=197, images=200, low=lower_bound(197, 200), passed=True
    )
    assert [look for look in looks if look[1]] == [(5, 200)]


def test_a_choice_that_misses_on_other_photos_is_not_tried_again() -> None:
    agrees = np.ones((9, 400), np.bool_)
    agrees[:8, 200:210] = False
    looks: list[tuple[int, int]] = []
    found = counted(agrees, looks, 0.98)
    assert found is not None
    assert (found.restored, found.agreeing, found.passed) == (0, 190, False)
    assert looks == [(0, 0), (0, 200)]


def test_what_no_number_of_layers_reaches_is_none() -> None:
    assert counted(np.zeros((3, 400), np.bool_), [], 0.5) is None


@pytest.mark.parametrize("layers", [6, 98])
def test_the_bound_is_seldom_above_the_truth(layers: int) -> None:
    """In at most 5 % of runs, and a little for chance; bench/certificates.py has many more."""
    damage = 0.015 * np.linspace(1, 0, layers + 1) ** 1.5
    result = outcome(World(tuple(1 - damage), photos=2_000), runs=500, seed=layers)
    assert result.chosen == 1
    assert result.certified > 0.9
    assert 0 < result.too_high <= 0.055
    assert 0 < result.too_high_of_certified <= 0.055
