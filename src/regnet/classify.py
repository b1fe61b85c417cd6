"""Images to predictions: decoding and inference side by side, results in input order."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

from numpy.typing import NDArray

from regnet.conversion import InferencePrecision
from regnet.engine import Engine, read_model
from regnet.errors import ImageError
from regnet.metadata import ModelMetadata
from regnet.parallel import BATCH_SIZE, cores, in_order
from regnet.preprocess import ImageLike
from regnet.result import Prediction, top_classes
from regnet.sources import iter_items


class Classifier:
    """A converted model that names what is in images. Thread-safe.

    `path` is the .xml of an IR from `regnet convert`; `precision` what it computes in: "f32" is
    exact, "bf16" faster where the CPU has it. `compiled_cache` is a folder that makes later
    starts faster. Raises `ModelError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        precision: InferencePrecision = "f32",
        compiled_cache: Path | None = None,
    ) -> None:
        self._model = read_model(path)
        self._precision = precision
        self._compiled_cache = compiled_cache

    @cached_property
    def _one_at_a_time(self) -> Engine:
        """The engine that gives a single image all cores."""
        return self._engine(streams=1)

    @cached_property
    def _side_by_side(self) -> Engine:
        """The engine for many images: one on each core wastes none on waiting for the others."""
        return self._engine(streams=cores())

    def _engine(self, streams: int) -> Engine:
        return Engine(
            self._model,
            precision=self._precision,
            streams=streams,
            compiled_cache=self._compiled_cache,
        )

    @property
    def metadata(self) -> ModelMetadata:
        """The model's name, spec, protocol, labels and provenance."""
        return self._model.metadata

    @overload
    def classify(self, images: ImageLike, *, top_k: int = 5) -> Prediction: ...
    @overload
    def classify(self, images: list[ImageLike], *, top_k: int = 5) -> list[Prediction]: ...
    def classify(
        self, images: ImageLike | list[ImageLike], *, top_k: int = 5
    ) -> Prediction | list[Prediction]:
        """Return the prediction of one image, or of each in a list.

        An image is a path, encoded bytes, a uint8 array (H, W, 3) in RGB or (H, W) grey, or a PIL
        image. One that cannot be read gives a prediction with `error` set.
        """
        if isinstance(images, list):
            jobs = [_job(image, number) for number, image in enumerate(images)]
            return list(self._stream(jobs, top_k, BATCH_SIZE))
        return next(self._stream([_job(images, 0)], top_k, BATCH_SIZE))

    def stream(
        self,
        sources: str | Path | Iterable[str | Path],
        *,
        top_k: int = 5,
        batch_size: int = BATCH_SIZE,
    ) -> Iterator[Prediction]:
        """Yield the prediction of every image in the sources, in their order.

        Sources are those of `regnet classify`: files, folders, globs, URLs, archives, `-`. Memory
        does not grow with their number. At most `batch_size` images are inferred in one call.
        """
        if isinstance(sources, str | Path):
            sources = [sources]
        jobs = ((item.source, item.read) for item in iter_items(sources))
        yield from self._stream(jobs, top_k, batch_size)

    def _stream(self, jobs: "Iterable[Job]", top_k: int, batch_size: int) -> Iterator[Prediction]:
        if top_k < 1 or batch_size < 1:
            raise ValueError(f"top_k={top_k} and batch_size={batch_size} must be at least 1")
        jobs = iter(jobs)
        first = list(itertools.islice(jobs, 2))
        if len(first) == 1:
            yield from _predict(self._one_at_a_time, first, top_k=top_k)
        elif first:
            jobs = itertools.chain(first, jobs)
            engine = self._side_by_side
            work = partial(_predict, engine, top_k=top_k)
            yield from in_order(jobs, work, workers=engine.streams, batch_size=batch_size)


Job = tuple[str, Callable[[], ImageLike]]


def _job(image: ImageLike, number: int) -> Job:
    """Return an image given in Python with a name for it."""
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        item = next(iter_items([image]))
        return item.source, item.read
    source = str(image) if isinstance(image, str | Path) else f"image {number}"
    return source, lambda: image


def _predict(engine: Engine, jobs: list[Job], *, top_k: int) -> list[Prediction]:
    """Return the predictions of a batch; images that cannot be read have their error."""
    pixels: list[NDArray[Any]] = []
    errors: list[str | None] = []
    for _, read in jobs:
        try:
            pixels.append(engine.pixels(read()))
            errors.append(None)
        except ImageError as exc:
            errors.append(str(exc))
    labels = engine.metadata.labels
    rows = iter(engine.infer(pixels) if pixels else ())
    return [
        Prediction(
            source=_readable(source),
            predictions=() if error is not None else top_classes(next(rows), labels, top_k),
            error=error,
            model=engine.metadata.name,
        )
        for (source, _), error in zip(jobs, errors, strict=True)
    ]


def _readable(source: str) -> str:
    """Return a name with undecodable bytes written out, so that any output can hold it."""
    return source.encode("utf-8", "backslashreplace").decode()
