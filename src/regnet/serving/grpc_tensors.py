"""From a message of the Open Inference Protocol over gRPC to a model's inputs, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Labels
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
from regnet.serving.refusals import BadRequest
from regnet.system.errors import shown

Fields = Mapping[str, Any]
"""A message as `grpc_messages` reads and writes it."""


def description(metadata: ModelMetadata, *, model: str, version: str) -> Fields:
    """Return what the protocol says of a model."""
    return {
        "name": model,
        "versions": [version],
        "platform": "openvino",
        "inputs": [PHOTOS.to_dict()],
        "outputs": [output_port(metadata).to_dict()],
    }


def infer_inputs(
    request: Fields, metadata: ModelMetadata, limits: Limits
) -> list[bytes] | list[NDArray[Any]] | NDArray[Any]:
    """Return what `ServedModel.probabilities` takes; raises what `inputs.images` does."""
    given, raw = request["inputs"], request["raw_input_contents"]
    if raw and len(raw) != len(given):
        raise BadRequest(f"{len(given)} inputs, but {len(raw)} raw_input_contents")
    if raw and any(one["contents"] is not None for one in given):
        raise BadRequest("an input has contents, and there are raw_input_contents too")
    tensors = [_tensor(one, raw[number] if raw else None) for number, one in enumerate(given)]
    return images(tensors, metadata, limits)


def _tensor(given: Fields, raw: memoryview | None) -> Tensor:
    _require_no_shared_memory(given)
    name, datatype, shape = given["name"], given["datatype"], tuple(given["shape"])
    if raw is not None:
        return Tensor(name, datatype, shape, raw=raw)
    contents = given["contents"]
    if contents is None:
        return Tensor(name, datatype, shape)
    if datatype == "FP32":
        return Tensor(name, datatype, shape, raw=_joined(contents["fp32_contents"]))
    if datatype == "UINT8":
        numbers = _small_numbers(_joined(contents["uint_contents"]), name)
        return Tensor(name, datatype, shape, values=numbers)
    return Tensor(name, datatype, shape, values=[bytes(one) for one in contents["bytes_contents"]])


def _joined(parts: Sequence[memoryview]) -> memoryview:
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _small_numbers(data: memoryview, name: str) -> Any:
    """Return packed numbers as an array; raises `BadRequest` where one is over 16383.

    A number takes a byte for each 7 bits, all but its last byte are above 127.
    """
    numbers = np.frombuffer(data, np.uint8)
    goes_on = numbers > 127
    is_second = np.zeros_like(goes_on)
    is_second[1:] = goes_on[:-1]
    if (goes_on & is_second).any() or goes_on[-1:].any():
        raise BadRequest(f"input {name}: its uint_contents are no numbers of 0..255")
    first, second = numbers[~is_second], numbers[is_second]
    found = (first & 127).astype(np.uint16)
    found[first > 127] |= second.astype(np.uint16) << 7
    return found


def wanted_names(request: Fields) -> int:
    """Return how many of the best classes are wanted by name, 0 for all probabilities.

    Raises `BadRequest`.
    """
    return wanted_classes(
        [WantedOutput(output["name"], _classification(output)) for output in request["outputs"]]
    )


def _classification(output: Fields) -> int:
    _require_no_shared_memory(output)
    for parameter in output["parameters"]:
        if parameter["key"] == "classification":
            given = parameter["value"] or {}
            count = given.get("int64_param", given.get("uint64_param"))
            if count is None:
                value = next(iter(given.values()), None)
                raise BadRequest(f"classification={shown(value)} must be a number of classes")
            return int(count)
    return 0


def _require_no_shared_memory(tensor: Fields) -> None:
    if any(parameter["key"].startswith("shared_memory") for parameter in tensor["parameters"]):
        raise BadRequest("shared memory is not taken; send data, and take the answer's")


def infer_answer(
    rows: NDArray[np.float32],
    *,
    labels: Labels,
    classes: int,
    id: str,
    model: str,
    version: str,
) -> Fields:
    """Return the answer of probabilities (N, classes): they, or the names of `classes` of them."""
    output = {"name": OUTPUT, "datatype": "FP32", "shape": rows.shape}
    data = rows.astype("<f4", copy=False).tobytes()
    if classes:
        names = named_classes(rows, labels, classes)
        output |= {"datatype": "BYTES", "shape": [len(names), len(names[0])]}
        data = packed(names)
    return {
        "model_name": model,
        "model_version": version,
        "id": id,
        "outputs": [output],
        "raw_output_contents": [data],
    }
