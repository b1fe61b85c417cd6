"""The model of latency: what it counts, and what it finds."""

import math

import numpy as np
import pytest

from regnet.network.complexity import complexity
from regnet.network.spec import PUBLISHED_NAMES, RegNetSpec, spec_by_name
from regnet.space.latency_model import FEATURES, features, fit, nonnegative
from regnet.space.sampling import sample, space_by_name


def named(spec: RegNetSpec, image_size: int = 224) -> dict[str, float]:
    return dict(zip(FEATURES, features(spec, image_size=image_size), strict=True))


@pytest.mark.parametrize("name", PUBLISHED_NAMES)
@pytest.mark.parametrize("size", [224, 97])
def test_products_are_the_macs(name: str, size: int):
    spec = spec_by_name(name)
    row = named(spec, size)
    products = sum(value for part, value in row.items() if part.startswith("products")
                   and "filled" not in part)  # fmt: skip
    stem = 27 * spec.stem_width * math.ceil(size / 2) ** 2
    head = (spec.stages[-1].width + 1) * spec.classes
    squeeze = 0
    width = spec.stem_width
    for stage in spec.stages:
        for _ in range(stage.depth):
            if narrow := spec.se_width(width, stage.inner_width):
                squeeze += 2 * narrow * stage.inner_width + narrow + stage.inner_width
            width = stage.width
    macs = complexity(spec, image_size=size).macs - stem - head - squeeze
    assert products == pytest.approx(macs / 1e6, rel=1e-12)


def test_layers_are_told_apart_by_their_groups():
    spec = RegNetSpec(d=4, w0=16, wa=16.0, wm=2.0, g=32)
    row = named(spec)
    assert [(s.depth, s.width, s.group_width) for s in spec.stages] == [
        (1, 16, 16), (1, 32, 32), (2, 64, 32)
    ]  # fmt: skip
    assert row["layers dense 3x3"] == 2
    assert row["layers wide 3x3"] == 2
    assert row["layers narrow 3x3"] == 0
    assert row["layers"] == 3 + 2 * 4
    assert row["values 3x3, unfilled"] == row["layers squeeze"] == 0


def test_nonnegative_least_squares():
    """At the best x >= 0 no step that is allowed makes the distance less."""
    random = np.random.default_rng(0)
    for _ in range(20):
        columns, wanted = random.normal(size=(30, 8)), random.normal(size=30)
        found = nonnegative(columns, wanted)
        gradient = columns.T @ (columns @ found - wanted)
        assert (found >= 0).all()
        assert np.allclose(gradient[found > 0], 0, atol=1e-9)
        assert (gradient[found == 0] >= -1e-9).all()


def population(count: int, seed: int) -> np.ndarray:
    return np.stack([features(one.spec) for one in sample(space_by_name("regnety"), count,
                                                          seed=seed)])  # fmt: skip


def test_the_work_of_a_machine_is_found_and_predicts_others():
    random = np.random.default_rng(1)
    rows, others = population(60, 0), population(40, 1)
    weights = random.uniform(0, 1, len(FEATURES)) / rows.mean(axis=0).clip(1e-9)
    weights[rows.max(axis=0) == 0] = 0
    noise = np.exp(random.normal(0, 0.03, (2, 60)))
    model = fit(rows, rows @ weights * noise[0])
    apart = np.abs(model.predict(others) / (others @ weights * noise[1, :40]) - 1)
    assert np.median(apart) < 0.04
    assert 0.5 < np.median(apart) / model.median_error < 2
    assert 0.02 < model.spread < 0.1
    assert model.measured == 60


def test_held_out_errors_are_large_where_nothing_can_be_learnt():
    rows = population(40, 0)
    noise = np.exp(np.random.default_rng(0).normal(0, 1, len(rows)))
    assert fit(rows, noise).median_error > 0.3


def test_the_chance_to_be_within_a_budget():
    rows = population(30, 0)
    model = fit(rows, rows.sum(axis=1))
    expected = model.predict(rows[:1])[0]
    chances = [model.chance_within(rows[:1], expected * share)[0] for share in (0.5, 1, 2)]
    assert chances[0] < 0.01
    assert chances[1] == pytest.approx(0.5)
    assert chances[2] > 0.99
