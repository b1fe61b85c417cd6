"""A machine that takes as long for a network as a formula says, in place of measuring."""

from collections.abc import Sequence

from regnet.network.complexity import complexity
from regnet.network.spec import Spec, spec_by_name
from regnet.space.measure import REFERENCE, Latency


def formula(spec: Spec) -> float:
    """Return milliseconds: of products, values and layers; groups that fill no vector cost more."""
    cost = complexity(spec)
    layers = sum(3 * stage.depth + 1 for stage in spec.stages)
    unfilled = any(stage.group_width % 16 for stage in spec.stages)
    return (0.2 + cost.macs / 1e8 + cost.acts / 4e6 + 0.005 * layers) * (1.2 if unfilled else 1.0)


class SimulatedMachine:
    """Stands in for `Stopwatch`; a network's `surprise` is what it takes more when alone.

    `others` is the share of the machine that others take; the reference slows down by `slowdown`
    in each group.
    """

    def __init__(
        self,
        surprise: dict[Spec, float] | None = None,
        *,
        others: float | None = None,
        slowdown: float = 1.0,
    ) -> None:
        self.others, self.slowdown = others, slowdown
        self.drift: list[float] = []
        self.calls: list[int] = []
        self.surprise = surprise or {}

    def comparable(self, specs: Sequence[Spec]) -> list[float]:
        slower = self.slowdown ** len(self.drift)
        self.drift.append(slower * formula(spec_by_name(REFERENCE)))
        self.calls.append(len(specs))
        return [formula(spec) for spec in specs]

    def other_work(self) -> float | None:
        return self.others

    def latencies(self, specs: Sequence[Spec], *, rounds: int = 0) -> list[Latency]:
        times = self.comparable(specs)
        if len(specs) == 1:
            times = [times[0] * self.surprise.get(specs[0], 1.0)]
        return [Latency(ms, 1.1 * ms) for ms in times]
