"""The trained networks of each space, and the values of their parameters, from records."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Final

import numpy as np

from regnet.network.spec import RegNetSpec, Spec, Stage
from regnet.space.records import RunRecord, Setting
from regnet.space.sampling import SPACES
from regnet.statistics.draws import Reals
from regnet.system.errors import SpaceError

_LINE = ("d", "w0", "wa", "wm", "g", "b")
_COLUMNS = {"d": "depth", "w": "width", "b": "bottleneck", "g": "group_width"}
_QUANTUM: Final = 8
_WM: Final = np.arange(60, 121) / 40  # 1.5 to 3
_WM_STEP: Final = 1 / 40
_SLOPES: Final = np.concatenate([[0.0], np.geomspace(0.01, 16, 96)])  # wa over w0
_SLOPE_STEP: Final = 1600 ** (1 / 95)  # times
_FINER: Final = 33  # values of each, around the best of the grid


@dataclass(frozen=True, kw_only=True)
class TrainedNetwork:
    """A network with its cost, and the errors in [0, 1] of its runs, one per seed."""

    spec: Spec
    params: int
    macs: int
    acts: int
    errors: tuple[float, ...]

    @property
    def error(self) -> float:
        """The mean over the runs."""
        return float(np.mean(self.errors))


@dataclass(frozen=True)
class Population:
    """The networks of a space with a result, and the runs without."""

    space: str
    networks: tuple[TrainedNetwork, ...]
    failed: tuple[RunRecord, ...]

    def __len__(self) -> int:
        return len(self.networks)

    @cached_property
    def errors(self) -> Reals:
        """The error of each network, (N,)."""
        return np.array([network.error for network in self.networks])

    def costs(self, name: str) -> Reals:
        """Return "params", "macs" or "acts" of each network, (N,)."""
        return _reals(getattr(network, name) for network in self.networks)

    @cached_property
    def parameters(self) -> dict[str, Reals]:
        """The parameters that differ between the networks, each (N,).

        For RegNets d, w0, wa, wm, g and b. For others the total depth d, and di, wi, bi and gi of
        stage i; b and g if all stages share one.
        """
        specs = [network.spec for network in self.networks]
        lines = [spec for spec in specs if isinstance(spec, RegNetSpec)]
        if len(lines) == len(specs):
            values = {name: _reals(getattr(spec, name) for spec in lines) for name in _LINE}
        else:
            values = _by_stage([spec.stages for spec in specs])
        return {name: column for name, column in values.items() if len(np.unique(column)) > 1}

    @property
    def is_line(self) -> bool:
        """Whether all networks are RegNets, whose widths lie on a quantised line."""
        return all(isinstance(network.spec, RegNetSpec) for network in self.networks)


def _reals(values: Iterable[float]) -> Reals:
    return np.array(list(values), np.float64)


def _by_stage(networks: Sequence[tuple[Stage, ...]]) -> dict[str, Reals]:
    values = {"d": _reals(sum(stage.depth for stage in stages) for stages in networks)}
    if len({len(stages) for stages in networks}) != 1:
        return values
    for letter, attribute in _COLUMNS.items():
        if shared := _shared(letter, networks):
            values[letter] = _reals(shared)
            continue
        for i, column in enumerate(zip(*networks, strict=True), start=1):
            values[f"{letter}{i}"] = _reals(getattr(stage, attribute) for stage in column)
    return values


def _shared(letter: str, networks: Sequence[tuple[Stage, ...]]) -> list[int]:
    """Return the bottleneck or group width of each network, or [] if the stages share none.

    A group is never wider than its convolution, so a narrow stage may have less than its share.
    """
    if letter == "b" and all(len({s.bottleneck for s in stages}) == 1 for stages in networks):
        return [stages[0].bottleneck for stages in networks]
    widest = [max(stage.group_width for stage in stages) for stages in networks]
    shared = letter == "g" and all(
        stage.group_width in (most, stage.inner_width)
        for stages, most in zip(networks, widest, strict=True)
        for stage in stages
    )
    return widest if shared else []


@dataclass(frozen=True)
class LineFit:
    """The quantised line nearest to a network: `error` is the mean |log(width / line's)|, >= 0."""

    error: float
    d: int
    w0: int
    wa: float
    wm: float


def fit_line(spec: Spec) -> LineFit:
    """Return the quantised line nearest to a network's widths.

    Source: Radosavovic et al., Designing Network Design Spaces (arXiv 2003.13678), section 3.3: of
    a grid of w0, wa and wm the line with the least mean absolute log-ratio to the network's widths,
    block by block.
    """
    return _fit(tuple(width for s in spec.stages for width in [s.width] * s.depth))


@cache
def _fit(widths: tuple[int, ...]) -> LineFit:
    """Return the line nearest to the widths of blocks: of a grid, then of a finer one around it."""
    logs = np.log(np.asarray(widths, np.float64))
    best = _nearest(logs, _grid_steps(len(widths)), _WM, _SLOPES)
    wm = np.clip(best.wm + np.linspace(-_WM_STEP, _WM_STEP, _FINER), _WM[0], _WM[-1])
    slopes = best.wa / best.w0 * np.geomspace(1 / _SLOPE_STEP, _SLOPE_STEP, _FINER)
    finer = _nearest(logs, _steps(len(widths), wm, slopes), wm, slopes)
    return min(best, finer, key=lambda fit: fit.error)


def _nearest(logs: Reals, steps: Reals, wms: Reals, slopes: Reals) -> LineFit:
    """Return the line of a grid nearest to the logarithms of widths (blocks,).

    For unrounded widths the best w0 is a median; the multiples of 8 on both sides are tried.
    """
    rises = steps * np.log(wms)[:, None, None]  # (wm, slopes, blocks)
    middle = np.exp(np.median(logs - rises, axis=2)) / _QUANTUM
    best = LineFit(float("inf"), len(logs), 0, 0.0, 0.0)
    for multiples in (np.floor(middle), np.ceil(middle)):
        w0 = _QUANTUM * np.maximum(multiples, 1.0)
        lines = _QUANTUM * np.rint(w0[..., None] * np.exp(rises) / _QUANTUM)
        errors = np.abs(np.log(lines) - logs).mean(axis=2)
        at = np.unravel_index(int(errors.argmin()), errors.shape)
        if errors[at] < best.error:
            first, slope, wm = int(w0[at]), slopes[at[1]], wms[at[0]]
            best = LineFit(float(errors[at]), best.d, first, float(slope * first), float(wm))
    return best


@cache
def _grid_steps(blocks: int) -> Reals:
    return _steps(blocks, _WM, _SLOPES)


def _steps(blocks: int, wms: Reals, slopes: Reals) -> Reals:
    """Return the steps of wm that each block is above the first, (wm, slopes, blocks)."""
    rise = np.log1p(slopes[:, None] * np.arange(blocks))
    steps: Reals = np.rint(rise / np.log(wms)[:, None, None])
    return steps


def populations(records: Sequence[RunRecord], *, mixed: bool = False) -> tuple[Population, ...]:
    """Return the trained networks of each space, the paper's spaces first and in its order.

    Runs of one network with several seeds make one network. Raises `SpaceError` if no run has a
    result, or the runs' settings differ and are not to be `mixed`.
    """
    if not mixed:
        _require_one_setting(records)
    if not records:
        raise SpaceError("there are no records to analyze")
    if all(record.error is None for record in records):
        reason = records[0].failure or "it has no error"
        raise SpaceError(f"none of the {len(records):,} runs has a result; the first: {reason}")
    known = list(SPACES)
    names = {record.space for record in records}
    paper = [name for name in known if name in names]
    return tuple(
        _population(name, [r for r in records if r.space == name])
        for name in [*paper, *sorted(names - set(known))]
    )


def _population(space: str, records: Sequence[RunRecord]) -> Population:
    runs: dict[tuple[Setting, Spec], list[RunRecord]] = {}
    for record in records:
        if record.error is not None:
            runs.setdefault((record.setting, record.spec), []).append(record)
    networks = []
    for one, *others in runs.values():
        errors = tuple(run.errors[-1] for run in (one, *others))
        costs = {"params": one.params, "macs": one.macs, "acts": one.acts}
        networks.append(TrainedNetwork(spec=one.spec, **costs, errors=errors))
    failed = tuple(record for record in records if record.error is None)
    return Population(space, tuple(networks), failed)


def _require_one_setting(records: Sequence[RunRecord]) -> None:
    settings = list(dict.fromkeys(record.setting for record in records))
    if len(settings) < 2:
        return
    first, second = (vars(setting) for setting in settings[:2])
    texts = [f"{n} {first[n]} and {second[n]}" for n in first if first[n] != second[n]]
    raise SpaceError(
        f"the records are of {len(settings)} settings ({'; '.join(texts)}), whose errors cannot be "
        "compared: analyze each alone, or say --mixed"
    )
