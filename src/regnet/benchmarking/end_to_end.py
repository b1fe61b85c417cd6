"""From JPEG files to labels: this package, the parts it is made of, and plain loops around others.

Decoding alone (file to crop) takes d seconds a photo on all cores, the engine alone (crop to
probabilities) e; together they allow 1 / (d + e) photos a second. How near to that the whole comes
is its share.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.benchmarking.competitors import Competitor
from regnet.benchmarking.plain_loops import (
    PlainLoop,
    Top1,
    batches,
    has_plain_pixels,
    openvino_loop,
    plain_pixels,
    torch_loop,
)
from regnet.benchmarking.timing import Contestant, Timing, Watch, measure, ratio
from regnet.classify import Classifier
from regnet.conversion import InferencePrecision
from regnet.data.photo_files import image_files
from regnet.engine import Engine, read_model
from regnet.errors import DatasetError, ImageError
from regnet.metadata import ModelMetadata
from regnet.parallel import cores
from regnet.preprocess import crop_pixels, rgb_pixels

DECODE: Final = "decode"
JPEG_SUFFIXES: Final = (".jpg", ".jpeg", ".jpe")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is measured: IRs by precision, photos, and the torch network where there is one.

    `own_weights` says whether that one's weights are the model's.
    """

    paths: dict[InferencePrecision, Path]
    photos: Sequence[Path]
    batch_size: int = 8
    torch: Competitor | None = None
    own_weights: bool = False
    compiled_cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Whole:
    """This package in one precision: photos a second, and how that comes about.

    `decode_ms` and `engine_ms` are those of the parts alone, a photo on all cores, `other_ms` what
    the whole takes beyond them; `share` is its rate in units of the `allowed` one. `times` says
    how many times faster it is than each plain loop. `flips` counts photos whose top-1 differs
    from that in f32, one by one; None where the model has no f32.
    """

    precision: InferencePrecision
    images_per_second: float
    allowed: float
    share: float
    decode_ms: float
    engine_ms: float
    other_ms: float
    times: dict[str, float]
    flips: int | None


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A plain loop around another engine; `flips` is None where its weights are random ones."""

    name: str
    precision: str
    images_per_second: float
    flips: int | None


@dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """What was measured from files to labels on `photos`, each round the whole of them.

    `unreadable` counts those left out, `identical` those of which every pixel is Pillow's; None
    where the protocol is not Pillow's.
    """

    photos: int
    unreadable: int
    identical: int | None
    rounds: int
    batch_size: int
    wholes: tuple[Whole, ...]
    loops: tuple[Loop, ...]


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
    setup: Setup, *, rounds: int | None = None, seconds: float = 60.0, watch: Watch = iter
) -> EndToEnd:
    """Measure files to labels in every precision of the setup, beside parts and plain loops.

    Raises `DatasetError` where none of the photos can be read.
    """
    metadata = read_model(next(iter(setup.paths.values()))).metadata
    photos, pixels, identical = _prepared(setup.photos, metadata)
    loops = _loops(setup, metadata, photos)
    jobs = {f"regnet {p}": _whole(setup, p, photos) for p in setup.paths}
    jobs |= {loop.name: loop.run for loop in loops}
    answers: dict[str, Top1] = {}
    runs: dict[str, Callable[[], object]] = {
        DECODE: partial(_decode, photos, metadata),
        **{f"engine {p}": _parts(setup, p, pixels) for p in setup.paths},
        **{name: partial(_answer, name, job, answers) for name, job in jobs.items()},
    }
    contestants = [Contestant(name, run, len(photos)) for name, run in runs.items()]
    timings = measure(contestants, rounds=rounds, seconds=seconds, watch=watch)
    flips = _flips(answers, _reference(setup, pixels))
    return EndToEnd(
        photos=len(photos),
        unreadable=len(setup.photos) - len(photos),
        identical=identical,
        rounds=len(timings[DECODE].rounds),
        batch_size=setup.batch_size,
        wholes=tuple(_figures(p, timings, loops, flips) for p in setup.paths),
        loops=tuple(_loop_figures(loop, timings, flips) for loop in loops),
    )


def _prepared(
    photos: Sequence[Path], metadata: ModelMetadata
) -> tuple[list[Path], list[NDArray[Any]], int | None]:
    """Return the photos that can be read, their pixels, and how many have Pillow's pixels."""
    readable, pixels, identical = [], [], 0
    for photo in photos:
        try:
            pixels.append(_pixels(photo, metadata))
        except ImageError:
            continue
        readable.append(photo)
        identical += np.array_equal(pixels[-1], plain_pixels(photo, metadata))
    if not readable:
        raise DatasetError(f"{photos[0]}: cannot be read, nor can any of the {len(photos)} photos")
    return readable, pixels, identical if has_plain_pixels(metadata) else None


def _pixels(photo: Path, metadata: ModelMetadata) -> NDArray[Any]:
    data = photo.read_bytes()
    if metadata.preprocessing == "graph":
        return rgb_pixels(data)
    return crop_pixels(data, metadata.preprocess)


def _decode(photos: Sequence[Path], metadata: ModelMetadata) -> None:
    with ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(partial(_pixels, metadata=metadata), photos):
            pass


def _parts(
    setup: Setup, precision: InferencePrecision, pixels: Sequence[NDArray[Any]]
) -> Callable[[], None]:
    """Return the engine alone: pixels to probabilities, on all cores."""
    engine = Engine(
        read_model(setup.paths[precision]),
        precision=precision,
        streams=cores(),
        compiled_cache=setup.compiled_cache,
    )

    def run() -> None:
        with ThreadPoolExecutor(engine.streams) as pool:
            for _ in pool.map(engine.infer, batches(pixels, setup.batch_size)):
                pass

    return run


def _whole(
    setup: Setup, precision: InferencePrecision, photos: Sequence[Path]
) -> Callable[[], Top1]:
    """Return all of it, as `regnet classify` does it."""
    classifier = Classifier(
        setup.paths[precision], precision=precision, compiled_cache=setup.compiled_cache
    )

    def run() -> Top1:
        found = classifier.stream(photos, batch_size=setup.batch_size)
        return [prediction.top.index for prediction in found]

    return run


def _loops(setup: Setup, metadata: ModelMetadata, photos: Sequence[Path]) -> list[PlainLoop]:
    """Return the plain loops that can run: those of torch and of OpenVINO in floating point."""
    loops = []
    if setup.torch is not None:
        loops.append(
            torch_loop(
                setup.torch,
                photos,
                metadata,
                batch_size=setup.batch_size,
                comparable=setup.own_weights,
            )
        )
    if path := setup.paths.get("f32") or setup.paths.get("bf16"):
        loops.append(openvino_loop(path, photos, metadata))
    return loops


def _answer(name: str, job: Callable[[], Top1], answers: dict[str, Top1]) -> None:
    """Do a job and keep its answers."""
    answers[name] = job()


def _reference(setup: Setup, pixels: Sequence[NDArray[Any]]) -> Top1 | None:
    """Return the top-1 of each photo in f32, one by one; None where the model has no f32."""
    if "f32" not in setup.paths:
        return None
    engine = Engine(read_model(setup.paths["f32"]), compiled_cache=setup.compiled_cache)
    return [int(engine.infer([image]).argmax()) for image in pixels]


def _flips(answers: dict[str, Top1], reference: Top1 | None) -> dict[str, int | None]:
    if reference is None:
        return dict.fromkeys(answers)
    return {
        name: sum(a != b for a, b in zip(top1, reference, strict=True))
        for name, top1 in answers.items()
    }


def _figures(
    precision: InferencePrecision,
    timings: dict[str, Timing],
    loops: Sequence[PlainLoop],
    flips: dict[str, int | None],
) -> Whole:
    whole, decode, engine = (
        timings[name] for name in (f"regnet {precision}", DECODE, f"engine {precision}")
    )
    rates = list(zip(decode.rates, engine.rates, whole.rates, strict=True))
    together = [1 / d + 1 / e for d, e, _ in rates]
    return Whole(
        precision=precision,
        images_per_second=whole.rate,
        allowed=median(1 / seconds for seconds in together),
        share=median(w * seconds for (*_, w), seconds in zip(rates, together, strict=True)),
        decode_ms=1e3 / decode.rate,
        engine_ms=1e3 / engine.rate,
        other_ms=1e3
        * median(1 / w - seconds for (*_, w), seconds in zip(rates, together, strict=True)),
        times={loop.name: ratio(whole, timings[loop.name]) for loop in loops},
        flips=flips[f"regnet {precision}"],
    )


def _loop_figures(
    loop: PlainLoop, timings: dict[str, Timing], flips: dict[str, int | None]
) -> Loop:
    return Loop(
        name=loop.name,
        precision=loop.precision,
        images_per_second=timings[loop.name].rate,
        flips=flips[loop.name] if loop.comparable else None,
    )
