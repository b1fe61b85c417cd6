"""Tiny image classifiers as other makers write them, and models that are none."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE = 32
CLASSES = 4


def write_classifier(
    path: Path,
    *,
    classes: int = CLASSES,
    batch: int | str = "N",
    size: int = SIZE,
    channels_last: bool = False,
    element: int = TensorProto.FLOAT,
    softmax: bool = False,
    properties: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """Write an ONNX classifier: two convolutions, a residual sum, pooling and a linear layer.

    A uint8 input is scaled inside, as TensorFlow's exporters do; a float one takes about -1..1.
    """
    random = np.random.default_rng(seed)
    weights = {
        "stem": random.normal(0, 0.4, (8, 3, 3, 3)),
        "stem_bias": random.normal(0, 0.1, 8),
        "depthwise": random.normal(0, 0.4, (8, 1, 3, 3)),
        "point": random.normal(0, 0.4, (8, 8, 1, 1)),
        "point_bias": random.normal(0, 0.1, 8),
        "head": random.normal(0, 2, (classes, 8)),
        "head_bias": random.normal(0, 0.1, classes),
    }
    shape: list[int | str] = [batch, 3, size, size]
    nodes, x = [], "image"
    if element == TensorProto.UINT8:
        weights |= {"scale": np.array(127.5), "one": np.array(1.0)}
        nodes += [
            helper.make_node("Cast", [x], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["float", "scale"], ["scaled"]),
            helper.make_node("Sub", ["scaled", "one"], ["centred"]),
        ]
        x = "centred"
    if channels_last:
        shape = [batch, size, size, 3]
        nodes.append(helper.make_node("Transpose", [x], ["nchw"], perm=[0, 3, 1, 2]))
        x = "nchw"
    nodes += [
        _conv(x, "stem", strides=[2, 2], pads=[0, 0, 1, 1]),  # padded as TensorFlow does
        helper.make_node("Clip", ["stem_out", "zero", "six"], ["y"]),
        _conv("y", "depthwise", pads=[1, 1, 1, 1], group=8),
        helper.make_node("Relu", ["depthwise_out"], ["z"]),
        _conv("z", "point"),
        helper.make_node("Add", ["point_out", "y"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Gemm", ["features", "head", "head_bias"], ["logits"], transB=1),
    ]
    weights |= {"zero": np.array(0.0), "six": np.array(6.0)}
    result = "logits"
    if softmax:
        nodes.append(helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1))
        result = "probabilities"
    image = helper.make_tensor_value_info("image", element, shape)
    output = helper.make_tensor_value_info(result, TensorProto.FLOAT, [batch, classes])
    return write_onnx(path, nodes, [image], [output], weights, properties)


def write_onnx(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    weights: Mapping[str, NDArray[Any]],
    properties: Mapping[str, str] | None = None,
    *,
    opset: int = 17,
) -> Path:
    """Write a graph as ONNX; the weights are stored as float32 unless they are integers."""
    constants = [
        numpy_helper.from_array(
            array if array.dtype.kind == "i" else array.astype(np.float32), name
        )
        for name, array in weights.items()
    ]
    graph = helper.make_graph(nodes, "network", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    for key, value in (properties or {}).items():
        model.metadata_props.add(key=key, value=value)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def pooled_then(path: Path, *nodes: Any, classes: int = 3, **weights: Any) -> Path:
    """Write a classifier of the mean colours, of which `nodes` make the `scores`."""
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", classes])
    start = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["f"]),
    ]
    return write_onnx(path, [*start, *nodes], [image], [scores], weights)


def _conv(x: str, name: str, **attributes: Any) -> Any:
    biased = [f"{name}_bias"] if name != "depthwise" else []
    return helper.make_node("Conv", [x, name, *biased], [f"{name}_out"], **attributes)


def write_refused(folder: Path) -> dict[str, Path]:
    """Write models that are no image classifiers, or are damaged, by a name for each."""
    paths = {
        "detector": _detector(folder / "detector.onnx"),
        "segmenter": _maps(folder / "segmenter.onnx"),
        "two-inputs": _two_inputs(folder / "two-inputs.onnx"),
        "token-ids": _token_ids(folder / "token-ids.onnx"),
        "rectangle": _pooled(folder / "rectangle.onnx", [1, 3, SIZE, SIZE + 16]),
        "one-channel": _pooled(folder / "one-channel.onnx", [1, 1, SIZE, SIZE]),
        "custom-op": _custom(folder / "custom-op.onnx"),
    }
    for name, change in {"nan": _with_nan, "outside": _outside, "missing-data": _missing}.items():
        paths[name] = write_classifier(folder / f"{name}.onnx")
        change(paths[name])
    paths["new-opset"] = write_classifier(folder / "new-opset.onnx")
    model = onnx.load(paths["new-opset"])
    model.opset_import[0].version = 999
    onnx.save(model, paths["new-opset"])
    paths["truncated"] = write_classifier(folder / "truncated.onnx")
    paths["truncated"].write_bytes(paths["truncated"].read_bytes()[:-200])
    return paths


def _image(shape: Sequence[int | str], name: str = "image") -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _detector(path: Path) -> Path:
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "to_boxes"], ["features"]),
        helper.make_node("MatMul", ["features", "boxes_weights"], ["boxes"]),
        helper.make_node("MatMul", ["features", "scores_weights"], ["scores"]),
    ]
    weights = {
        "to_boxes": np.array([1, 1, 3], np.int64),
        "boxes_weights": np.ones((3, 4)),
        "scores_weights": np.ones((3, CLASSES)),
    }
    outputs = [_image([1, 1, 4], "boxes"), _image([1, 1, CLASSES], "scores")]
    return write_onnx(path, nodes, [_image([1, 3, SIZE, SIZE])], outputs, weights)


def _maps(path: Path) -> Path:
    nodes = [_conv("image", "depthwise", pads=[1, 1, 1, 1])]
    weights = {"depthwise": np.ones((CLASSES, 3, 3, 3))}
    outputs = [_image([1, CLASSES, SIZE, SIZE], "depthwise_out")]
    return write_onnx(path, nodes, [_image([1, 3, SIZE, SIZE])], outputs, weights)


def _two_inputs(path: Path) -> Path:
    nodes = [
        helper.make_node("Add", ["image", "other"], ["sum"]),
        helper.make_node("GlobalAveragePool", ["sum"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    shape = [1, 3, SIZE, SIZE]
    inputs = [_image(shape), _image(shape, "other")]
    return write_onnx(path, nodes, inputs, [_image([1, 3], "scores")], {})


def _token_ids(path: Path) -> Path:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("ReduceMean", ["words"], ["scores"], axes=[1], keepdims=0),
    ]
    tokens = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, 16])
    weights = {"table": np.ones((10, CLASSES))}
    return write_onnx(path, nodes, [tokens], [_image([1, CLASSES], "scores")], weights)


def _pooled(path: Path, shape: list[int]) -> Path:
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    return write_onnx(path, nodes, [_image(shape)], [_image([1, shape[1]], "scores")], {})


def _custom(path: Path) -> Path:
    nodes = [helper.make_node("Guess", ["image"], ["scores"], domain="example.org")]
    graph = helper.make_graph(
        nodes, "network", [_image([1, 3, SIZE, SIZE])], [_image([1, CLASSES], "scores")]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("example.org", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def _with_nan(path: Path) -> None:
    model = onnx.load(path)
    weights = np.array(numpy_helper.to_array(model.graph.initializer[0]))
    weights[0, 0, 0, 0] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "stem"))
    onnx.save(model, path)


def _external(path: Path, location: str) -> None:
    """Make the head's weights external data at `location`."""
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name == "head")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    path.write_bytes(model.SerializeToString())


def _outside(path: Path) -> None:
    (path.parent.parent / "outside.data").write_bytes(bytes(CLASSES * 8 * 4))
    _external(path, "../outside.data")


def _missing(path: Path) -> None:
    _external(path, "absent.data")
