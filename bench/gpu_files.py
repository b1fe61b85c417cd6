"""JPEG files to labels on a device, beside what bounds it: decoding alone and the engine alone."""

import multiprocessing
import os
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import simplejpeg
from plain_loops import batches

from regnet.checkpoints.weights import write_safetensors
from regnet.conversion.store import Library
from regnet.inference.classify import Classifier
from regnet.ir.engine import read_model
from regnet.ir.engines import open_engine
from regnet.ir.metadata import InferencePrecision
from regnet.network.modules import RegNet
from regnet.network.spec import spec_by_name
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.protocol import OMZ, Preprocess
from regnet.system.parallel import cores
from regnet.system.timing import Contestant, Timing

PARTS = ("files to labels", "decoding alone", "engine alone")
SIZE = (375, 500)  # of photos, height and width: as ImageNet's
CHUNK = 32
_DISTINCT = 64


def make_photos(folder: Path, count: int) -> list[Path]:
    """Return so many files of photos of noise, about 100 KB each, some of them linked often."""
    height, width = SIZE
    for number in range(_DISTINCT):
        random = np.random.default_rng(number)
        coarse = random.integers(60, 196, (-(-height // 4), -(-width // 4), 3))
        image = np.kron(coarse, np.ones((4, 4, 1), np.int64))[:height, :width]
        image = (image + random.integers(-8, 9, image.shape)).astype(np.uint8)
        (folder / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(image, quality=85))
    photos = [folder / f"{number}.jpg" for number in range(count)]
    for number, photo in enumerate(photos[_DISTINCT:]):
        os.link(photos[number % _DISTINCT], photo)
    return photos


def random_model(library: Library, name: str) -> Path:
    """Return a converted network with random weights."""
    spec = spec_by_name(name)
    path = library.folder / f"{name}-random.safetensors"
    write_safetensors(path, RegNet(spec).state_dict(), spec=spec, preprocess=OMZ)
    return library.ir(path)


@contextmanager
def files_to_labels(
    model: Path, photos: Sequence[Path], *, device: str, precision: InferencePrecision, cache: Path
) -> Iterator[list[Contestant]]:
    """Give the three `PARTS`, each on all photos."""
    converted = read_model(model)
    options = {"device": device, "precision": precision, "compiled_cache": cache}
    # the processes are forked first, and touch nothing but photos
    with ProcessPoolExecutor(cores(), multiprocessing.get_context("fork")) as pool:
        decode = partial(_decode, converted.metadata.preprocess)
        chunks = list(batches(photos, CHUNK))
        deque(pool.map(decode, chunks[: cores()]), 0)
        classifier, engine = Classifier(model, **options), open_engine(converted, **options)
        side = converted.metadata.preprocess.crop
        crops = np.random.default_rng(0).integers(0, 256, (engine.batch, side, side, 3), np.uint8)
        calls = -(-len(photos) // engine.batch)

        def infer() -> None:
            with ThreadPoolExecutor(engine.streams) as threads:
                deque(threads.map(lambda _: engine.infer(crops), range(calls)), 0)

        runs: tuple[Callable[[], object], ...] = (
            lambda: deque(classifier.stream(photos), 0),
            lambda: deque(pool.map(decode, chunks), 0),
            infer,
        )
        works = (len(photos), len(photos), calls * engine.batch)
        yield [Contestant(*part) for part in zip(PARTS, runs, works, strict=True)]


def share(whole: Timing, *parts: Timing) -> float:
    """Return the rate of the whole over the lesser of its parts: the median of the rounds."""
    lesser = map(min, zip(*(part.rates for part in parts), strict=True))
    return statistics.median(a / b for a, b in zip(whole.rates, lesser, strict=True))


def _decode(protocol: Preprocess, photos: Sequence[Path]) -> None:
    for photo in photos:
        crop_pixels(photo.read_bytes(), protocol)
