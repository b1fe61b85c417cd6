"""Networks with random weights: the same graphs as converted and quantized ones have."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regnet.ir.constants import Crop
from regnet.ir.engine import Engine, read_model
from regnet.ir.graph import read_graph
from regnet.ir.graph_cost import graph_cost
from regnet.ir.metadata import ModelMetadata
from regnet.network.spec import AnyNetSpec, Stage
from regnet.space.measure import protocol, write_random_ir

pytest.importorskip("onnx")

X = AnyNetSpec(stages=(Stage(2, 16, 8), Stage(1, 48, 24), Stage(1, 64, 64)), classes=10)
Y = AnyNetSpec(stages=(Stage(2, 16, 8), Stage(2, 64, 32, 2)), classes=1000, se_ratio=0.25)


def layers(graph: Any) -> list[tuple[str, ...]]:
    """Return what the engine runs: kinds of layers, their precisions and kernels, sorted."""
    from regnet.system.runtime import core

    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = []
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = op.get_rt_info()
        names = ("layerType", "runtimePrecision", "primitiveType", "outputPrecisions")
        found.append(tuple(str(info[name].value) for name in names if name in info))
    return sorted(found)


def pixels(size: int, count: int = 1) -> list[Crop]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize("spec", [X, Y])
@pytest.mark.parametrize("precision", ["f32", "int8"])
def test_a_random_network_runs_in_the_engine(spec: AnyNetSpec, precision: Any, tmp_path: Path):
    path = tmp_path / "one.xml"
    write_random_ir(spec, path, precision=precision, image_size=64)
    model = read_model(path)
    assert model.metadata.precision == ("int8" if precision == "int8" else "fp32")
    assert model.metadata.spec == spec
    rows = Engine(model, precision=precision).infer(np.stack(pixels(64, 2)))
    assert rows.shape == (2, spec.classes)
    assert np.allclose(rows.sum(axis=1), 1, atol=1e-4)
    assert 0 < rows.max() < 1


@pytest.mark.parametrize("spec", [X, Y])
def test_in_floating_point_it_runs_as_a_converted_network(spec: AnyNetSpec, tmp_path: Path):
    torch = pytest.importorskip("torch")
    from regnet.conversion.export import export_network
    from regnet.network.modules import RegNet

    write_random_ir(spec, tmp_path / "random.xml", precision="f32", image_size=64)
    metadata = read_model(tmp_path / "random.xml").metadata
    network = RegNet(spec)
    for module in network.modules():
        if getattr(module, "bias", None) is not None:  # as after training: no bias is 0
            torch.nn.init.normal_(module.bias, std=0.1)
    weights = {name: values.numpy() for name, values in network.state_dict().items()}
    export_network(weights, metadata, tmp_path / "real.xml", pixels(64))
    ours, real = (read_graph(tmp_path / f"{name}.xml") for name in ("random", "real"))
    assert graph_cost(ours) == graph_cost(real)
    assert layers(ours) == layers(real)


@pytest.mark.parametrize("spec", [X, Y])
def test_in_int8_it_runs_as_a_quantized_network(spec: AnyNetSpec, tmp_path: Path):
    pytest.importorskip("nncf")
    from regnet.quantization.int8_graph import int8_graph

    write_random_ir(spec, tmp_path / "float.xml", precision="f32", image_size=64)
    write_random_ir(spec, tmp_path / "random.xml", precision="int8", image_size=64)
    real = int8_graph(read_graph(tmp_path / "float.xml"), pixels(64, 4)).quantized
    assert layers(read_graph(tmp_path / "random.xml")) == layers(real)


def test_the_protocol_is_the_usual_one_scaled(tmp_path: Path):
    assert protocol(224).name == "omz"
    small = protocol(112)
    assert (small.resize, small.crop) == (128, 112)
    write_random_ir(X, tmp_path / "one.xml", precision="f32", image_size=112)
    metadata: ModelMetadata = read_model(tmp_path / "one.xml").metadata
    assert metadata.preprocess == small
