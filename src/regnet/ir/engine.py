"""A converted model, ready to run: pixels in, probabilities out. Never imports torch."""

import contextlib
import queue
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from regnet.ir.assumptions import without
from regnet.ir.constants import runnable
from regnet.ir.graph import add_logits, graph_metadata, read_graph
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.pixels.decode_limits import DECODE_LIMITS, DecodeLimits
from regnet.pixels.preprocess import ImageLike, crop_pixels, rgb_pixels
from regnet.pixels.protocol import Preprocess, by_protocol
from regnet.system.devices import CPU, members_of
from regnet.system.errors import ModelError, ProtocolError
from regnet.system.parallel import BATCH_SIZE
from regnet.system.runtime import core, ov

Batch = NDArray[Any] | Sequence[NDArray[Any]]


@dataclass(frozen=True)
class ConvertedModel:
    """A converted model in memory, not yet compiled; its graph takes pixels (N, H, W, 3).

    Its first output is the probabilities, its second, where it was asked for, the logits.
    """

    path: Path
    graph: ov.Model
    metadata: ModelMetadata


def read_model(path: Path, *, protocol: str | None = None, logits: bool = False) -> ConvertedModel:
    """Return the model in an IR from `regnet convert`.

    `protocol` names another than the model's own, "omz" or "pycls"; `logits` adds them as a
    second output. Raises `ModelError` where the file is none, or its graph is not what its
    metadata promises, `ProtocolError` where the protocol contradicts what the graph itself does.
    """
    graph = read_graph(path)
    metadata = graph_metadata(graph, source=str(path))
    _require_contract(graph, metadata, path)
    if protocol is not None:
        metadata = with_protocol(metadata, protocol)
    if logits:
        add_logits(graph, source=str(path))
    if metadata.preprocessing == "caller":
        graph = _from_pixels(graph, metadata.preprocess)
    return ConvertedModel(path, graph, metadata)


def with_protocol(metadata: ModelMetadata, protocol: str) -> ModelMetadata:
    """Return the metadata with a named protocol's rules, which are then not assumed.

    Raises `ProtocolError`.
    """
    preprocess = by_protocol(metadata.preprocess, protocol)
    own = metadata.preprocess
    if metadata.preprocessing == "graph" and replace(preprocess, name=own.name) != own:
        raise ProtocolError(
            f"{metadata.name}: its graph makes the crop by {own.name}; "
            f"{protocol} contradicts that: leave --protocol out, or convert it without "
            "--preprocessing graph"
        )
    assumed = without(metadata.assumed, "protocol")
    return replace(metadata, preprocess=preprocess, assumed=assumed)


@dataclass(frozen=True)
class Outputs:
    """What a network says of images: `logits` and `probabilities`, both (N, classes)."""

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]


class InferRequests:
    """The inference requests of a compiled model, of which `count` run side by side."""

    def __init__(self, compiled: Any, count: int) -> None:
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(compiled.create_infer_request())

    @contextlib.contextmanager
    def one(self) -> Iterator[Any]:
        """Lend a request for the block; a thread waits while all are taken."""
        request = self._free.get()
        try:
            yield request
        finally:
            self._free.put(request)


class InferenceEngine(ABC):
    """A model ready to run on a device, behind thread-safe functions.

    `streams` is how many calls of `infer` run side by side, `batch` the number of images that a
    call should have. `limits` are those of decoding an image.
    """

    def __init__(self, metadata: ModelMetadata, *, streams: int, limits: DecodeLimits) -> None:
        self.metadata, self.streams, self.limits = metadata, streams, limits

    @property
    def batch(self) -> int:
        """The number of images in a call that this device runs well."""
        return BATCH_SIZE

    @property
    def outruns_decoding(self) -> bool:
        """Whether the threads of one process are too slow to decode ahead of it."""
        return False

    def pixels(self, image: ImageLike) -> NDArray[Any]:
        """Return what the model takes of an image: its crop, or all of it where the graph crops.

        A crop (crop, crop, 3) is by `metadata.preprocess`, channels in its order; a whole image
        (H, W, 3) is RGB. Raises `ImageError`.
        """
        if self.metadata.preprocessing == "graph":
            return rgb_pixels(image, limits=self.limits)
        return crop_pixels(image, self.metadata.preprocess, limits=self.limits)

    def infer(self, pixels: Batch) -> NDArray[np.float32]:
        """Return the probabilities (N, classes) of N images, rows sum to 1.

        They are what `pixels` gives: one array (N, crop, crop, 3), or an array for each image.
        Threads may call it at once; a call waits while `streams` others run.
        """
        (probabilities,) = self._run(pixels, (0,))
        return probabilities

    def outputs(self, pixels: Batch) -> Outputs:
        """Return probabilities as `infer` does, and logits, of a model read with `logits`."""
        probabilities, logits = self._run(pixels, (0, 1))
        return Outputs(logits, probabilities)

    def ports(self, pixels: Batch, *numbers: int) -> list[NDArray[np.float32]]:
        """Return the graph's outputs of these numbers, each (N, ...); 0, probabilities, is first.

        For models whose graph was given more outputs than `read_model` does.
        """
        return self._run(pixels, (0, *numbers))

    @abstractmethod
    def _run(self, pixels: Batch, ports: tuple[int, ...]) -> list[NDArray[np.float32]]:
        """Return these outputs of the graph. Raises `ModelError` if port 0 is no probabilities."""


class Engine(InferenceEngine):
    """A model compiled by OpenVINO for one of its devices; `open_engine` checks that it is here.

    On the CPU `streams` share the cores; 1 gives one call all of them. On another device more than
    one asks for as many as it runs well. `compiled_cache` is a folder for compiled models, which
    makes later starts faster; None compiles anew. Raises `ModelError`.
    """

    def __init__(
        self,
        model: ConvertedModel,
        *,
        device: str = CPU,
        precision: InferencePrecision = "f32",
        streams: int = 1,
        compiled_cache: Path | None = None,
        limits: DecodeLimits = DECODE_LIMITS,
    ) -> None:
        require_precision(model, precision)
        self._compiled_cache = compiled_cache
        options: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        }
        if device == CPU:
            options["NUM_STREAMS"] = streams
        if device == CPU or _computes_in(device, precision):
            options["INFERENCE_PRECISION_HINT"] = "f32" if precision == "int8" else precision
        if compiled_cache is not None:
            options["CACHE_DIR"] = str(compiled_cache)
        try:
            compiled = core.compile_model(runnable(model.graph), device, options)
            if device != CPU:
                streams = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        except RuntimeError as exc:
            reason = str(exc).strip().splitlines()[-1]
            raise ModelError(f"{model.path}: OpenVINO cannot run it ({reason})") from exc
        super().__init__(model.metadata, streams=streams, limits=limits)
        self._requests = InferRequests(compiled, streams)

    def _run(self, pixels: Batch, ports: tuple[int, ...]) -> list[NDArray[np.float32]]:
        """Return these outputs of the graph, in as many calls as it takes."""
        if self.metadata.preprocessing == "graph":  # whole images differ in size: one call each
            batches: Sequence[NDArray[Any]] = [image[None] for image in pixels]
        else:
            batches = [pixels if isinstance(pixels, np.ndarray) else np.stack(pixels)]
        parts = []
        with self._requests.one() as request:
            for batch in batches:
                request.infer({0: batch}, share_inputs=True)
                parts.append([request.get_output_tensor(port).data.copy() for port in ports])
        results = (
            parts[0] if len(parts) == 1 else list(map(np.concatenate, zip(*parts, strict=True)))
        )
        cache = self._compiled_cache
        remedy = f"remove {cache} and try again, or " if cache else ""
        require_probabilities(
            results[0],
            self.metadata.name,
            f"the model or its compiled copy is damaged: {remedy}convert the model again",
        )
        return results


def require_precision(model: ConvertedModel, precision: str) -> None:
    """Raise `ModelError` if a model cannot be run in this precision, on whatever device."""
    if precision not in get_args(InferencePrecision):
        raise ModelError(f"precision {precision!r} is none of {get_args(InferencePrecision)}")
    if precision == "int8" and model.metadata.precision != "int8":
        raise ModelError(f"{model.path}: is not an INT8 model; `regnet quantize` makes one")


def _computes_in(device: str, precision: InferencePrecision) -> bool:
    """Tell whether a device may be asked for a precision; without, f32 is what it has instead.

    An NPU has 16-bit floats alone. Raises `ModelError` for bf16 on a device without.
    """
    members = members_of(device) or core.available_devices
    known = sorted({c for m in members for c in core.get_property(m, "OPTIMIZATION_CAPABILITIES")})
    if precision == "bf16" and "BF16" not in known:
        raise ModelError(f"{device}: has no bf16, but {', '.join(known)}; leave out --precision")
    return precision == "bf16" or "FP32" in known


def require_probabilities(rows: NDArray[np.float32], name: str, reason: str) -> None:
    """Raise `ModelError` if the rows (N, classes) of a model do not sum to 1, or hold NaN."""
    if not np.all(np.abs(rows.sum(axis=1) - 1) < 1e-2):  # NaN fails too
        raise ModelError(f"{name}: its results are not probabilities; {reason}")


def _require_contract(model: ov.Model, metadata: ModelMetadata, path: Path) -> None:
    """Refuse a graph whose input and output are not those its metadata promises."""
    size, classes = metadata.preprocess.crop, metadata.classes
    if metadata.preprocessing == "graph":
        expected = f"[1,?,?,3] -> [1,{classes}]"
    else:
        expected = f"[?,3,{size},{size}] -> [?,{classes}]"
    shapes = (
        str(ports[0].partial_shape).replace(" ", "") if len(ports) == 1 else f"{len(ports)} ports"
        for ports in (model.inputs, model.outputs)
    )
    if (found := " -> ".join(shapes)) != expected:
        raise ModelError(f"{path}: its graph is {found}, its metadata says {expected}")


def _from_pixels(model: ov.Model, preprocess: Preprocess) -> ov.Model:
    """Return the model with (N, H, W, 3) input; converting it is free inside the graph."""
    from openvino.preprocess import PrePostProcessor

    processor = PrePostProcessor(model)
    element = ov.Type.f32 if preprocess.interpolation == "opencv-linear" else ov.Type.u8
    processor.input().tensor().set_element_type(element).set_layout(ov.Layout("NHWC"))
    processor.input().model().set_layout(ov.Layout("NCHW"))
    return processor.build()
