"""What the graph of a foreign classifier may ask of this machine; more is refused at once.

OpenVINO simplifies and compiles a graph in time that grows with the square of some counts, and
computes what depends on constants alone. The largest published classifiers (MaxViT, NASNet, Swin,
ViT with 40 blocks) have at most 60 % of what is allowed here.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from regnet.ir.constants import WEIGHTED
from regnet.system.errors import ModelError
from regnet.system.runtime import ov
from regnet.system.text import visible

if TYPE_CHECKING:
    from onnx import GraphProto

_MAX_NODES: Final = 20_000
_MAX_PRODUCTS: Final = 1_500  # convolutions and matrix products
_MAX_CHAIN: Final = 2_000  # operations in a row without a product among them
_MAX_USERS: Final = 1_000  # operations that take the same value
_MAX_VALUE: Final = 1 << 30  # bytes, for one image
_MAX_FOLDED: Final = 8 << 30  # bytes of all values that depend on constants alone
_LOOPS: Final = ("Loop", "TensorIterator")


def require_few_nodes(path: Path, graph: "GraphProto | None") -> None:
    """Raise `ModelError` if a file, an ONNX `graph` or else an IR, has too many operations."""
    count = path.read_bytes().count(b"<layer ") if graph is None else _nodes(graph)
    _require(count, _MAX_NODES, "operations", path)


def _nodes(graph: "GraphProto") -> int:
    bodies = (body for node in graph.node for a in node.attribute for body in (a.g, *a.graphs))
    return len(graph.node) + sum(_nodes(body) for body in bodies)


def require_modest(graph: ov.Model, path: Path) -> None:
    """Raise `ModelError` if a graph takes very long to simplify, loops, or its values are huge."""
    products, folded = 0, 0
    for body in _with_branches(graph):
        chains, users, fixed = dict[str, int](), Counter[Any](), set[str]()
        for op in body.get_ordered_ops():
            kind, name = op.get_type_name(), op.get_name()
            if kind in _LOOPS:
                raise ModelError(f"{path}: repeats a part of its graph ({kind}); export it without")
            inputs = [(value.get_node().get_name(), value.index) for value in op.input_values()]
            users.update(inputs)
            products += kind in WEIGHTED
            before = max((chains[source] for source, _ in inputs), default=0)
            chains[name] = 0 if kind in WEIGHTED else 1 + before
            size = max((_bytes(port) for port in op.outputs()), default=0)
            if kind == "Constant" or (inputs and all(source in fixed for source, _ in inputs)):
                fixed.add(name)
                folded += size if inputs else 0
            _require_bytes(size, _MAX_VALUE, f"a value ({_called(op)})", path)
            _require_bytes(folded, _MAX_FOLDED, "values that it computes of constants", path)
        most = max(chains.values(), default=0)
        _require(most, _MAX_CHAIN, "operations in a row without a product", path)
        _require(max(users.values(), default=0), _MAX_USERS, "operations that take a value", path)
    _require(products, _MAX_PRODUCTS, "convolutions and products", path)


def require_known_sizes(graph: ov.Model, one_image: Sequence[int], path: Path) -> None:
    """Raise `ModelError` if sizes depend on the pixels, or are too large for one image."""
    graph = graph.clone()
    graph.reshape(ov.PartialShape(list(one_image)))
    for body in _with_branches(graph):
        for op in body.get_ops():
            if any(port.get_partial_shape().is_dynamic for port in op.outputs()):
                raise ModelError(
                    f"{path}: the size of a value ({_called(op)}) depends on the photo; a "
                    "classifier computes the same for each"
                )
    require_modest(graph, path)


def dimensions(port: Any) -> list[int | None] | None:
    """Return the sizes of an input or output, None for those that vary; None if all may."""
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return None
    return [size.get_length() if size.is_static else None for size in shape]


def _with_branches(graph: ov.Model) -> Iterator[ov.Model]:
    """Yield a graph and the branches of its conditions."""
    yield graph
    for op in graph.get_ops():
        if op.get_type_name() == "If":
            for branch in range(2):
                yield from _with_branches(op.get_function(branch))


def _bytes(port: Any) -> int:
    lengths: list[int] = list(port.get_partial_shape().get_min_shape())
    return int(port.get_element_type().size) * math.prod(max(length, 1) for length in lengths)


def _called(op: Any) -> str:
    return visible(op.get_friendly_name())[:80]


def _require(count: int, allowed: int, what: str, path: Path) -> None:
    if count > allowed:
        raise ModelError(f"{path}: has {count:,} {what}; at most {allowed:,} are allowed")


def _require_bytes(size: int, allowed: int, what: str, path: Path) -> None:
    if size > allowed:
        raise ModelError(
            f"{path}: needs {size / 2**30:,.1f} GiB for {what}; at most {allowed >> 30} are "
            "allowed. If it is fixed to large batches, export it with a dynamic batch"
        )
