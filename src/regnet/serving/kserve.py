"""The Open Inference Protocol's messages over HTTP (KServe v2 REST), in JSON and binary.

Sources: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and the
extensions "binary tensor data" and "classification" of Triton's protocol.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.inference.result import top_classes
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Labels
from regnet.serving.exchange import short_json
from regnet.serving.inputs import PHOTOS, Inputs, Tensor, images
from regnet.serving.limits import Limits
from regnet.serving.refusals import BadRequest, TooLarge
from regnet.system.errors import shown

HEADER_LENGTH: Final = "inference-header-content-length"
MOST_CROPS: Final = 4
"""Images of a request as numbers in JSON, which takes many times as long as in binary."""

OUTPUT: Final = "prob"  # the one output that a model has: probabilities (N, classes)
_SPARE: Final = 10_000  # values of JSON beside those of a tensor
_PART: Final = 1 << 20  # bytes, of which 4 are 3 in base64


@dataclass(frozen=True)
class InferRequest:
    """A model's inputs, and how they are answered.

    `classes` above 0 asks for so many of the best classes by name instead of all probabilities,
    `binary` for binary data after the JSON.
    """

    inputs: Inputs
    id: str | None = None
    classes: int = 0
    binary: bool = False


def infer_request(
    body: bytes, header_length: str | None, metadata: ModelMetadata, limits: Limits
) -> InferRequest:
    """Return what a body asks of a model; `header_length` bytes of it are JSON (None: all).

    Raises `BadRequest` if it does not follow the protocol, and what `images` raises.
    """
    split = _split(body, header_length)
    if split == 0 and header_length:
        # Triton's raw binary request: the body is the one element of the one input.
        return InferRequest([body])
    asked = json_object(body[:split], metadata, limits)
    name = asked.get("id")
    if name is not None and not isinstance(name, str):
        raise BadRequest(f"id={shown(name)} is not text")
    classes, binary = _wanted_output(asked)
    inputs = _objects(asked, "inputs")
    if len(inputs) != 1:
        raise BadRequest(f"one input is wanted, not {len(inputs)}")
    tensor = _tensor(inputs[0], memoryview(body)[split:])
    return InferRequest(images(tensor, metadata, limits), name, classes, binary)


def json_object(text: bytes, metadata: ModelMetadata, limits: Limits) -> dict[str, Any]:
    """Return the JSON object in a body; raises `BadRequest`, `TooLarge`.

    The number of its values is limited before it is read: each takes many times its text.
    """
    crops = min(limits.batch, MOST_CROPS)
    most = crops * metadata.preprocess.crop**2 * 4 + _SPARE
    if sum(text.count(sign, *part) for part in _parts(text) for sign in (b",", b"[", b"{")) > most:
        raise TooLarge(
            f"the JSON has more values than {crops} crops, the most in one request (batch); as "
            "binary data more are taken",
            limit="batch",
        )
    return small_object(text)


def small_object(text: bytes) -> dict[str, Any]:
    """Return the JSON object in a text; raises `BadRequest`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise BadRequest(f"the body is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise BadRequest(f"the JSON {shown(value)} is not an object")
    return value


def _split(body: bytes, header_length: str | None) -> int:
    """Return how many bytes of a body are JSON."""
    if header_length is None:
        return len(body)
    digits = header_length.isascii() and header_length.isdecimal() and len(header_length) < 12
    if not digits or int(header_length) > len(body):
        raise BadRequest(
            f"Inference-Header-Content-Length={shown(header_length)} is not a number of bytes of a "
            f"body of {len(body)}"
        )
    return int(header_length)


def _objects(of: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a list of objects, by default an empty one."""
    objects = of.get(name) or []
    if not isinstance(objects, list) or not all(isinstance(one, dict) for one in objects):
        raise BadRequest(f"{name}={shown(objects)} must be a list of objects")
    return objects


def _parameters(of: dict[str, Any]) -> dict[str, Any]:
    parameters = of.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadRequest(f"parameters={shown(parameters)} must be an object")
    if "shared_memory_region" in parameters:
        raise BadRequest("shared memory is not taken; send data, and take the answer's")
    return parameters


def _tensor(given: dict[str, Any], extra: memoryview) -> Tensor:
    """Return the tensor of a request; `extra` are the bytes after its JSON."""
    size, raw = _parameters(given).get("binary_data_size"), None
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(extra) or "data" in given:
            raise BadRequest(
                f"binary_data_size={shown(size)} does not fit: {len(extra)} bytes follow, and a "
                "tensor's data is either in them or in the JSON"
            )
        raw, extra = extra[:size], extra[size:]
    if len(extra):
        raise BadRequest(f"{len(extra)} bytes are left over: no binary_data_size names them")
    name, datatype, shape = given.get("name"), given.get("datatype"), given.get("shape")
    if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(shape, list):
        raise BadRequest("an input must have a name, a datatype and a shape")
    values = _values(given) if raw is None else None
    return Tensor(name, datatype, tuple(shape), raw, values)


def _values(given: dict[str, Any]) -> Any:
    """Return the data in the JSON of a tensor, flat: bytes from base64, or numbers."""
    data, name = given.get("data"), shown(given.get("name"))
    if not isinstance(data, list):
        raise BadRequest(f"input {name}: its data is not a list")
    if given.get("datatype") == "BYTES":
        flat = [one for row in data for one in (row if isinstance(row, list) else [row])]
        return [from_base64(one, f"element {number}") for number, one in enumerate(flat)]
    try:
        numbers = np.array(data, np.float64)
    except (TypeError, ValueError, OverflowError) as exc:
        raise BadRequest(f"input {name}: its data are not numbers") from exc
    if numbers.ndim > 1 and list(numbers.shape) != given.get("shape"):
        raise BadRequest(f"input {name}: its data has another shape")
    return numbers.reshape(-1)


def from_base64(text: Any, what: str) -> bytes:
    """Return the bytes in a text; raises `BadRequest`."""
    given = text if isinstance(text, str) else "-"
    try:
        if 0 <= given.find("=") < len(given) - 2:
            raise ValueError("data follows its padding")
        pieces = [base64.b64decode(given[at:end], validate=True) for at, end in _parts(given)]
    except (binascii.Error, ValueError) as exc:
        raise BadRequest(f"{what} is not base64 ({exc})") from exc
    return b"".join(pieces)


def _parts(of: Sized) -> Iterator[tuple[int, int]]:
    """Yield where parts begin and end: a step on a whole one would hold up all other threads."""
    return ((at, at + _PART) for at in range(0, len(of), _PART))


def _wanted_output(asked: dict[str, Any]) -> tuple[int, bool]:
    """Return how many of the best classes are wanted by name (0: probabilities), and if binary."""
    binary = _flag(_parameters(asked), "binary_data_output", default=False)
    outputs = _objects(asked, "outputs")
    if not outputs:
        return 0, binary
    names = [output.get("name", "") for output in outputs]
    if names != [OUTPUT]:
        raise BadRequest(f"the only output is {OUTPUT}, not {', '.join(map(shown, names[:4]))}")
    parameters = _parameters(outputs[0])
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise BadRequest(f"classification={shown(classes)} must be a number of classes")
    return classes, _flag(parameters, "binary_data", default=binary)


def _flag(parameters: dict[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{name}={shown(value)} must be true or false")
    return value


def infer_answer(
    rows: NDArray[np.float32], request: InferRequest, labels: Labels, model: str, version: str
) -> tuple[bytes, int | None]:
    """Return the body of an answer, and how many of its bytes are JSON: None if all are.

    `rows` are probabilities (N, classes).
    """
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": list(rows.shape)}
    names: list[list[str]] = []
    if request.classes:
        names = named_classes(rows, labels, request.classes)
        output |= {"datatype": "BYTES", "shape": [len(names), len(names[0])]}
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": [output]}
    if request.id is not None:
        answer["id"] = request.id
    if not request.binary:
        texts = [name for row in names for name in row]
        output["data"] = texts if request.classes else rows.ravel().tolist()
        return short_json(answer), None
    data = packed(names) if request.classes else rows.astype("<f4", copy=False).tobytes()
    output["parameters"] = {"binary_data_size": len(data)}
    header = short_json(answer)
    return header + data, len(header)


def named_classes(rows: NDArray[np.float32], labels: Labels, count: int) -> list[list[str]]:
    """Return `count` of the best classes of rows (N, classes), best first, all if there are fewer.

    Each is `probability:index:name`, as the protocol's classification extension has it.
    """
    return [
        [
            f"{np.format_float_positional(row[score.index])}:{score.index}:{score.label}"
            for score in top_classes(row, labels, count)
        ]
        for row in rows
    ]


def packed(rows: list[list[str]]) -> bytes:
    """Return texts as BYTES elements: each in UTF-8 after its length in 4 bytes, little-endian."""
    elements = (name.encode() for row in rows for name in row)
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def description(metadata: ModelMetadata, *, model: str, version: str) -> dict[str, Any]:
    """Return the protocol's description of a model."""
    classes = len(metadata.labels)
    about: dict[str, Any] = {
        "name": model,
        "versions": [version],
        "platform": "openvino",
        "inputs": [{"name": PHOTOS, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, classes]}],
    }
    return about | ({"assumed": list(metadata.assumed)} if metadata.assumed else {})
