"""The proof that a converted model is its network: outputs and layers, judged against float64.

Outputs alone do not prove a graph right: a fault in a channel that the photos do not excite, or one
whose effect is below the rounding of later layers, does not show in them. So the weights, biases,
strides and padding of its layers are compared too.

Rounding moves the outputs of any float32 program, and how far depends on the network. So the
converted model and the reference network's own float32 are both compared with its float64.
float32's distance is the largest of three forwards, whose inputs differ by two units in the last
place: a single one may be right by luck.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from openvino.passes import ConstantFolding, Manager

from regnet.conversion.graph_preprocess import PIXELS
from regnet.conversion.ir_weights import stored_layer
from regnet.conversion.onnx_graph import OUTPUT, with_logits
from regnet.conversion.values import FLOOR, Distance, Proof
from regnet.conversion.whole_photo import run, run_whole
from regnet.ir.constants import ops_by_name, pixels_of, values, with_float_weights
from regnet.ir.graph import add_logits
from regnet.ir.metadata import ModelMetadata
from regnet.network.layers import EPSILON, Layer, layers
from regnet.network.reference import ReferenceNetwork, Weights
from regnet.network.spec import Spec
from regnet.pixels.protocol import Preprocess
from regnet.statistics.conformal import softmax64
from regnet.system.errors import ConversionError, ModelError
from regnet.system.runtime import core, ov

Array64 = NDArray[np.float64]
Pixels = NDArray[np.float32]

ROUNDINGS: Final = (1.0, 1 + 2 * 2**-23, 1 - 2 * 2**-23)
"""Factors of normalised pixels, two units in the last place apart: each rounds in its own way."""

_ROUNDING: Final = 2.0**-22  # relative; folding in float64 and storing in float32 takes 2^-24
_CANCELLED: Final = 2.0**-40  # of the layer's largest value: what a difference may lose in float64


@dataclass(frozen=True)
class Rows:
    """Outputs for N images: `logits` and `probabilities`, both (N, classes)."""

    logits: NDArray[np.floating[Any]]
    probabilities: NDArray[np.floating[Any]]


class Judge:
    """The right outputs for the sample photos, and how far float32's rounding is from them.

    `near` are outputs of the same network in float32, rounded in other ways. Raises
    `ConversionError` if any output is not finite.
    """

    def __init__(self, rows: Rows, near: Iterable[Rows], *, name: str = "the network") -> None:
        self.rows, self._name = rows, name
        if not np.isfinite(rows.logits).all():
            raise ConversionError(
                f"{name}: its outputs are not numbers on the sample photos: its weights hold NaN "
                "or infinity, or are too large to be stored; nothing was written"
            )
        distances = [self.distance(others) for others in near]
        if not math.isfinite(max(distance.logits for distance in distances)):
            raise ConversionError(
                f"{name}: its outputs are beyond float32 on the sample photos; nothing was written"
            )
        self.float32 = Distance(
            max(distance.probabilities for distance in distances),
            max(distance.logits for distance in distances),
        )
        probabilities = self.rows.probabilities
        slope = 2 * float((probabilities * (1 - probabilities)).max())
        self._reach = min(1.0, slope * self.float32.logits * self._range)

    @property
    def _range(self) -> float:
        """The range of the logits."""
        return float(np.ptp(self.rows.logits)) or 1.0

    def distance(self, rows: Rows) -> Distance:
        """Return how far other outputs of the same images are; NaN is infinitely far."""
        return Distance(
            _largest(rows.probabilities - self.rows.probabilities),
            _largest((rows.logits - self.rows.logits) / self._range),
        )

    def proof(self, rows: Rows) -> Proof:
        """Return the measured distances; raises `ConversionError` if any is too large."""
        proof = Proof(self.distance(rows), self.float32, self._reach)
        sums = _largest(rows.probabilities.sum(axis=1, dtype=np.float64) - 1)
        delta, allowed = proof.delta, proof.allowed
        if (
            delta.probabilities <= allowed.probabilities
            and delta.logits <= allowed.logits
            and sums <= FLOOR
        ):
            return proof
        raise ConversionError(
            f"the converted model disagrees with {self._name}: probabilities differ by "
            f"{delta.probabilities:.3g} ({allowed.probabilities:.3g} is allowed) and sum to 1 "
            f"within {sums:.3g} ({FLOOR:g}), logits differ by {delta.logits:.3g} of their range "
            f"({allowed.logits:.3g}); nothing was written"
        )


class Reference(Judge):
    """A network's float64 outputs for raw pixels (N, 3, H, W), and the distance of its float32.

    Batch norm is not folded unless it is in `network`. Raises as `Judge` does.
    """

    def __init__(self, network: ReferenceNetwork, preprocess: Preprocess, pixels: Pixels) -> None:
        single = replace(network, dtype=np.float32)
        near = (forward(single, preprocess, pixels, input_scale=scale) for scale in ROUNDINGS)
        super().__init__(forward(network, preprocess, pixels), near)


@np.errstate(over="ignore", invalid="ignore")
def forward(
    network: ReferenceNetwork, preprocess: Preprocess, pixels: Pixels, *, input_scale: float = 1.0
) -> Rows:
    """Return a network's outputs for raw pixels (N, 3, H, W), in its own precision.

    Normalised pixels are multiplied by `input_scale`: next to 1 it gives other roundings.
    """
    mean, scale = (
        np.array(values, network.dtype).reshape(3, 1, 1)
        for values in (preprocess.mean, preprocess.scale)
    )
    logits = network.logits((pixels - mean) / scale * network.dtype(input_scale))
    return Rows(logits, softmax64(logits.astype(np.float64)))


def _largest(differences: NDArray[np.floating[Any]]) -> float:
    """Return the largest absolute value; infinity if any is not a number."""
    largest = float(np.abs(differences).max())
    return math.inf if math.isnan(largest) else largest


def require_layers(
    graph: ov.Model, spec: Spec, weights: Weights, preprocess: Preprocess, *, half: bool
) -> None:
    """Raise `ConversionError` unless the graph's layers are the network's, batch norm folded.

    Folding is recomputed here in float64. `half`: the graph stores its weights in FP16.
    """
    ops = ops_by_name(graph)
    try:
        wrong = [
            f"the constant of {name} is {constant.tolist()}, not {list(expected)}"
            for name, expected in (("centred", preprocess.mean), ("normalised", preprocess.scale))
            if not np.array_equal(
                constant := values(ops[name].input_value(1)).ravel(), np.array(expected, np.float32)
            )
        ]
        wrong += [w for layer in layers(spec) for w in _wrong(ops, layer, weights, half=half)]
    except (KeyError, ModelError) as exc:
        raise ConversionError(f"the converted graph lacks a layer of the network: {exc}") from exc
    if wrong:
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise ConversionError(
            f"the converted model disagrees with the network: {wrong[0]}{more}; nothing was written"
        )


def _wrong(ops: dict[str, Any], layer: Layer, weights: Weights, *, half: bool) -> Iterator[str]:
    """Yield what is wrong with a layer in the graph."""
    stored, expected = stored_layer(ops, layer), _expected(layer, weights)
    if not _holds(stored[0], expected[0], half=half and layer.kind != "norm"):
        yield f"the weights of {layer.name}"
    if not _holds(stored[1], expected[1], half=False):
        yield f"the bias of {layer.name}"
    if layer.kind not in ("linear", "norm"):
        attributes = ops[f"{layer.name}.conv"].get_attributes()
        around = layer.kernel // 2
        sides = {"strides": layer.stride, "dilations": 1, "pads_begin": around, "pads_end": around}
        for key, side in sides.items():
            if list(attributes[key]) != [side, side]:
                yield f"{key} of {layer.name} are {list(attributes[key])}, not {[side, side]}"


def _expected(layer: Layer, weights: Weights) -> tuple[Array64, Array64]:
    """Return the weight and bias of a layer with its batch norm in it."""
    weight = weights[f"{layer.name}.weight"].astype(np.float64)
    if layer.norm is None:
        none = np.zeros(layer.width_out)
        return weight, weights.get(f"{layer.name}.bias", none).astype(np.float64)
    parts = ("running_mean", "running_var", "weight", "bias")
    mean, variance, scale, shift = (
        weights[f"{layer.norm}.{part}"].astype(np.float64) for part in parts
    )
    deviation = np.sqrt(variance + EPSILON)
    gain, shift = scale / deviation, shift - mean / deviation * scale
    return gain if layer.kind == "norm" else weight * gain.reshape(-1, 1, 1, 1), shift


def _holds(stored: NDArray[np.float32], expected: Array64, *, half: bool) -> bool:
    """Tell whether stored numbers are the expected ones, rounded as they are stored."""
    slack = _ROUNDING * np.abs(expected) + _CANCELLED * np.abs(expected).max()
    low, high = (as_stored(expected + side * slack, half=half) for side in (-1, 1))
    return bool(((low <= stored) & (stored <= high)).all())


def as_stored(numbers: NDArray[np.floating[Any]], *, half: bool) -> NDArray[np.float32]:
    """Return numbers as a file holds them: in float32, with `half` those of FP16 alone."""
    with np.errstate(over="ignore"):
        single = numbers.astype(np.float32)
        return single.astype(np.float16).astype(np.float32) if half else single


def read_written(path: Path) -> ov.Model:
    """Return the graph in an IR or ONNX file, constants folded; raises `ConversionError`."""
    try:
        model = core.read_model(path)
    except RuntimeError as exc:
        raise ConversionError(f"the converted graph of {path.name} is wrong: {exc}") from exc
    if path.suffix == ".onnx":
        passes = Manager()
        passes.register_pass(ConstantFolding())
        passes.run_passes(model)
    return model


def run_written(
    path: Path, metadata: ModelMetadata, images: Sequence[NDArray[np.uint8]]
) -> tuple[Pixels, Rows]:
    """Return the pixels (N, 3, crop, crop) that the network in a file got, and its outputs.

    `images` are crops or, if the graph makes the crops, whole images. ONNX files run in ONNX
    Runtime if it is installed, else in OpenVINO; in float32, one by one.
    """
    whole = metadata.preprocessing == "graph"
    if path.suffix == ".onnx" and find_spec("onnxruntime"):
        return _run_onnx(path, list(images if whole else pixels_of(images)), whole=whole)
    model = core.read_model(path)
    if metadata.precision == "int8":
        model = with_float_weights(model)
    add_logits(model, source=path.name)
    if whole:
        rows = zip(*run_whole(model, images), strict=True)
        pixels, probabilities, logits = map(np.stack, rows)
    else:
        pixels = pixels_of(images)
        probabilities, logits = map(np.stack, zip(*run(model, pixels), strict=True))
    return pixels, Rows(logits, probabilities)


def _run_onnx(path: Path, inputs: Sequence[NDArray[Any]], *, whole: bool) -> tuple[Pixels, Rows]:
    """Run a file, or if its weights are apart a copy beside it, that also gives its logits."""
    import onnxruntime

    model, logits = with_logits(onnx.load(path, load_external_data=False))
    if whole:
        model.graph.output.append(helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, None))
    names = [logits, OUTPUT, *([PIXELS] if whole else [])]
    apart = any(tensor.external_data for tensor in model.graph.initializer)
    probe = path.with_name(f".logits-{path.name}") if apart else None
    try:
        if probe:
            onnx.save_model(model, probe)
        session = onnxruntime.InferenceSession(
            probe or model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
    finally:
        if probe:
            probe.unlink(missing_ok=True)
    (port,) = session.get_inputs()
    results = [session.run(names, {port.name: image[None]}) for image in inputs]
    arrays = list(map(np.concatenate, zip(*results, strict=True)))
    return arrays[2] if whole else np.asarray(inputs), Rows(*arrays[:2])
