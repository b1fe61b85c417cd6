"""Weights read back out of an IR that `regnet convert` wrote, to train them further."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.ir.constants import ops_by_name, values
from regnet.ir.graph import graph_metadata, read_graph
from regnet.ir.metadata import ModelMetadata
from regnet.network.layers import Layer, layers
from regnet.system.errors import ModelError, WeightsError

Array = NDArray[np.float32]

_STEM = "stem.conv.weight"


@dataclass(frozen=True)
class IRWeights:
    """Weight and bias of each layer in an IR by pycls's names, the stem's in BGR; BN is folded."""

    state: dict[str, Array]
    metadata: ModelMetadata


def read_ir_weights(path: Path) -> IRWeights:
    """Return the float32 weights in an IR (.xml) of FP32 or FP16 precision.

    Raises `ModelError` for another file, `WeightsError` for INT8, a head of `regnet teach` or the
    graph of another tool.
    """
    graph = read_graph(path)
    metadata = graph_metadata(graph, source=str(path))
    if metadata.precision == "int8":
        raise WeightsError(
            f"{path}: its weights are rounded to INT8, from which nothing learns well: name the "
            "model that it was made from"
        )
    if metadata.taught is not None:
        raise WeightsError(
            f"{path}: its head was made by `regnet teach`, not trained: name the model that it was "
            "taught from"
        )
    ops, spec = ops_by_name(graph), metadata.regnet
    state: dict[str, Array] = {}
    try:
        for layer in layers(spec):
            weight, bias = stored_layer(ops, layer)
            state |= {f"{layer.name}.weight": weight, f"{layer.name}.bias": bias}
    except (KeyError, ValueError, ModelError) as exc:
        raise WeightsError(
            f"{path}: has not the layers that `regnet convert` writes ({exc}); name the checkpoint "
            "that it was converted from"
        ) from exc
    if metadata.preprocess.channels == "RGB":
        state[_STEM] = np.ascontiguousarray(state[_STEM][:, ::-1])
    return IRWeights(state, metadata)


def stored_layer(ops: dict[str, Any], layer: Layer) -> tuple[Array, Array]:
    """Return the weight and bias of a layer in a graph that `regnet convert` writes.

    Raises `KeyError`, `ValueError` or `ModelError` where the graph has no such layer.
    """
    linear = layer.kind == "linear"
    end = {"linear": "", "norm": ".scaled"}.get(layer.kind, ".conv")
    product = ops[f"{layer.name}{end}"]
    weight = values(product.input_value(1))
    if linear and not product.get_attributes()["transpose_b"]:
        weight = weight.T
    bias = values(ops["logits" if linear else layer.name].input_value(1))
    return np.ascontiguousarray(weight.reshape(layer.shape)), bias.reshape(layer.width_out)
