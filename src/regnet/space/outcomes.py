"""Outcomes of training: the networks of each space, and the values of their parameters."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
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
    """A network with what it costs, and the errors in [0, 1] of its runs: one for each seed."""

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
    """What is known of a space: the networks with a result, and the runs without."""

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
        return np.array([getattr(network, name) for network in self.networks], np.float64)

    @cached_property
    def parameters(self) -> dict[str, Reals]:
        """The parameters that differ between the networks, each (N,).

        Of RegNets d, w0, wa, wm, g and b. Of others the total depth d, and of stage i di, wi, bi
        and gi; b and g where all stages share one.
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
    """Return the bottleneck or group width of each network; [] where the stages share none.

    A group is never wider than its convolution, so a narrow stage may have less than its share.
    """
    if letter == "b" and all(len({s.bottleneck for s in stages}) == 1 for stages in networks):
        return [stages[0].bottleneck for stages in networks]
    if letter != "g":
        return []
    widest = [max(stage.group_width for stage in stages) for stages in networks]
    same = all(
        stage.group_width in (most, stage.inner_width)
        for stages, most in zip(networks, widest, strict=True)
        for stage in stages
    )
    return widest if same else []


def populations(records: Sequence[RunRecord], *, mixed: bool = False) -> tuple[Population, ...]:
    """Return what records tell of each space, the paper's spaces first and in its order.

    Runs of one network with several seeds make one network. Raises `SpaceError` where no run has a
    result, or the runs' settings differ and are not to be `mixed`.
    """
    if not mixed:
        _require_one_setting(records)
    if not any(record.error is not None for record in records):
        raise SpaceError(_no_result(records))
    names = sorted({record.space for record in records}, key=_order)
    return tuple(_population(name, [r for r in records if r.space == name]) for name in names)


def _population(space: str, records: Sequence[RunRecord]) -> Population:
    runs: dict[tuple[Setting, Spec], list[RunRecord]] = {}
    for record in records:
        if record.error is not None:
            runs.setdefault((record.setting, record.spec), []).append(record)
    networks = tuple(_network(of_one) for of_one in runs.values())
    return Population(space, networks, tuple(r for r in records if r.error is None))


def _network(runs: Sequence[RunRecord]) -> TrainedNetwork:
    first = runs[0]
    errors = tuple(run.error for run in runs if run.error is not None)
    return TrainedNetwork(
        spec=first.spec, params=first.params, macs=first.macs, acts=first.acts, errors=errors
    )


def _order(space: str) -> tuple[int, str]:
    known = list(SPACES)
    return (known.index(space) if space in known else len(known), space)


def _require_one_setting(records: Sequence[RunRecord]) -> None:
    settings = list(dict.fromkeys(record.setting for record in records))
    if len(settings) < 2:
        return
    first, second = settings[:2]
    names = [f.name for f in fields(Setting)]
    other = [n for n in names if getattr(first, n) != getattr(second, n)]
    texts = [f"{n} {getattr(first, n)} and {getattr(second, n)}" for n in other]
    raise SpaceError(
        f"the records are of {len(settings)} settings ({'; '.join(texts)}), whose errors cannot be "
        "compared: analyze each alone, or say --mixed"
    )


def _no_result(records: Sequence[RunRecord]) -> str:
    if not records:
        return "there are no records to analyze"
    reason = records[0].failure or "it has no error"
    return f"none of the {len(records):,} runs has a result; the first: {reason}"
