"""Many networks at once, as columns: their stages, and what they cost, exactly."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.network.spec import MAX_WIDTH, RegNetSpec
from regnet.statistics.draws import Reals, Whole

_NEAR: Final = 1e-9  # closer to where rounding turns, libraries may differ
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
    lines = lines[_likely(lines, stages)]
    depth, width = _steps(lines)
    taken = depth > 0
    good = (taken.sum(axis=1) == stages) & ((width * taken).max(axis=1, initial=0) <= MAX_WIDTH)
    lines, depth, width, taken = lines[good], depth[good], width[good], taken[good]
    depth, width = (rows[taken].reshape(-1, stages) for rows in (depth, width))
    group, bottleneck = (np.repeat(c[:, None], stages, axis=1) for c in (lines.g, lines.b))
    return fitted(depth, width, group, bottleneck), lines


def _likely(lines: Lines, stages: int) -> NDArray[np.bool_]:
    """Return which lines may have so many stages, (N,).

    Between the second block's step and the last block's, none is skipped where wm is at least 2.
    """
    second, last = (_step(lines, block) for block in (np.minimum(1, lines.d - 1), lines.d - 1))
    most = np.rint(last + _NEAR) - np.maximum(np.rint(second - _NEAR), 1) + 2
    least = np.rint(last - _NEAR) - np.maximum(np.rint(second + _NEAR), 1) + 2
    likely: NDArray[np.bool_] = (stages <= most) & ((least <= stages) | (lines.wm < 2))
    return likely


def _step(lines: Lines, block: Whole) -> Reals:
    """Return the unrounded step of a block of each, (N,)."""
    step: Reals = np.log1p(lines.wa * block / lines.w0) / np.log(lines.wm)
    return step


def _steps(lines: Lines) -> tuple[Whole, Whole]:
    """Return how many blocks are on each step, and how wide they are: (N, most steps) each.

    Step s begins at the first block j with w0 + wa j >= w0 wm^(s - 1/2): what `RegNetSpec` rounds,
    turned round. That is asked where rounding leaves a doubt, and where two steps have one width.
    """
    count = int(_step(lines, lines.d - 1).max(initial=0) + 0.5) + 1
    w0, d = lines.w0[:, None].astype(np.float64), lines.d[:, None]
    wm, scale = lines.wm[:, None], w0 / lines.wa[:, None]
    powers = wm ** np.arange(count + 1)
    begin = scale * (powers[:, 1:] / np.sqrt(wm) - 1)
    edges = np.minimum(np.ceil(begin), d).astype(np.int64)
    edges = np.concatenate([np.zeros_like(d), edges, d], axis=1)
    multiples = w0 * powers / _QUANTUM
    rounded = np.rint(multiples)
    depth, width = np.diff(edges, axis=1), _QUANTUM * rounded.astype(np.int64)
    doubt = (np.abs(begin - np.rint(begin)) < _NEAR * (begin + scale)) & (begin < d + 1)
    doubt |= rounded[:, 1:] == rounded[:, :-1]
    doubt |= (np.abs(multiples - rounded) > 0.5 - _NEAR)[:, 1:]
    for place in np.flatnonzero(doubt.any(axis=1)).tolist():
        widths, depths = np.unique(RegNetSpec(**lines.row(place)).block_widths, return_counts=True)
        depth[place] = 0
        depth[place, : len(depths)], width[place, : len(depths)] = depths, widths
    return depth, width


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
