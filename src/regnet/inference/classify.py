"""Images to predictions: decoding and inference side by side, results in input order."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from regnet.data.photo_files import is_live, require_extra
from regnet.data.sources import Item, Video, iter_items
from regnet.inference.decoding import MANY, DecodePool, Job, Pixels, decoded
from regnet.inference.result import Answer, Embedding, Prediction, Row, Wanted
from regnet.ir.assumptions import warn_assumed
from regnet.ir.engine import InferenceEngine, read_model
from regnet.ir.engines import Engines
from regnet.ir.features import features_of, last_layer, with_features
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.network.labels import Labels
from regnet.pixels.decode_limits import DECODE_LIMITS, DecodeLimits
from regnet.pixels.preprocess import ImageLike
from regnet.system.devices import CPU
from regnet.system.errors import ImageError, ModelError, reason_of
from regnet.system.parallel import cores, in_order
from regnet.video.sampling import Sampling, Smoothing

if TYPE_CHECKING:
    from regnet.ir.agreement import DeviceAgreement
    from regnet.video.frames import Frame

T = TypeVar("T")
Image = ImageLike | IO[bytes]


Infer = Callable[[InferenceEngine, list[NDArray[Any]]], NDArray[np.float32]]
"""Returns the rows (N, values) of N images' pixels: probabilities or embeddings."""


class Run(NamedTuple):
    """What to compute of images, and the engines that do."""

    engines: Engines
    infer: Infer


class Classifier:
    """A converted model that classifies images. Thread-safe.

    `path` is the .xml of an IR from `regnet convert`, `device` one of `regnet.system.devices`.
    `precision` "f32" is exact, "bf16" faster on CPUs with bf16. `compiled_cache` is a folder that
    makes later starts faster. With `offline`, images at URLs are errors. `name` is what warnings
    call the model, None its file. `limits` are those of decoding one image. Raises `ModelError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = CPU,
        precision: InferencePrecision = "f32",
        compiled_cache: Path | None = None,
        offline: bool = False,
        name: str | None = None,
        limits: DecodeLimits = DECODE_LIMITS,
    ) -> None:
        self._model = read_model(path)
        warn_assumed(name or path, self.metadata)
        self._offline = offline
        self.device = device
        self._options: dict[str, Any] = {
            "device": device,
            "precision": precision,
            "compiled_cache": compiled_cache,
            "limits": limits,
        }
        self._engines = Engines(self._model, **self._options)
        self._classifying = Run(self._engines, InferenceEngine.infer)

    @property
    def metadata(self) -> ModelMetadata:
        """The model's name, spec, protocol, labels and provenance."""
        return self._model.metadata

    @property
    def labels(self) -> Labels:
        """The classes, in the order of the probabilities."""
        return self.metadata.labels

    @property
    def agreement(self) -> "DeviceAgreement":
        """How far the device agrees with the CPU in f32 on sample photos, measured once."""
        return self._engines.agreement

    @cached_property
    def width(self) -> int:
        """The number of values in an embedding; raises `ModelError` as `embed`."""
        return last_layer(self._model.graph, source=str(self._model.path)).width

    def __repr__(self) -> str:
        model = self.metadata
        size = model.preprocess.crop
        return f"<Classifier {model.name}: {len(self.labels):,} classes, {size} x {size} pixels>"

    @overload
    def classify(
        self,
        images: Image,
        *,
        top_k: int = 5,
        sets: bool = False,
        unknown: bool = False,
        scale: bool = False,
        progress: bool = False,
    ) -> Prediction: ...
    @overload
    def classify(
        self,
        images: list[Image],
        *,
        top_k: int = 5,
        sets: bool = False,
        unknown: bool = False,
        scale: bool = False,
        progress: bool = False,
    ) -> list[Prediction]: ...
    def classify(
        self,
        images: Image | list[Image],
        *,
        top_k: int = 5,
        sets: bool = False,
        unknown: bool = False,
        scale: bool = False,
        progress: bool = False,
    ) -> Prediction | list[Prediction]:
        """Return the prediction of one image, or of each in a list; a call of the classifier does.

        An image is a path, a URL, encoded bytes, an open binary file, a uint8 array (H, W, 3) in
        RGB or (H, W) grey, or a PIL image; with `scale` an array may also be of floats in [0, 1].
        One that cannot be read gives a prediction with `error` set. `sets` and `unknown` fill the
        fields of these names; raises `ModelError` unless the model is calibrated. `progress` shows
        a bar, in a notebook too.
        """
        wanted = Wanted(top_k, sets, unknown)
        given = images if isinstance(images, list) else [images]
        self.require_possible(wanted, None)
        answer = Answer(self.metadata, wanted)
        rows = self._rows(self._jobs(given, scale=scale), None, self._classifying)
        found = (answer.of(source, row) for source, row in rows)
        predictions = list(_shown(found, len(given)) if progress else found)
        return predictions if isinstance(images, list) else predictions[0]

    __call__ = classify

    def probabilities(
        self, images: Image | list[Image], *, scale: bool = False
    ) -> NDArray[np.float32]:
        """Return the probabilities of images as `classify` takes them, (N, classes).

        Raises `ImageError` if one cannot be read.
        """
        return self._array(images, len(self.labels), self._classifying, scale=scale)

    def embed(self, images: Image | list[Image], *, scale: bool = False) -> NDArray[np.float32]:
        """Return the embeddings of images as `classify` takes them, (N, width).

        An embedding is the input of the model's last linear layer: the mean of the last feature
        map. Raises `ImageError` if an image cannot be read, `ModelError` if the model has no such
        layer.
        """
        return self._array(images, self.width, self._embedding, scale=scale)

    @cached_property
    def _embedding(self) -> Run:
        return Run(Engines(with_features(self._model), **self._options), features_of)

    @cached_property
    def _decode_pool(self) -> DecodePool:
        return DecodePool(self._engines.side_by_side)

    def _array(
        self, images: Image | list[Image], width: int, run: Run, *, scale: bool
    ) -> NDArray[np.float32]:
        """Return the rows of images, (N, width); raises `ImageError`."""
        given = images if isinstance(images, list) else [images]
        rows = list(self._rows(self._jobs(given, scale=scale), None, run))
        for source, row in rows:
            if isinstance(row, str):
                raise ImageError(f"{source}: {row}")
        return np.array([row for _, row in rows], np.float32).reshape(len(given), width)

    def stream(
        self,
        sources: str | Path | Iterable[str | Path],
        *,
        top_k: int = 5,
        sets: bool = False,
        unknown: bool = False,
        batch_size: int | None = None,
        every: float = 1.0,
        smooth: float = 0.0,
        realtime: bool | None = None,
        progress: bool = False,
    ) -> Iterator[Prediction]:
        """Yield the predictions of all images in the sources, in their order.

        Sources are those of `regnet classify`: files, folders, globs, URLs, archives, `-`, videos
        and cameras; for the last two see `Sampling` about `every`, `smooth` and `realtime`. Memory
        does not grow with their number. At most `batch_size` images are inferred in one call; None:
        8, on `cuda` as many as pay. The other options and the error of a model that is not
        calibrated are those of `classify`. Raises `MissingExtraError` for a video without its
        extra.
        """
        if isinstance(sources, str | Path):
            sources = [sources]
        sampling = Sampling(every=every, smooth=smooth, realtime=realtime)
        items = iter_items(sources, offline=self._offline)
        wanted = Wanted(top_k, sets, unknown)
        found = self.predict_items(items, wanted, batch_size=batch_size, sampling=sampling)
        return _shown(found, None) if progress else found

    def predict_items(
        self, items: Iterable[Item], wanted: Wanted, *, batch_size: int | None, sampling: Sampling
    ) -> Iterator[Prediction]:
        """Yield the wanted predictions of images and of the frames of videos, in their order.

        `regnet.data.sources.iter_items` yields the items of sources. Raises as `stream`.
        """
        self.require_possible(wanted, batch_size)
        answer = Answer(self.metadata, wanted)
        rows = self._item_rows(items, batch_size, sampling, self._classifying)
        return (answer.of(source, row, time) for source, time, row in rows)

    def embed_items(
        self, items: Iterable[Item], *, batch_size: int | None = None, every: float = 1.0
    ) -> Iterator[Embedding]:
        """Yield the embeddings of images and of the frames of videos, in their order.

        `regnet.data.sources.iter_items` yields the items of sources. Memory does not grow with
        their number. Raises as `stream`, and `ModelError` as `embed`.
        """
        rows = self._item_rows(items, batch_size, Sampling(every=every), self._embedding)
        return (Embedding.of(source, row, time) for source, time, row in rows)

    def _item_rows(
        self, items: Iterable[Item], batch_size: int | None, sampling: Sampling, run: Run
    ) -> "Iterator[tuple[str, float | None, Row]]":
        """Yield source, time and row of runs of photos and of the videos between them."""
        for is_video, group in itertools.groupby(items, lambda item: isinstance(item, Video)):
            if is_video:
                for video in cast(Iterator[Video], group):
                    smoothing = Smoothing(sampling.smooth)
                    for time, row in self._frame_rows(video, sampling, run):
                        known = row if isinstance(row, str) else smoothing(row, time or 0)
                        yield video.source, time, known
            else:
                jobs = ((item.source, item.read) for item in group)
                for source, row in self._rows(jobs, batch_size, run):
                    yield source, None, row

    def _frame_rows(self, video: Video, sampling: Sampling, run: Run) -> "Iterator[FrameRow]":
        require_extra()
        from regnet.video.frames import frames

        sampled = frames(video.address, sampling)
        if sampling.newest_only(live=is_live(video.address)):  # each frame before the next is taken
            return (_frame_row(run.engines.one_at_a_time, frame, run) for frame in sampled)
        engine = run.engines.side_by_side
        return in_order(
            sampled,
            lambda batch: [_frame_row(engine, frame, run) for frame in batch],
            workers=max(engine.streams, cores()),  # they decode, too
            batch_size=1,  # decoded frames are large, and batches would come late
        )

    def _jobs(self, images: "list[Image]", *, scale: bool) -> "Iterator[Job]":
        """Yield images given in Python, each with a name for it."""
        for number, image in enumerate(images):
            if isinstance(image, str) and image.startswith(("http://", "https://")):
                item = next(iter_items([image], offline=self._offline))
                yield item.source, item.read
            else:
                source = str(image) if isinstance(image, str | Path) else f"image {number}"
                yield source, partial(_given, image, scale=scale)

    def require_possible(self, wanted: Wanted, batch_size: int | None) -> None:
        """Raise `ModelError` or `ValueError` if the model cannot give the wanted fields."""
        if wanted.top_k < 1 or (batch_size is not None and batch_size < 1):
            raise ValueError(f"top_k={wanted.top_k} and batch_size={batch_size} must be at least 1")
        if wanted.calibrated and wanted.classes:
            raise ModelError(
                "prediction sets hold the truth with their probability among all classes: leave "
                "out either what asks for them or the list of classes that compete"
            )
        if wanted.calibrated and self.metadata.calibration is None:
            raise ModelError(
                f"{self._model.path}: is not calibrated, so no set is known to hold the truth; run "
                "`regnet calibrate MODEL DATASET` once and name the .xml that it writes"
            )

    def _rows(
        self, jobs: "Iterator[Job]", batch_size: int | None, run: Run
    ) -> "Iterator[SourceRow]":
        """Yield each image's name with its row (values,), or why there is none."""
        first = list(itertools.islice(jobs, 2))
        if len(first) == 1:
            yield from _batch_rows(run.engines.one_at_a_time, first, run.infer)
        elif first:
            engine = run.engines.side_by_side
            batch_size = batch_size or engine.batch
            if engine.outruns_decoding:
                first += itertools.islice(jobs, MANY - 2)
            every = itertools.chain(first, jobs)
            if len(first) == MANY:
                yield from in_order(
                    self._decode_pool.ahead(every),
                    partial(_inferred, engine=engine, infer=run.infer),
                    workers=engine.streams,
                    batch_size=batch_size,
                )
                return
            if self.metadata.preprocessing == "graph":
                batch_size = 1  # whole photos are large
            yield from in_order(
                every,
                partial(_batch_rows, engine, infer=run.infer),
                workers=max(engine.streams, cores()),  # they decode, too
                batch_size=batch_size,
            )


SourceRow = tuple[str, Row]
FrameRow = tuple[float | None, Row]


def predict(engine: InferenceEngine, jobs: list[Job], *, wanted: Wanted) -> list[Prediction]:
    """Return the predictions of a batch; images that cannot be read have their error."""
    answer = Answer(engine.metadata, wanted)
    return [
        answer.of(source, row) for source, row in _batch_rows(engine, jobs, InferenceEngine.infer)
    ]


def _batch_rows(engine: InferenceEngine, jobs: list[Job], infer: Infer) -> list[SourceRow]:
    """Return the rows of a batch with the names of its images."""
    return _inferred([(job[0], decoded(engine.pixels, job)) for job in jobs], engine, infer)


def _inferred(
    images: list[tuple[str, Pixels]], engine: InferenceEngine, infer: Infer
) -> list[SourceRow]:
    """Return the rows of images by name; those without pixels keep their errors."""
    pixels = [each for _, each in images if not isinstance(each, str)]
    rows = iter(infer(engine, pixels) if pixels else ())
    return [(name, each if isinstance(each, str) else next(rows)) for name, each in images]


def _given(image: Any, *, scale: bool) -> ImageLike:
    """Return an image with an open file read, and with `scale` floats in [0, 1] as uint8."""
    if isinstance(image, np.ndarray) and image.dtype.kind == "f":
        if not scale:
            raise ImageError(
                f"an array of {image.dtype} is not an image: give uint8 pixels, 0..255, or with "
                "scale=True floats in [0, 1]"
            )
        if not np.all((image >= 0) & (image <= 1)):  # NaN fails too
            raise ImageError("an array of floats must be in [0, 1]")
        image = np.rint(255 * image).astype(np.uint8)
    if hasattr(image, "read"):
        try:
            data = image.read()
        except (OSError, ValueError) as exc:
            raise ImageError(f"cannot be read: {reason_of(exc)}") from exc
        if not isinstance(data, bytes):
            raise ImageError('the file is open as text; open it with mode "rb"')
        return bytes(data)
    return cast(ImageLike, image)


def _shown(items: Iterable[T], total: int | None) -> Iterator[T]:
    """Yield items while a bar of rich follows them, on a terminal or in a notebook."""
    from rich.progress import track

    yield from track(items, "classifying", total=total)


def _frame_row(engine: InferenceEngine, frame: "Frame", run: Run) -> FrameRow:
    """Return the time of a frame, and its row (values,) or why there is none."""
    try:
        pixels = engine.pixels(frame.read())
    except ImageError as exc:
        return frame.timestamp, str(exc)
    return frame.timestamp, run.infer(engine, [pixels])[0]
