"""One loaded model behind asyncio: photos or pixels in, predictions or probabilities out."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.inference.result import Answer, Prediction, Wanted
from regnet.ir.engine import InferenceEngine, read_model
from regnet.ir.engines import Engines
from regnet.ir.features import features_of, with_features
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.pixels.decode_limits import TOO_LONG, TOO_MUCH
from regnet.pixels.photo_cost import Cost, cost_of
from regnet.serving.batching import Batcher, Done, Observer, Timing
from regnet.serving.decoders import Decoders
from regnet.serving.limits import Limits
from regnet.serving.metrics import Statistics
from regnet.serving.refusals import NotReady, TooLarge, Unprocessable
from regnet.system.devices import CPU
from regnet.system.errors import ImageError
from regnet.system.parallel import cores

if TYPE_CHECKING:
    from regnet.explanation.activation_maps import Explainer, Explanation
    from regnet.ir.agreement import DeviceAgreement

Row = NDArray[np.float32]
Given = bytes | NDArray[Any]
"""An encoded photo, or its pixels as `Engine.pixels` makes them."""

_NONE: Final = Cost(None, quick=True, work=0)
_SMALL: Final = 3_000_000  # maximum work of a photo that is decoded in this process, see `Cost`


@dataclass(frozen=True, eq=False)
class _Job:
    """An image, and the function from its row, or its error, to its result.

    A row is the probabilities, or the embedding.
    """

    given: Given | ImageError
    result: Callable[[Row | ImageError], Any]
    embeds: bool = False


class ServedModel:
    """A loaded model. Everything async runs on one asyncio loop.

    `path` is an IR. Making one compiles the model, so do it in a thread; raises `ModelError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str,
        device: str = CPU,
        precision: InferencePrecision = "f32",
        decoders: Decoders,
        limits: Limits,
        compiled_cache: Path | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.path, self.name, self.limits = path, name, limits
        self.device, self.precision = device, precision
        self._decoders, self._compiled_cache = decoders, compiled_cache
        self.statistics = Statistics()
        model = read_model(path)
        self.metadata: ModelMetadata = replace(model.metadata, name=name)
        model = replace(model, metadata=self.metadata)
        self._make_engines = partial(
            Engines,
            device=device,
            precision=precision,
            compiled_cache=compiled_cache,
            limits=limits.decoding,
        )
        self._model, self._engines = model, self._make_engines(model)
        self._embedding: Engines | None = None
        self._embedding_made = asyncio.Lock()
        black = np.zeros((self.metadata.preprocess.crop,) * 2 + (3,), np.uint8)
        engines = (self._engines.side_by_side, self._engines.one_at_a_time)
        for engine in engines:  # the first call takes longer
            engine.infer([engine.pixels(black)] * engine.streams)
        self._successor: ServedModel | None = None
        self._batcher: Batcher[_Job, Any] = Batcher(
            self._work,
            name=name,
            workers=cores(),
            max_batch=self.largest_batch,
            limits=self.limits,
            observer=observer,
        )

    @property
    def agreement(self) -> "DeviceAgreement":
        """How far the device agrees with the CPU in f32 on sample photos, measured once."""
        return self._engines.agreement

    @property
    def largest_batch(self) -> int:
        """Maximum number of images that are inferred together."""
        return 1 if self.metadata.preprocessing == "graph" else self._engines.side_by_side.batch

    @property
    def full(self) -> bool:
        """Whether there is no room for a single image."""
        return (self._successor or self)._batcher.images >= self.limits.queue

    def require_room(self, images: int = 1) -> None:
        """Refuse images that the queue has no room for, before a body is read.

        Raises `TooLarge`, `TooMany` with the seconds until there is room, `NotReady`.
        """
        (self._successor or self)._batcher.require_room(images)

    def require_calibrated(self) -> None:
        """Raise `Unprocessable` if the model cannot give prediction sets."""
        if self.metadata.calibration is None:
            raise Unprocessable(
                f"{self.name}: is not calibrated, so no set is known to hold the truth; "
                "`regnet calibrate` makes a model that is"
            )

    async def classify(
        self, photos: Sequence[bytes], *, sources: Sequence[str], wanted: Wanted, deadline: float
    ) -> tuple[list[Prediction], Timing]:
        """Return the predictions of encoded photos in their order, as `Classifier.classify` does.

        A photo that cannot be read has an `error`; see `limit_of`. `deadline` is by the loop's
        clock. Raises `Unprocessable` if sets are wanted of a model that is not calibrated,
        `TooLarge`, `TooMany`, `NotReady`, `TooLate`.
        """
        if self._successor is not None:
            return await self._successor.classify(
                photos, sources=sources, wanted=wanted, deadline=deadline
            )
        if wanted.calibrated:
            self.require_calibrated()
        answer = Answer(self.metadata, wanted)
        sizes = list(map(len, photos))
        with self.statistics.request() as succeeded:
            given, costs = await self._given(photos, deadline)
            jobs = [
                _Job(photo, partial(_prediction, answer, source))
                for photo, source in zip(given, sources, strict=True)
            ]
            predictions, timing = await self._batcher.submit(
                jobs, sizes=sizes, costs=costs, deadline=deadline
            )
            if any(prediction.error is None for prediction in predictions):
                succeeded(timing)
        return predictions, timing

    async def probabilities(
        self, inputs: Sequence[Given] | NDArray[Any], *, deadline: float
    ) -> tuple[NDArray[np.float32], Timing]:
        """Return probabilities (N, classes) of encoded photos, or of pixels as `infer` does.

        Pixels must be as `inputs.images` returns them for this model. Raises what `classify` does,
        and `Unprocessable` for the first photo that cannot be read.
        """
        if self._successor is not None:
            own, other = self.metadata, self._successor.metadata
            same = (own.preprocess, own.preprocessing) == (other.preprocess, other.preprocessing)
            if not same and any(isinstance(each, np.ndarray) for each in inputs):
                raise NotReady(f"{self.name}: was replaced by a model that takes other pixels")
            return await self._successor.probabilities(inputs, deadline=deadline)
        sizes = [g.nbytes if isinstance(g, np.ndarray) else len(g) for g in inputs]
        with self.statistics.request() as succeeded:
            given, costs = await self._given(inputs, deadline)
            jobs = [_Job(each, lambda row: row) for each in given]
            rows, timing = await self._batcher.submit(
                jobs, sizes=sizes, costs=costs, deadline=deadline
            )
            for number, row in enumerate(rows):
                if isinstance(row, ImageError):
                    raise Unprocessable(f"image {number}: {row}", limit=limit_of(str(row)))
            succeeded(timing)
        shape = (len(rows), self.metadata.classes)
        return np.array(rows, np.float32).reshape(shape), timing

    async def embed(
        self, photos: Sequence[bytes], *, deadline: float
    ) -> tuple[list[Row | ImageError], Timing]:
        """Return the embeddings (width,) of encoded photos, or their errors, and the timing.

        Raises what `classify` does, and `ModelError` if the model has no features.
        """
        if self._successor is not None:
            return await self._successor.embed(photos, deadline=deadline)
        async with self._embedding_made:
            if self._embedding is None:
                self._embedding = await asyncio.to_thread(self._compile_embedding)
        with self.statistics.request() as succeeded:
            given, costs = await self._given(photos, deadline)
            jobs = [_Job(each, lambda row: row, embeds=True) for each in given]
            sizes = list(map(len, photos))
            rows, timing = await self._batcher.submit(
                jobs, sizes=sizes, costs=costs, deadline=deadline
            )
            if not all(isinstance(row, ImageError) for row in rows):
                succeeded(timing)
        return rows, timing

    def _compile_embedding(self) -> Engines:
        engines = self._make_engines(with_features(self._model))
        _ = engines.side_by_side, engines.one_at_a_time
        return engines

    async def explain(
        self, photo: bytes, prediction: Prediction, *, deadline: float
    ) -> "Explanation":
        """Return the explanation of the best class of a photo's prediction.

        Raises what `probabilities` does, and `ModelError` if the model cannot be explained.
        """
        if self._successor is not None:
            return await self._successor.explain(photo, prediction, deadline=deadline)
        if prediction.error is not None:
            raise Unprocessable(prediction.error, limit=limit_of(prediction.error))
        cost = cost_of(photo)
        given: Given | ImageError = photo
        if not _is_small(cost):
            given = await self._decoders.pixels(
                photo, None, self.limits.pixels, work=cost.work, deadline=deadline
            )
        job = (given, prediction.top.index)
        (explanation,), _ = await self._explaining.submit(
            [job], sizes=[len(photo)], deadline=deadline
        )
        return explanation

    async def close(self) -> None:
        """Finish what was accepted; new requests are refused or go to the successor."""
        await self._batcher.close()
        if "_explaining" in vars(self):
            await self._explaining.close()

    def succeeded_by(self, successor: "ServedModel") -> None:
        """Pass new requests to the model that takes this one's place."""
        self._successor = successor

    async def _given(
        self, inputs: Sequence[Given] | NDArray[Any], deadline: float
    ) -> tuple[Sequence[Given | ImageError] | NDArray[Any], list[int]]:
        """Return the inputs with large photos decoded, and the work that remains for each."""
        if isinstance(inputs, np.ndarray):
            return inputs, [0] * len(inputs)
        costs = [cost_of(each) if isinstance(each, bytes) else _NONE for each in inputs]
        total, left = sum(cost.pixels or 0 for cost in costs), self.limits.request_pixels
        if len(costs) > 1 and total > left:
            raise TooLarge(
                f"{total:,} pixels in one request are over the limit of {left:,} (request_pixels)",
                limit="request_pixels",
            )
        works = [cost.work if _is_small(cost) else 0 for cost in costs]
        if all(map(_is_small, costs)):
            return inputs, works
        self.require_room(len(inputs))
        preprocess = None if self.metadata.preprocessing == "graph" else self.metadata.preprocess
        given = list[Given | ImageError]()
        for each, cost in zip(inputs, costs, strict=True):
            if isinstance(each, bytes) and not _is_small(cost):
                most = min(left, self.limits.pixels)
                pixels = await self._decoders.pixels(
                    each, preprocess, most, work=cost.work, deadline=deadline
                )
                left -= 0 if isinstance(pixels, ImageError) else pixels.shape[0] * pixels.shape[1]
                given.append(pixels)
            else:
                given.append(each)
        return given, works

    def _work(self, jobs: list[_Job], alone: bool) -> Done[Any]:
        """Decode and infer a batch, on a worker's thread."""
        given: list[NDArray[Any] | ImageError] = []
        decode = []
        engine = self._engines.one_at_a_time if alone else self._engines.side_by_side
        for job in jobs:
            start = time.perf_counter()
            given.append(_pixels(engine, job.given))
            decode.append(time.perf_counter() - start)
        start = time.perf_counter()
        rows: list[Row | ImageError] = self._infer(jobs, given, alone)
        inferred = time.perf_counter()
        results = [job.result(row) for job, row in zip(jobs, rows, strict=True)]
        done = Done(results, decode, inferred - start, time.perf_counter() - inferred)
        images = sum(not isinstance(row, ImageError) for row in rows)
        if images:
            self.statistics.executed(
                images, decode=sum(decode), infer=done.infer, output=done.output
            )
        return done

    def _infer(
        self, jobs: list[_Job], given: list[NDArray[Any] | ImageError], alone: bool
    ) -> list[Row | ImageError]:
        """Return the rows of jobs' pixels, in one call for each kind of row; errors stay."""
        rows = list[Any](given)
        for engines, infer, embeds in (
            (self._engines, InferenceEngine.infer, False),
            (self._embedding, features_of, True),
        ):
            places = [
                place
                for place, job in enumerate(jobs)
                if job.embeds == embeds and not isinstance(given[place], ImageError)
            ]
            if places and engines is not None:
                engine = engines.one_at_a_time if alone else engines.side_by_side
                inferred = infer(engine, [rows[place] for place in places])
                for place, row in zip(places, inferred, strict=True):
                    rows[place] = row
        return rows

    @cached_property
    def _explaining(self) -> "Batcher[tuple[Given | ImageError, int], Explanation]":
        """One at a time: maps are for people, who are few, and each takes all cores."""
        return Batcher(self._explain, name=self.name, workers=1, max_batch=1, limits=self.limits)

    @cached_property
    def _explainer(self) -> "Explainer":
        from regnet.explanation.activation_maps import Explainer

        return Explainer(
            self.path,
            device=self.device,
            precision=self.precision,
            compiled_cache=self._compiled_cache,
        )

    def _explain(
        self, jobs: list[tuple[Given | ImageError, int]], alone: bool
    ) -> "Done[Explanation]":
        ((photo, index),) = jobs
        start = time.perf_counter()
        try:
            if isinstance(photo, ImageError):
                raise photo
            (explanation,) = self._explainer.explain(photo, classes=[index])
        except ImageError as exc:
            raise Unprocessable(str(exc), limit=limit_of(str(exc))) from exc
        return Done([explanation], [0.0], time.perf_counter() - start)


def _is_small(cost: Cost) -> bool:
    return cost.quick and cost.work <= _SMALL


def _pixels(engine: InferenceEngine, given: Given | ImageError) -> NDArray[Any] | ImageError:
    try:
        return engine.pixels(given) if isinstance(given, bytes) else given
    except ImageError as exc:
        return exc


def limit_of(error: str) -> str | None:
    """Return the limit that an image with this error exceeded, or None."""
    if error.startswith(TOO_LONG):
        return "decode_seconds"
    if TOO_MUCH in error:
        return "decode_memory"
    return "pixels" if error.startswith("too many pixels") else None


def _prediction(answer: Answer, source: str, row: Row | ImageError) -> Prediction:
    if isinstance(row, ImageError):
        return answer.error(source, str(row))
    return answer.prediction(source, row)
