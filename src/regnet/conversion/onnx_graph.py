"""The converted network as one ONNX graph: raw pixels in, probabilities out.

Both formats come from it: it is the .onnx file itself, and OpenVINO reads it for the IR. It is
written from the spec, not traced from the torch modules, so comparing the two proves something.
"""

import numpy as np
from onnx import ModelProto, TensorProto, helper

from regnet.conversion.onnx_nodes import Nodes
from regnet.network.blocks import BlockShape, blocks
from regnet.network.reference import Weights
from regnet.network.spec import Spec
from regnet.pixels.protocol import Preprocess

OPSET = 17
INPUT, OUTPUT = "data", "prob"


def onnx_graph(
    spec: Spec, weights: Weights, preprocess: Preprocess, *, half: bool = False
) -> ModelProto:
    """Return the graph `data` (N, 3, crop, crop), raw 0..255 -> `prob` (N, classes), rows sum to 1.

    `weights` are as `fold_batch_norm` gives them: a weight and a bias for each layer. `half`
    stores weights in FP16 and computes in FP32; biases, mean and scale stay in FP32.
    """
    graph = _Graph(spec, weights, half)
    x = graph.stem(graph.normalise(INPUT, preprocess))
    for block in blocks(spec):
        x = graph.block(x, block)
    if spec.head_width is not None:
        x = graph.conv(x, "final.conv")
    if spec.head_width is not None or spec.block != "bottleneck":
        x = graph.active(x)
    graph.head(x)
    return graph.whole(preprocess.crop, spec.classes)


def with_logits(model: ModelProto) -> tuple[ModelProto, str]:
    """Add the input of the final softmax to a model's outputs; return the model and that name."""
    last = next((node for node in model.graph.node if OUTPUT in node.output), None)
    if last is None or last.op_type != "Softmax":
        raise ValueError(f"{OUTPUT} does not come from a softmax")
    name = str(last.input[0])
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return model, name


class _Graph(Nodes):
    """A graph under construction; each method adds nodes and returns the name of their output."""

    def __init__(self, spec: Spec, weights: Weights, half: bool) -> None:
        super().__init__()
        self.spec = spec
        self.weights = weights
        self.half = half

    def weight(self, name: str) -> str:
        values = self.weights[name]
        if not self.half:
            return self.constant(name, values)
        stored = self.constant(f"{name}.fp16", values.astype(np.float16))
        return self.node("Cast", [stored], name, to=TensorProto.FLOAT)

    def normalise(self, x: str, preprocess: Preprocess) -> str:
        mean, scale = (
            self.constant(name, np.array(values, np.float32).reshape(1, 3, 1, 1))
            for name, values in (("pixel_mean", preprocess.mean), ("scale", preprocess.scale))
        )
        return self.node("Div", [self.node("Sub", [x, mean], "centred"), scale], "normalised")

    def conv(self, x: str, name: str, *, stride: int = 1, groups: int = 1) -> str:
        size = self.weights[f"{name}.weight"].shape[-1]
        inputs = [x, self.weight(f"{name}.weight")]
        pads = [size // 2] * 4
        y = self.node("Conv", inputs, f"{name}.conv", strides=[stride] * 2, pads=pads, group=groups)
        bias = self.constant(f"{name}.bias", self.weights[f"{name}.bias"].reshape(1, -1, 1, 1))
        return self.node("Add", [y, bias], name)

    def relu(self, x: str) -> str:
        return self.node("Relu", [x], f"{x}.relu")

    def active(self, x: str) -> str:
        if self.spec.activation == "relu":
            return self.relu(x)
        return self.node("Mul", [x, self.node("Sigmoid", [x], f"{x}.sigmoid")], f"{x}.silu")

    def scale(self, x: str, name: str) -> str:
        """Add a batch norm that no convolution takes in: a factor and a shift per channel."""
        factor, shift = (
            self.constant(f"{name}.{part}", self.weights[f"{name}.{part}"].reshape(1, -1, 1, 1))
            for part in ("weight", "bias")
        )
        return self.node("Add", [self.node("Mul", [x, factor], f"{name}.scaled"), shift], name)

    def stem(self, x: str) -> str:
        x = self.conv(x, "stem.conv", stride=self.spec.stem_stride)
        if self.spec.block == "pre-activation":
            return x
        x = self.active(x)
        for name, stride in (("stem.conv2", 1), ("stem.conv3", 2)) * self.spec.tiered_stem:
            x = self.active(self.conv(x, name, stride=stride))
        return x

    def block(self, x: str, block: BlockShape) -> str:
        name, pre = block.name, self.spec.block == "pre-activation"
        if pre:
            x = self.active(self.scale(x, f"{name}.pre_bn"))
        shortcut = self.shortcut(x, block)
        y = self.active(self.conv(x, f"{name}.f.a"))
        y = self.conv(y, f"{name}.f.b", stride=block.stride, groups=block.groups)
        y = y if pre else self.active(y)
        if block.squeeze is not None:
            y = self.squeeze_excite(y, f"{name}.f.se")
        if pre:
            y = self.active(self.scale(y, f"{name}.f.b_bn"))
        y = self.conv(y, f"{name}.f.c")
        if shortcut:
            y = self.node("Add", [shortcut, y], f"{name}.sum")
        return self.active(y) if self.spec.block == "bottleneck" else y

    def shortcut(self, x: str, block: BlockShape) -> str | None:
        if block.shortcut == "convolution":
            return self.conv(x, f"{block.name}.proj", stride=block.stride)
        if block.shortcut == "pool":
            if block.stride > 1:
                sides = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}
                x = self.node("AveragePool", [x], f"{block.name}.pool", **sides)
            return self.conv(x, f"{block.name}.pooled_proj")
        return None if block.shortcut == "none" else x

    def squeeze_excite(self, x: str, name: str) -> str:
        mean = self.node("ReduceMean", [x], f"{name}.mean", axes=[2, 3], keepdims=1)
        squeezed = self.conv(mean, f"{name}.f_ex.0")
        inner = self.spec.squeeze_from == "inner"
        squeezed = self.relu(squeezed) if inner else self.active(squeezed)
        gate = self.node("Sigmoid", [self.conv(squeezed, f"{name}.f_ex.2")], f"{name}.gate")
        return self.node("Mul", [x, gate], name)

    def head(self, x: str) -> str:
        mean = self.node("ReduceMean", [x], "head.mean", axes=[2, 3], keepdims=0)
        weight = self.weight("head.fc.weight")
        turned = self.node("Transpose", [weight], "head.fc.weight.t", perm=[1, 0])
        product = self.node("MatMul", [mean, turned], "head.fc")
        bias = self.constant("head.fc.bias", self.weights["head.fc.bias"])
        logits = self.node("Add", [product, bias], "logits")
        return self.node("Softmax", [logits], OUTPUT, axis=1)

    def whole(self, size: int, classes: int) -> ModelProto:
        data = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, size, size])
        prob = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", classes])
        return self.model([data], [prob], opset=OPSET)
