"""The torch modules: shapes, names, initialisation, and an independent computation."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from regnet.network.modules import RegNet, fold_batch_norm, to_tensors
from regnet.network.spec import RegNetSpec, Spec, spec_by_name

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


def reference_logits(
    spec: Spec, state: dict[str, torch.Tensor], images: torch.Tensor
) -> torch.Tensor:
    """Compute the logits in float64 from the weights and the paper alone, without our modules."""
    p = {k: v.double() for k, v in state.items()}

    def conv_bn(x: torch.Tensor, conv: str, bn: str, stride: int = 1, groups: int = 1):
        w = p[f"{conv}.weight"]
        x = functional.conv2d(x, w, stride=stride, padding=w.shape[-1] // 2, groups=groups)
        mean, var = p[f"{bn}.running_mean"], p[f"{bn}.running_var"]
        x = (x - mean[:, None, None]) / torch.sqrt(var[:, None, None] + 1e-5)
        return x * p[f"{bn}.weight"][:, None, None] + p[f"{bn}.bias"][:, None, None]

    def gate(x: torch.Tensor, se: str) -> torch.Tensor:
        mean = x.mean((2, 3))
        w0, w2 = p[f"{se}.f_ex.0.weight"][:, :, 0, 0], p[f"{se}.f_ex.2.weight"][:, :, 0, 0]
        hidden = torch.relu(mean @ w0.T + p[f"{se}.f_ex.0.bias"])
        return torch.sigmoid(hidden @ w2.T + p[f"{se}.f_ex.2.bias"])[:, :, None, None]

    x = torch.relu(conv_bn(images.double(), "stem.conv", "stem.bn", spec.stem_stride))
    for i, stage in enumerate(spec.stages, 1):
        for j in range(1, stage.depth + 1):
            name, stride = f"s{i}.b{j}", 2 if j == 1 else 1
            y = torch.relu(conv_bn(x, f"{name}.f.a", f"{name}.f.a_bn"))
            groups = stage.inner_width // stage.group_width
            y = torch.relu(conv_bn(y, f"{name}.f.b", f"{name}.f.b_bn", stride, groups))
            if spec.se_ratio:
                y = y * gate(y, f"{name}.f.se")
            y = conv_bn(y, f"{name}.f.c", f"{name}.f.c_bn")
            x = torch.relu(y + (conv_bn(x, f"{name}.proj", f"{name}.bn", 2) if j == 1 else x))
    return x.mean((2, 3)) @ p["head.fc.weight"].T + p["head.fc.bias"]


@pytest.mark.parametrize("spec", [SMALL, SMALL_Y, spec_by_name("regnety-200mf", classes=10)])
def test_logits_equal_an_independent_computation(spec: Spec) -> None:
    network = with_statistics(RegNet(spec))
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        found = network(images)
    expected = reference_logits(spec, network.state_dict(), images)
    assert found.shape == (2, spec.classes)
    assert (found.double() - expected).abs().max() <= 1e-5


def test_logits_of_trained_weights_equal_an_independent_computation(
    shared: Path, photos: list[Path]
) -> None:
    from regnet.checkpoints.weights import load_into, read_checkpoint
    from regnet.pixels.preprocess import crop_pixels
    from regnet.pixels.protocol import Preprocess

    checkpoint = read_checkpoint(shared / "weights" / "regnetx-400mf_tiny200.pyth")
    network = RegNet(checkpoint.spec).eval()
    load_into(network, checkpoint.state)
    protocol = Preprocess(name="tiny", resize=128, crop=128)
    crops = np.stack([crop_pixels(path, protocol) for path in photos[:24]])
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
    images = (pixels - torch.tensor(protocol.mean).view(1, 3, 1, 1)) / torch.tensor(
        protocol.scale
    ).view(1, 3, 1, 1)
    with torch.inference_mode():
        found = network(images)
    assert (
        found.double() - reference_logits(network.spec, to_tensors(checkpoint.state), images)
    ).abs().max() <= 1e-5


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
