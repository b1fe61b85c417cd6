"""A classifier run in the engine that it was made for, as its maker runs it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.conversion.foreign_graph import Face
from regnet.conversion.proof import ROUNDINGS, Judge, Pixels, Rows
from regnet.conversion.values import Outputs
from regnet.pixels.protocol import Preprocess
from regnet.statistics.conformal import softmax64
from regnet.system.errors import MissingExtraError, ModelError
from regnet.system.runtime import core, ov
from regnet.system.text import last_line

Values = NDArray[Any]
Run = Callable[[Values], Values]

_TYPES = {"f32": np.float32, "f16": np.float16, "f64": np.float64, "u8": np.uint8}
_TINY = 1e-30


class Original:
    """ONNX Runtime for .onnx files, OpenVINO in float32 for .xml; `run` gives raw outputs.

    Raises `MissingExtraError`, and `ModelError` if the engine cannot run the file.
    """

    def __init__(self, path: Path, face: Face, preprocess: Preprocess) -> None:
        self._path, self._face, self._preprocess = path, face, preprocess
        try:
            self._runs = _onnx_runtime(path) if path.suffix == ".onnx" else [_openvino(path)]
        except (RuntimeError, ValueError) as exc:
            raise self._cannot_run(exc) from exc
        self.name = f"{path.name} in {self._engine}"

    @property
    def _engine(self) -> str:
        return "ONNX Runtime" if self._path.suffix == ".onnx" else "OpenVINO"

    def raw(self, pixels: Pixels, *, input_scale: float = 1.0, way: int = 0) -> NDArray[np.float64]:
        """Return outputs (N, classes) for pixels (N, 3, crop, crop), 0..255, one by one."""
        run = self._runs[way]
        try:
            rows = [run(self._input(image, input_scale))[0].ravel() for image in pixels]
        except (RuntimeError, ValueError) as exc:
            raise self._cannot_run(exc) from exc
        return np.stack(rows).astype(np.float64)

    def judge(self, pixels: Pixels, outputs: Outputs, *, by_softmax: bool) -> Judge:
        """Return what judges other outputs for the same pixels, by its own rounding."""
        more = range(1, len(self._runs))
        near = [self.raw(pixels, way=way) for way in more]
        if self._face.element != "u8":
            coarser = 2**12 if self._face.element == "f16" else 1  # 1 unit in float16
            scales = (1 + coarser * (scale - 1) for scale in ROUNDINGS)
            near += [self.raw(pixels, input_scale=scale) for scale in scales]
        exact = self.raw(pixels)
        return Judge(
            as_rows(exact, outputs, by_softmax=by_softmax),
            [as_rows(rows, outputs, by_softmax=by_softmax) for rows in near or [exact]],
            name=self.name,
        )

    def _input(self, image: Pixels, input_scale: float) -> Values:
        """Return what the maker feeds for an image's pixels (3, crop, crop): a batch."""
        values: Values = image
        if self._face.element != "u8":
            mean, scale = (
                np.array(v, np.float32).reshape(3, 1, 1)
                for v in (self._preprocess.mean, self._preprocess.scale)
            )
            values = (image - mean) / scale * np.float32(input_scale)
        else:
            values = np.floor(image + np.float32(0.5))
        if self._face.layout == "NHWC":
            values = values.transpose(1, 2, 0)
        batch = np.repeat(values[None], self._face.batch or 1, axis=0)
        return np.ascontiguousarray(batch, _TYPES[self._face.element])

    def _cannot_run(self, exc: Exception) -> ModelError:
        reason = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", last_line(exc))
        return ModelError(f"{self._path}: {self._engine} cannot run it ({reason})")


def as_rows(raw: NDArray[np.float64], outputs: Outputs, *, by_softmax: bool) -> Rows:
    """Return logits and probabilities (N, classes) of a classifier's outputs.

    Probabilities that come from no softmax have no logits: small ones may be all rounding. One
    number per image is that of the second of 2 classes.
    """
    if raw.shape[1] == 1:
        raw = np.hstack([-raw / 2, raw / 2] if outputs == "logits" else [1 - raw, raw])
    if outputs == "logits":
        return Rows(raw, softmax64(raw))
    return Rows(np.log(np.maximum(raw, _TINY)) if by_softmax else raw, raw)


def _onnx_runtime(path: Path) -> list[Run]:
    """Return the file in ONNX Runtime, optimised and as it is: they round in their own ways."""
    try:
        import onnxruntime
    except ImportError as exc:
        raise MissingExtraError("comparing an adopted model with the original", "onnx") from exc

    levels = onnxruntime.GraphOptimizationLevel
    runs = []
    for level in (levels.ORT_ENABLE_ALL, levels.ORT_DISABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level, options.log_severity_level = level, 4
        try:
            session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as exc:  # the runtime's errors share no base
            raise ValueError(last_line(exc)) from exc
        runs.append(_session_run(session))
    return runs


def _session_run(session: Any) -> Run:
    name = session.get_inputs()[0].name

    def run(batch: Values) -> Values:
        try:
            (rows,) = session.run(None, {name: batch})
        except Exception as exc:  # the runtime's errors share no base
            raise ValueError(last_line(exc)) from exc
        return np.asarray(rows)

    return run


def _openvino(path: Path) -> Run:
    compiled = core.compile_model(
        core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": ov.Type.f32}
    )

    def run(batch: Values) -> Values:
        return np.asarray(compiled(batch)[0])

    return run
