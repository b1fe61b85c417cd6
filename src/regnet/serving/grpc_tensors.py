"""From a message of the Open Inference Protocol over gRPC to a model's inputs, and back."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.errors import shown
from regnet.labels import Labels
from regnet.metadata import ModelMetadata
from regnet.serving.grpc_messages import message_class
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

_CONTENTS: Final = {
    "BYTES": "bytes_contents",
    "UINT8": "uint_contents",
    "FP32": "fp32_contents",
}


def description(metadata: ModelMetadata, *, model: str, version: str) -> Any:
    """Return what the protocol says of a model."""
    return message_class("ModelMetadataResponse")(
        name=model,
        versions=[version],
        platform="openvino",
        inputs=[PHOTOS.to_dict()],
        outputs=[output_port(metadata).to_dict()],
    )


def infer_inputs(
    request: Any, metadata: ModelMetadata, limits: Limits
) -> list[bytes] | list[NDArray[Any]] | NDArray[Any]:
    """Return what `ServedModel.probabilities` takes; raises what `inputs.images` does."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise BadRequest(f"{len(request.inputs)} inputs, but {len(raw)} raw_input_contents")
    tensors = []
    for number, given in enumerate(request.inputs):
        _require_no_shared_memory(given)
        if raw and given.HasField("contents"):
            raise BadRequest(f"input {shown(given.name)}: has contents, and raw_input_contents too")
        shape = tuple(given.shape)
        if raw:
            tensors.append(Tensor(given.name, given.datatype, shape, raw=raw[number]))
        else:
            values = getattr(given.contents, _CONTENTS.get(given.datatype, "bytes_contents"))
            tensors.append(Tensor(given.name, given.datatype, shape, values=values))
    return images(tensors, metadata, limits)


def wanted_names(request: Any) -> int:
    """Return how many of the best classes are wanted by name, 0 for all probabilities.

    Raises `BadRequest`.
    """
    return wanted_classes(
        [WantedOutput(output.name, _classification(output)) for output in request.outputs]
    )


def _classification(output: Any) -> int:
    _require_no_shared_memory(output)
    for parameter in output.parameters:
        if parameter.key == "classification":
            kind = parameter.value.WhichOneof("value")
            value: Any = getattr(parameter.value, kind) if kind else None
            if kind not in ("int64_param", "uint64_param"):
                raise BadRequest(f"classification={shown(value)} must be a number of classes")
            return int(value)
    return 0


def _require_no_shared_memory(tensor: Any) -> None:
    if any(parameter.key.startswith("shared_memory") for parameter in tensor.parameters):
        raise BadRequest("shared memory is not taken; send data, and take the answer's")


def infer_answer(
    rows: NDArray[np.float32],
    request: Any,
    *,
    labels: Labels,
    classes: int,
    model: str,
    version: str,
) -> Any:
    """Return the answer to a request, of probabilities (N, classes): they, or `classes` names."""
    output: dict[str, Any] = {"name": OUTPUT, "datatype": "FP32", "shape": rows.shape}
    data = rows.astype("<f4", copy=False).tobytes()
    if classes:
        names = named_classes(rows, labels, classes)
        output |= {"datatype": "BYTES", "shape": [len(names), len(names[0])]}
        data = packed(names)
    return message_class("ModelInferResponse")(
        model_name=model,
        model_version=version,
        id=request.id,
        outputs=[output],
        raw_output_contents=[data],
    )
