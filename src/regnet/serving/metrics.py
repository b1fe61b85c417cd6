"""What a server counts, for Prometheus: a registry of its own, nothing global."""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector

from regnet.system.version import TOOL_VERSION

_SECONDS: Final = (
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32,
)  # fmt: skip
_IMAGES: Final = (1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64)
_METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})


class ServerMetrics:
    """The figures of one server. It is an `Observer` of its models too; quick, never raises."""

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
        requests = Counter(
            "regnet_requests", "Requests answered", ["method", "route", "status"], registry=registry
        )
        errors = Counter(
            "regnet_errors", "Requests without a result, by reason", ["reason"], registry=registry
        )
        refusals = Counter(
            "regnet_model_refusals",
            "Requests that a model did not take, by reason",
            ["model", "reason"],
            registry=registry,
        )
        queued = Gauge(
            "regnet_images_queued", "Images waiting or running", ["model"], registry=registry
        )
        images = Counter("regnet_images", "Images inferred", ["model"], registry=registry)
        self._requests = cache(lambda *labels: requests.labels(*labels))
        self._errors = cache(lambda reason: errors.labels(reason))
        self._refusals = cache(lambda *labels: refusals.labels(*labels))
        self._queued = cache(lambda model: queued.labels(model))
        self._images = cache(lambda model: images.labels(model))
        self._request_seconds = self._histogram(
            "regnet_request_seconds", "From the arrival of a request to its answer", "route"
        )
        self._queue_seconds = self._histogram(
            "regnet_queue_seconds", "The longest wait for its turn of an image in a batch", "model"
        )
        self._decode_seconds = self._histogram(
            "regnet_decode_seconds", "Decoding and cropping one image", "model"
        )
        self._inference_seconds = self._histogram(
            "regnet_inference_seconds", "Inference of one batch", "model"
        )
        self._batch_images = self._histogram(
            "regnet_batch_images", "Images in a batch", "model", buckets=_IMAGES
        )

    def _histogram(
        self, name: str, text: str, label: str, buckets: tuple[float, ...] = _SECONDS
    ) -> Callable[[str], Histogram]:
        """Return a function from a label's value to its histogram."""
        whole = Histogram(name, text, [label], registry=self._registry, buckets=buckets)
        return cache(lambda value: whole.labels(value))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request; `route` is its path's pattern, so that there are few of them."""
        self._requests(method if method in _METHODS else "other", route, str(status)).inc()
        self._request_seconds(route).observe(seconds)

    def failed(self, reason: str) -> None:
        """Count a request that got no result."""
        self._errors(reason).inc()

    def queued(self, model: str, images: int) -> None:
        """Set how many images wait or run."""
        self._queued(model).set(images)

    def decoded(self, model: str, seconds: float) -> None:
        """Count an image that was decoded."""
        self._decode_seconds(model).observe(seconds)

    def batch_done(self, model: str, size: int, queue_s: float, infer_s: float) -> None:
        """Count a batch that was inferred."""
        self._images(model).inc(size)
        self._batch_images(model).observe(size)
        self._queue_seconds(model).observe(queue_s)
        self._inference_seconds(model).observe(infer_s)

    def refused(self, model: str, reason: str) -> None:
        """Count a request that a model did not take."""
        self._refusals(model, reason).inc()

    def exposition(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        text: Any = generate_latest(self._registry)
        return bytes(text)
