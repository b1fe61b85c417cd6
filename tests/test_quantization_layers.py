"""Networks of other makers in INT8: their layers are found, named, and can be restored."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from foreign_models import write_classifier, write_onnx
from onnx import TensorProto, helper

from regnet.ir.constants import Crop, ops_by_name, outputs_of
from regnet.ir.graph import read_graph
from regnet.pixels.protocol import Preprocess
from regnet.pixels.samples import sample_crops
from regnet.quantization.int8_graph import Int8Graph, int8_graph
from regnet.quantization.layers import name_layers
from regnet.system.errors import QuantizationError
from regnet.system.runtime import ov

SIZE = 32
PROTOCOL = Preprocess(name="test", resize=SIZE, crop=SIZE)
CROPS = [
    np.roll(crop, shift, axis=1) for crop in sample_crops(PROTOCOL) for shift in range(0, 32, 4)
]


def write_tokens(path: Path) -> Path:
    """Write a network of patches: products, one of them with weights in the other order."""
    random = np.random.default_rng(0)
    weights = {
        "patches": random.normal(0, 0.01, (16, 3, 8, 8)),
        "flat": np.array([0, 16, 16], np.int64),
        "inner": random.normal(0, 0.4, (16, 24)),
        "inner_bias": random.normal(0, 0.3, 24),
        "head": random.normal(0, 1, (24, 4)),
    }
    nodes = [
        helper.make_node("Conv", ["image", "patches"], ["map"], strides=[8, 8]),
        helper.make_node("Reshape", ["map", "flat"], ["channels"]),
        helper.make_node("Transpose", ["channels"], ["tokens"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["tokens", "inner"], ["product"]),
        helper.make_node("Add", ["inner_bias", "product"], ["biased"]),
        helper.make_node("Relu", ["biased"], ["active"]),
        helper.make_node("Transpose", ["active"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["active", "turned"], ["alike"]),
        helper.make_node("MatMul", ["alike", "active"], ["attended"]),
        helper.make_node("ReduceMean", ["attended"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "head"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])
    return write_onnx(path, nodes, [image], [logits], weights)


@pytest.fixture(scope="module", params=["convolutions", "tokens"])
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ov.Model:
    path = tmp_path_factory.mktemp("model") / "other.onnx"
    write = write_tokens if request.param == "tokens" else write_classifier
    return read_graph(write(path))


@pytest.fixture(scope="module")
def graphs(graph: ov.Model) -> Int8Graph:
    return int8_graph(graph, CROPS)


def logits(graph: ov.Model, crops: list[Crop] = CROPS) -> np.ndarray:
    output = graph.output(0).get_node().input_value(0)
    return np.concatenate([rows[0].copy() for rows in outputs_of(graph, [output], crops)])


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.var(expected)))


def test_naming_layers_does_not_change_the_network(graph: ov.Model) -> None:
    named = graph.clone()
    name_layers(named)
    assert difference(logits(named), logits(graph)) < 1e-5


def test_products_at_several_positions_are_layers(graphs: Int8Graph) -> None:
    ops = ops_by_name(graphs.reference)
    for layer in graphs.multiplications:
        assert ops[layer].input_value(0).get_node() == ops[f"{layer}.conv"]
    by_kind: Counter[str] = Counter()
    for layer, count in graphs.multiplications.items():
        by_kind[ops[f"{layer}.conv"].get_type_name()] += count
    convolutions = {"Convolution": 16 * 16 * 8 * (27 + 8), "GroupConvolution": 16 * 16 * 8 * 9}
    tokens = {"Convolution": 16 * 16 * 192, "MatMul": 16 * 16 * 24}
    assert by_kind in (convolutions, tokens)


def test_int8_is_near_the_network(graph: ov.Model, graphs: Int8Graph) -> None:
    assert difference(logits(graphs.quantized), logits(graph)) < 0.1


def test_all_layers_restored_are_the_network(graph: ov.Model, graphs: Int8Graph) -> None:
    restored = graphs.restored(list(graphs.multiplications))
    assert difference(logits(restored), logits(graph)) < 1e-5


def test_a_network_without_layers_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3])
    path = write_onnx(tmp_path / "mean.onnx", nodes, [image], [output], {})
    with pytest.raises(QuantizationError, match="no convolution or product that INT8 suits"):
        int8_graph(read_graph(path), CROPS)
