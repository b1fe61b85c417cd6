"""A model's configuration as Triton describes models, for clients that read it.

Source: Triton's model_config.proto and its extension "model configuration".
"""

from typing import Any, Final

from regnet.serving.inputs import PHOTOS, Port
from regnet.serving.outputs import output_port
from regnet.serving.served_model import ServedModel
from regnet.system.json_text import json_text

_TYPES: Final = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32"}


def model_config(model: ServedModel) -> dict[str, Any]:
    """Return the configuration of a model as JSON values.

    A request has up to `max_batch_size` images, which `dims` leave out; `dynamic_batching` has the
    most images that are inferred together. The parameter `labels` is a JSON list of the classes'
    names, `assumed` one of what was assumed about the model, if anything was.
    """
    lists = {
        "labels": [label.name for label in model.metadata.labels],
        "assumed": list(model.metadata.assumed),
    }
    parameters = {
        name: {"string_value": json_text(texts)} for name, texts in lists.items() if texts
    }
    batching = {"preferred_batch_size": [model.largest_batch], "max_queue_delay_microseconds": 0}
    return {
        "name": model.name,
        "platform": "openvino",
        "backend": "openvino",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": model.limits.batch,
        "input": [_tensor(PHOTOS)],
        "output": [_tensor(output_port(model.metadata))],
        "instance_group": [{"name": model.name, "kind": "KIND_CPU", "count": model.workers}],
        "dynamic_batching": batching,
        "parameters": parameters,
    }


def _tensor(port: Port) -> dict[str, Any]:
    """Return a port's configuration; its first dimension is the batch."""
    return {
        "name": port.name,
        "data_type": _TYPES[port.datatype],
        "dims": list(port.shape[1:]),
    }
