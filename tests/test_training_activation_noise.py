"""Noise on activations: of the width of a step, in training alone, the same for a seed."""

import torch
from torch import nn

from regnet.training.regularisation import ActivationNoise

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
