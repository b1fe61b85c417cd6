"""The layers of a spec, against the torch modules."""

from collections import Counter

import pytest

from regnet.network.layers import layers
from regnet.network.spec import AnyNetSpec, Spec, Stage, spec_by_name

SPECS = [
    spec_by_name("regnetx-200mf"),
    spec_by_name("regnety-400mf", classes=7).with_small_stem(),
    AnyNetSpec(stages=(Stage(1, 24, 4, 2), Stage(3, 48, 8)), se_ratio=0.3, classes=3),
]


@pytest.mark.parametrize("spec", SPECS)
def test_layers_are_those_of_the_torch_modules(spec: Spec) -> None:
    torch = pytest.importorskip("torch")
    from regnet.network import modules

    network = modules.RegNet(spec).eval()
    sizes: dict[str, tuple[int, int]] = {}
    for name, module, _ in modules.layers(network):
        module.register_forward_hook(
            lambda _, inputs, output, name=name: sizes.update(
                {name: (inputs[0].shape[-1], output.shape[-1])}
            )
        )
    network(torch.zeros(1, 3, 65, 65))
    expected = {name: (module, norm) for name, module, norm in modules.layers(network)}
    found = list(layers(spec, image_size=65))
    assert {layer.name for layer in found} == expected.keys()
    for layer in found:
        module, norm = expected[layer.name]
        assert layer.shape == tuple(module.weight.shape)
        assert layer.weights == module.weight.numel()
        assert (layer.norm is None) == (norm is None) == (module.bias is not None)
        if layer.norm is not None:
            assert network.get_submodule(layer.norm) is norm
        if layer.kind != "linear":
            assert (layer.size_in, layer.size) == sizes[layer.name]
            assert (layer.stride, layer.groups) == (module.stride[0], module.groups)


@pytest.mark.parametrize("spec", SPECS)
def test_distinct_layers_stand_for_all(spec: Spec) -> None:
    every = Counter(layer._replace(name="") for layer in layers(spec))
    distinct: Counter[object] = Counter()
    for layer in layers(spec, distinct=True):
        distinct[layer._replace(name="", times=1)] += layer.times
    assert every == distinct
