"""The Open Inference Protocol's messages over HTTP (KServe v2 REST), in JSON and binary.

Sources: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol and the
extensions "binary tensor data" and "classification" of Triton's protocol.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Labels
from regnet.serving.answers import short_json
from regnet.serving.inputs import PHOTOS, Tensor, images
from regnet.serving.limits import Limits
from regnet.serving.outputs import (
    OUTPUT,
    WantedOutput,
    named_classes,
    output_port,
    packed,
    wanted_classes,
)
from regnet.serving.refusals import BadRequest, TooLarge
from regnet.system.errors import shown

HEADER_LENGTH: Final = "inference-header-content-length"
MOST_CROPS: Final = 4
"""Images of a request as numbers in JSON, which takes many times as long as in binary."""

_SPARE: Final = 10_000  # values of JSON beside those of a tensor
_PART: Final = 1 << 20  # bytes, of which 4 are 3 in base64
_MOST_TENSORS: Final = 16

Inputs = list[bytes] | list[NDArray[Any]] | NDArray[Any]


@dataclass(frozen=True)
class Wish:
    """How the output is wanted: as binary data, as `classes` names an image (0: as numbers)."""

    binary: bool = False
    classes: int = 0


@dataclass(frozen=True)
class InferRequest:
    """What is to be inferred, as `ServedModel.probabilities` takes it, and how it is answered."""

    inputs: Inputs
    wish: Wish
    id: str | None


def infer_request(
    body: bytes, header_length: str | None, metadata: ModelMetadata, limits: Limits
) -> InferRequest:
    """Return what a body asks of a model; `header_length` bytes of it are JSON (None: all).

    Raises `BadRequest` where it is not what the protocol says, and what `images` raises.
    """
    split = _split(body, header_length)
    if (
        split == 0 and header_length
    ):  # Triton's raw binary request: the body is the one element of the one input
        return InferRequest([body], Wish(), None)
    asked = json_object(body[:split], metadata, limits)
    name = asked.get("id")
    if name is not None and not isinstance(name, str):
        raise BadRequest(f"id={shown(name)} is no text")
    wish = _wish(asked)
    tensors = _tensors(_objects(asked, "inputs"), memoryview(body)[split:])
    return InferRequest(images(tensors, metadata, limits), wish, name)


def json_object(text: bytes, metadata: ModelMetadata, limits: Limits) -> dict[str, Any]:
    """Return the JSON object in a body; raises `BadRequest`.

    How many values it may hold is counted before it is read: each takes many times its text.
    """
    crops = min(limits.batch, MOST_CROPS)
    most = crops * metadata.preprocess.crop**2 * 4 + _SPARE
    if sum(text.count(sign, *part) for part in _parts(text) for sign in (b",", b"[", b"{")) > most:
        raise TooLarge(
            f"the JSON has more values than {crops} crops, the most in one request (batch); as "
            "binary data more are taken",
            limit="batch",
        )
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise BadRequest(f"the body is no JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise BadRequest(f"the JSON {shown(found)} is no object")
    return found


def _split(body: bytes, header_length: str | None) -> int:
    """Return how many bytes of a body are JSON."""
    if header_length is None:
        return len(body)
    digits = header_length.isascii() and header_length.isdecimal() and len(header_length) < 12
    if not digits or int(header_length) > len(body):
        raise BadRequest(
            f"Inference-Header-Content-Length={shown(header_length)} is no number of bytes of a "
            f"body of {len(body)}"
        )
    return int(header_length)


def _objects(of: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a list of objects, empty where there is none."""
    found = of.get(name) or []
    if (
        not isinstance(found, list)
        or len(found) > _MOST_TENSORS
        or not all(isinstance(one, dict) for one in found)
    ):
        raise BadRequest(f"{name}={shown(found)} must be a list of at most {_MOST_TENSORS} objects")
    return found


def _parameters(of: dict[str, Any]) -> dict[str, Any]:
    found = of.get("parameters") or {}
    if not isinstance(found, dict):
        raise BadRequest(f"parameters={shown(found)} must be an object")
    if "shared_memory_region" in found:
        raise BadRequest("shared memory is not taken; send data, and take the answer's")
    return found


def _tensors(given: list[dict[str, Any]], extra: memoryview) -> list[Tensor]:
    """Return the tensors of a request; `extra` is what follows its JSON."""
    tensors: list[Tensor] = []
    at = 0
    for one in given:
        size = _parameters(one).get("binary_data_size")
        if size is None:
            tensors.append(_tensor(one, values=_values(one)))
            continue
        if type(size) is not int or not 0 <= size <= len(extra) - at or "data" in one:
            raise BadRequest(
                f"binary_data_size={shown(size)} does not fit: {len(extra) - at} bytes follow, and "
                "a tensor's data is either in them or in the JSON"
            )
        tensors.append(_tensor(one, raw=extra[at : at + size]))
        at += size
    if at != len(extra):
        raise BadRequest(f"{len(extra) - at} bytes are left over: no binary_data_size names them")
    return tensors


def _tensor(
    given: dict[str, Any], *, raw: memoryview | None = None, values: Sequence[Any] | None = None
) -> Tensor:
    name, datatype, shape = given.get("name"), given.get("datatype"), given.get("shape")
    if not isinstance(name, str) or not isinstance(datatype, str) or not isinstance(shape, list):
        raise BadRequest("an input must have a name, a datatype and a shape")
    return Tensor(name, datatype, tuple(shape), raw, values)


def _values(given: dict[str, Any]) -> Any:
    """Return the data in the JSON of a tensor, flat: bytes of base64, or numbers."""
    data = given.get("data")
    if not isinstance(data, list):
        raise BadRequest(f"input {shown(given.get('name'))}: its data is no list")
    if given.get("datatype") == PHOTOS.datatype:
        flat = [one for row in data for one in (row if isinstance(row, list) else [row])]
        return [from_base64(one, f"element {number}") for number, one in enumerate(flat)]
    try:
        numbers = np.array(data, np.float64)
    except (TypeError, ValueError, OverflowError) as exc:
        raise BadRequest(f"input {shown(given.get('name'))}: its data are no numbers") from exc
    if numbers.ndim > 1 and list(numbers.shape) != given.get("shape"):
        raise BadRequest(f"input {shown(given.get('name'))}: its data has another shape")
    return numbers.reshape(-1)


def from_base64(text: Any, what: str) -> bytes:
    """Return the bytes in a text; raises `BadRequest`."""
    given = text if isinstance(text, str) else "-"
    try:
        if 0 <= given.find("=") < len(given) - 2:
            raise ValueError("data follows its padding")
        pieces = [base64.b64decode(given[at:end], validate=True) for at, end in _parts(given)]
    except (binascii.Error, ValueError) as exc:
        raise BadRequest(f"{what} is no base64 ({exc})") from exc
    return b"".join(pieces)


def _parts(of: Sized) -> Iterator[tuple[int, int]]:
    """Yield where parts begin and end: a step on a whole one would hold up all other threads."""
    return ((at, at + _PART) for at in range(0, len(of), _PART))


def _wish(asked: dict[str, Any]) -> Wish:
    """Return how the output is wanted."""
    binary = _flag(_parameters(asked), "binary_data_output", default=False)
    outputs = _objects(asked, "outputs")
    wanted: list[WantedOutput] = []
    for output in outputs:
        parameters = _parameters(output)
        binary = _flag(parameters, "binary_data", default=binary)
        wanted.append(WantedOutput(output.get("name", ""), parameters.get("classification", 0)))
    return Wish(binary, wanted_classes(wanted))


def _flag(parameters: dict[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise BadRequest(f"{name}={shown(value)} must be true or false")
    return value


def infer_answer(
    rows: NDArray[np.float32], request: InferRequest, labels: Labels, model: str, version: str
) -> tuple[bytes, int | None]:
    """Return the body of an answer, and how many of its bytes are JSON, None where all are.

    `rows` are probabilities (N, classes).
    """
    wish = request.wish
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": list(rows.shape)}
    names: list[list[bytes]] = []
    if wish.classes:
        names = named_classes(rows, labels, wish.classes)
        output |= {"datatype": "BYTES", "shape": [len(names), len(names[0])]}
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": [output]}
    if request.id is not None:
        answer["id"] = request.id
    if not wish.binary:
        texts = [name.decode() for row in names for name in row]
        output["data"] = texts if wish.classes else rows.ravel().tolist()
        return short_json(answer), None
    data = packed(names) if wish.classes else rows.astype("<f4", copy=False).tobytes()
    output["parameters"] = {"binary_data_size": len(data)}
    header = short_json(answer)
    return header + data, len(header)


def description(metadata: ModelMetadata, *, model: str, version: str) -> dict[str, Any]:
    """Return what the protocol says of a model."""
    about: dict[str, Any] = {
        "name": model,
        "versions": [version],
        "platform": "openvino",
        "inputs": [PHOTOS.to_dict()],
        "outputs": [output_port(metadata).to_dict()],
    }
    return about | ({"assumed": list(metadata.assumed)} if metadata.assumed else {})
