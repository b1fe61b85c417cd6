"""ONNX files from `regnet convert`, run by ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from regnet.engine import Batch, Outputs, with_protocol
from regnet.errors import ModelError
from regnet.metadata import metadata_from_strings
from regnet.onnx_graph import INPUT, OUTPUT, with_logits
from regnet.preprocess import ImageLike, crop_pixels


class OnnxPredictor:
    """An ONNX model on the CPU, in FP32. Raises `ModelError` where regnet did not write it."""

    def __init__(self, path: Path, *, protocol: str | None = None) -> None:
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        try:
            model, self._logits = with_logits(onnx.load(path))
            self._session = onnxruntime.InferenceSession(
                model.SerializeToString(), providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # protobuf's and the runtime's errors share no base
            raise ModelError(f"{path}: not a model that ONNX Runtime can run ({exc})") from exc
        values = self._session.get_modelmeta().custom_metadata_map
        metadata = metadata_from_strings(values, source=str(path))
        self.metadata = metadata if protocol is None else with_protocol(metadata, protocol)

    def pixels(self, image: ImageLike) -> NDArray[Any]:
        """Return the crop (crop, crop, 3) of one image; raises `ImageError`."""
        return crop_pixels(image, self.metadata.preprocess)

    def outputs(self, pixels: Batch) -> Outputs:
        """Return logits and probabilities (N, classes) of crops (N, crop, crop, 3)."""
        batch = np.ascontiguousarray(np.asarray(pixels).transpose(0, 3, 1, 2), np.float32)
        logits, probabilities = self._session.run([self._logits, OUTPUT], {INPUT: batch})
        return Outputs(logits, probabilities)
