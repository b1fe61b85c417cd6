"""Images to predictions: decoding and inference side by side, results in input order."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from regnet.conversion.store import Library
from regnet.data.photo_files import is_live, require_extra
from regnet.data.sources import Item, Video, iter_items
from regnet.inference.result import Answer, Prediction, Wanted
from regnet.ir.assumptions import warn_assumed
from regnet.ir.engine import Engine, Engines, read_model
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.pixels.decode_limits import DECODE_LIMITS, DecodeLimits
from regnet.pixels.preprocess import ImageLike
from regnet.system.cache import cache_dir as default_cache_dir
from regnet.system.errors import ImageError, ModelError
from regnet.system.notices import about
from regnet.system.parallel import BATCH_SIZE, in_order
from regnet.video.sampling import Sampling, Smoothing
from regnet.zoo.catalogue import DEFAULT_MODEL

if TYPE_CHECKING:
    from regnet.video.frames import Frame


class Classifier:
    """A converted model that classifies images. Thread-safe.

    `path` is the .xml of an IR from `regnet convert`. `precision` "f32" is exact, "bf16" faster on
    CPUs with bf16. `compiled_cache` is a folder that makes later starts faster. With `offline`,
    images at URLs are errors. `name` is what warnings call the model, None its file. `limits` are
    those of decoding one image. Raises `ModelError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        precision: InferencePrecision = "f32",
        compiled_cache: Path | None = None,
        offline: bool = False,
        name: str | None = None,
        limits: DecodeLimits = DECODE_LIMITS,
    ) -> None:
        self._model = read_model(path)
        warn_assumed(name or path, self.metadata)
        self._offline = offline
        options = {"precision": precision, "compiled_cache": compiled_cache, "limits": limits}
        self._engines = Engines(self._model, **options)

    @property
    def metadata(self) -> ModelMetadata:
        """The model's name, spec, protocol, labels and provenance."""
        return self._model.metadata

    @overload
    def classify(
        self, images: ImageLike, *, top_k: int = 5, sets: bool = False, unknown: bool = False
    ) -> Prediction: ...
    @overload
    def classify(
        self, images: list[ImageLike], *, top_k: int = 5, sets: bool = False, unknown: bool = False
    ) -> list[Prediction]: ...
    def classify(
        self,
        images: ImageLike | list[ImageLike],
        *,
        top_k: int = 5,
        sets: bool = False,
        unknown: bool = False,
    ) -> Prediction | list[Prediction]:
        """Return the prediction of one image, or of each in a list.

        An image is a path, encoded bytes, a uint8 array (H, W, 3) in RGB or (H, W) grey, or a PIL
        image. One that cannot be read gives a prediction with `error` set. `sets` and `unknown`
        fill the fields of these names; raises `ModelError` unless the model is calibrated.
        """
        wanted = Wanted(top_k, sets, unknown)
        given = images if isinstance(images, list) else [images]
        jobs = [self._job(image, number) for number, image in enumerate(given)]
        self.require_possible(wanted, BATCH_SIZE)
        predictions = list(self._predictions(iter(jobs), wanted, BATCH_SIZE))
        return predictions if isinstance(images, list) else predictions[0]

    def stream(
        self,
        sources: str | Path | Iterable[str | Path],
        *,
        top_k: int = 5,
        sets: bool = False,
        unknown: bool = False,
        batch_size: int = BATCH_SIZE,
        every: float = 1.0,
        smooth: float = 0.0,
        realtime: bool | None = None,
    ) -> Iterator[Prediction]:
        """Yield the predictions of all images in the sources, in their order.

        Sources are those of `regnet classify`: files, folders, globs, URLs, archives, `-`, videos
        and cameras; for the last two see `Sampling` about `every`, `smooth` and `realtime`. Memory
        does not grow with their number. At most `batch_size` images are inferred in one call. The
        other options and the error of a model that is not calibrated are those of `classify`.
        Raises `MissingExtraError` for a video without its extra.
        """
        if isinstance(sources, str | Path):
            sources = [sources]
        sampling = Sampling(every=every, smooth=smooth, realtime=realtime)
        wanted = Wanted(top_k, sets, unknown)
        self.require_possible(wanted, batch_size)
        return self._items(iter_items(sources, offline=self._offline), wanted, batch_size, sampling)

    def _items(
        self, items: Iterable[Item], wanted: Wanted, batch_size: int, sampling: Sampling
    ) -> Iterator[Prediction]:
        """Yield the predictions of runs of photos and of the videos between them."""
        for is_video, run in itertools.groupby(items, lambda item: isinstance(item, Video)):
            if is_video:
                for video in cast(Iterator[Video], run):
                    yield from self._frames(video, wanted, sampling)
            else:
                jobs = ((item.source, item.read) for item in run)
                yield from self._predictions(jobs, wanted, batch_size)

    def _frames(self, video: Video, wanted: Wanted, sampling: Sampling) -> Iterator[Prediction]:
        """Yield the predictions of a video's frames, smoothed."""
        answer = Answer(self.metadata, wanted)
        smoothing = Smoothing(sampling.smooth)
        for time, row in self._frame_rows(video, sampling):
            if isinstance(row, str):
                yield answer.error(video.source, row, time)
            else:
                yield answer.prediction(video.source, smoothing(row, time or 0), time)

    def _frame_rows(self, video: Video, sampling: Sampling) -> "Iterator[FrameRow]":
        require_extra()
        from regnet.video.frames import frames

        sampled = frames(video.address, sampling)
        if sampling.newest_only(live=is_live(video.address)):  # each frame before the next is taken
            return (_frame_row(self._engines.one_at_a_time, frame) for frame in sampled)
        engine = self._engines.side_by_side
        return in_order(
            sampled,
            lambda batch: [_frame_row(engine, frame) for frame in batch],
            workers=engine.streams,
            batch_size=1,  # decoded frames are large, and batches would come late
        )

    def _job(self, image: ImageLike, number: int) -> "Job":
        """Return an image given in Python with a name for it."""
        if isinstance(image, str) and image.startswith(("http://", "https://")):
            item = next(iter_items([image], offline=self._offline))
            return item.source, item.read
        source = str(image) if isinstance(image, str | Path) else f"image {number}"
        return source, lambda: image

    def require_possible(self, wanted: Wanted, batch_size: int) -> None:
        """Raise `ModelError` or `ValueError` if the model cannot give the wanted fields."""
        if wanted.top_k < 1 or batch_size < 1:
            raise ValueError(f"top_k={wanted.top_k} and batch_size={batch_size} must be at least 1")
        if wanted.calibrated and self.metadata.calibration is None:
            raise ModelError(
                f"{self._model.path}: is not calibrated, so no set is known to hold the truth; run "
                "`regnet calibrate MODEL DATASET` once and name the .xml that it writes"
            )

    def _predictions(
        self, jobs: "Iterator[Job]", wanted: Wanted, batch_size: int
    ) -> Iterator[Prediction]:
        first = list(itertools.islice(jobs, 2))
        if len(first) == 1:
            yield from predict(self._engines.one_at_a_time, first, wanted=wanted)
        elif first:
            engine = self._engines.side_by_side
            work = partial(predict, engine, wanted=wanted)
            if self.metadata.preprocessing == "graph":
                batch_size = 1  # whole photos are large
            yield from in_order(
                itertools.chain(first, jobs), work, workers=engine.streams, batch_size=batch_size
            )


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    precision: InferencePrecision = "f32",
    cache_dir: str | Path | None = None,
    offline: bool = False,
    mirrors: str | tuple[str, ...] = (),
    entry: str | None = None,
) -> Classifier:
    """Return the classifier of a card's name, `bundled`, an IR (.xml) or a checkpoint file.

    Weights are downloaded, verified and converted once (this needs the extra `torch`) and kept in
    `cache_dir`. `precision` is "f32" (exact), "bf16" (faster on CPUs with bf16) or "int8" (after
    `regnet quantize`). `mirrors` are base URLs that are tried first; `offline` never uses the
    network, not for images either. `entry` names one of several networks in a checkpoint file.
    Warns with `AssumptionWarning` of what the checkpoint does not say and had to be assumed.
    Raises `UnknownModelError`, `DownloadError`, `WeightsError`, `ConversionError`, `ModelError`.
    """
    mirrors = (mirrors,) if isinstance(mirrors, str) else mirrors
    library = Library(
        folder=default_cache_dir(cache_dir), offline=offline, mirrors=mirrors, entry=entry
    )
    path = library.ir(model, precision=precision)
    return Classifier(
        path,
        precision=precision,
        compiled_cache=library.compiled,
        offline=offline,
        name=str(model),
    )


Job = tuple[str, Callable[[], ImageLike]]
FrameRow = tuple[float | None, NDArray[np.float32] | str]


def predict(engine: Engine, jobs: list[Job], *, wanted: Wanted) -> list[Prediction]:
    """Return the predictions of a batch; images that cannot be read have their error."""
    pixels: list[NDArray[Any]] = []
    errors: list[str | None] = []
    for source, read in jobs:
        try:
            with about(source):
                pixels.append(engine.pixels(read()))
            errors.append(None)
        except ImageError as exc:
            errors.append(str(exc))
    rows = iter(engine.infer(pixels) if pixels else ())
    answer = Answer(engine.metadata, wanted)
    return [
        answer.error(source, error) if error is not None else answer.prediction(source, next(rows))
        for (source, _), error in zip(jobs, errors, strict=True)
    ]


def _frame_row(engine: Engine, frame: "Frame") -> FrameRow:
    """Return the time of a frame, and its probabilities (classes,) or why there are none."""
    try:
        pixels = engine.pixels(frame.read())
    except ImageError as exc:
        return frame.timestamp, str(exc)
    return frame.timestamp, engine.infer([pixels])[0]
