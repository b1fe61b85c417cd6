"""The layers of a spec, against the torch modules."""

from collections import Counter

import pytest

from regnet.network.layers import layers
from regnet.network.spec import AnyNetSpec, Spec, Stage, spec_by_name

SPECS = [
    spec_by_name("regnetx-200mf"),
    spec_by_name("regnety-400mf", classes=7).with_small_stem(),
    AnyNetSpec(stages=(Stage(1, 24, 4, 2), Stage(3, 48, 8)), se_ratio=0.3, classes=3),
    *map(spec_by_name, ("regnetv-4.0gf", "regnetv-6.4gf", "regnetz-500mf", "regnetz-d8")),
]


@pytest.mark.parametrize("spec", SPECS)
def test_layers_are_those_of_the_torch_modules(spec: Spec) -> None:
    torch = pytest.importorskip("torch")
    from regnet.network import modules

    network = modules.RegNet(spec).eval()
    weighted = (torch.nn.Conv2d, torch.nn.Linear)
    expected = {n: m for n, m in network.named_modules() if isinstance(m, weighted)}
    sizes: dict[str, tuple[int, int]] = {}
    for name, module in expected.items():
        module.register_forward_hook(
            lambda _, inputs, output, name=name: sizes.update(
                {name: (inputs[0].shape[-1], output.shape[-1])}
            )
        )
    network(torch.zeros(1, 3, 65, 65))
    every = list(layers(spec, image_size=65))
    found = [layer for layer in every if layer.kind != "norm"]
    assert {layer.name for layer in found} == expected.keys()
    for layer in found:
        module = expected[layer.name]
        assert layer.shape == tuple(module.weight.shape)
        assert layer.weights == module.weight.numel()
        assert layer.has_bias == (module.bias is not None)
        if layer.kind != "linear":
            assert (layer.size_in, layer.size) == sizes[layer.name]
            assert (layer.stride, layer.groups) == (module.stride[0], module.groups)
    norms = {n: m for n, m in network.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert {layer.norm: layer.width_out for layer in every if layer.norm} == {
        name: norm.num_features for name, norm in norms.items()
    }


@pytest.mark.parametrize("spec", SPECS)
def test_distinct_layers_stand_for_all(spec: Spec) -> None:
    every = Counter(layer._replace(name="") for layer in layers(spec))
    distinct: Counter[object] = Counter()
    for layer in layers(spec, distinct=True):
        distinct[layer._replace(name="", times=1)] += layer.times
    assert every == distinct
