"""Costs of specs against the published table and against built networks."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regnet.network.complexity import complexity
from regnet.network.modules import RegNet
from regnet.network.spec import AnyNetSpec, RegNetSpec, Spec, Stage, spec_by_name
from regnet.system.errors import SpecError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "complexity.json").read_text())


@pytest.mark.parametrize("name", GOLDEN)
def test_published_costs_to_the_unit(name: str) -> None:
    cost = complexity(spec_by_name(name))
    assert [cost.params, cost.macs, cost.acts] == GOLDEN[name]


def test_the_golden_table_is_the_reference(shared: Path) -> None:
    rows = json.loads((shared / "reference" / "regnet_published.json").read_text())
    assert {r["name"]: [r["params"], r["flops_mac"], r["acts"]] for r in rows} == GOLDEN


def test_torchvision_parameters(shared: Path) -> None:
    reference = json.loads((shared / "reference" / "other_weights.json").read_text())
    for model in reference["torchvision"]["models"]:
        assert complexity(spec_by_name(model["name"])).params == model["num_params"]


small_specs = st.builds(
    RegNetSpec,
    d=st.integers(1, 6),
    w0=st.just(8),
    wa=st.floats(0, 16),
    wm=st.floats(1.5, 3),
    g=st.sampled_from([1, 4, 8]),
    b=st.sampled_from([1, 2]),
    se_ratio=st.none() | st.just(0.25),
    stem_width=st.sampled_from([8, 16]),
    stem_stride=st.sampled_from([1, 2]),
    classes=st.integers(1, 20),
)


@settings(max_examples=30, deadline=None)
@given(small_specs, st.integers(1, 70))
def test_costs_equal_what_a_built_network_does(spec: Spec, size: int) -> None:
    """Count on the modules themselves, with hooks."""
    macs = acts = 0

    def count(module: torch.nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal macs, acts
        biases = 0 if module.bias is None else module.weight.shape[0]
        positions = out.numel() // out.shape[1]
        macs += module.weight.numel() * positions + biases
        acts += out.numel()

    network = RegNet(spec).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.zeros(1, 3, size, size))
    cost = complexity(spec, image_size=size)
    assert cost.params == sum(p.numel() for p in network.parameters())
    assert (cost.macs, cost.acts) == (macs, acts)


def test_free_stages_count_too() -> None:
    spec = spec_by_name("regnety-400mf")
    free = AnyNetSpec(stages=spec.stages, se_ratio=0.25)
    assert complexity(free) == complexity(spec)
    assert complexity(AnyNetSpec(stages=(Stage(1, 8, 8),), classes=2)).params == 3 * 9 * 32 + 64 + (
        32 * 8 + 16 + 9 * 8 * 8 + 16 + 64 + 16 + 32 * 8 + 16
    ) + (8 * 2 + 2)


@pytest.mark.parametrize("size", [0, -1, 20000])
def test_impossible_image_sizes_are_refused(size: int) -> None:
    with pytest.raises(SpecError, match="image_size"):
        complexity(spec_by_name("regnetx-200mf"), image_size=size)
