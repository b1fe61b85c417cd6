"""The torch modules: shapes, names and initialisation; test_network_reference.py has the values."""

import math

import pytest
import torch

from regnet.network.modules import RegNet, fold_batch_norm
from regnet.network.spec import RegNetSpec, spec_by_name

SMALL = RegNetSpec(d=5, w0=16, wa=16.0, wm=2.0, g=8, classes=7)
SMALL_Y = RegNetSpec(d=5, w0=16, wa=16.0, wm=2.0, g=8, se_ratio=0.25, classes=7)


def with_statistics(network: RegNet, seed: int = 0) -> RegNet:
    """Return the network with BN layers that do something, as trained ones do."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return network.eval()


def test_state_dict_has_pycls_names() -> None:
    x, y = RegNet(SMALL).state_dict(), RegNet(SMALL_Y).state_dict()
    assert {
        "stem.conv.weight",
        "stem.bn.running_mean",
        "s1.b1.proj.weight",
        "s1.b1.bn.bias",
    } <= set(x)
    assert {"s1.b1.f.a.weight", "s1.b1.f.c_bn.bias", "head.fc.weight", "head.fc.bias"} <= set(x)
    assert set(y) - set(x) == {
        f"s{i}.b{j}.f.se.f_ex.{k}.{kind}"
        for i, stage in enumerate(SMALL.stages, 1)
        for j in range(1, stage.depth + 1)
        for k in (0, 2)
        for kind in ("weight", "bias")
    }


def test_3_2gf_has_482_entries() -> None:
    with torch.device("meta"):
        assert len(RegNet(spec_by_name("regnetx-3.2gf")).state_dict()) == 482


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (224, 224)])
def test_any_image_size(size: tuple[int, int]) -> None:
    with torch.inference_mode():
        assert RegNet(SMALL).eval()(torch.zeros(1, 3, *size)).shape == (1, 7)


def test_features_halve_at_every_stage() -> None:
    network = RegNet(SMALL.with_small_stem()).eval()
    with torch.inference_mode():
        features = network.features(torch.zeros(1, 3, 32, 32))
    shapes = {name: tuple(value.shape[1:]) for name, value in features.items()}
    expected = {"stem": (16, 32, 32)} | {
        f"s{i}": (stage.width, 32 // 2**i, 32 // 2**i) for i, stage in enumerate(SMALL.stages, 1)
    }
    assert shapes == expected


def test_features_end_in_the_logits() -> None:
    network = RegNet(SMALL_Y).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        last = list(network.features(images).values())[-1]
        assert torch.equal(network.head(last), network(images))


def test_initialisation_is_the_papers() -> None:
    torch.manual_seed(0)
    network = RegNet(spec_by_name("regnetx-400mf"))
    conv = network.get_submodule("s4.b2.f.b").weight
    assert conv.std().item() == pytest.approx(math.sqrt(2 / (9 * 384)), rel=0.02)
    assert network.head.fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not network.head.fc.bias.any()
    bn = network.get_submodule("s1.b1.bn")
    assert (bn.weight == 1).all()
    assert (bn.bias == 0).all()
    assert (bn.eps, bn.momentum) == (1e-5, 0.1)


def test_folding_batch_norm_keeps_the_logits_and_counts_the_card() -> None:
    network = with_statistics(RegNet(SMALL_Y))
    images = torch.randn(2, 3, 64, 64)
    folded = fold_batch_norm(network)
    with torch.inference_mode():
        assert (folded(images) - network(images)).abs().max() <= 1e-5
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    with torch.device("meta"):
        card = fold_batch_norm(RegNet(spec_by_name("regnetx-3.2gf")))
    assert sum(p.numel() for p in card.parameters()) == 15_265_272
