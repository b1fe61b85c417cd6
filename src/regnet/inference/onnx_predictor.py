"""ONNX files from `regnet convert`, run by ONNX Runtime."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from regnet.conversion.onnx_graph import OUTPUT, with_logits
from regnet.ir.engine import Batch, InferenceEngine, require_probabilities, with_protocol
from regnet.ir.graph import require_finite
from regnet.ir.metadata import KNOWN_BY, metadata_from_strings, not_ours
from regnet.pixels.decode_limits import DECODE_LIMITS
from regnet.system.errors import ModelError
from regnet.system.parallel import cores


class OnnxPredictor(InferenceEngine):
    """An ONNX model on the CPU, in FP32.

    Raises `ModelError` if regnet did not write it, or its weights hold NaN or infinity.
    """

    def __init__(self, path: Path, *, protocol: str | None = None) -> None:
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        try:
            model = onnx.load(path)
            values = {prop.key: prop.value for prop in model.metadata_props}
            if KNOWN_BY not in values:
                raise not_ours(path)
            model, self._logits = with_logits(model)
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), providers=["CPUExecutionProvider"]
            )
        except ModelError:
            raise
        except Exception as exc:  # protobuf's and the runtime's errors share no base
            raise ModelError(f"{path}: not a model that ONNX Runtime can run ({exc})") from exc
        require_finite(_weights(model), source=str(path))
        metadata = metadata_from_strings(values, source=str(path))
        if protocol is not None:
            metadata = with_protocol(metadata, protocol)
        super().__init__(metadata, streams=cores(), limits=DECODE_LIMITS)

    def _run(self, pixels: Batch, ports: tuple[int, ...]) -> list[NDArray[np.float32]]:
        if self.metadata.preprocessing == "graph":  # whole images differ in size
            inputs = [image[None] for image in pixels]
        else:
            inputs = [np.asarray(pixels).transpose(0, 3, 1, 2).astype(np.float32)]
        (port,) = self._session.get_inputs()
        names = [(OUTPUT, self._logits)[number] for number in ports]
        parts = [self._session.run(names, {port.name: batch}) for batch in inputs]
        results = list(map(np.concatenate, zip(*parts, strict=True)))
        require_probabilities(results[0], self.metadata.name, "its weights are damaged")
        return results


def _weights(model: onnx.ModelProto) -> Iterator[tuple[str, NDArray[Any]]]:
    for tensor in model.graph.initializer:
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            yield tensor.name, onnx.numpy_helper.to_array(tensor)
