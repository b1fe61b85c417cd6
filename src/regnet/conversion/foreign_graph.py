"""The graph of a classifier that regnet did not write -> one with regnet's input and outputs.

    data (N, 3, S, S), 0..255 -> mean, scale -> the original -> softmax -> prob (N, classes)

Detectors, segmenters and networks of other inputs are refused by their shapes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from regnet.conversion.foreign_files import read_onnx
from regnet.conversion.foreign_limits import (
    dimensions,
    require_few_nodes,
    require_known_sizes,
    require_modest,
)
from regnet.conversion.onnx_graph import INPUT, OUTPUT
from regnet.conversion.values import Outputs
from regnet.ir.constants import WEIGHTED, set_values, source_of
from regnet.network.spec import MAX_CLASSES
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import ModelError
from regnet.system.runtime import core, ov
from regnet.system.text import last_line, visible

if TYPE_CHECKING:
    from onnx import GraphProto

opset = ov.opset15

_ELEMENTS: Final = ("f32", "f16", "f64", "u8")
_ONLY_SHAPES: Final = ("Reshape", "Squeeze", "Unsqueeze", "Convert")
_TINY: Final = 1e-37  # the smallest probability whose logarithm is taken


@dataclass(frozen=True)
class Face:
    """What a classifier takes of images and gives of them; None is any number.

    Its input is `layout` of `element`, images `size` pixels wide and high, `batch` at once.
    """

    layout: Literal["NCHW", "NHWC"]
    element: str
    batch: int | None
    size: int | None

    def shape(self, batch: int, size: int) -> list[int]:
        """Return the input's shape for images of a size; -1 is any batch."""
        return [batch, 3, size, size] if self.layout == "NCHW" else [batch, size, size, 3]


def read_foreign(path: Path) -> ov.Model:
    """Return the graph in a file; raises `ModelError` if it is damaged, or of operations unknown.

    So it does if weights are no numbers, or the graph is of INT8, random, or larger than allowed.
    """
    nodes = read_onnx(path).graph if path.suffix == ".onnx" else None
    require_few_nodes(path, nodes)
    if nodes and _is_in_training(nodes):
        raise ModelError(
            f"{path}: is in training mode; call eval() of the network before exporting"
        )
    try:
        graph = core.read_model(path)
    except RuntimeError as exc:
        raise ModelError(f"{path}: OpenVINO cannot read it ({last_line(exc)})") from exc
    require_modest(graph, path)
    for op in graph.get_ops():
        if op.get_type_name() == "RandomUniform":
            raise ModelError(f"{path}: draws random numbers; export it for inference")
        if op.get_type_name() == "FakeQuantize":
            raise ModelError(
                f"{path}: is quantized; adopt the model that it was made from, and quantize the "
                "result with `regnet quantize`"
            )
        if op.get_type_name() == "Constant" and op.get_element_type().is_real():
            # -inf and inf alone are limits, as of clips
            values = op.data
            wrong = np.isnan(values) if values.size == 1 else ~np.isfinite(values)
            if wrong.any():
                name = visible(op.get_friendly_name())
                raise ModelError(f"{path}: its weights hold NaN or infinity (in {name})")
    return graph


def _is_in_training(graph: "GraphProto") -> bool:
    """Tell whether a batch norm ignores its stored statistics; weights may be normalised so."""
    stored = {tensor.name for tensor in graph.initializer}
    return any(
        stored.issuperset(node.input[3:]) and not stored.issuperset(node.input[:1])
        for node in graph.node
        if any(value.name == "training_mode" and value.i for value in node.attribute)
    )


def read_face(graph: ov.Model, path: Path) -> Face:
    """Return what a graph takes and gives; raises `ModelError` unless it takes square images."""
    if len(graph.inputs) != 1:
        raise ModelError(
            f"{path}: takes {len(graph.inputs)} inputs ({_named(graph.inputs)}); an image "
            "classifier takes one"
        )
    port = graph.inputs[0]
    dims, element = dimensions(port), port.get_element_type().get_type_name()
    takes = f"{path}: its input is {_named([port])} of {element}"
    images = "images (N, 3, H, W) or (N, H, W, 3) of floats or uint8"
    if dims is None or len(dims) != 4 or element not in _ELEMENTS:
        raise ModelError(f"{takes}; an image classifier takes {images}")
    if dims[1] == 3 or (dims[1] is None and dims[3] != 3):
        face = Face("NCHW", element, dims[0], dims[2])
        height, width = dims[2:]
    elif dims[3] == 3:
        face = Face("NHWC", element, dims[0], dims[1])
        height, width = dims[1:3]
    else:
        raise ModelError(f"{takes}; an image classifier takes {images}")
    if None not in (height, width) and height != width:
        raise ModelError(f"{takes}; only square images can be cropped for it")
    return replace(face, size=height or width)


def adopt_graph(
    graph: ov.Model, face: Face, preprocess: Preprocess, outputs: Outputs, path: Path
) -> ov.Model:
    """Return the graph of `path`, which has its size and is changed, as one of regnet's.

    It takes `data` (N, 3, crop, crop), 0..255 in the protocol's order of channels, and gives
    `prob` (N, classes); one number of the original is that of the second of 2 classes. Raises
    `ModelError` if it cannot compute in float32.
    """
    sizes = [size.get_length() for size in list(graph.output(0).get_partial_shape())[1:]]
    classes = max(sizes, default=1)
    old, raw = graph.get_parameters()[0], graph.output(0).get_node().input_value(0)
    _free_names(graph)
    if face.element != "u8":
        old.set_element_type(ov.Type.f32)
    _in_single_precision(graph, path)
    data = opset.parameter([-1, 3, preprocess.crop, preprocess.crop], np.float32)
    data.set_layout(ov.Layout("NCHW"))
    _name(data, INPUT)
    x = _normalised(data, face, preprocess).output(0)
    for user in old.output(0).get_target_inputs():
        user.replace_source_output(x)
    shape = opset.constant(np.array([-1, classes]))
    logits = opset.reshape(_logits(raw, outputs, classes), shape, False)
    if classes == 1:
        logits = opset.multiply(logits, opset.constant(np.array([[-0.5, 0.5]], np.float32)))
    probabilities = opset.softmax(logits, 1)
    _name(probabilities, OUTPUT)
    graph = ov.Model([probabilities.output(0)], [data])
    _simplify(graph)
    for op, weight in weighted(graph):
        if weight.get_type_name() == "Constant":
            set_values(op, 1, weight.data)  # in FP16 if they were, as folding widens them
    return graph


def weighted(graph: ov.Model) -> Iterator[tuple[Any, Any]]:
    """Yield the operations that have weights, each with the operation that gives them."""
    for op in graph.get_ops():
        if op.get_type_name() in WEIGHTED:
            yield op, op.input_value(1).get_node()


def resized(graph: ov.Model, face: Face, size: int, path: Path) -> None:
    """Give the graph's input a size and any batch; raises `ModelError` if it cannot have them."""
    try:
        _simplify(graph)
        if face.batch is not None:
            _free_batch(graph, face.batch)
        graph.reshape(ov.PartialShape(face.shape(-1, size)))
        _simplify(graph)
    except RuntimeError as exc:
        raise ModelError(
            f"{path}: cannot take batches of {size} x {size} pixels ({last_line(exc)}); export it "
            "with a dynamic batch"
        ) from exc
    require_known_sizes(graph, face.shape(1, size), path)


def require_classes(graph: ov.Model, path: Path) -> int:
    """Return how many numbers an image has; raises `ModelError` unless they are (N, classes)."""
    outputs = graph.outputs
    if len(outputs) != 1:
        raise ModelError(
            f"{path}: gives {len(outputs)} outputs ({_named(outputs)}), and a classifier one, "
            "(N, classes); if it is a classifier, export it with its logits alone"
        )
    dims, gives = dimensions(outputs[0]), f"{path}: gives {_named(outputs)}"
    rest = [size or 0 for size in dims[1:] if size != 1] if dims else []
    if not dims or len(dims) < 2 or 0 in rest or not outputs[0].get_element_type().is_real():
        kind = outputs[0].get_element_type().get_type_name()
        raise ModelError(f"{gives} of {kind}; a classifier gives (N, classes) of floats")
    if len(rest) > 1:
        kind = "a segmenter" if len(dims) == 4 else "a detector"
        raise ModelError(f"{gives}, as {kind} does; a classifier gives (N, classes)")
    if rest and rest[0] > MAX_CLASSES:
        raise ModelError(f"{gives}; at most {MAX_CLASSES:,} classes are allowed")
    if dims[0] is not None:
        raise ModelError(
            f"{path}: its graph is fixed to batches of {dims[0]}; export it with a dynamic batch"
        )
    return rest[0] if rest else 1


def outputs_by_graph(graph: ov.Model, path: Path) -> Outputs | None:
    """Return what the last operation says of the outputs, None if it does not.

    Raises `ModelError` for a sigmoid of several numbers: such classes do not exclude each other.
    """
    kind = last_operation(graph)
    if kind == "Sigmoid":
        raise ModelError(
            f"{path}: ends in a sigmoid, so an image may have several of its classes; regnet "
            "classifies into one. If that is meant: --outputs logits or probabilities"
        )
    by_kind: dict[str, Outputs] = {"Softmax": "probabilities", "LogSoftmax": "logits"}
    return by_kind.get(kind)


def last_operation(graph: ov.Model) -> str:
    """Return the type of the operation that computes the output."""
    kind: str = _origin(graph.output(0).get_node().input_value(0)).get_type_name()
    return kind


def _normalised(data: Any, face: Face, preprocess: Preprocess) -> Any:
    """Return the original's input, made of the pixels."""
    x = data
    for name, operation, values in (
        ("centred", opset.subtract, preprocess.mean),
        ("normalised", opset.divide, preprocess.scale),
    ):
        if face.element != "u8":
            x = operation(x, opset.constant(np.array(values, np.float32).reshape(1, 3, 1, 1)))
            x.set_friendly_name(name)
    if face.element == "u8":
        x = opset.convert(opset.floor(opset.add(x, opset.constant(np.float32(0.5)))), "u8")
    return opset.transpose(x, opset.constant([0, 2, 3, 1])) if face.layout == "NHWC" else x


def _in_single_precision(graph: ov.Model, path: Path) -> None:
    """Let a graph of other floats compute in float32, as OpenVINO does in any case."""
    others = ("f16", "bf16", "f64")
    for op in graph.get_ordered_ops():
        if op.get_type_name() == "Constant" and op.get_element_type().get_type_name() in others:
            users = op.output(0).get_target_inputs()
            single = opset.convert(op, "f32")
            for user in users:
                if user.get_node().get_type_name() != "Convert":
                    user.replace_source_output(single.output(0))
        elif op.get_attributes().get("destination_type") in others:
            op.set_attribute("destination_type", "f32")
    try:
        graph.validate_nodes_and_infer_types()
    except RuntimeError as exc:
        raise ModelError(
            f"{path}: cannot be computed in float32 ({last_line(exc)}); export it in float32"
        ) from exc


def _logits(raw: Any, outputs: Outputs, classes: int) -> Any:
    """Return logits: the output, the input of its softmax, or its logarithm.

    Of one probability p they are the input of its sigmoid, or log(p) - log(1 - p).
    """
    last = _origin(raw)
    if outputs == "logits":
        return opset.convert(raw, "f32")
    if last.get_type_name() == ("Sigmoid" if classes == 1 else "Softmax"):
        return opset.convert(last.input_value(0), "f32")
    raw = opset.convert(raw, "f32")
    if classes > 1:
        return _logarithm(raw)
    rest = opset.subtract(opset.constant(np.float32(1)), raw)
    return opset.subtract(_logarithm(raw), _logarithm(rest))


def _logarithm(shares: Any) -> Any:
    return opset.log(opset.maximum(shares, opset.constant(np.float32(_TINY))))


def _origin(output: Any) -> Any:
    """Return the operation whose values an output has, before changes of shape and type."""
    return source_of(output, *_ONLY_SHAPES)


def _free_batch(graph: ov.Model, batch: int) -> None:
    """Let reshapes keep the batch that they are given, where an exporter wrote its number."""
    for op in graph.get_ordered_ops():
        if op.get_type_name() != "Reshape" or not op.get_output_partial_shape(0).is_static:
            continue
        shape = list(op.get_output_shape(0))
        pattern = op.input_value(1).get_node()
        same = shape[0] == op.get_input_partial_shape(0).get_min_shape()[0] == batch
        if same and len(shape) > 1 and pattern.get_type_name() == "Constant" and 0 not in shape:
            kept = opset.constant(np.array([0, *shape[1:]]))
            freed = opset.reshape(op.input_value(0), kept, special_zero=True)
            freed.set_friendly_name(op.get_friendly_name())
            freed.output(0).get_tensor().set_names(op.output(0).get_names())
            for user in op.output(0).get_target_inputs():
                user.replace_source_output(freed.output(0))


def _simplify(graph: ov.Model) -> None:
    """Fold constants and fuse operations, as `openvino.convert_model` does; frees the batch."""
    from openvino._offline_transformations import apply_moc_transformations

    apply_moc_transformations(graph, cf=True, smart_reshape=True)


def _free_names(graph: ov.Model) -> None:
    """Take our names from what has them in the original, and leave them to what will have them."""
    ours = {INPUT, OUTPUT, "centred", "normalised"}
    for op in graph.get_ops():
        if op.get_friendly_name() in ours:
            op.set_friendly_name(f"{op.get_friendly_name()}_")
        for output in op.outputs():
            if taken := output.get_names() & ours:
                output.get_tensor().set_names(output.get_names() - taken)


def _name(op: Any, name: str) -> None:
    op.set_friendly_name(name)
    op.output(0).get_tensor().set_names({name})


def _named(ports: Sequence[Any]) -> str:
    """Return the names and shapes of inputs or outputs, the first three."""
    texts = []
    for port in ports[:3]:
        names = sorted(port.get_names())
        shape = str(port.get_partial_shape()).replace(" ", "")
        texts.append(f"{visible(names[0])[:80]} {shape}" if names else shape)
    return ", ".join(texts)
