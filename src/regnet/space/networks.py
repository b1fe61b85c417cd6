"""Many networks at once, as columns: their stages, and what they cost, exactly."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.space.draws import Reals, Whole
from regnet.spec import MAX_WIDTH, RegNetSpec

_NEAR_HALF: Final = 1e-6  # closer to a half, libraries may round to different sides
_QUANTUM: Final = 8


@dataclass(frozen=True)
class Networks:
    """N networks of S stages each; every array is (N, S), of whole numbers, as in `Stage`."""

    depth: Whole
    width: Whole
    group_width: Whole
    bottleneck: Whole

    def __len__(self) -> int:
        return len(self.depth)

    def rows(self, place: int) -> Whole:
        """Return a network's stages (S, 4): depth, width, group width, bottleneck."""
        return np.stack([column[place] for column in vars(self).values()], axis=1)

    def keys(self) -> list[bytes]:
        """Return what tells each network from others."""
        flat = np.concatenate(list(vars(self).values()), axis=1).astype(np.uint16)
        return [row.tobytes() for row in flat]


@dataclass(frozen=True)
class Costs:
    """What N networks cost, (N,) each: see `Complexity`."""

    params: Whole
    macs: Whole
    acts: Whole


def fitted(depth: Whole, width: Whole, group_width: Whole, bottleneck: Whole) -> Networks:
    """Return the networks with widths made divisible by their group widths, as pycls does."""
    inner = np.maximum(width // bottleneck, 1)
    group = np.minimum(group_width, inner)
    inner = np.maximum(np.rint(inner / group).astype(np.int64), 1) * group
    return Networks(depth, inner * bottleneck, group, bottleneck)


@dataclass(frozen=True)
class Lines:
    """The parameters of N RegNets, (N,) each: see `RegNetSpec`."""

    d: Whole
    w0: Whole
    wa: Reals
    wm: Reals
    g: Whole
    b: Whole

    def row(self, place: int) -> dict[str, Any]:
        """Return the parameters of one of them."""
        return {name: column[place].item() for name, column in vars(self).items()}

    def __getitem__(self, chosen: NDArray[np.bool_]) -> "Lines":
        return Lines(*(column[chosen] for column in vars(self).values()))


def on_lines(lines: Lines, stages: int) -> tuple[Networks, Lines]:
    """Return the networks of those lines that have so many stages, and these lines."""
    lines = lines[_last_step(lines) >= stages - 1.5]  # a stage needs a step at least
    widths = _block_widths(lines)
    rises = np.diff(widths, axis=1) > 0
    good = (rises.sum(axis=1) == stages - 1) & (widths.max(axis=1, initial=0) <= MAX_WIDTH)
    lines, widths, rises = lines[good], widths[good], rises[good]
    stage = np.concatenate([np.zeros((len(widths), 1), bool), rises], axis=1).cumsum(axis=1)
    depth = np.stack([((stage == s) & (widths > 0)).sum(axis=1) for s in range(stages)], axis=1)
    first = depth.cumsum(axis=1) - depth
    width = np.take_along_axis(widths, first, axis=1)
    group, bottleneck = (np.repeat(c[:, None], stages, axis=1) for c in (lines.g, lines.b))
    return fitted(depth, width, group, bottleneck), lines


def _last_step(lines: Lines) -> Reals:
    """Return the unrounded step of the last block, (N,)."""
    steps: Reals = np.log1p(lines.wa * (lines.d - 1) / lines.w0) / np.log(lines.wm)
    return steps


def _block_widths(lines: Lines) -> Whole:
    """Return the width of every block (N, most blocks), 0 where there is none.

    The same arithmetic as `RegNetSpec.block_widths`, which is asked where rounding leaves a doubt:
    numpy's logarithms may differ from C's in the last bit, and that matters next to a half.
    """
    blocks = np.arange(lines.d.max(initial=1))
    w0, wm = lines.w0[:, None].astype(np.float64), lines.wm[:, None]
    steps = np.log((w0 + lines.wa[:, None] * blocks) / w0) / np.log(wm)
    whole = np.rint(steps)
    multiples = w0 * wm**whole / _QUANTUM
    rounded = np.rint(multiples)
    farthest = np.maximum(np.abs(steps - whole), np.abs(multiples - rounded)).max(axis=1, initial=0)
    widths = np.where(blocks < lines.d[:, None], _QUANTUM * rounded.astype(np.int64), 0)
    for place in np.flatnonzero(farthest > 0.5 - _NEAR_HALF):
        exact = RegNetSpec(**lines.row(int(place))).block_widths
        widths[place, : len(exact)] = exact
    return widths


def costs(
    networks: Networks,
    *,
    image_size: int = 224,
    stem_width: int = 32,
    stem_stride: int = 2,
    se_ratio: float | None = None,
    classes: int = 1000,
) -> Costs:
    """Return what networks cost, equal to `complexity` of each."""
    size = _halved(image_size) if stem_stride == 2 else image_size
    count = len(networks)
    total = _Sum(count)
    total.conv(3, np.full(count, stem_width), 9, size)
    width_in = np.full(count, stem_width)
    for s in range(networks.depth.shape[1]):
        depth, width = networks.depth[:, s], networks.width[:, s]
        group, inner = networks.group_width[:, s], width // networks.bottleneck[:, s]
        before, size = size, _halved(size)
        for w_in, side, times in ((width_in, before, 1), (width, size, depth - 1)):
            total.conv(w_in, inner, 1, side, times)
            total.conv(group, inner, 9, size, times)
            total.conv(inner, width, 1, size, times)
            if se_ratio is not None:
                squeeze = np.maximum(np.rint(w_in * se_ratio).astype(np.int64), 1)
                total.linear(inner, squeeze, times)
                total.linear(squeeze, inner, times)
        total.conv(width_in, width, 1, size)
        width_in = width
    total.linear(width_in, classes)
    return Costs(total.params, total.macs, total.acts)


class _Sum:
    """Adds up what layers cost."""

    def __init__(self, count: int) -> None:
        self.params, self.macs, self.acts = (np.zeros(count, np.int64) for _ in range(3))

    def conv(
        self, per_group: Whole | int, out: Whole, taps: int, size: int, times: Whole | int = 1
    ) -> None:
        """Add a convolution, with BN, whose outputs each see `per_group` inputs."""
        weights = taps * per_group * out
        self.params += (weights + 2 * out) * times
        self.macs += weights * size * size * times
        self.acts += out * size * size * times

    def linear(self, width_in: Whole, out: Whole | int, times: Whole | int = 1) -> None:
        """Add a layer with bias."""
        count = (width_in * out + out) * times
        self.params += count
        self.macs += count
        self.acts += out * times


def _halved(size: int) -> int:
    return (size - 1) // 2 + 1
