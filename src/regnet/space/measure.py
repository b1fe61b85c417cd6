"""Latencies of networks on this machine: one image, all cores, the real engine, in turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, get_args

import numpy as np

from regnet.ir.engine import Engine, read_model
from regnet.ir.metadata import InferencePrecision
from regnet.network.spec import Spec, spec_by_name
from regnet.space.random_ir import write_random_ir
from regnet.system.errors import SpaceError
from regnet.system.files import temporary_folder
from regnet.system.machine import this_machine, watch_others
from regnet.system.timing import Contestant, Timing, Watch, measure, ratio

REFERENCE: Final = "regnetx-400mf"
"""The network measured beside all others: what slows it down slowed them down."""

_ROUNDS: Final = 7
_TURN: Final = 0.05  # seconds
_LEAST_SIZE: Final = 32


@dataclass(frozen=True, kw_only=True)
class LatencySetup:
    """How networks are to run: the engine's precision and the image's size in pixels.

    Raises `SpaceError` where that cannot be.
    """

    precision: InferencePrecision = "f32"
    image_size: int = 224
    device: str = "CPU"

    def __post_init__(self) -> None:
        if self.device.upper() != "CPU":
            raise SpaceError(f"{self.device}: the engine runs on CPUs: use --device CPU")
        if self.image_size < _LEAST_SIZE:
            raise SpaceError(
                f"images of {self.image_size} pixels: {_LEAST_SIZE} or more are wanted"
            )
        if self.precision == "bf16" and not this_machine().has_bf16:
            raise SpaceError(f"bf16: this CPU ({this_machine().cpu}) has none; use f32 or int8")


def setup(precision: str, *, image_size: int = 224, device: str = "CPU") -> LatencySetup:
    """Return the setup of these words; raises `SpaceError`."""
    for known in get_args(InferencePrecision):
        if precision == known:
            return LatencySetup(precision=known, image_size=image_size, device=device)
    known = ", ".join(get_args(InferencePrecision))
    raise SpaceError(f"precision {precision!r} is none of {known}")


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one image: the median of all calls, and what nine of ten take at most."""

    median: float
    p90: float


class Stopwatch:
    """Measures networks in groups, each beside the reference.

    `drift` are the reference's medians, of each group.
    """

    def __init__(self, setup: LatencySetup, *, watch: Watch = iter) -> None:
        self.setup = setup
        self.drift: list[float] = []
        self._watch = watch
        self._others = watch_others()

    def other_work(self) -> float | None:
        """Return the share of the machine that others took since the start, in [0, 1]."""
        return self._others()

    def latencies(self, specs: Sequence[Spec], *, rounds: int = _ROUNDS) -> list[Latency]:
        """Return the latency of each network, as measured."""
        return [_latency(timing) for timing in self._timings(specs, rounds)[1:]]

    def comparable(self, specs: Sequence[Spec], *, rounds: int = _ROUNDS) -> list[float]:
        """Return milliseconds that can be compared with those of other groups.

        They are the reference's of the first group, times how much longer each network took in the
        same rounds, so what slows down the whole machine for a while cancels out.
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
            found = measure(contestants, rounds=rounds, turn=_TURN, watch=self._watch)
        timings = [found[contestant.name] for contestant in contestants]
        self.drift.append(_latency(timings[0]).median)
        return timings

    def _contestant(self, spec: Spec, path: Path) -> Contestant:
        setup = self.setup
        write_random_ir(spec, path, precision=setup.precision, image_size=setup.image_size)
        engine = Engine(read_model(path), precision=setup.precision)
        shape = (1, setup.image_size, setup.image_size, 3)
        image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return Contestant(path.stem, partial(engine.infer, image))


def _latency(timing: Timing) -> Latency:
    return Latency(1e3 * timing.percentile(50), 1e3 * timing.percentile(90))
