import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regnet.training.recipe import Input, Optimizer, Recipe, Schedule, read_recipe

GOLDEN = Path(__file__).parent / "golden" / "learning_rates.json"


def test_the_papers_rates_are_those_of_its_code():
    """The golden file is pycls's formula for each of 100 epochs at batch 512, to 50 digits."""
    golden = json.loads(GOLDEN.read_text())
    paper = read_recipe("paper")
    assert [paper.lr_at(epoch) for epoch in range(100)] == pytest.approx(golden, rel=1e-12)


def test_the_papers_rates_by_hand():
    """Of batch 128: warm-up times half a cosine, at epochs where both are simple numbers."""
    paper = read_recipe("paper").changed("schedule", batch=128)
    known = {
        0: 0.1 * 0.1,
        1: 0.1 * 0.28 * (1 + math.cos(math.pi / 100)) / 2,
        4: 0.1 * 0.82 * (1 + math.cos(math.pi / 25)) / 2,
        5: 0.1 * (1 + math.cos(math.pi / 20)) / 2,
        25: 0.1 * (1 + math.sqrt(0.5)) / 2,
        50: 0.1 / 2,
        75: 0.1 * (1 - math.sqrt(0.5)) / 2,
        100: 0,
    }
    for epoch, rate in known.items():
        assert paper.lr_at(epoch) == pytest.approx(rate, rel=1e-12, abs=1e-18)


def test_the_papers_rate_changes_once_an_epoch():
    paper = read_recipe("paper")
    for epoch in (0, 3, 4, 5, 99):
        for step in (1, 1250, 2502):
            assert paper.lr_at(epoch + step / 2503) == paper.lr_at(epoch)


def test_every_step_of_a_recipe_by_steps_has_its_own_rate():
    recipe = read_recipe("modern")
    rates = [recipe.lr_at(step / 10) for step in range(6000)]
    warm, cooling = rates[:51], rates[50:]
    assert all(earlier < later for earlier, later in pairwise(warm))
    assert all(earlier > later for earlier, later in pairwise(cooling))
    assert rates[0] == pytest.approx(0.5 * 0.01)
    assert rates[3000] == pytest.approx(0.25)


@pytest.mark.parametrize("every", ["epoch", "step"])
def test_the_rate_ends_at_the_final_factor(every):
    schedule = Schedule(epochs=10, warmup_epochs=0, final_factor=0.2, every=every)
    recipe = Recipe(schedule=schedule, optimizer=Optimizer(lr=3.0))
    assert recipe.lr_at(0) == 3.0
    assert recipe.lr_at(5) == pytest.approx(3 * 0.6)
    assert recipe.lr_at(10) == pytest.approx(0.6)
    assert recipe.lr_at(11.5) == pytest.approx(0.6)


def test_a_run_shorter_than_its_warm_up_never_reaches_the_whole_rate():
    recipe = read_recipe("paper").changed("schedule", epochs=2)
    assert recipe.lr_at(1) == pytest.approx(0.4 * 0.28 * 0.5)


@given(
    st.integers(1, 1000),
    st.floats(0, 50),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["epoch", "step"]),
    st.floats(0, 1.5),
)
def test_no_rate_is_negative_or_over_the_whole(epochs, warmup, first, last, every, share):
    schedule = Schedule(
        epochs=epochs,
        warmup_epochs=warmup,
        warmup_factor=first,
        final_factor=last,
        every=every,
    )
    assert 0 <= Recipe(schedule=schedule).lr_at(share * epochs) <= 0.1


def test_crops_are_of_one_size_unless_they_progress():
    paper = read_recipe("paper")
    assert {paper.crop_at(epoch) for epoch in range(101)} == {224}


def test_crops_grow_as_the_modern_recipe_says():
    modern = read_recipe("modern")
    sides = [modern.crop_at(epoch) for epoch in range(601)]
    sizes, counts = np.unique(sides, return_counts=True)
    assert dict(zip(sizes.tolist(), counts.tolist(), strict=True)) == {
        128: 180,
        160: 180,
        176: 180,
        224: 61,  # the last one is for precise BN, after the end
    }


def test_before_the_first_share_crops_have_the_usual_size():
    small = Recipe(input=Input(progressive=[[0.5, 64]]), schedule=Schedule(epochs=4))
    assert [small.crop_at(epoch) for epoch in range(4)] == [224, 224, 64, 64]


@given(st.integers(1, 1000), st.data())
def test_a_share_that_is_a_number_of_epochs_begins_there(epochs, data):
    first = data.draw(st.integers(0, epochs - 1))
    growing = Input(progressive=[[first / epochs, 64]])
    small = Recipe(input=growing, schedule=Schedule(epochs=epochs))
    sides = [small.crop_at(epoch) for epoch in range(epochs)]
    assert sides == first * [224] + (epochs - first) * [64]


def test_shares_written_as_decimals_are_meant_exactly():
    for percent in range(1, 100):
        growing = Input(progressive=[[float(f"0.{percent:02}"), 64]])
        small = Recipe(input=growing, schedule=Schedule(epochs=100))
        sides = [small.crop_at(epoch) for epoch in range(100)]
        assert sides.index(64) == percent
