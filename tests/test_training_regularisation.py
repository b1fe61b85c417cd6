"""Disturbances in training alone, the same for a seed: noise of a step, blocks left out."""

import pytest
import torch
from torch import Tensor, nn
from training_runs import SPEC

from regnet.network.modules import Block, RegNet
from regnet.network.spec import RegNetSpec
from regnet.training.batch_norm import precise_batch_norm
from regnet.training.regularisation import ActivationNoise, StochasticDepth

LARGEST = 6.0


def noisy(bits: float) -> tuple[nn.Module, ActivationNoise, torch.Tensor]:
    network = nn.Sequential(nn.ReLU())
    images = torch.linspace(-1, LARGEST, 2 * 3 * 40 * 40).reshape(2, 3, 40, 40)
    return network, ActivationNoise(network, bits), images


def test_it_is_even_and_as_wide_as_a_step() -> None:
    network, noise, images = noisy(bits=4)
    noise.draw(0)
    added = network(images) - images.relu()
    step = LARGEST / 15
    assert added.abs().max() <= step / 2 + 1e-6
    assert added.max() - added.min() > 0.99 * step
    assert abs(float(added.mean())) < 0.02 * step
    assert abs(float(added.std()) - step / 12**0.5) < 0.02 * step


def test_evaluation_has_none() -> None:
    network, _, images = noisy(bits=4)
    assert torch.equal(network.eval()(images), images.relu())


def test_a_seed_gives_the_same_noise_and_another_another() -> None:
    found = []
    for seed in (1, 1, 2):
        network, noise, images = noisy(bits=4)
        noise.draw(seed)
        found.append(network(images))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_gradients_pass_it_unchanged() -> None:
    network, noise, images = noisy(bits=2)
    noise.draw(0)
    images.requires_grad_()
    network(images).sum().backward()
    assert images.grad is not None
    assert torch.equal(images.grad, (images > 0).float())


def test_channels_last_is_kept() -> None:
    network, noise, images = noisy(bits=4)
    noise.draw(0)
    last = images.to(memory_format=torch.channels_last)
    assert network(last).is_contiguous(memory_format=torch.channels_last)


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
