"""Precise batch norm: statistics over many photos, by the paper's formula."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from regnet.network.modules import RegNet
from regnet.network.spec import AnyNetSpec, Stage
from regnet.training.batch_norm import precise_batch_norm
from regnet.training.state import freeze

SPEC = AnyNetSpec(
    stages=(Stage(depth=2, width=8, group_width=4), Stage(depth=1, width=16, group_width=8)),
    stem_width=8,
    classes=4,
)


def network(seed=0):
    torch.manual_seed(seed)
    return RegNet(SPEC)


def images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, generator=generator) + 0.5


def one_norm(channels=5):
    return nn.Sequential(nn.Conv2d(3, channels, 1, bias=False), nn.BatchNorm2d(channels))


def moments(values):
    """Return mean and variance of each channel of (N, C, H, W), as BN takes them."""
    values = values.double().transpose(0, 1).flatten(1)
    return values.mean(1), values.var(1)


def test_statistics_of_one_batch_are_exact():
    norm = one_norm()
    batch = images(16, 3, 5, 7)
    precise_batch_norm(norm, [batch])
    mean, variance = moments(norm[0](batch).detach())
    torch.testing.assert_close(norm[1].running_mean.double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm[1].running_var.double(), variance, rtol=1e-5, atol=1e-6)


def test_statistics_of_batches_are_those_of_all_photos():
    """Batches differ a lot: the mean of their variances would be far too small.

    A variance within a batch is divided by n - 1, as in the paper's code, hence the tolerance.
    """
    norm = one_norm()
    batches = [images(8, 3, 9, 9, seed=n) + 5 * n for n in range(6)]
    precise_batch_norm(norm, batches)
    with torch.no_grad():
        mean, variance = moments(norm[0](torch.cat(batches)))
        within = torch.stack([moments(norm[0](batch))[1] for batch in batches]).mean(0)
    torch.testing.assert_close(norm[1].running_mean.double(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(norm[1].running_var.double(), variance, rtol=2e-3, atol=1e-5)
    assert (within < variance / 2).any()


def test_statistics_by_the_formula_of_the_papers_code():
    """Var = mean(v + m^2) - mean(m)^2, with m and v of each batch, v divided by n - 1."""
    norm = one_norm(3)
    batches = [images(2, 3, 2, 2, seed=n) for n in range(4)]
    precise_batch_norm(norm, batches)
    with torch.no_grad():
        each = [moments(norm[0](batch)) for batch in batches]
    means = np.stack([mean.numpy() for mean, _ in each])
    variances = np.stack([variance.numpy() for _, variance in each])
    expected = (variances + means**2).mean(0) - means.mean(0) ** 2
    np.testing.assert_allclose(norm[1].running_var.numpy(), expected, rtol=1e-5)


def test_a_large_mean_costs_no_precision():
    norm = nn.Sequential(nn.BatchNorm2d(3))
    batches = [images(8, 3, 8, 8, seed=n) + 1000 for n in range(4)]
    precise_batch_norm(norm, batches)
    _, variance = moments(torch.cat(batches))
    torch.testing.assert_close(norm[0].running_var.double(), variance, rtol=0.01, atol=0)


def test_after_precise_bn_the_network_treats_a_batch_as_in_training():
    trained = network()
    batch = images(64, 3, 32, 32)
    precise_batch_norm(trained, [batch])
    with torch.no_grad():
        expected = trained.train()(batch)
        precise_batch_norm(trained, [batch])
        found = trained.eval()(batch)
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0.002)


def test_the_statistics_before_do_not_matter_nor_does_running_it_twice():
    one, two = network(), network()
    two.train()(100 * images(4, 3, 16, 16, seed=8))
    batches = [images(8, 3, 16, 16, seed=n) for n in range(3)]
    precise_batch_norm(one, batches)
    precise_batch_norm(two, batches)
    precise_batch_norm(two, iter(batches))
    for name, t in one.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(t, two.state_dict()[name])


def test_weights_momenta_modes_and_gradients_stay():
    trained = network()
    trained.train()
    trained.s1.eval()
    trained.stem.bn.momentum = 0.3
    weights = {name: p.detach().clone() for name, p in trained.named_parameters()}
    modes = [module.training for module in trained.modules()]
    precise_batch_norm(trained, [images(4, 3, 16, 16)])
    assert modes == [module.training for module in trained.modules()]
    assert trained.stem.bn.momentum == 0.3
    assert trained.s2.b1.bn.momentum == 0.1
    for name, parameter in trained.named_parameters():
        assert torch.equal(parameter, weights[name])
        assert parameter.grad is None


def test_bn_that_does_not_learn_keeps_its_statistics():
    trained = network()
    trained.train()(images(8, 3, 16, 16))
    freeze(trained, 2)
    before = copy.deepcopy(trained.state_dict())
    precise_batch_norm(trained, [images(8, 3, 16, 16, seed=n) for n in range(2)])
    for name, t in trained.state_dict().items():
        frozen = name.startswith(("stem.", "s1."))
        same = frozen or not name.rpartition(".")[2].startswith(("running", "num_batches"))
        assert torch.equal(t, before[name]) == same, name


def test_no_batch_changes_nothing():
    trained = network()
    trained.train()(images(8, 3, 16, 16))
    before = copy.deepcopy(trained.state_dict())
    precise_batch_norm(trained, [])
    for name, t in trained.state_dict().items():
        assert torch.equal(t, before[name])


def test_an_error_on_the_way_leaves_momenta_and_modes():
    def batches():
        yield images(4, 3, 16, 16)
        raise RuntimeError("out of memory")

    trained = network()
    with pytest.raises(RuntimeError, match="out of memory"):
        precise_batch_norm(trained.eval(), batches())
    assert not any(module.training for module in trained.modules())
    assert {m.momentum for m in trained.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
