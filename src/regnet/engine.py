"""A converted model, ready to run: pixels in, probabilities out. Never imports torch."""

import contextlib
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from regnet.conversion import InferencePrecision
from regnet.errors import ModelError
from regnet.graph import graph_metadata, read_graph
from regnet.metadata import ModelMetadata
from regnet.runtime import ov


PixelType = Literal["u8", "f32"]


@dataclass(frozen=True)
class ConvertedModel:
    """A converted model in memory, not yet compiled; its graph takes pixels (N, H, W, 3).

    Its first output is the probabilities, its second, where it was asked for, the logits.
    """

    path: Path
    graph: ov.Model
    metadata: ModelMetadata


def read_model(path: Path, *, pixels: PixelType = "u8", logits: bool = False) -> ConvertedModel:
    """Return the model in an IR from `regnet convert`, for uint8 or float32 pixels of 0..255.

    Raises `ModelError` where the file is none, or its graph is not what its metadata promises.
    """
    graph = read_graph(path)
    metadata = graph_metadata(graph, source=str(path))
    _require_contract(graph, metadata, path)
    if logits:
        _add_logits(graph, path)
    if metadata.preprocessing == "caller":
        graph = _from_pixels(graph, pixels)
    return ConvertedModel(path, graph, metadata)


@dataclass(frozen=True)
class Outputs:
    """What a network says of images: `logits` and `probabilities`, both (N, classes)."""

    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32]


class Engine:
    """A model compiled by OpenVINO for the CPU, behind one thread-safe function.

    `streams` is how many calls of `infer` run side by side, each on its share of the cores;
    1 gives one call all of them. `compiled_cache` is a folder for compiled models, which makes
    later starts faster; None compiles anew. Raises `ModelError`.
    """

    def __init__(
        self,
        model: ConvertedModel,
        *,
        precision: InferencePrecision = "f32",
        streams: int = 1,
        compiled_cache: Path | None = None,
    ) -> None:
        if precision not in get_args(InferencePrecision):
            raise ModelError(f"precision {precision!r} is none of {get_args(InferencePrecision)}")
        self.metadata = model.metadata
        self.streams = streams
        self._compiled_cache = compiled_cache
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": streams,
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        }
        if compiled_cache is not None:
            options["CACHE_DIR"] = str(compiled_cache)
        compiled = _compile(model, options)
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())

    def infer(self, crops: NDArray[Any]) -> NDArray[np.float32]:
        """Return the probabilities (N, classes) of crops (N, crop, crop, 3), rows sum to 1.

        The crops are by `metadata.preprocess`, channels in its order; a model that makes them
        itself takes one whole image (1, H, W, 3) in RGB. Threads may call it at once; a call waits
        while `streams` others run.
        """
        with self._request() as request:
            request.infer({0: crops}, share_inputs=True)
            result: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        self._require_probabilities(result)
        return result

    def outputs(self, crops: NDArray[Any]) -> Outputs:
        """Return probabilities as `infer` does, and logits, of a model read with `logits`."""
        with self._request() as request:
            request.infer({0: crops}, share_inputs=True)
            probabilities, logits = (request.get_output_tensor(i).data.copy() for i in (0, 1))
        self._require_probabilities(probabilities)
        return Outputs(logits, probabilities)

    def _require_probabilities(self, rows: NDArray[np.float32]) -> None:
        """Refuse what is none, as a damaged file in the folder of compiled models gives."""
        if not np.all(np.abs(rows.sum(axis=1) - 1) < 1e-2):  # NaN fails too
            raise ModelError(
                f"{self.metadata.name}: its results are no probabilities; the model or its "
                f"compiled copy is damaged: remove {self._compiled_cache or 'it'} and try again"
            )

    @contextlib.contextmanager
    def _request(self) -> Iterator[Any]:
        request = self._requests.get()
        try:
            yield request
        finally:
            self._requests.put(request)


def _require_contract(model: ov.Model, metadata: ModelMetadata, path: Path) -> None:
    """Refuse a graph whose input and output are not those its metadata promises."""
    size = metadata.preprocess.crop
    taken = "[1,?,?,3]" if metadata.preprocessing == "graph" else f"[?,3,{size},{size}]"
    given = "[1" if metadata.preprocessing == "graph" else "[?"
    expected = f"{taken} -> {given},{metadata.spec.classes}]"
    found = " -> ".join(
        str(ports[0].partial_shape) if len(ports) == 1 else f"{len(ports)} ports"
        for ports in (model.inputs, model.outputs)
    ).replace(" ", "").replace("->", " -> ")  # fmt: skip
    if found != expected:
        raise ModelError(f"{path}: its graph is {found}, its metadata says {expected}")


def _add_logits(model: ov.Model, path: Path) -> None:
    """Make what goes into the final softmax a second output."""
    softmax = model.output(0).get_node().input_value(0).get_node()
    if softmax.get_type_name() != "Softmax":
        raise ModelError(f"{path}: its graph does not end in a softmax; convert it again")
    model.add_outputs([softmax.input_value(0)])


def _from_pixels(model: ov.Model, pixels: PixelType) -> ov.Model:
    """Return the model with (N, H, W, 3) input; converting it is free inside the graph."""
    from openvino.preprocess import PrePostProcessor

    processor = PrePostProcessor(model)
    element = {"u8": ov.Type.u8, "f32": ov.Type.f32}[pixels]
    processor.input().tensor().set_element_type(element).set_layout(ov.Layout("NHWC"))
    processor.input().model().set_layout(ov.Layout("NCHW"))
    return processor.build()


def _compile(model: ConvertedModel, options: dict[str, Any]) -> Any:
    try:
        return ov.Core().compile_model(model.graph, "CPU", options)
    except RuntimeError as exc:
        reason = str(exc).strip().splitlines()[-1]
        raise ModelError(f"{model.path}: OpenVINO cannot run it ({reason})") from exc
