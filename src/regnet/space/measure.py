"""Latencies of networks on this machine: one image, all cores, the real engine, interleaved.

Speed depends on shapes and types, not on values. So networks have random weights, nothing is
trained, and INT8 needs no calibration photos: the graph gets the operations of
`regnet.quantization.int8_graph`, with ranges that fit the activations of random weights.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.conversion.onnx_graph import onnx_graph
from regnet.ir.constants import ops_by_name, set_values, values
from regnet.ir.engine import Engine, read_model
from regnet.ir.graph import write_ir
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.network.labels import imagenet_labels, numbered_labels
from regnet.network.layers import layers
from regnet.network.spec import Spec, spec_by_name
from regnet.pixels.protocol import OMZ, Preprocess
from regnet.system.checked import Checked, within
from regnet.system.errors import SpaceError
from regnet.system.files import temporary_folder
from regnet.system.machine import this_machine, watch_others
from regnet.system.runtime import core, ov
from regnet.system.timing import Contestant, Timing, measure, ratio
from regnet.system.version import TOOL_VERSION

REFERENCE: Final = "regnetx-400mf"
"""The network measured beside all others: what slows it down slowed them down."""

_ROUNDS: Final = 7
_TURN: Final = 0.05  # seconds
_GROUP: Final = 4  # networks in memory at a time
_LEVELS: Final = 256
_LARGEST_LEVEL: Final = 127
_RANGE: Final = 16.0  # of activations; those of random weights are about 1
_BIAS: Final = np.float32(0.1)
_CONVOLUTIONS: Final = ("Convolution", "GroupConvolution")
_SQUEEZE: Final = ".f.se.f_ex."

Weights = dict[str, NDArray[np.float32]]


def write_random_ir(
    spec: Spec, path: Path, *, precision: InferencePrecision, image_size: int = 224
) -> None:
    """Write an IR with random weights: as `convert` would, or for "int8" as `quantize` would.

    `path` ends in .xml; the model takes images of `image_size` pixels.
    """
    from openvino.passes import ConstantFolding, Manager

    labels = imagenet_labels()
    if spec.classes != len(labels):
        labels = numbered_labels(spec.classes)
    metadata = ModelMetadata(
        name=path.stem,
        card="",
        spec=spec,
        preprocess=protocol(image_size),
        labels=labels,
        weights_sha384="",
        precision="int8" if precision == "int8" else "fp32",
        licence="none: random weights",
        version=TOOL_VERSION,
    )
    onnx = onnx_graph(spec, random_weights(spec), metadata.preprocess)
    graph = core.read_model(onnx.SerializeToString())
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(graph)
    if precision == "int8":
        _to_int8(graph)
    write_ir(graph, metadata, path)


def protocol(image_size: int) -> Preprocess:
    """Return the preprocessing for images of this size; resized by the usual 8 / 7."""
    if image_size == OMZ.crop:
        return OMZ
    resize = max(round(image_size * OMZ.resize / OMZ.crop), image_size)
    return replace(OMZ, name="custom", resize=resize, crop=image_size)


def random_weights(spec: Spec) -> Weights:
    """Return weights and biases by pycls's names, with batch norm folded into the convolutions.

    Each layer's outputs are about as large as its inputs. No bias is 0: the engine would drop it.
    """
    random = np.random.default_rng(0)
    weights: Weights = {}
    for layer in layers(spec):
        deviation = np.float32(math.sqrt(1 / math.prod(layer.shape[1:])))
        weights[f"{layer.name}.weight"] = (
            random.standard_normal(layer.shape, np.float32) * deviation
        )
        weights[f"{layer.name}.bias"] = random.standard_normal(layer.width_out, np.float32) * _BIAS
    return weights


def _to_int8(graph: ov.Model) -> None:
    """Round each convolution's input to 8 bits, and store its weights in 8 bits; as NNCF does."""
    rounded: dict[str, Any] = {}
    for op in graph.get_ordered_ops():
        if op.get_type_name() not in _CONVOLUTIONS or _SQUEEZE in op.get_friendly_name():
            continue
        _round_weights(op)
        source = op.input_value(0)
        name = source.get_node().get_friendly_name()
        if op.get_friendly_name() == "stem.conv.conv":
            # The stem takes whole levels minus a whole mean, without the division by the scale.
            centred = ops_by_name(graph)["centred"]
            set_values(centred, 1, np.round(values(centred.input_value(1))))
            pixels = _fake_quantize(centred.input_value(0), _LEVELS - 1)
            centred.input(0).replace_source_output(pixels.output(0))
            rounded[name] = centred
        elif name not in rounded:
            rounded[name] = _fake_quantize(source, _RANGE)
        op.input(0).replace_source_output(rounded[name].output(0))


def _fake_quantize(source: Any, high: float) -> Any:
    from openvino import opset13 as opset

    ends = [opset.constant(np.float32(value)) for value in (0, high)]
    return opset.fake_quantize(source, *ends, *ends, _LEVELS)


def _round_weights(op: Any) -> None:
    """Store weights as INT8 with a scale for each output channel."""
    from openvino import opset13 as opset

    weights = values(op.input_value(1))
    outputs = (*weights.shape[: weights.ndim - 3], 1, 1, 1)  # without inputs, height, width
    sizes = np.abs(weights).reshape(*outputs[:-3], -1).max(axis=-1).reshape(outputs)
    scales = np.maximum(sizes, 1e-6) / _LARGEST_LEVEL
    levels = opset.constant(np.round(weights / scales).astype(np.int8))
    restored = opset.multiply(opset.convert(levels, "f32"), opset.constant(scales))
    op.input(1).replace_source_output(restored.output(0))


@dataclass(frozen=True, kw_only=True)
class LatencySetup(Checked, error=SpaceError):
    """How networks are run; raises `SpaceError` if this machine cannot run them so."""

    precision: InferencePrecision = "f32"
    image_size: Annotated[int, within(ge=32)] = 224
    device: str = "CPU"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device.upper() != "CPU":
            raise SpaceError(f"{self.device}: the engine runs on CPUs: use --device CPU")
        if self.precision == "bf16" and not this_machine().has_bf16:
            raise SpaceError(f"bf16: this CPU ({this_machine().cpu}) has none; use f32 or int8")


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one image: the median and the 90th percentile of all calls."""

    median: float
    p90: float


class Stopwatch:
    """Measures networks in groups, each beside the reference.

    `drift` has the reference's median in each group; `other_work()` returns the share of the
    machine that other processes took since the start, in [0, 1], or None if it is not known.
    """

    def __init__(self, setup: LatencySetup) -> None:
        self.setup = setup
        self.drift: list[float] = []
        self.other_work = watch_others()

    def latencies(self, specs: Sequence[Spec], *, rounds: int = _ROUNDS) -> list[Latency]:
        """Return the latency of each network, as measured."""
        return [_latency(timing) for timing in self._timings(specs, rounds)[1:]]

    def comparable(self, specs: Sequence[Spec]) -> list[float]:
        """Return milliseconds that are comparable between groups.

        They are the reference's in the first group, times how much longer each network took in the
        same rounds: a slowdown of the whole machine cancels out.
        """
        reference, *timings = self._timings(specs, _ROUNDS)
        return [self.drift[0] * ratio(reference, timing) for timing in timings]

    def _timings(self, specs: Sequence[Spec], rounds: int) -> list[Timing]:
        """Return the timing of the reference and of each network."""
        with temporary_folder() as folder:
            contestants = [
                self._contestant(spec, folder / f"{number}.xml")
                for number, spec in enumerate([spec_by_name(REFERENCE), *specs])
            ]
            by_name = measure(contestants, rounds=rounds, turn=_TURN)
        timings = [by_name[contestant.name] for contestant in contestants]
        self.drift.append(_latency(timings[0]).median)
        return timings

    def _contestant(self, spec: Spec, path: Path) -> Contestant:
        size, precision = self.setup.image_size, self.setup.precision
        write_random_ir(spec, path, precision=precision, image_size=size)
        engine = Engine(read_model(path), precision=precision)
        image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
        return Contestant(path.stem, partial(engine.infer, image))


def latencies_at(
    networks: Iterable[tuple[Spec, int]], *, on_measured: Callable[[int], None]
) -> dict[tuple[Spec, int], float]:
    """Return the milliseconds of networks in FP32, each for images of its own size.

    Those of a size are comparable; `on_measured` hears how many were measured.
    """
    by_size: dict[int, list[Spec]] = {}
    for spec, size in dict.fromkeys(networks):
        by_size.setdefault(size, []).append(spec)
    found: dict[tuple[Spec, int], float] = {}
    for size, specs in by_size.items():
        stopwatch = Stopwatch(LatencySetup(image_size=size))
        for start in range(0, len(specs), _GROUP):
            group = specs[start : start + _GROUP]
            keys = [(spec, size) for spec in group]
            found |= zip(keys, stopwatch.comparable(group), strict=True)
            on_measured(len(group))
    return found


def _latency(timing: Timing) -> Latency:
    return Latency(1e3 * timing.percentile(50), 1e3 * timing.percentile(90))
