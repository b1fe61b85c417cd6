"""What limits the speed of a run: the feed, the host or the device."""

from statistics import median
from typing import Final

_SLOW_FEED: Final = 0.2  # share of the time that steps wait for crops
_SLOW_HOST: Final = 0.8  # share of the time that the host needs to give the device its work
_FIRST: Final = 2  # steps that compile the network and choose algorithms
_LONG: Final = 5.0  # seconds of first steps that are worth a word

_ADVICE: Final = {
    "threads": "",
    "processes": "; more CPU cores would help, or photos that fit --memory and --memory-device",
    "device": "",
}


class Pace:
    """Times of steps in seconds; `feed` is who makes the crops, as `Feed.kind` has it.

    A device computes while the host goes on, unless it is a CPU. After a read it has no work left,
    so the next step takes as long as the host needs to give it work.
    """

    def __init__(self, feed: str, *, on_cpu: bool) -> None:
        self._feed, self._on_cpu = feed, on_cpu
        self._steps, self._first, self._waited, self._total = 0, 0.0, 0.0, 0.0
        self._given: list[float] = []
        self._idle = False

    def step(self, waited: float, computed: float) -> None:
        """Count a step that waited for its crops, and then was computed or given to the device."""
        self._steps += 1
        if self._steps <= _FIRST:
            self._first += waited + computed
            return
        self._total += waited + computed
        if self._feed == "device":  # which is given this work, too
            computed += waited
        else:
            self._waited += waited
        if self._idle:
            self._given.append(computed)
        self._idle = False

    def read(self, seconds: float) -> None:
        """Count the time that a value of the device took."""
        if self._steps > _FIRST:
            self._total += seconds
        self._idle = True

    @property
    def limit(self) -> str:
        """The limit: "feed", "host" or "device"; "" if too few steps were counted."""
        steps = self._steps - _FIRST
        if steps < 1 or not self._total:
            return ""
        if self._waited / self._total > _SLOW_FEED:
            return "feed"
        given = median(self._given) * steps if self._given and not self._on_cpu else 0.0
        return "host" if given / self._total > _SLOW_HOST else "device"

    def text(self) -> str:
        """Return a sentence on the limit, "" if it is not known."""
        share = f"{self._waited / max(self._total, 1e-9):.0%}"
        reasons = {
            "feed": f"the feed: steps wait for crops {share} of the time, which {self._feed} make"
            f"{_ADVICE[self._feed]}",
            "host": "the host, which gives the device its work: a larger --batch would help",
            "device": f"the device; steps wait for crops {share} of the time",
        }
        if not self.limit:
            return ""
        late = self._first - _FIRST * self._total / (self._steps - _FIRST)
        first = f"; compilation and the first steps took {late:.0f} s more" if late > _LONG else ""
        return f"what limits the speed is {reasons[self.limit]}{first}"
