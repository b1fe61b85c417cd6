"""Stochastic depth: which blocks are left out, how often, and that the mean stays."""

import pytest
import torch
from torch import Tensor
from training_runs import SPEC

from regnet.network.modules import Block, RegNet
from regnet.network.spec import RegNetSpec
from regnet.training.batch_norm import precise_batch_norm
from regnet.training.regularisation import StochasticDepth

DEEP = RegNetSpec(d=6, w0=8, wa=8.0, wm=2.0, g=8, classes=4)
PHOTOS = 4000


def branches(network: RegNet, rate: float, seed: int = 0) -> list[Tensor]:
    """Return what each block's residual branch gives, where it would give ones."""
    depth = StochasticDepth(network, rate)
    depth.draw(seed)
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    ones = torch.ones(PHOTOS, 2, 1, 1)
    return [hook(block.f, (), ones) for block in blocks for hook in block.f._forward_hooks.values()]


def test_later_blocks_are_left_out_more_often() -> None:
    found = branches(RegNet(DEEP), rate=0.6)
    assert len(found) == DEEP.d
    for place, values in enumerate(found, start=1):
        rate = 0.6 * place / len(found)
        gone = (values == 0).flatten(1)
        assert torch.equal(gone.any(dim=1), gone.all(dim=1))  # a photo's branch goes as a whole
        assert float(gone.float().mean()) == pytest.approx(rate, abs=0.03)
        assert values.max().item() == pytest.approx(1 / (1 - rate))
        assert float(values.mean()) == pytest.approx(1, abs=0.06)


def test_a_seed_leaves_out_the_same_and_another_others() -> None:
    first, again, other = (branches(RegNet(DEEP), 0.5, seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_evaluation_leaves_out_none() -> None:
    torch.manual_seed(0)
    network, photos = RegNet(SPEC).eval(), torch.randn(2, 3, 32, 32)
    before = network(photos)
    StochasticDepth(network, 0.5)
    assert torch.equal(network(photos), before)
    network.train()
    assert not torch.equal(network(photos), network(photos))


def test_precise_statistics_are_of_the_whole_network() -> None:
    torch.manual_seed(0)
    whole, disturbed = RegNet(SPEC), RegNet(SPEC)
    disturbed.load_state_dict(whole.state_dict())
    StochasticDepth(disturbed, 0.5)
    photos = [torch.randn(16, 3, 32, 32)]
    for network in (whole, disturbed):
        precise_batch_norm(network, photos)
    torch.testing.assert_close(disturbed.state_dict(), whole.state_dict(), rtol=0, atol=0)
