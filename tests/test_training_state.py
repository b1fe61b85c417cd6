import copy
import io
from dataclasses import replace

import pytest
import torch
from torch import nn

from regnet.network.modules import RegNet
from regnet.network.spec import AnyNetSpec, Stage
from regnet.system.errors import TrainingError
from regnet.training.recipe import Optimizer, Recipe, Schedule, read_recipe
from regnet.training.state import WeightAverage, freeze, frozen_parts, make_optimizer, set_rate

SPEC = AnyNetSpec(
    stages=(Stage(depth=1, width=8, group_width=4), Stage(depth=1, width=16, group_width=8)),
    stem_width=8,
    classes=4,
    se_ratio=0.25,
)
PARTS = ("stem", "s1", "s2", "head")


def network():
    torch.manual_seed(0)
    return RegNet(SPEC)


def made(model, **options):
    return make_optimizer(model, Recipe(optimizer=Optimizer(**options)))


def settings_of(model, optimizer):
    """Return weight decay, factor and rate of each parameter that the optimizer has, by name."""
    by_id = {id(p): name for name, p in model.named_parameters()}
    found = [
        (by_id[id(p)], (group["weight_decay"], group["factor"], group["lr"]))
        for group in optimizer.param_groups
        for p in group["params"]
    ]
    assert len(found) == len(dict(found)), "a parameter is in two groups"
    return dict(found)


def test_the_parts_of_a_network_are_its_stem_stages_and_head():
    model = network()
    assert list(model.children()) == [getattr(model, name) for name in PARTS]


def test_every_parameter_decays_by_the_paper():
    """As in its code, where BN and biases decay like all else."""
    model = network()
    optimizer = make_optimizer(model, read_recipe("paper"))
    found = settings_of(model, optimizer)
    assert found.keys() == dict(model.named_parameters()).keys()
    assert set(found.values()) == {(5e-5, 1.0, 0.4)}
    for group in optimizer.param_groups:
        assert group["momentum"] == 0.9
        assert group["nesterov"] is True
        assert group["dampening"] == 0


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_without_norms_only_matrices_and_kernels_decay(kind):
    model = network()
    optimizer = made(model, kind=kind, weight_decay=0.01, decay_norms=False)
    found = settings_of(model, optimizer)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, (decay, _, _) in found.items():
        module = name.rsplit(".", 2)[-2]
        exempt = name.endswith("bias") or module.endswith("bn")
        assert decay == (0.0 if exempt else 0.01), name
    assert found["s1.b1.f.se.f_ex.0.bias"][0] == 0
    assert found["s1.b1.f.se.f_ex.0.weight"][0] == 0.01
    assert found["head.fc.weight"][0] == 0.01


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_part_has_a_share_of_the_rate_of_the_one_after_it(kind):
    model = network()
    optimizer = made(model, kind=kind, lr=0.2, stage_decay=0.5)
    shares = {"stem": 0.125, "s1": 0.25, "s2": 0.5, "head": 1.0}
    for rate in (None, 0.06, 0.0):
        if rate is not None:
            set_rate(optimizer, rate)
        whole = 0.2 if rate is None else rate  # rates are right from the start
        for name, (_, factor, lr) in settings_of(model, optimizer).items():
            share = shares[name.partition(".")[0]]
            assert factor == share
            assert lr == pytest.approx(share * whole)


def test_a_rate_is_that_of_the_recipes_batch():
    recipe = Recipe(schedule=Schedule(batch=512), optimizer=Optimizer(lr=0.1, per=128))
    assert {group["lr"] for group in make_optimizer(network(), recipe).param_groups} == {0.4}


def test_adamw_has_the_recipes_momentum():
    optimizer = made(network(), kind="adamw", momentum=0.8)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.999)}


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, True), (0.0, False), (0.5, False)])
def test_without_momentum_there_is_no_nesterov(momentum, nesterov):
    optimizer = made(network(), momentum=momentum, nesterov=nesterov)
    assert not any(group["nesterov"] for group in optimizer.param_groups)


def test_a_step_by_hand():
    """PyTorch's SGD, as in the paper's code: v = mu v + g + wd w; w -= lr (g + wd w + mu v)."""
    model = network()
    optimizer = make_optimizer(model, Recipe(optimizer=Optimizer(weight_decay=0.1)))
    weight = model.head.fc.weight
    value, velocity = weight.detach().clone(), torch.zeros_like(weight)
    for rate, gradient in ((0.2, 1.0), (0.3, -2.0), (0.1, 0.5)):
        set_rate(optimizer, rate)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
        pull = gradient + 0.1 * value
        velocity = 0.9 * velocity + pull
        value = value - rate * (pull + 0.9 * velocity)
    torch.testing.assert_close(weight.detach(), value)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_first_parts_are_frozen(count):
    model = network()
    freeze(model, count)
    for place, name in enumerate(PARTS):
        learns = {p.requires_grad for p in getattr(model, name).parameters()}
        assert learns == {place >= count}
    assert frozen_parts(model) == list(model.children())[:count]
    names = settings_of(model, made(model, stage_decay=0.5)).keys()
    assert {name.partition(".")[0] for name in names} == set(PARTS[count:])


def test_frozen_parts_do_not_change_with_a_step():
    model = network()
    freeze(model, 2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = made(model, weight_decay=0.5)
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith(("stem.", "s1.")), name


@pytest.mark.parametrize("count", [4, 5, 64])
def test_not_all_parts_can_be_frozen(count):
    message = rf"freeze = {count} leaves nothing to train: .* 4 parts \(stem, 2 stages, head\)"
    with pytest.raises(TrainingError, match=f"{message}: 3 at most"):
        freeze(network(), count)


def test_the_state_of_an_optimizer_keeps_the_factors():
    model = network()
    optimizer = made(model, stage_decay=0.5)
    set_rate(optimizer, 0.01)
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    optimizer.step()
    other = made(model, stage_decay=0.25)
    other.load_state_dict(optimizer.state_dict())
    assert settings_of(model, other) == settings_of(model, optimizer)


def plain_network(seed=0):
    torch.manual_seed(seed)
    return RegNet(replace(SPEC, se_ratio=None))


def one_weight(value):
    made = nn.Linear(1, 1, bias=False)
    nn.init.constant_(made.weight, value)
    return made


def images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, generator=generator) + 0.5


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
    trained = plain_network()
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
    trained = plain_network()
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
    last = plain_network().to(memory_format=torch.channels_last)
    averages = [WeightAverage(plain_network(), 0.9), WeightAverage(last, 0.9)]
    for average, layout in zip(
        averages, (torch.channels_last, torch.contiguous_format), strict=True
    ):
        average.update(plain_network(1).to(memory_format=layout))
    for name, kept in averages[0].weights.items():
        assert torch.equal(kept, averages[1].weights[name])


def test_the_average_takes_up_a_networks_weights():
    average = WeightAverage(plain_network(), 0.9)
    average.load(plain_network(1).state_dict())
    for name, t in plain_network(1).state_dict().items():
        assert torch.equal(average.weights[name], t)
        assert average.weights[name].data_ptr() != t.data_ptr()


def test_a_restored_average_goes_on_as_the_one_saved():
    average = WeightAverage(plain_network(), 0.9)
    for seed in range(3):
        average.update(plain_network(seed))
    file = io.BytesIO()
    torch.save(average.state_dict(), file)
    file.seek(0)
    other = WeightAverage(plain_network(9), 0.9)
    other.load_state_dict(torch.load(file, weights_only=True))
    for seed in range(3, 6):
        average.update(plain_network(seed))
        other.update(plain_network(seed))
    for name, kept in average.weights.items():
        assert torch.equal(kept, other.weights[name])
