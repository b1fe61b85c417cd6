"""The layers of a spec's network, in order, without building it.

Everything that counts, names or shapes layers reads them here, but for the torch modules, the numpy
reference and the ONNX graph: comparing these proves something.
"""

from collections.abc import Iterator
from math import prod
from typing import Final, Literal, NamedTuple

from regnet.network.blocks import BlockShape, blocks
from regnet.network.spec import Spec
from regnet.system.checked import refused
from regnet.system.errors import SpecError

EPSILON: Final = 1e-5
"""What batch norm adds to the variance, in all published RegNets."""


class Layer(NamedTuple):
    """A layer with weights, by pycls's name; `times` is how many such layers it stands for.

    A "conv" has no bias, and a batch norm after it; a "bare" convolution has none. A "norm" is a
    batch norm by itself. The 1x1 convolutions of "squeeze-excite" and the "linear" head have a bias
    and see one pixel. `size_in` is the side of the input in pixels.
    """

    name: str
    width_in: int
    width_out: int
    size_in: int = 1
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    kind: Literal["conv", "bare", "norm", "squeeze-excite", "linear"] = "conv"
    times: int = 1

    @property
    def size(self) -> int:
        """The side of the output in pixels."""
        return (self.size_in - 1) // self.stride + 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weights: (out, in / groups, kernel, kernel), of the head (out, in)."""
        if self.kind == "norm":
            return (self.width_out,)
        shape = (self.width_out, self.width_in // self.groups, self.kernel, self.kernel)
        return shape[:2] if self.kind == "linear" else shape

    @property
    def weights(self) -> int:
        """The number of weights, without bias and batch norm."""
        return prod(self.shape)

    @property
    def norm(self) -> str | None:
        """The name of the batch norm after a convolution, of a "norm" its own; else None."""
        if self.kind == "norm":
            return self.name
        parent, _, own = self.name.rpartition(".")
        norm = "bn" if own in ("conv", "proj", "pooled_proj") else f"{own}_bn"
        return f"{parent}.{norm}" if self.kind == "conv" else None

    @property
    def has_bias(self) -> bool:
        """Tell whether the layer has a bias of its own."""
        return self.kind in ("squeeze-excite", "linear")


def layers(spec: Spec, *, image_size: int = 224, distinct: bool = False) -> Iterator[Layer]:
    """Yield the layers of a network on a square image of `image_size` pixels (1..16384).

    If `distinct`, a stage's second block stands for all after the first. Raises `SpecError`.
    """
    if isinstance(image_size, bool) or not 1 <= image_size <= 16384:
        raise refused(SpecError, "image_size", image_size, "a whole number from 1 to 16384")
    size = image_size
    for layer in _stem(spec, size):
        size = layer.size
        yield layer
    for block in blocks(spec):
        if distinct and block.number > 2:
            continue
        rest = spec.stages[block.stage - 1].depth - 1
        times = rest if distinct and block.number == 2 else 1
        parts = _pre_activation(block, size) if spec.block == "pre-activation" else None
        for part in parts or _block(block, size):
            yield part._replace(name=f"{block.name}.{part.name}", times=times)
        size = (size - 1) // block.stride + 1
    width = spec.stages[-1].width
    if spec.head_width is not None:
        yield Layer("final.conv", width, spec.head_width, size)
    yield Layer("head.fc", spec.head_width or width, spec.classes, kind="linear")


def _stem(spec: Spec, size: int) -> Iterator[Layer]:
    """Yield the layers of the stem: one convolution, or three of growing width."""
    width, stride = spec.stem_width, spec.stem_stride
    kind: Literal["bare", "conv"] = "bare" if spec.block == "pre-activation" else "conv"
    if not spec.tiered_stem:
        yield Layer("stem.conv", 3, width, size, 3, stride, kind=kind)
        return
    layer = Layer("stem.conv", 3, tiers(width)[0], size, 3, stride)
    yield layer
    for number, (tier, stride) in enumerate(zip(tiers(width)[1:], (1, 2), strict=True), start=2):
        layer = Layer(f"stem.conv{number}", layer.width_out, tier, layer.size, 3, stride)
        yield layer


def tiers(width: int) -> tuple[int, int, int]:
    """Return the widths of a tiered stem's convolutions, the last of which is the stem's."""
    return max(1, 3 * width // 8), max(1, width // 2), width


def _block(block: BlockShape, size: int) -> Iterator[Layer]:
    """Yield the layers of a block, the projection of its input first and `f.c` last."""
    if block.projects:
        yield _projection(block, size)
    yield Layer("f.a", block.width_in, block.inner, size)
    grouped = Layer("f.b", block.inner, block.inner, size, 3, block.stride, block.groups)
    yield grouped
    yield from _squeeze_excite(block)
    yield Layer("f.c", block.inner, block.width, grouped.size)


def _pre_activation(block: BlockShape, size: int) -> Iterator[Layer]:
    """Yield the layers of a block that begins with batch norm; `f.b_bn` is after squeeze-excite."""
    inner = block.inner
    yield Layer("pre_bn", block.width_in, block.width_in, size, kind="norm")
    if block.projects:
        yield _projection(block, size)._replace(kind="bare")
    yield Layer("f.a", block.width_in, inner, size)
    grouped = Layer("f.b", inner, inner, size, 3, block.stride, block.groups, kind="bare")
    yield grouped
    yield from _squeeze_excite(block)
    yield Layer("f.b_bn", inner, inner, grouped.size, kind="norm")
    yield Layer("f.c", inner, block.width, grouped.size, kind="bare")


def _projection(block: BlockShape, size: int) -> Layer:
    if block.shortcut == "pool":
        size = (size - 1) // block.stride + 1
        return Layer("pooled_proj", block.width_in, block.width, size)
    return Layer("proj", block.width_in, block.width, size, stride=block.stride)


def _squeeze_excite(block: BlockShape) -> Iterator[Layer]:
    if block.squeeze is not None:
        yield Layer("f.se.f_ex.0", block.inner, block.squeeze, kind="squeeze-excite")
        yield Layer("f.se.f_ex.2", block.squeeze, block.inner, kind="squeeze-excite")
