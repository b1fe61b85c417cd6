"""An ONNX graph under construction: nodes and constants, each with a name of its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

IR_VERSION = 8  # that of opsets 15 to 18, which every ONNX Runtime since 1.14 reads


class Nodes:
    """Nodes and constants; adding one returns the name of its output, which is a new one."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.taken: set[str] = set()
        self.promised: set[str] = set()  # names taken for nodes that are still to come

    def fresh(self, name: str) -> str:
        """Return a name that nothing has yet, and take it."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Add a node with one output, called as the node is."""
        if name not in self.promised:
            name = self.fresh(name)
        self.promised.discard(name)
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant."""
        name = self.fresh(name)
        self.constants.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
        return name

    def model(
        self, inputs: Sequence[ValueInfoProto], outputs: Sequence[ValueInfoProto], *, opset: int
    ) -> ModelProto:
        """Return the model, without constants that no node takes."""
        used = {name for node in self.nodes for name in node.input}
        constants = [constant for constant in self.constants if constant.name in used]
        graph = helper.make_graph(self.nodes, "regnet", inputs, outputs, constants)
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=IR_VERSION,
            producer_name="regnet-vision",
        )
