"""The model of accuracy: the published networks, and what is known of others."""

from dataclasses import replace

import numpy as np
import pytest

from regnet.network.spec import PUBLISHED_NAMES, RegNetSpec, spec_by_name
from regnet.space.accuracy_model import fit, leave_one_out, traits
from regnet.space.published import published

MODEL = fit(published())


def predicted(spec: RegNetSpec) -> float:
    return float(MODEL.predict(traits(spec)[None])[0])


def trusted(spec: RegNetSpec) -> bool:
    return bool(MODEL.trusted(traits(spec)[None])[0])


def test_it_is_fitted_on_the_published_errors():
    known = published()
    assert [one.name for one in known] == list(PUBLISHED_NAMES)
    errors = {one.name: one.percent for one in known}
    assert errors["regnetx-3.2gf"] == pytest.approx(21.736)
    assert errors["regnety-200mf"] == pytest.approx(29.658)


def test_each_is_predicted_by_the_others():
    found = leave_one_out(published())
    assert found.mean == pytest.approx(0.0749, abs=0.001)
    assert found.mean < found.rms < found.largest < 0.3


def test_what_is_left_out_does_not_matter_to_its_own_prediction():
    known = list(published())
    before = leave_one_out(known)
    known[7] = replace(known[7], error=known[7].error + 0.05)
    after = leave_one_out(known)
    assert 4.5 < after.largest < 5.5  # the network's own; it was predicted as before
    assert after.mean > before.mean


@pytest.mark.parametrize("name", PUBLISHED_NAMES)
def test_published_networks_are_trusted_and_predicted(name: str):
    spec = spec_by_name(name)
    assert trusted(spec)
    error = next(one.percent for one in published() if one.name == name)
    assert predicted(spec) == pytest.approx(error, abs=0.15)


@pytest.mark.parametrize(
    "spec",
    [
        RegNetSpec(d=4, w0=96, wa=120.0, wm=2.2, g=48),  # four wide blocks
        RegNetSpec(d=40, w0=24, wa=8.0, wm=2.2, g=16),  # twice as deep as any
        RegNetSpec(d=16, w0=48, wa=36.97, wm=2.24, g=216),  # groups far too wide
    ],
)
def test_networks_unlike_the_published_ones_are_not(spec: RegNetSpec):
    assert not trusted(spec)


def test_plausible_costs_are_those_of_trusted_networks():
    from regnet.network.complexity import complexity

    assert all(MODEL.plausible(complexity(spec_by_name(name))) for name in PUBLISHED_NAMES)
    assert not MODEL.plausible(complexity(RegNetSpec(d=4, w0=96, wa=120.0, wm=2.2, g=48)))


def test_more_macs_and_squeeze_excite_are_better_also_beyond_what_is_known():
    rows = np.stack([traits(spec_by_name("regnetx-800mf"))] * 60)
    rows[:, 0] = np.linspace(np.log(0.05), np.log(64), len(rows))
    rows[:, 1:3] = MODEL.usual[0, :2] + rows[:, :1] * MODEL.usual[1, :2]
    with_se = rows.copy()
    with_se[:, 5] = 1
    plain, squeezed = MODEL.predict(rows), MODEL.predict(with_se)
    assert (np.diff(plain) < 0).all()
    assert (squeezed < plain).all()
    assert np.abs(np.diff(np.diff(plain))).max() < 0.5  # no jump where the published ones end
    beyond = MODEL.extrapolates(rows)
    assert beyond[0]
    assert beyond[-1]
    assert not beyond[30]
