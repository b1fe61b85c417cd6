"""What a model has done since it was loaded, as Triton's clients read it.

Source: Triton's extension "statistics"; all durations are sums, in nanoseconds.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from regnet.serving.batching import Timing

_OF_REQUESTS: Final = (
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
    "cache_hit", "cache_miss",
)  # fmt: skip


class _Durations(defaultdict[str, list[float]]):
    """Count and sum of seconds, by name."""

    def __init__(self, *names: str) -> None:
        super().__init__(lambda: [0, 0.0], {name: [0, 0.0] for name in names})

    def add(self, seconds: Mapping[str, float]) -> None:
        for name, value in seconds.items():
            total = self[name]
            total[0] += 1
            total[1] += value

    def to_dict(self) -> dict[str, Any]:
        return {
            name: {"count": count, "ns": round(seconds * 1e9)}
            for name, (count, seconds) in self.items()
        }


class Statistics:
    """Counts the requests and batches of one model. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = self._images = self._batches = 0
        self._requests = _Durations(*_OF_REQUESTS)
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
                result = "success" if timings else "fail"
                self._requests.add({result: time.perf_counter() - start})
                for timing in timings:
                    self._last_ms = round(time.time() * 1e3)
                    self._requests.add(
                        {
                            "queue": timing.queue_ms / 1e3,
                            "compute_input": timing.decode_ms / 1e3,
                            "compute_infer": timing.infer_ms / 1e3,
                            "compute_output": timing.output_ms / 1e3,
                        }
                    )

    def executed(self, images: int, *, decode: float, infer: float, output: float) -> None:
        """Count a batch that was inferred, and the seconds of its parts."""
        parts = {"compute_input": decode, "compute_infer": infer, "compute_output": output}
        with self._lock:
            self._images += images
            self._batches += 1
            self._sizes[images].add(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as plain JSON values."""
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
