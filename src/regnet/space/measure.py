"""Latencies of networks on this machine: one image, all cores, the real engine, interleaved."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import numpy as np

from regnet.ir.engine import Engine, read_model
from regnet.ir.metadata import InferencePrecision
from regnet.network.spec import Spec, spec_by_name
from regnet.space.random_ir import write_random_ir
from regnet.system.checked import Checked, within
from regnet.system.errors import SpaceError
from regnet.system.files import temporary_folder
from regnet.system.machine import this_machine, watch_others
from regnet.system.timing import Contestant, Timing, measure, ratio

REFERENCE: Final = "regnetx-400mf"
"""The network measured beside all others: what slows it down slowed them down."""

_ROUNDS: Final = 7
_TURN: Final = 0.05  # seconds


@dataclass(frozen=True, kw_only=True)
class LatencySetup(Checked, error=SpaceError):
    """How networks are run; raises `SpaceError` if this machine cannot run them so."""

    precision: InferencePrecision = "f32"
    image_size: Annotated[int, within(ge=32)] = 224
    device: str = "CPU"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device.upper() != "CPU":
            raise SpaceError(f"{self.device}: the engine runs on CPUs: use --device CPU")
        if self.precision == "bf16" and not this_machine().has_bf16:
            raise SpaceError(f"bf16: this CPU ({this_machine().cpu}) has none; use f32 or int8")


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one image: the median and the 90th percentile of all calls."""

    median: float
    p90: float


class Stopwatch:
    """Measures networks in groups, each beside the reference.

    `drift` has the reference's median in each group; `other_work()` returns the share of the
    machine that other processes took since the start, in [0, 1], or None if it is not known.
    """

    def __init__(self, setup: LatencySetup) -> None:
        self.setup = setup
        self.drift: list[float] = []
        self.other_work = watch_others()

    def latencies(self, specs: Sequence[Spec], *, rounds: int = _ROUNDS) -> list[Latency]:
        """Return the latency of each network, as measured."""
        return [_latency(timing) for timing in self._timings(specs, rounds)[1:]]

    def comparable(self, specs: Sequence[Spec], *, rounds: int = _ROUNDS) -> list[float]:
        """Return milliseconds that are comparable between groups.

        They are the reference's in the first group, times how much longer each network took in the
        same rounds: a slowdown of the whole machine cancels out.
        """
        reference, *timings = self._timings(specs, rounds)
        return [self.drift[0] * ratio(reference, timing) for timing in timings]

    def _timings(self, specs: Sequence[Spec], rounds: int) -> list[Timing]:
        """Return the timing of the reference and of each network."""
        with temporary_folder() as folder:
            contestants = [
                self._contestant(spec, folder / f"{number}.xml")
                for number, spec in enumerate([spec_by_name(REFERENCE), *specs])
            ]
            by_name = measure(contestants, rounds=rounds, turn=_TURN)
        timings = [by_name[contestant.name] for contestant in contestants]
        self.drift.append(_latency(timings[0]).median)
        return timings

    def _contestant(self, spec: Spec, path: Path) -> Contestant:
        size, precision = self.setup.image_size, self.setup.precision
        write_random_ir(spec, path, precision=precision, image_size=size)
        engine = Engine(read_model(path), precision=precision)
        image = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
        return Contestant(path.stem, partial(engine.infer, image))


def _latency(timing: Timing) -> Latency:
    return Latency(1e3 * timing.percentile(50), 1e3 * timing.percentile(90))
