"""The blocks of a spec's network, in order: what follows from the spec for each of them."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from regnet.network.spec import Spec


class BlockShape(NamedTuple):
    """A block: its stage and number (both from 1), widths, stride and shortcut.

    `inner` channels lie between its 1x1 convolutions, in `groups`; `squeeze` is None without
    squeeze-excite.
    """

    stage: int
    number: int
    width_in: int
    width: int
    inner: int
    groups: int
    stride: int
    squeeze: int | None
    shortcut: Literal["identity", "convolution", "pool", "none"]

    @property
    def name(self) -> str:
        """The block's name in pycls, as "s1.b1"."""
        return f"s{self.stage}.b{self.number}"

    @property
    def projects(self) -> bool:
        """Tell whether a convolution is in the shortcut."""
        return self.shortcut in ("convolution", "pool")


def blocks(spec: Spec) -> Iterator[BlockShape]:
    """Yield the blocks of a network."""
    width_in = spec.stem_width
    for number, stage in enumerate(spec.stages, start=1):
        for block in range(1, stage.depth + 1):
            stride = 2 if block == 1 and (number > 1 or not spec.tiered_stem) else 1
            changes = stride > 1 or width_in != stage.width
            inner = stage.inner_of(width_in if spec.inner_from == "input" else stage.width)
            yield BlockShape(
                number,
                block,
                width_in,
                stage.width,
                inner,
                inner // stage.group_width,
                stride,
                spec.se_width(width_in, inner),
                spec.shortcut if changes else "identity",
            )
            width_in = stage.width
