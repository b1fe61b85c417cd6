"""What a server and its models count: for Prometheus, and as Triton's clients read it.

Source of the latter: Triton's extension "statistics"; all durations are sums, in nanoseconds.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector

from regnet.serving.batching import Observer, Timing
from regnet.system.version import TOOL_VERSION

_SECONDS: Final = (
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32,
)  # fmt: skip
_IMAGES: Final = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64)
_METRICS: Final = (  # kind, name, labels, text
    (Counter, "requests", "method route status", "Requests answered"),
    (Counter, "errors", "reason", "Requests without a result, by reason"),
    (Counter, "model_refusals", "model reason", "Requests that a model did not take, by reason"),
    (Gauge, "images_queued", "model", "Images waiting or running"),
    (Counter, "images", "model", "Images inferred"),
    (Histogram, "request_seconds", "route", "From the arrival of a request to its answer"),
    (Histogram, "queue_seconds", "model", "The longest wait for its turn of an image in a batch"),
    (Histogram, "decode_seconds", "model", "Decoding and cropping one image"),
    (Histogram, "inference_seconds", "model", "Inference of one batch"),
    (Histogram, "batch_images", "model", "Images in a batch"),
)
_METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})

_OF_REQUESTS: Final = (
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output",
    "cache_hit", "cache_miss",
)  # fmt: skip


class ServerMetrics(Observer):
    """The metrics of one server and of its models."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)  # memory, CPU seconds, open files
        Info("regnet_build", "What is running", registry=registry).info({"version": TOOL_VERSION})
        self.in_flight = Gauge(
            "regnet_requests_in_flight", "Requests that have no answer yet", registry=registry
        )
        self.held_bytes = Gauge(
            "regnet_request_bytes_held", "Bytes of the bodies of those", registry=registry
        )

        self._of: dict[str, Any] = {}  # from the values of labels to their metric, without its lock
        for kind, name, labels, text in _METRICS:
            buckets = _IMAGES if name == "batch_images" else _SECONDS
            options: Any = {"buckets": buckets} if kind is Histogram else {}
            metric = kind(f"regnet_{name}", text, labels.split(), registry=registry, **options)
            self._of[name] = cache(metric.labels)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is its path's pattern, so that there are few of them."""
        self._of["requests"](method if method in _METHODS else "other", route, str(status)).inc()
        self._of["request_seconds"](route).observe(seconds)

    def failed(self, reason: str) -> None:
        """Count a request that got no result."""
        self._of["errors"](reason).inc()

    def queued(self, model: str, images: int) -> None:
        """Set how many images wait or run."""
        self._of["images_queued"](model).set(images)

    def decoded(self, model: str, seconds: float) -> None:
        """Count an image that was decoded."""
        self._of["decode_seconds"](model).observe(seconds)

    def batch_done(self, model: str, size: int, queue_s: float, infer_s: float) -> None:
        """Count a batch that was inferred."""
        self._of["images"](model).inc(size)
        self._of["batch_images"](model).observe(size)
        self._of["queue_seconds"](model).observe(queue_s)
        self._of["inference_seconds"](model).observe(infer_s)

    def refused(self, model: str, reason: str) -> None:
        """Count a request that a model did not take."""
        self._of["model_refusals"](model, reason).inc()

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        text: Any = generate_latest(self._registry)
        return bytes(text)


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
