"""A machine's own ceiling: how many operations a second its best matrix product does."""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from regnet.ir.engine import InferRequests
from regnet.ir.metadata import InferencePrecision
from regnet.system.runtime import core, ov
from regnet.system.timing import Contestant, side_by_side

SIZE: Final = 1024
LAYERS: Final = 4
"""Products in a row: 8.6 GFLOP a call, so that what is around them does not count."""

_RUNS_AS: Final = {"f32": ("f32",), "bf16": ("bf16",), "int8": ("u8", "i8")}


@dataclass(frozen=True)
class Gemm:
    """Matrix products (1024, 1024) x (1024, 1024), the kind of work that networks are made of.

    `contestant` does them on all cores, one caller on each; its work is operations (2 a
    multiply-accumulate). `computed_in` is the type that OpenVINO multiplied in.
    """

    precision: InferencePrecision
    computed_in: str
    contestant: Contestant

    @property
    def as_asked(self) -> bool:
        """Whether the products were computed in the type asked for."""
        return self.computed_in in _RUNS_AS[self.precision]


def gemm(precision: InferencePrecision, *, workers: int) -> Gemm:
    """Return the ceiling of one precision, ready to be measured with `workers` callers."""
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY" if workers == 1 else "THROUGHPUT",
        "NUM_STREAMS": workers,
    }
    compiled = core.compile_model(_graph(precision), "CPU", options)
    values = np.random.default_rng(0).random((SIZE, SIZE), np.float32)
    calls = side_by_side(_Calls(compiled, values, workers), workers=workers)
    work = calls.work * 2.0 * SIZE**3 * LAYERS
    named = replace(calls, name=f"GEMM {precision}", work=work)
    return Gemm(precision, _computed_in(compiled), named)


class _Calls:
    """A compiled graph as a function for `workers` threads at once."""

    def __init__(self, compiled: Any, values: Any, workers: int) -> None:
        self._values = values
        self._requests = InferRequests(compiled, workers)

    def __call__(self) -> None:
        with self._requests.one() as request:
            request.infer({0: self._values}, share_inputs=True)


def _graph(precision: InferencePrecision) -> ov.Model:
    """Return x -> max(relu(... relu(x @ a) @ b ...)): (SIZE, SIZE) -> one number."""
    from openvino import opset13 as op

    random = np.random.default_rng(0)
    data = op.parameter([SIZE, SIZE], ov.Type.f32)
    x = data
    for _ in range(LAYERS):
        if precision == "int8":  # u8 activations and s8 weights, as in a quantized network
            x = op.fake_quantize(x, *map(np.float32, (0, 1, 0, 1)), 256)
            stored = op.constant(random.integers(-127, 128, (SIZE, SIZE)).astype(np.int8))
            scale = op.constant(np.full((SIZE, 1), 1 / 127 / SIZE, np.float32))
            weights = op.multiply(op.convert(stored, "f32"), scale)
        else:
            weights = op.constant(random.standard_normal((SIZE, SIZE), np.float32) / SIZE**0.5)
        x = op.relu(op.matmul(x, weights, False, True))
    return ov.Model([op.reduce_max(x, np.array([0, 1]), False)], [data])


def _computed_in(compiled: Any) -> str:
    """Return the type of the products in the compiled graph, `mixed` where they differ."""
    kinds = set()
    for op in compiled.get_runtime_model().get_ordered_ops():
        info = op.get_rt_info()
        if str(info["layerType"].value) in ("FullyConnected", "MatMul", "Convolution"):
            kinds.add(str(info["runtimePrecision"].value))
    return kinds.pop() if len(kinds) == 1 else "mixed"
