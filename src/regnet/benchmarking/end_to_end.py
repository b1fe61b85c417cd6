"""From JPEG files to labels: the whole way, and the parts that it is made of.

Decoding alone (file to crop) takes d seconds a photo on all cores, the engine alone (crop to
probabilities) e; together they allow 1 / (d + e) photos a second. How near to that the whole comes
is its share. A device beside the CPU works while the CPU decodes: together they allow the lesser of
both rates.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from numpy.typing import NDArray

from regnet.data.photo_files import image_files
from regnet.inference.classify import Classifier
from regnet.inference.decoding import DecodePool
from regnet.ir.engine import Engine, InferenceEngine, read_model
from regnet.ir.engines import open_engine
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.pixels.preprocess import crop_pixels, rgb_pixels
from regnet.system.devices import CPU
from regnet.system.errors import DatasetError, ImageError
from regnet.system.parallel import cores
from regnet.system.timing import Contestant, Timing, Watch, measure

DECODE: Final = "decode"
JPEG_SUFFIXES: Final = (".jpg", ".jpeg", ".jpe")

Top1 = list[int]


@dataclass(frozen=True, kw_only=True)
class EndToEndSetup:
    """What is measured: IRs by precision, on photos."""

    paths: dict[InferencePrecision, Path]
    photos: Sequence[Path]
    device: str = CPU
    batch_size: int = 8
    compiled_cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Whole:
    """One precision: photos a second, and how that comes about.

    `decode_ms` and `engine_ms` are those of the parts alone, a photo on all cores, `other_ms` what
    the whole takes beyond them; `share` is its rate in units of the `allowed` one. `flips` counts
    photos whose top-1 differs from that in f32, one by one; None if the model has no f32.
    """

    precision: InferencePrecision
    images_per_second: float
    allowed: float
    share: float
    decode_ms: float
    engine_ms: float
    other_ms: float
    flips: int | None


@dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """What was measured from files to labels on `photos`, each round the whole of them.

    `unreadable` counts those left out.
    """

    photos: int
    unreadable: int
    rounds: int
    batch_size: int
    wholes: tuple[Whole, ...]


def find_jpegs(folder: Path, *, most: int) -> list[Path]:
    """Return the JPEG files below a folder, no more than `most`, taken evenly from all.

    Raises `DatasetError` where there are none.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; name one with JPEG files")
    names = (Path(name) for name, problem in image_files(str(folder)) if problem is None)
    found = [path for path in names if path.suffix.lower() in JPEG_SUFFIXES]
    if not found:
        raise DatasetError(f"{folder}: no JPEG files ({', '.join(JPEG_SUFFIXES)}) in this folder")
    step = max(1.0, len(found) / most)
    return [found[int(number * step)] for number in range(min(len(found), most))]


def end_to_end(
    setup: EndToEndSetup, *, rounds: int | None = None, seconds: float = 60.0, watch: Watch = iter
) -> EndToEnd:
    """Measure files to labels in every precision of the setup, beside the parts alone.

    Raises `DatasetError` if none of the photos can be read.
    """
    prepared = prepare(setup)
    timings = measure(prepared.contestants, rounds=rounds, seconds=seconds, watch=watch)
    return prepared.figures(timings)


@dataclass(frozen=True)
class Prepared:
    """What is timed of a setup, and the figures from its timings.

    `photos` are those that can be read. `answers` has the top-1 of each photo, by the name of the
    contestant that gave it, once it ran; `reference` is the top-1 in f32, one by one.
    """

    setup: EndToEndSetup
    photos: list[Path]
    contestants: list[Contestant]
    answers: dict[str, Top1]
    reference: Top1 | None

    def figures(self, timings: dict[str, Timing]) -> EndToEnd:
        """Return what was measured, from the timings of all `contestants`."""
        return EndToEnd(
            photos=len(self.photos),
            unreadable=len(self.setup.photos) - len(self.photos),
            rounds=len(timings[DECODE].rounds),
            batch_size=self.setup.batch_size,
            wholes=tuple(self._figures(p, timings) for p in self.setup.paths),
        )

    def flips(self, name: str) -> int | None:
        """Return how many photos a contestant puts into another class than f32 does."""
        if self.reference is None:
            return None
        return sum(a != b for a, b in zip(self.answers[name], self.reference, strict=True))

    def _figures(self, precision: InferencePrecision, timings: dict[str, Timing]) -> Whole:
        whole, decode, engine = (
            timings[name] for name in (whole_name(precision), DECODE, f"engine {precision}")
        )
        rates = zip(decode.rates, engine.rates, whole.rates, strict=True)
        together = sum if self.setup.device == CPU else max
        rounds = [(together((1 / d, 1 / e)), w) for d, e, w in rates]  # seconds, the whole's rate
        return Whole(
            precision=precision,
            images_per_second=whole.rate,
            allowed=median(1 / seconds for seconds, _ in rounds),
            share=median(rate * seconds for seconds, rate in rounds),
            decode_ms=1e3 / decode.rate,
            engine_ms=1e3 / engine.rate,
            other_ms=1e3 * median(1 / rate - seconds for seconds, rate in rounds),
            flips=self.flips(whole_name(precision)),
        )


def whole_name(precision: InferencePrecision) -> str:
    """Return the name of the contestant that goes the whole way."""
    return f"regnet {precision}"


def prepare(setup: EndToEndSetup) -> Prepared:
    """Return what is timed of a setup; raises `DatasetError` if no photo can be read."""
    metadata = read_model(next(iter(setup.paths.values()))).metadata
    photos, pixels = _readable(setup.photos, metadata)
    answers: dict[str, Top1] = {}
    engines = {p: _engine(setup, p) for p in setup.paths}
    runs: dict[str, Callable[[], object]] = {
        DECODE: _decoding(photos, next(iter(engines.values()))),
        **{f"engine {p}": _parts(engine, pixels, setup) for p, engine in engines.items()},
        **{whole_name(p): _whole(setup, p, photos, answers) for p in setup.paths},
    }
    contestants = [Contestant(name, run, len(photos)) for name, run in runs.items()]
    return Prepared(setup, photos, contestants, answers, _reference(setup, pixels))


def _readable(
    photos: Sequence[Path], metadata: ModelMetadata
) -> tuple[list[Path], list[NDArray[Any]]]:
    """Return the photos that can be read, and their pixels."""
    readable, pixels = [], []
    for photo in photos:
        try:
            pixels.append(_pixels(photo, metadata))
        except ImageError:
            continue
        readable.append(photo)
    if not readable:
        raise DatasetError(f"{photos[0]}: cannot be read, nor can any of the {len(photos)} photos")
    return readable, pixels


def _pixels(photo: Path, metadata: ModelMetadata) -> NDArray[Any]:
    data = photo.read_bytes()
    if metadata.preprocessing == "graph":
        return rgb_pixels(data)
    return crop_pixels(data, metadata.preprocess)


def _decoding(photos: Sequence[Path], engine: InferenceEngine) -> Callable[[], None]:
    """Return decoding alone: files to pixels, on all cores."""
    if engine.outruns_decoding:
        jobs, pool = [(str(photo), photo.read_bytes) for photo in photos], DecodePool(engine)
        return lambda: _take(pool.ahead(jobs))

    def run() -> None:
        with ThreadPoolExecutor(cores()) as threads:
            _take(threads.map(lambda photo: engine.pixels(photo.read_bytes()), photos))

    return run


def _take(items: Iterable[object]) -> None:
    deque(items, maxlen=0)


def _engine(setup: EndToEndSetup, precision: InferencePrecision) -> InferenceEngine:
    return open_engine(
        read_model(setup.paths[precision]),
        device=setup.device,
        precision=precision,
        streams=cores(),
        compiled_cache=setup.compiled_cache,
    )


def _parts(
    engine: InferenceEngine, pixels: Sequence[NDArray[Any]], setup: EndToEndSetup
) -> Callable[[], None]:
    """Return the engine alone: pixels to probabilities, on all cores."""
    size = setup.batch_size
    batches = [pixels[start : start + size] for start in range(0, len(pixels), size)]

    def run() -> None:
        with ThreadPoolExecutor(engine.streams) as pool:
            _take(pool.map(engine.infer, batches))

    return run


def _whole(
    setup: EndToEndSetup,
    precision: InferencePrecision,
    photos: Sequence[Path],
    answers: dict[str, Top1],
) -> Callable[[], None]:
    """Return all of it, as `regnet classify` does it; it keeps its answers."""
    classifier = Classifier(
        setup.paths[precision],
        device=setup.device,
        precision=precision,
        compiled_cache=setup.compiled_cache,
    )

    def run() -> None:
        predictions = classifier.stream(photos, batch_size=setup.batch_size)
        answers[whole_name(precision)] = [prediction.top.index for prediction in predictions]

    return run


def _reference(setup: EndToEndSetup, pixels: Sequence[NDArray[Any]]) -> Top1 | None:
    """Return the top-1 of each photo in f32, one by one; None where the model has no f32."""
    if "f32" not in setup.paths:
        return None
    engine = Engine(read_model(setup.paths["f32"]), compiled_cache=setup.compiled_cache)
    return [int(engine.infer([image]).argmax()) for image in pixels]
