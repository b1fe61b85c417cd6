"""A converted model, ready to run: uint8 crops in, probabilities out. Never imports torch."""

import contextlib
import queue
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from regnet.conversion import InferencePrecision
from regnet.errors import ModelError
from regnet.graph import graph_metadata, read_graph
from regnet.metadata import ModelMetadata
from regnet.runtime import ov


@dataclass(frozen=True)
class ConvertedModel:
    """A converted model in memory, not yet compiled; its graph takes uint8 (N, H, W, 3)."""

    path: Path
    graph: ov.Model
    metadata: ModelMetadata


def read_model(path: Path) -> ConvertedModel:
    """Return the model in an IR from `regnet convert`.

    Raises `ModelError` where the file is none, or its graph is not what its metadata promises.
    """
    graph = read_graph(path)
    metadata = graph_metadata(graph, source=str(path))
    _require_contract(graph, metadata, path)
    return ConvertedModel(path, _from_bytes(graph), metadata)


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

    def infer(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities (N, classes) of crops (N, crop, crop, 3), rows sum to 1.

        The crops are by `metadata.preprocess`, channels in its order. Threads may call it at
        once; a call waits while `streams` others run.
        """
        with self._request() as request:
            request.infer({0: crops}, share_inputs=True)
            result: NDArray[np.float32] = request.get_output_tensor(0).data.copy()
        self._require_probabilities(result)
        return result

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
    expected = f"[?,3,{size},{size}] -> [?,{metadata.spec.classes}]"
    found = " -> ".join(
        str(ports[0].partial_shape) if len(ports) == 1 else f"{len(ports)} ports"
        for ports in (model.inputs, model.outputs)
    ).replace(" ", "").replace("->", " -> ")  # fmt: skip
    if found != expected:
        raise ModelError(f"{path}: its graph is {found}, its metadata says {expected}")


def _from_bytes(model: ov.Model) -> ov.Model:
    """Return the model with uint8 (N, H, W, 3) input; converting it is free inside the graph."""
    from openvino.preprocess import PrePostProcessor

    processor = PrePostProcessor(model)
    processor.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    processor.input().model().set_layout(ov.Layout("NCHW"))
    return processor.build()


def _compile(model: ConvertedModel, options: dict[str, Any]) -> Any:
    try:
        return ov.Core().compile_model(model.graph, "CPU", options)
    except RuntimeError as exc:
        reason = str(exc).strip().splitlines()[-1]
        raise ModelError(f"{model.path}: OpenVINO cannot run it ({reason})") from exc
