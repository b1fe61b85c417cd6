"""What a converted model costs: parameters and operations, counted in its graph."""

import math
from dataclasses import dataclass
from typing import Any

from regnet.system.errors import ModelError
from regnet.system.runtime import ov

PREPROCESSING = "preprocessing/"
"""What the names of the ops begin with that make the crop inside a graph."""


@dataclass(frozen=True)
class GraphCost:
    """Cost of one image in a converted graph: floating-point operations and parameters."""

    flops: int
    params: int

    @property
    def gflops(self) -> float:
        """Operations in 10^9."""
        return self.flops / 1e9

    @property
    def mparams(self) -> float:
        """Parameters in 10^6."""
        return self.params / 1e6


def graph_cost(model: ov.Model) -> GraphCost:
    """Return the cost by the model card's own counting.

    Two per multiply-accumulate of convolutions and matrix products; one per element of an
    addition (biases and residual sums too), subtraction, multiplication or division; two per ReLU
    element; four per sigmoid element (negate, exponential, add, divide). Pooling and softmax are
    free, and so is making the crop inside the graph. Parameters are the weights and biases; the
    pixels' mean and scale are not.
    Source: the card of regnetx-3.2gf, 6.3893 GFLOPs and 15.2653 MParams.
    """
    single = model.clone()
    try:
        first = single.input(0)
        if first.partial_shape[0].is_dynamic:
            single.reshape({first: [1, *list(first.partial_shape)[1:]]})
        constants = _constants(single)
        ops = [
            op
            for op in single.get_ordered_ops()
            if (name := op.get_friendly_name()) not in constants
            and not name.startswith(PREPROCESSING)
        ]
        return GraphCost(sum(map(_flops, ops)), sum(_params(op, constants) for op in ops))
    except (RuntimeError, IndexError) as exc:
        raise ModelError(
            "the graph cannot be counted: it needs one input whose size is fixed but for the batch"
        ) from exc


def _constants(model: ov.Model) -> frozenset[str]:
    """Return the names of the ops that compute from constants alone (unpacking FP16 weights)."""
    names: set[str] = set()
    for op in model.get_ordered_ops():
        inputs = (value.get_node().get_friendly_name() for value in op.input_values())
        if op.get_type_name() != "Parameter" and names.issuperset(inputs):
            names.add(op.get_friendly_name())
    return frozenset(names)


_PER_ELEMENT = {"Add": 1, "Subtract": 1, "Multiply": 1, "Divide": 1, "Relu": 2, "Sigmoid": 4}
_COUNTED = {"Convolution", "GroupConvolution", "MatMul", *_PER_ELEMENT}


def _flops(op: ov.Node) -> int:
    kind = op.get_type_name()
    if kind not in _COUNTED:  # among them are ops of any size, before the crop
        return 0
    size = math.prod(_shape(op.output(0)))
    if kind in ("Convolution", "GroupConvolution"):
        kernel = _shape(op.input_value(1))
        # [out, in, h, w], or [groups, out, in, h, w]: in, h and w count an output's products.
        return 2 * size * math.prod(kernel[-3:])
    if kind == "MatMul":
        return 2 * size * _shape(op.input_value(0))[-1]
    return _PER_ELEMENT[kind] * size


def _params(op: ov.Node, constants: frozenset[str]) -> int:
    if op.get_type_name() not in ("Convolution", "GroupConvolution", "MatMul", "Add"):
        return 0
    inputs = op.input_values()
    fixed = (v for v in inputs if v.get_node().get_friendly_name() in constants)
    return sum(math.prod(_shape(value)) for value in fixed)


def _shape(value: Any) -> list[int]:
    return [int(n) for n in value.get_shape()]
