"""Weights read back out of an IR that `regnet convert` wrote, to train them further."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.checkpoints.shapes import network_shapes
from regnet.ir.constants import ops_by_name, values
from regnet.ir.graph import graph_metadata, read_graph
from regnet.ir.metadata import ModelMetadata
from regnet.system.errors import ModelError, WeightsError

Array = NDArray[np.float32]

_STEM = "stem.conv.weight"


@dataclass(frozen=True)
class IRWeights:
    """What an IR holds: a weight and a bias for each layer, BN folded, by pycls's names.

    The stem's input channels are in BGR, whatever the IR takes; `metadata` describes the IR.
    """

    state: dict[str, Array]
    metadata: ModelMetadata


def read_ir_weights(path: Path) -> IRWeights:
    """Return the float32 weights in an IR (.xml), of FP32 or FP16 precision.

    Raises `ModelError` for another file, `WeightsError` where the weights are in INT8 or the graph
    is not one that `regnet convert` wrote.
    """
    graph = read_graph(path)
    metadata = graph_metadata(graph, source=str(path))
    if metadata.precision == "int8":
        raise WeightsError(
            f"{path}: its weights are rounded to INT8, from which nothing learns well: name the "
            "model that it was made from"
        )
    ops = ops_by_name(graph)
    shapes = network_shapes(metadata.spec)
    layers = [key.removesuffix(".weight") for key, shape in shapes.items() if len(shape) > 1]
    try:
        state = dict(item for name in layers for item in _layer(ops, name, shapes))
    except (KeyError, ValueError, ModelError) as exc:
        raise WeightsError(
            f"{path}: has not the layers that `regnet convert` writes ({exc}); name the checkpoint "
            "that it was converted from"
        ) from exc
    if metadata.preprocess.channels == "RGB":
        state[_STEM] = np.ascontiguousarray(state[_STEM][:, ::-1])
    return IRWeights(state, metadata)


def _layer(
    ops: dict[str, Any], name: str, shapes: dict[str, tuple[int, ...]]
) -> tuple[tuple[str, Array], tuple[str, Array]]:
    """Return weight and bias of a layer by their names."""
    shape = shapes[f"{name}.weight"]
    product = ops[f"{name}.conv" if len(shape) == 4 else name]
    weight = values(product.input_value(1))
    if len(shape) == 2:  # the graph has the head's the other way round
        weight = weight.T
    bias = values(ops[f"{name}.bias"].output(0))
    return (
        (f"{name}.weight", np.ascontiguousarray(weight.reshape(shape))),
        (f"{name}.bias", bias.reshape(shape[0])),
    )
