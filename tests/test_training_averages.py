import copy
import io

import numpy as np
import pytest
import torch
from torch import nn

from regnet.network.modules import RegNet
from regnet.network.spec import AnyNetSpec, Stage
from regnet.training.batch_norm import precise_batch_norm
from regnet.training.state import WeightAverage, freeze

SPEC = AnyNetSpec(
    stages=(Stage(depth=2, width=8, group_width=4), Stage(depth=1, width=16, group_width=8)),
    stem_width=8,
    classes=4,
)


def network(seed=0):
    torch.manual_seed(seed)
    return RegNet(SPEC)


def one_weight(value):
    made = nn.Linear(1, 1, bias=False)
    nn.init.constant_(made.weight, value)
    return made


def images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, generator=generator) + 0.5


# The weights


def test_the_average_by_hand():
    """Of 0, then 1, 3, 2, with a decay that is at most (1 + t) / (10 + t) after t steps."""
    average = WeightAverage(one_weight(0.0), 0.15)
    expected = 0.0
    for value, decay in ((1.0, 1 / 10), (3.0, 0.15), (2.0, 0.15)):
        average.update(one_weight(value))
        expected = decay * expected + (1 - decay) * value
        assert average.weights["weight"].item() == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(0.15 * (0.15 * 0.9 + 0.85 * 3) + 0.85 * 2)


def test_the_decay_grows_to_its_value():
    average = WeightAverage(one_weight(1.0), 0.999)
    left = 1.0
    for step in range(60):
        average.update(one_weight(0.0))
        left *= min(0.999, (1 + step) / (10 + step))
        assert average.weights["weight"].item() == pytest.approx(left, rel=1e-5)
    average.load_state_dict({"steps": 10_000, "weights": {"weight": torch.ones(1, 1)}})
    average.update(one_weight(0.0))
    assert average.weights["weight"].item() == pytest.approx(0.999, rel=1e-6)


def test_statistics_are_averaged_and_counters_copied():
    trained = network()
    average = WeightAverage(trained, 0.9)
    before = {name: t.clone() for name, t in trained.state_dict().items()}
    trained.train()
    trained(images(4, 3, 16, 16))
    average.update(trained)
    now = trained.state_dict()
    assert average.weights.keys() == now.keys()
    for name, kept in average.weights.items():
        if kept.is_floating_point():
            torch.testing.assert_close(kept, 0.1 * before[name] + 0.9 * now[name])
        else:
            assert kept == now[name] == 1
    assert not torch.equal(average.weights["stem.bn.running_mean"], before["stem.bn.running_mean"])


def test_the_average_is_apart_from_the_network():
    trained = network()
    before = copy.deepcopy(trained.state_dict())
    average = WeightAverage(trained, 0.9)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.zero_()
    assert all(torch.equal(t, before[name]) for name, t in average.weights.items())
    assert not any(t.requires_grad for t in average.weights.values())
    average.update(trained)
    assert all((parameter == 0).all() for parameter in trained.parameters())


def test_the_memory_layout_does_not_matter():
    last = network().to(memory_format=torch.channels_last)
    averages = [WeightAverage(network(), 0.9), WeightAverage(last, 0.9)]
    for average, layout in zip(
        averages, (torch.channels_last, torch.contiguous_format), strict=True
    ):
        average.update(network(1).to(memory_format=layout))
    for name, kept in averages[0].weights.items():
        assert torch.equal(kept, averages[1].weights[name])


def test_the_average_takes_up_a_networks_weights():
    average = WeightAverage(network(), 0.9)
    average.load(network(1).state_dict())
    for name, t in network(1).state_dict().items():
        assert torch.equal(average.weights[name], t)
        assert average.weights[name].data_ptr() != t.data_ptr()


def test_a_restored_average_goes_on_as_the_one_saved():
    average = WeightAverage(network(), 0.9)
    for seed in range(3):
        average.update(network(seed))
    file = io.BytesIO()
    torch.save(average.state_dict(), file)
    file.seek(0)
    other = WeightAverage(network(9), 0.9)
    other.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 6):
        average.update(network(seed))
        other.update(network(seed))
    for name, kept in average.weights.items():
        assert torch.equal(kept, other.weights[name])


# Precise BN


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
