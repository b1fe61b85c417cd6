"""A converted model run by torch, for the devices that OpenVINO has not."""

import queue
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from regnet.ir.device_record import NOT_KEPT, DeviceRecord
from regnet.ir.engine import (
    Batch,
    ConvertedModel,
    InferenceEngine,
    require_precision,
    require_probabilities,
)
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.ir.torch_graph import torch_graph
from regnet.pixels.decode_limits import DECODE_LIMITS, DecodeLimits
from regnet.system.errors import ModelError
from regnet.system.parallel import cores

MAX_BATCH: Final = 1024
_GAIN: Final = 1.05  # a batch of twice the size has to be this much faster
_SECONDS: Final = 0.2  # of the measurement of a batch
_SHORTAGE: Final = re.compile(
    "out of memory|_ALLOC_FAILED|unable to find .*algorithm", re.IGNORECASE
)
"""What torch, cuBLAS and cuDNN say where a GPU has too little memory."""


class TorchEngine(InferenceEngine):
    """A network on a device of torch, such as `cuda`. Thread-safe.

    `network` takes pixels (N, H, W, 3) and returns a list of outputs, of which the first is the
    probabilities. `record` keeps the measured batch size.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        metadata: ModelMetadata,
        *,
        device: str,
        limits: DecodeLimits = DECODE_LIMITS,
        record: DeviceRecord = NOT_KEPT,
    ) -> None:
        self._device, self._record = torch_device(device), record
        cuda = self._device.type == "cuda"
        streams = 2 if cuda else cores()  # one call sends its pixels while the other computes
        super().__init__(metadata, streams=streams, limits=limits)
        network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network = network.eval()
        if cuda:
            _use_exact_floats()
            torch.cuda.synchronize(self._device)  # the streams do not wait for the weights
        self._streams: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(streams):
            self._streams.put(_new_stream(self._device) if cuda else None)

    @cached_property
    def batch(self) -> int:
        """The number of images in a call that this device runs well, measured once and kept."""
        if self._device.type == "cpu":
            return super().batch
        side = self.metadata.preprocess.crop

        def seconds(batch: int) -> float:
            return self._seconds(np.zeros((batch, side, side, 3), np.uint8))

        size: int = self._record.kept(
            "batch",
            lambda: best_batch(seconds),
            lambda value: type(value) is int and 1 <= value <= MAX_BATCH,
        )
        return size

    @property
    def outruns_decoding(self) -> bool:
        """Whether it is a GPU; processes share memory on Linux alone."""
        return self._device.type != "cpu" and sys.platform == "linux"

    def _seconds(self, pixels: NDArray[Any]) -> float:
        """Return the least seconds of a call; the first ones choose their algorithms."""
        self.infer(pixels)
        times: list[float] = []
        while sum(times) < _SECONDS:
            start = time.perf_counter()
            self.infer(pixels)
            times.append(time.perf_counter() - start)
        return min(times)

    def _run(self, pixels: Batch, ports: tuple[int, ...]) -> list[NDArray[np.float32]]:
        batch = pixels if isinstance(pixels, np.ndarray) else np.stack(pixels)
        if not batch.flags.writeable:  # torch shares its memory, and warns
            batch = batch.copy()
        try:
            with self._stream(), torch.inference_mode():
                outputs = self._network(torch.from_numpy(batch).to(self._device))
                results = [outputs[port].cpu().numpy() for port in ports]
        except RuntimeError as exc:
            if not _SHORTAGE.search(str(exc)):
                raise
            torch.cuda.empty_cache()
            raise ModelError(
                f"{self._device}: its memory does not hold {len(batch)} images at once: lower "
                "--batch-size, or end what else runs on it"
            ) from exc
        require_probabilities(results[0], self.metadata.name, "the model is damaged")
        return results

    @contextmanager
    def _stream(self) -> Iterator[None]:
        """Run the block on one of the device's streams; a thread waits while all are taken."""
        stream = self._streams.get()
        try:
            with torch.cuda.stream(stream):
                yield
        finally:
            self._streams.put(stream)


def torch_device(name: str) -> torch.device:
    """Return the device that torch calls by this name."""
    return torch.device(name)


def _new_stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _use_exact_floats() -> None:
    """Have float32 computed as such, not as TF32; torch has this for the whole process alone."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def torch_engine(
    model: ConvertedModel,
    *,
    device: str,
    precision: InferencePrecision = "bf16",
    compiled_cache: Path | None = None,
    limits: DecodeLimits = DECODE_LIMITS,
) -> TorchEngine:
    """Return the engine of a converted model; precision f32 is without TF32.

    What is measured is kept beside the folder `compiled_cache`. Raises `ModelError` for an INT8
    model, one that makes its crops itself, and one with an operation that torch does not run.
    """
    require_precision(model, precision)
    if model.metadata.precision == "int8":
        raise ModelError(
            f"{model.path}: is an INT8 model, and {device} runs floating point: name the model "
            "that it was made from, or take a device of OpenVINO's (--device CPU)"
        )
    if model.metadata.preprocessing == "graph":
        raise ModelError(
            f"{model.path}: its graph makes the crop, which {device} does not run: convert it "
            "without --preprocessing graph, or take a device of OpenVINO's (--device CPU)"
        )
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return TorchEngine(
        torch_graph(model.graph, dtype=dtype, source=str(model.path)),
        model.metadata,
        device=device,
        limits=limits,
        record=DeviceRecord.of(model, device=device, precision=precision, folder=compiled_cache),
    )


def best_batch(seconds: Callable[[int], float]) -> int:
    """Return the batch size from 8 on, doubled as long as the images a second rise by 5 %.

    `seconds` returns those of a call; it raises `ModelError` where the memory is too small.
    """
    batch, rate = 8, 8 / seconds(8)
    while 2 * batch <= MAX_BATCH:
        try:
            twice = 2 * batch / seconds(2 * batch)
        except ModelError:
            break
        if twice < _GAIN * rate:
            break
        batch, rate = 2 * batch, twice
    return batch
