"""The 24 published networks: all of them, with the paper's trends."""

import pytest

from regnet.space.published import column, exponents, published


def test_all_24_are_there_with_their_own_errors() -> None:
    networks = {one.name: one for one in published()}
    assert len(networks) == 24
    small = networks["regnetx-200mf"]
    assert small.error == pytest.approx(0.31088)  # pycls's model zoo
    assert (small.cost.macs, small.spec.d, small.family) == (199_040_872, 13, "regnetx")


def test_depth_stays_and_group_widths_and_widths_grow() -> None:
    found = exponents()
    assert found["g"].low > 0.5
    assert found["w0"].low > 0.3
    assert found["wa"].low > 0
    assert found["wm"].holds(0.0)
    assert found["d"].high < 0.15
    large = column(published(), "d")[column(published(), "macs") > 1e9]
    assert large.mean() == pytest.approx(20, abs=2)


def test_activations_grow_with_the_square_root_of_macs() -> None:
    found = exponents()["acts"]
    assert found.value == pytest.approx(0.5, abs=0.05)
