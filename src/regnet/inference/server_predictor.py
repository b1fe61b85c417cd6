"""A model on a server that speaks the Open Inference Protocol (KServe v2, REST).

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol, with its
binary tensor data extension.
"""

import json
import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from regnet.ir.metadata import ModelMetadata
from regnet.pixels.preprocess import crop_pixels, rgb_pixels
from regnet.statistics.conformal import softmax
from regnet.system.addresses import without_secrets
from regnet.system.errors import ImageError, ServerError, shown
from regnet.system.http import Lines, Patience, body_of
from regnet.system.retry import BrokenError, FinalError, Retry, seconds_asked

Rows = NDArray[np.float32]
Takes = Literal["photo", "image", "crop"]

_ADDRESS: Final = re.compile(r"https?://[^/]+(/.*)?/v2/models/[^/]+(/versions/[^/]+)?")
_EXAMPLE: Final = "http://HOST:PORT/v2/models/NAME"
_NUMBERS: Final[dict[str, np.dtype[Any]]] = {"UINT8": np.dtype("uint8"), "FP32": np.dtype("<f4")}
_TRANSIENT: Final = (429, 502, 503, 504)
_OF_THE_PHOTO: Final = (400, 413, 415, 422)
_MAX_ANSWER: Final = 64 << 20  # bytes
_LONGEST: Final = 600.0  # seconds for one answer
_HEADER_LENGTH: Final = "Inference-Header-Content-Length"


def is_address(text: str) -> bool:
    """Tell whether a model is given by its URL."""
    return text.startswith(("http://", "https://"))


@dataclass(frozen=True)
class _Input:
    """The model's one input; free sizes in `shape` are -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    takes: Takes

    @property
    def channels_first(self) -> bool:
        return self.shape[1] == 3


class ServerPredictor:
    """A model at a URL, of the same classes as the one that `metadata` describes. Thread-safe.

    An input of BYTES is sent encoded photos; one of UINT8 with free height and width, pixels in
    RGB; any other, the crop by the metadata's protocol, raw 0..255 in its order of channels.
    `timeout` is in seconds without a byte, `retry` says when failed requests are sent again. Raises
    `ServerError` if the server cannot be reached or is no classifier of these classes.
    """

    def __init__(
        self,
        url: str,
        *,
        metadata: ModelMetadata,
        timeout: float = 30.0,
        retry: Retry | None = None,
    ) -> None:
        self._url = re.sub(r"(/infer)?/*$", "", url)
        self.title = without_secrets(self._url)
        if not _ADDRESS.fullmatch(self._url):
            raise ServerError(f"{self.title}: is not the address of a model, such as {_EXAMPLE}")
        self._metadata, self._lines = metadata, Lines()
        self._retry = retry or Retry(attempts=3, longest_asked=10.0)
        self._patience = Patience(stall=timeout, seconds=_LONGEST, why="no whole answer in time")
        description = self._request(self._url)
        self._input = self._input_of(description)
        self._output = self._output_of(description)
        self._binary = self._input.takes == "photo" or self._takes_binary()

    @property
    def takes(self) -> Takes:
        """What is sent for a photo: its bytes, all its pixels, or the crop."""
        return self._input.takes

    def given(self, photo: bytes) -> Any:
        """Return what is sent for an encoded photo; raises `ImageError`."""
        if self.takes == "photo":
            return photo
        if self.takes == "image":
            return rgb_pixels(photo)
        return crop_pixels(photo, self._metadata.preprocess)

    def answers(self, given: Sequence[Any]) -> tuple[Rows | None, Rows]:
        """Return logits, None if the server gives none, and probabilities, both (N, classes).

        Raises `ImageError` if the server refuses a photo, `ServerError` for any other failure.
        """
        whole = self.takes == "crop" and self._input.shape[0] == -1
        batches = [list(given)] if whole else [[one] for one in given]
        rows = np.concatenate([self._answer(batch) for batch in batches])
        if rows.min() >= 0 and np.all(np.abs(rows.sum(axis=1) - 1) < 0.02):
            return None, rows
        return rows, softmax(rows)

    def _answer(self, batch: list[Any]) -> Rows:
        tensor, data = self._tensor(batch)
        text = json.dumps({"inputs": [tensor], "outputs": [{"name": self._output}]}).encode()
        headers = {"Content-Type": "application/json"}
        if data is not None:
            headers = {_HEADER_LENGTH: str(len(text)), "Content-Type": "application/octet-stream"}
        answer = self._request(f"{self._url}/infer", headers, content=text + (data or b""))
        return self._rows(answer, len(batch))

    def _tensor(self, batch: list[Any]) -> tuple[dict[str, Any], bytes | None]:
        """Return the input tensor of a request and its binary data, None if the tensor has it."""
        tensor: dict[str, Any] = {"name": self._input.name, "datatype": self._input.datatype}
        if self.takes == "photo":
            data = b"".join(struct.pack("<I", len(photo)) + photo for photo in batch)
            tensor["shape"] = [len(batch), *([1] * (len(self._input.shape) - 1))]
        else:
            pixels = np.stack(batch).astype(_NUMBERS[self._input.datatype])
            if self._input.channels_first:
                pixels = pixels.transpose(0, 3, 1, 2)
            tensor["shape"] = list(pixels.shape)
            if not self._binary:
                return tensor | {"data": pixels.ravel().tolist()}, None
            data = pixels.tobytes()
        tensor["parameters"] = {"binary_data_size": len(data)}
        return tensor, data

    def _rows(self, answer: dict[str, Any], count: int) -> Rows:
        """Return the output (count, classes) in an answer."""
        classes = len(self._metadata.labels)
        try:
            output = next(o for o in answer["outputs"] if o["name"] == self._output)
            rows = np.array(output["data"], np.float32).reshape(count, -1)
        except (KeyError, TypeError, ValueError, StopIteration) as exc:
            raise self._odd(f"its answer has no numbers of the output {self._output}") from exc
        if rows.shape[1] != classes:
            raise self._odd(f"it gives {rows.shape[1]} classes, the other model has {classes}")
        if not np.isfinite(rows).all():
            raise self._odd("its answer holds NaN or infinite numbers")
        return rows

    def _input_of(self, description: dict[str, Any]) -> _Input:
        (port, shape), *others = self._ports(description, "inputs")
        if others:
            raise self._odd(f"its model has {1 + len(others)} inputs; a classifier has one")
        datatype = port.get("datatype")
        if datatype == "BYTES" and math.prod(shape) in (1, -1):
            return _Input(port["name"], datatype, shape, "photo")
        if datatype not in _NUMBERS or len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise self._odd(
                f"its input {port['name']} is {datatype} {list(shape)}; photos can be sent as "
                "BYTES [-1], or as UINT8 or FP32 [-1, 3, H, W] or [-1, H, W, 3]"
            )
        free = datatype == "UINT8" and shape[1:] == (-1, -1, 3)
        return self._checked(_Input(port["name"], datatype, shape, "image" if free else "crop"))

    def _checked(self, port: _Input) -> _Input:
        """Return an input that takes the crop that it would be sent."""
        preprocess = self._metadata.preprocess
        sides = port.shape[2:] if port.channels_first else port.shape[1:3]
        if port.takes == "crop" and any(side not in (-1, preprocess.crop) for side in sides):
            raise self._odd(
                f"it takes {sides[1]} x {sides[0]} pixels, where the other model's protocol "
                f"{preprocess.name} gives {preprocess.crop} x {preprocess.crop}"
            )
        if port.datatype == "UINT8" and preprocess.interpolation == "opencv-linear":
            raise self._odd(
                f"it takes whole numbers, where the other model's protocol {preprocess.name} gives "
                "fractions: compare it with a model of the protocol omz"
            )
        return port

    def _output_of(self, description: dict[str, Any]) -> str:
        """Return the name of the output that has a value for each class."""
        classes = len(self._metadata.labels)
        ports = self._ports(description, "outputs")
        fitting = [str(port["name"]) for port, shape in ports if shape[-1:] in ((classes,), (-1,))]
        if len(fitting) > 1:
            fitting = [name for name in fitting if name.startswith("prob")] or fitting
        if not fitting:
            named = ", ".join(f"{port['name']} {list(shape)}" for port, shape in ports)
            raise self._odd(f"no output has a value for each of {classes} classes: {named}")
        return fitting[0]

    def _ports(
        self, description: dict[str, Any], kind: str
    ) -> list[tuple[dict[str, Any], tuple[int, ...]]]:
        try:
            ports = [(port, tuple(map(int, port["shape"]))) for port in description[kind]]
            if ports and all(isinstance(port["name"], str) for port, _ in ports):
                return ports
        except (KeyError, TypeError, ValueError, AttributeError):
            pass
        raise self._odd(f"its description has no {kind}: {shown(description)}")

    def _takes_binary(self) -> bool:
        """Tell whether the server takes tensors as binary data."""
        try:
            server = self._request(self._url.partition("/v2/models/")[0] + "/v2")
        except (ServerError, ImageError):
            return False
        names = server.get("extensions")
        return isinstance(names, list) and any("binary_tensor" in str(name) for name in names)

    def _request(
        self, url: str, headers: dict[str, str] | None = None, **body: bytes
    ) -> dict[str, Any]:
        """Return the JSON object in a good answer; transient failures are retried."""
        try:
            return self._retry.run(partial(self._once, url, headers, body))
        except FinalError as exc:
            running = "; is it running there?" if isinstance(exc.__cause__, BrokenError) else ""
            raise self._odd(f"{exc}{running}") from exc

    def _once(
        self, url: str, headers: dict[str, str] | None, body: dict[str, bytes]
    ) -> dict[str, Any]:
        with self._lines.ask(url, self._patience, headers, **body) as response:
            text = body_of(response, _MAX_ANSWER)
        if response.is_success:
            length = response.headers.get(_HEADER_LENGTH, "")
            return self._object(text[: int(length) if length.isdecimal() else None])
        status = response.status_code
        reason = f"it answers {status} ({_said(text) or response.reason_phrase})"
        if status in _TRANSIENT:
            raise BrokenError(reason, asked=seconds_asked(response.headers.get("Retry-After")))
        if body and self.takes == "photo" and status in _OF_THE_PHOTO:
            raise ImageError(f"{self.title}: {reason}")
        raise self._odd(reason)

    def _object(self, text: bytes) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise self._odd("its answer is not JSON") from exc
        if not isinstance(value, dict):
            raise self._odd("its answer is not a JSON object")
        return value

    def _odd(self, reason: str) -> ServerError:
        return ServerError(f"{self.title}: {reason}")


def _said(text: bytes) -> str:
    """Return the reason in an answer, shortened; "" without one."""
    try:
        reason = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return reason if len(reason) <= 200 else f"{reason[:200]}..."
