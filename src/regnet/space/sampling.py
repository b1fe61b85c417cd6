"""The paper's design spaces as values, and random samples of them within limits of cost.

Source: Radosavovic et al., Designing Network Design Spaces (arXiv 2003.13678), sections 3 and 4,
and their code's samplers.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from regnet.network.complexity import Complexity
from regnet.network.spec import AnyNetSpec, RegNetSpec, Spec, Stage
from regnet.space.networks import Costs, Frame, Lines, Networks, costs, fitted, on_lines
from regnet.statistics import draws
from regnet.statistics.draws import Flags, Reals, Uniforms, WeightedValues, Whole
from regnet.system.errors import SpaceError, UnknownModelError

Range = tuple[float, float]
Bounds = tuple[int, int]

_GROUP_WIDTHS: Final = (1, 2, 4, 8, 16, 32)
_BOTTLENECKS: Final = (1, 2, 4)
_CHUNK: Final = 1 << 14  # networks drawn at once
_FREE_DRAWS: Final = 2_000_000
_DRAWS_EACH: Final = 2_000


@dataclass(frozen=True, kw_only=True)
class AnyNetSpace:
    """Networks of `stages` stages, each with its own depth, width, bottleneck and group width.

    Depths go from 1 to `depth`, widths from 8 to `width` in steps of 8, both log-uniform. A
    `shared_` value is the same in all stages; `rising_` ones never fall from stage to stage.
    """

    name: str
    stages: int = 4
    depth: int = 16
    width: int = 1024
    bottlenecks: tuple[int, ...] = _BOTTLENECKS
    group_widths: tuple[int, ...] = _GROUP_WIDTHS
    shared_bottleneck: bool = False
    shared_group_width: bool = False
    rising_widths: bool = False
    rising_depths: bool = False
    se_ratio: float | None = None


@dataclass(frozen=True, kw_only=True)
class RegNetSpace:
    """Networks whose widths lie on a quantised line, of `stages` stages.

    The depth is uniform up to `depth`; w0 (from 8 in steps of 8), wa (from 0.1 in steps of 0.1) and
    wm (in steps of 0.001) are log-uniform, as are group widths from 8 to `group_width` in steps of
    8; without `group_width` they are one of `group_widths`. `enveloped` spaces keep to
    `largest_params` and `largest_acts`.
    """

    name: str
    stages: int = 4
    depth: int = 63
    w0: int = 256
    wa: float = 256.0
    wm: Range = (1.5, 3.0)
    bottlenecks: tuple[int, ...] = _BOTTLENECKS
    group_widths: tuple[int, ...] = _GROUP_WIDTHS
    group_width: int | None = None
    enveloped: bool = False
    se_ratio: float | None = None


Space = AnyNetSpace | RegNetSpace

_A: Final = AnyNetSpace(name="anynetx-a")
_B: Final = replace(_A, name="anynetx-b", shared_bottleneck=True)
_C: Final = replace(_B, name="anynetx-c", shared_group_width=True)
_D: Final = replace(_C, name="anynetx-d", rising_widths=True)
_E: Final = replace(_D, name="anynetx-e", rising_depths=True)
_R: Final = RegNetSpace(name="regnet")
_X: Final = RegNetSpace(
    name="regnetx", depth=40, wm=(2.0, 3.0), bottlenecks=(1,), group_width=256, enveloped=True
)
_Y: Final = replace(_X, name="regnety", se_ratio=0.25)

SPACES: Final[Mapping[str, Space]] = MappingProxyType(
    {space.name: space for space in (_A, _B, _C, _D, _E, _R, _X, _Y)}
)


def space_by_name(name: str) -> Space:
    """Return a space by its name in any case; raises `UnknownModelError` that lists the names."""
    if (space := SPACES.get(name.lower())) is None:
        known = ", ".join(SPACES)
        raise UnknownModelError(f"no design space is called {name!r}; known are {known}")
    return space


def largest_params(macs: Reals) -> Reals:
    """Return the largest parameters of good models by MACs at 224 pixels: the paper's figure 12."""
    return 3.0e6 + 5.5e-3 * macs


def largest_acts(macs: Reals) -> Reals:
    """Return the largest activations of good models by MACs at 224 pixels: likewise."""
    return 6.5e6 * np.sqrt(macs / 1e9)


PUBLISHED: Final = Frame()
"""The frame of the published networks, which the envelope is from."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The range of costs that networks may have, both ends included; None is no limit."""

    macs: Bounds | None = None
    params: Bounds | None = None
    acts: Bounds | None = None

    def holds(self, cost: Costs) -> Flags:
        """Return which networks are within the window, (N,)."""
        inside = np.ones(len(cost.macs), bool)
        for name, bounds in vars(self).items():
            if bounds is not None:
                values: Whole = getattr(cost, name)
                inside &= (values >= bounds[0]) & (values <= bounds[1])
        return inside

    def __str__(self) -> str:
        limits = [f"{n} from {b[0]:,} to {b[1]:,}" for n, b in vars(self).items() if b is not None]
        return ", ".join(limits) or "no limits"


@dataclass(frozen=True)
class _Batch:
    """Networks of a space with their costs; `lines` are the parameters if they are RegNets."""

    space: Space
    frame: Frame
    networks: Networks
    lines: Lines | None
    cost: Costs


@dataclass(frozen=True)
class Sampled:
    """One network of a sample; its spec is built on demand."""

    _batch: _Batch
    _place: int

    @property
    def spec(self) -> Spec:
        """The network."""
        batch = self._batch
        around: dict[str, Any] = {**vars(batch.frame), "se_ratio": batch.space.se_ratio}
        del around["image_size"]
        if batch.lines is not None:
            return RegNetSpec(**batch.lines.row(self._place), **around)
        rows = batch.networks.rows(self._place).tolist()
        return AnyNetSpec(stages=tuple(Stage(*row) for row in rows), **around)

    @property
    def cost(self) -> Complexity:
        """The cost at the frame's image size."""
        costs = vars(self._batch.cost)
        return Complexity(**{name: int(column[self._place]) for name, column in costs.items()})


def sample(
    space: Space,
    count: int,
    *,
    seed: int = 0,
    window: Window = Window(),
    frame: Frame = PUBLISHED,
) -> Iterator[Sampled]:
    """Yield `count` different networks of a space within a window, the same for the same seed.

    A smaller sample is the beginning of a larger one. Raises `SpaceError` if almost no network of
    the space is within the window.
    """
    drawn, seen = 0, set[bytes]()
    uniforms = Uniforms(seed, space.name)
    while len(seen) < count:
        if drawn >= max(_FREE_DRAWS, _DRAWS_EACH * count):
            raise SpaceError(
                f"of {drawn:,} networks drawn from {space.name} only {len(seen):,} different ones "
                f"have {window}: widen the window, or ask for fewer"
            )
        batch = _draw(space, uniforms, frame)
        good = window.holds(batch.cost)
        if isinstance(space, RegNetSpace) and space.enveloped:
            good &= _enveloped(batch)
        for place, key in zip(np.flatnonzero(good), batch.networks.keys(good), strict=True):
            if key not in seen and len(seen) < count:
                seen.add(key)
                yield Sampled(batch, int(place))
        drawn += _CHUNK


def _draw(space: Space, uniforms: Uniforms, frame: Frame) -> _Batch:
    """Return the next networks."""
    if isinstance(space, AnyNetSpace):
        networks, lines = _anynets(space, uniforms), None
    else:
        networks, lines = on_lines(_lines(space, uniforms), space.stages)
    return _Batch(space, frame, networks, lines, costs(networks, frame, space.se_ratio))


def _anynets(space: AnyNetSpace, uniforms: Uniforms) -> Networks:
    def per_stage(table: WeightedValues, *, rising: bool = False, shared: bool = False) -> Whole:
        numbers = uniforms.draw(_CHUNK * space.stages).reshape(_CHUNK, space.stages)
        if rising:
            return table.pick_rising(numbers)
        picked = table.pick(numbers)
        return np.repeat(picked[:, :1], space.stages, axis=1) if shared else picked

    return fitted(
        per_stage(draws.log_uniform(1, space.depth), rising=space.rising_depths),
        per_stage(draws.log_uniform(8, space.width, step=8), rising=space.rising_widths),
        per_stage(draws.evenly(space.group_widths), shared=space.shared_group_width),
        per_stage(draws.evenly(space.bottlenecks), shared=space.shared_bottleneck),
    )


def _lines(space: RegNetSpace, uniforms: Uniforms) -> Lines:
    def picked(table: WeightedValues) -> Whole:
        return table.pick(uniforms.draw(_CHUNK))

    low, high = (round(1000 * wm) for wm in space.wm)
    groups = draws.evenly(space.group_widths)
    if space.group_width is not None:
        groups = draws.log_uniform(8, space.group_width, step=8)
    return Lines(
        d=picked(draws.evenly(range(1, space.depth + 1))),
        w0=picked(draws.log_uniform(8, space.w0, step=8)),
        wa=picked(draws.log_uniform(1, round(10 * space.wa))) / 10,
        wm=picked(draws.log_uniform(low, high)) / 1000,
        g=picked(groups),
        b=picked(draws.evenly(space.bottlenecks)),
    )


def _enveloped(batch: _Batch) -> Flags:
    """Return which networks have no more parameters and activations than good ones, (N,)."""
    cost = batch.cost
    if batch.frame != PUBLISHED:
        cost = costs(batch.networks, PUBLISHED, batch.space.se_ratio)
    macs = cost.macs.astype(np.float64)
    within: Flags = (cost.params <= largest_params(macs)) & (cost.acts <= largest_acts(macs))
    return within
