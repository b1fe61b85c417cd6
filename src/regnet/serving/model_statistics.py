"""What a model has done since it was loaded, as Triton's clients read it.

Source: Triton's extension "statistics"; all durations are sums, in nanoseconds.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from regnet.serving.batching import Timing


@dataclass
class _Duration:
    """How often something was done, and how long that took in all."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.ns += round(seconds * 1e9)

    def to_dict(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


class _Durations(defaultdict[str, _Duration]):
    """Durations by name."""

    def __init__(self, *names: str) -> None:
        super().__init__(_Duration, {name: _Duration() for name in names})

    def to_dict(self) -> dict[str, Any]:
        return {name: duration.to_dict() for name, duration in self.items()}


class Statistics:
    """Counts the requests and batches of one model. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = self._images = self._batches = 0
        self._requests = _Durations(
            "success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
            "cache_hit", "cache_miss",
        )  # fmt: skip
        self._sizes: defaultdict[int, _Durations] = defaultdict(_Durations)

    @contextmanager
    def request(self) -> Iterator[Callable[[Timing], None]]:
        """Count the request that the block answers: as a success once its timing is given."""
        start = time.perf_counter()
        timings: list[Timing] = []
        try:
            yield timings.append
        finally:
            with self._lock:
                self._requests["success" if timings else "fail"].add(time.perf_counter() - start)
                for timing in timings:
                    self._succeeded(timing)

    def _succeeded(self, timing: Timing) -> None:
        self._last_ms = round(time.time() * 1e3)
        parts = {
            "queue": timing.queue_ms,
            "compute_input": timing.decode_ms,
            "compute_infer": timing.infer_ms,
            "compute_output": timing.output_ms,
        }
        for name, ms in parts.items():
            self._requests[name].add(ms / 1e3)

    def executed(self, images: int, *, decode: float, infer: float, output: float) -> None:
        """Count a batch that was inferred; the others are its seconds."""
        parts = {"compute_input": decode, "compute_infer": infer, "compute_output": output}
        with self._lock:
            self._images += images
            self._batches += 1
            for name, seconds in parts.items():
                self._sizes[images][name].add(seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        with self._lock:
            return {
                "last_inference": self._last_ms,
                "inference_count": self._images,
                "execution_count": self._batches,
                "inference_stats": self._requests.to_dict(),
                "batch_stats": [
                    {"batch_size": size, **durations.to_dict()}
                    for size, durations in sorted(self._sizes.items())
                ],
            }
