"""Which frames of a video are classified, and how results are smoothed."""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regnet.system.option import option


@dataclass(frozen=True)
class Sampling:
    """Which frames of a video are classified: one per `every` seconds, or all if that is 0.

    `smooth`: seconds over which probabilities are averaged. `realtime` drops frames to keep up;
    None: only for cameras and streams. Raises `ValueError`.
    """

    every: float = option(
        1.0, "Classify one frame every SECONDS; 0 = every frame", "SECONDS", min=0
    )
    smooth: float = option(0.0, "Average the probabilities over SECONDS", "SECONDS", min=0)
    realtime: bool | None = option(None, "Drop frames to keep up [for cameras and rtsp]")

    def __post_init__(self) -> None:
        for name in ("every", "smooth"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name}={value} must be seconds, 0 or more")

    def newest_only(self, *, live: bool) -> bool:
        """Return whether frames may be dropped, of a camera or stream, or of a file."""
        return live if self.realtime is None else self.realtime


class Smoothing:
    """The mean of the probabilities of the frames of the last `seconds`, this one included."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._rows: deque[tuple[float, NDArray[np.float32]]] = deque()

    def __call__(self, row: NDArray[np.float32], time: float) -> NDArray[np.float32]:
        """Return the mean with this row (classes,) of a frame at `time`, in whole microseconds."""
        if not self._seconds:
            return row
        if self._rows and time < self._rows[-1][0]:  # the clock of the stream was set anew
            self._rows.clear()
        self._rows.append((time, row))
        while self._rows[0][0] <= round(time - self._seconds, 6):
            self._rows.popleft()
        mean: NDArray[np.float32] = np.mean([row for _, row in self._rows], axis=0)
        return mean
