"""Parameters, multiply-accumulates and activations of a spec, without building a network.

The counting is the paper's (pycls): one MAC per multiply-add and per bias of a convolution or
fully-connected layer; batch norm, ReLU, pooling and additions are free; activations are the
output elements of convolutions and of the head.
"""

from dataclasses import dataclass

from regnet.network.spec import Spec, Stage
from regnet.system.checked import refused
from regnet.system.errors import SpecError


@dataclass(frozen=True)
class Complexity:
    """Cost of one image: `params` and `macs` and `acts` (activations), exact counts."""

    params: int = 0
    macs: int = 0
    acts: int = 0

    def __add__(self, other: "Complexity") -> "Complexity":
        return Complexity(
            self.params + other.params, self.macs + other.macs, self.acts + other.acts
        )


def complexity(spec: Spec, *, image_size: int = 224) -> Complexity:
    """Return the cost of a spec on a square image of `image_size` pixels (1..16384).

    Source: pycls, `complexity` functions of anynet and blocks. Raises `SpecError`.
    """
    if isinstance(image_size, bool) or not 1 <= image_size <= 16384:
        raise refused(SpecError, "image_size", image_size, "a whole number from 1 to 16384")
    size = _out_size(image_size, spec.stem_stride)
    total = _conv_bn(3, spec.stem_width, 3, size)
    width_in = spec.stem_width
    for stage in spec.stages:
        size_in, size = size, _out_size(size, 2)
        for block in range(stage.depth):
            first = block == 0
            total += _block(spec, stage, width_in, size_in if first else size, size, first)
            width_in = stage.width
    return total + _linear(width_in, spec.classes)


def _block(
    spec: Spec, stage: Stage, width_in: int, size_in: int, size: int, first: bool
) -> Complexity:
    """Return the cost of one block; its first 1x1 convolution still sees the input's size."""
    inner = stage.inner_width
    cost = _conv_bn(width_in, inner, 1, size_in)
    cost += _conv_bn(inner, inner, 3, size, groups=inner // stage.group_width)
    cost += _conv_bn(inner, stage.width, 1, size)
    squeeze = spec.se_width(width_in)
    if squeeze is not None:
        cost += _linear(inner, squeeze) + _linear(squeeze, inner)
    if first:
        cost += _conv_bn(width_in, stage.width, 1, size)
    return cost


def _conv_bn(width_in: int, width_out: int, kernel: int, size: int, groups: int = 1) -> Complexity:
    weights = kernel * kernel * width_in * width_out // groups
    return Complexity(weights + 2 * width_out, weights * size * size, width_out * size * size)


def _linear(width_in: int, width_out: int) -> Complexity:
    """Return the cost of a layer with bias on one position (the head; squeeze-excite)."""
    count = width_in * width_out + width_out
    return Complexity(count, count, width_out)


def _out_size(size: int, stride: int) -> int:
    return (size - 1) // stride + 1
