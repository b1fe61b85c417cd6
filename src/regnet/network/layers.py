"""The layers of a spec's network, in order, without building it.

Everything that counts, names or shapes layers reads them here, but for the torch modules, the numpy
reference and the ONNX graph: comparing these proves something.
"""

from collections.abc import Iterator
from math import prod
from typing import Final, Literal, NamedTuple

from regnet.network.spec import Spec, Stage
from regnet.system.checked import refused
from regnet.system.errors import SpecError

EPSILON: Final = 1e-5
"""What batch norm adds to the variance, in all published RegNets."""


class Layer(NamedTuple):
    """A layer with weights, by pycls's name; `times` is how many such layers it stands for.

    A "conv" has no bias, and a batch norm after it. The 1x1 convolutions of "squeeze-excite" and
    the "linear" head have a bias and see one pixel. `size_in` is the side of the input in pixels.
    """

    name: str
    width_in: int
    width_out: int
    size_in: int = 1
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    kind: Literal["conv", "squeeze-excite", "linear"] = "conv"
    times: int = 1

    @property
    def size(self) -> int:
        """The side of the output in pixels."""
        return (self.size_in - 1) // self.stride + 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weights: (out, in / groups, kernel, kernel), of the head (out, in)."""
        shape = (self.width_out, self.width_in // self.groups, self.kernel, self.kernel)
        return shape[:2] if self.kind == "linear" else shape

    @property
    def weights(self) -> int:
        """The number of weights, without bias and batch norm."""
        return prod(self.shape)

    @property
    def norm(self) -> str | None:
        """The name of the batch norm after a convolution."""
        parent, _, own = self.name.rpartition(".")
        norm = "bn" if own in ("conv", "proj") else f"{own}_bn"
        return f"{parent}.{norm}" if self.kind == "conv" else None


def layers(spec: Spec, *, image_size: int = 224, distinct: bool = False) -> Iterator[Layer]:
    """Yield the layers of a network on a square image of `image_size` pixels (1..16384).

    If `distinct`, a stage's second block stands for all after the first. Raises `SpecError`.
    """
    if isinstance(image_size, bool) or not 1 <= image_size <= 16384:
        raise refused(SpecError, "image_size", image_size, "a whole number from 1 to 16384")
    layer = Layer("stem.conv", 3, spec.stem_width, image_size, 3, spec.stem_stride)
    yield layer
    for number, stage in enumerate(spec.stages, start=1):
        for block in range(1, (min(2, stage.depth) if distinct else stage.depth) + 1):
            times = stage.depth - 1 if distinct and block > 1 else 1
            squeeze = spec.se_width(layer.width_out)
            for part in _block(stage, layer.width_out, layer.size, squeeze, first=block == 1):
                layer = part._replace(name=f"s{number}.b{block}.{part.name}", times=times)
                yield layer
    yield Layer("head.fc", layer.width_out, spec.classes, kind="linear")


def _block(
    stage: Stage, width: int, size: int, squeeze: int | None, *, first: bool
) -> Iterator[Layer]:
    """Yield the layers of a block, the projection of its input first and `f.c` last."""
    inner, stride = stage.inner_width, 2 if first else 1
    if first:
        yield Layer("proj", width, stage.width, size, stride=stride)
    yield Layer("f.a", width, inner, size)
    grouped = Layer("f.b", inner, inner, size, 3, stride, inner // stage.group_width)
    yield grouped
    if squeeze is not None:
        yield Layer("f.se.f_ex.0", inner, squeeze, kind="squeeze-excite")
        yield Layer("f.se.f_ex.2", squeeze, inner, kind="squeeze-excite")
    yield Layer("f.c", inner, stage.width, grouped.size)
