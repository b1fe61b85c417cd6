"""Many networks at once as arrays: their stages and their exact costs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np

from regnet.network.spec import MAX_WIDTH, RegNetSpec
from regnet.statistics.draws import Flags, Reals, Whole

_NEAR: Final = 1e-9  # closer to where rounding turns, libraries may differ
_QUANTUM: Final = 8


@dataclass(frozen=True)
class Networks:
    """N networks of S stages each; every array is (N, S) and holds a field of `Stage`."""

    depth: Whole
    width: Whole
    group_width: Whole
    bottleneck: Whole

    def __len__(self) -> int:
        return len(self.depth)

    def rows(self, place: int) -> Whole:
        """Return a network's stages (S, 4): depth, width, group width, bottleneck."""
        return np.stack([column[place] for column in vars(self).values()], axis=1)

    def keys(self, chosen: Flags) -> list[bytes]:
        """Return a key for each of the chosen networks; equal networks have equal keys."""
        columns = [column[chosen] for column in vars(self).values()]
        flat = np.concatenate(columns, axis=1).astype(np.uint16)
        return [row.tobytes() for row in flat]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The parts of a network around its stages, and the image size that costs are counted for."""

    image_size: int = 224
    stem_width: int = 32
    stem_stride: int = 2
    classes: int = 1000

    def with_small_stem(self) -> Self:
        """Return the same with the stem for images of 32 to 64 pixels."""
        return replace(self, stem_width=16, stem_stride=1)


@dataclass(frozen=True)
class Costs:
    """The costs of N networks, (N,) each: see `Complexity`."""

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
        """Return the parameters of one RegNet."""
        return {name: column[place].item() for name, column in vars(self).items()}

    def __getitem__(self, chosen: Flags) -> "Lines":
        return Lines(*(column[chosen] for column in vars(self).values()))


def on_lines(lines: Lines, stages: int) -> tuple[Networks, Lines]:
    """Return the networks of the lines that have `stages` stages, and those lines."""
    lines = lines[_likely(lines, stages)]
    depth, width = _steps(lines)
    taken = depth > 0
    good = (taken.sum(axis=1) == stages) & ((width * taken).max(axis=1, initial=0) <= MAX_WIDTH)
    lines, depth, width, taken = lines[good], depth[good], width[good], taken[good]
    depth, width = (rows[taken].reshape(-1, stages) for rows in (depth, width))
    group, bottleneck = (np.repeat(c[:, None], stages, axis=1) for c in (lines.g, lines.b))
    return fitted(depth, width, group, bottleneck), lines


def _likely(lines: Lines, stages: int) -> Flags:
    """Return which lines may have `stages` stages, (N,).

    If wm is at least 2, no step is skipped between the second block's and the last block's.
    """
    second, last = (_step(lines, block) for block in (np.minimum(1, lines.d - 1), lines.d - 1))
    most = np.rint(last + _NEAR) - np.maximum(np.rint(second - _NEAR), 1) + 2
    least = np.rint(last - _NEAR) - np.maximum(np.rint(second + _NEAR), 1) + 2
    likely: Flags = (stages <= most) & ((least <= stages) | (lines.wm < 2))
    return likely


def _step(lines: Lines, block: Whole) -> Reals:
    """Return the unrounded step of a block of each, (N,)."""
    step: Reals = np.log1p(lines.wa * block / lines.w0) / np.log(lines.wm)
    return step


def _steps(lines: Lines) -> tuple[Whole, Whole]:
    """Return the number of blocks on each step and their width, (N, steps) each.

    Step s begins at the first block j with w0 + wa j >= w0 wm^(s - 1/2), the inverse of what
    `RegNetSpec` rounds. If rounding is in doubt or two steps share a width, `RegNetSpec` decides.
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


def costs(networks: Networks, frame: Frame, se_ratio: float | None) -> Costs:
    """Return the costs of networks, equal to `complexity` of each."""
    params, macs, acts = (np.zeros(len(networks), np.int64) for _ in range(3))
    for inputs, outputs, taps, side, times in _layers(networks, frame, se_ratio):
        weights = taps * inputs * outputs
        params += (weights + (2 if side else 1) * outputs) * times
        macs += (weights * side**2 if side else weights + outputs) * times
        acts += outputs * (side**2 or 1) * times
    return Costs(params, macs, acts)


def _layers(
    networks: Networks, frame: Frame, se_ratio: float | None
) -> Iterator[tuple[Any, Any, int, int, Any]]:
    """Yield each layer's inputs per group, outputs, kernel positions, output size and count.

    Layers with bias (squeeze-excite, head) have size 0; others have batch norm.
    """
    size = _halved(frame.image_size) if frame.stem_stride == 2 else frame.image_size
    width_in = np.full(len(networks), frame.stem_width)
    yield 3, width_in, 9, size, 1
    for s in range(networks.depth.shape[1]):
        width, group = networks.width[:, s], networks.group_width[:, s]
        inner = width // networks.bottleneck[:, s]
        before, size = size, _halved(size)
        yield width_in, width, 1, size, 1
        for w_in, side, times in ((width_in, before, 1), (width, size, networks.depth[:, s] - 1)):
            yield w_in, inner, 1, side, times
            yield group, inner, 9, size, times
            yield inner, width, 1, size, times
            if se_ratio is not None:
                squeeze = np.maximum(np.rint(w_in * se_ratio).astype(np.int64), 1)
                yield inner, squeeze, 1, 0, times
                yield squeeze, inner, 1, 0, times
        width_in = width
    yield width_in, frame.classes, 1, 0, 1


def _halved(size: int) -> int:
    return (size - 1) // 2 + 1
