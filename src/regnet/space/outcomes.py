"""The trained networks of each space, and the values of their parameters, from records."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from regnet.network.spec import RegNetSpec, Spec, Stage
from regnet.space.records import RunRecord, Setting
from regnet.space.spaces import SPACES
from regnet.statistics.draws import Reals
from regnet.system.errors import SpaceError

_LINE = ("d", "w0", "wa", "wm", "g", "b")
_COLUMNS = {"d": "depth", "w": "width", "b": "bottleneck", "g": "group_width"}


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
    networks = tuple(
        TrainedNetwork(
            spec=same[0].spec,
            params=same[0].params,
            macs=same[0].macs,
            acts=same[0].acts,
            errors=tuple(run.errors[-1] for run in same),
        )
        for same in runs.values()
    )
    return Population(space, networks, tuple(r for r in records if r.error is None))


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
