"""Crops made by processes: the same pixels, errors and order, whatever happens to a process."""

import os
import warnings
import zipfile
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from regnet.data.labelled import Dataset, LabelledItem
from regnet.data.sources import iter_items
from regnet.evaluation.scoring import ScoredBatch, score
from regnet.inference import decoding
from regnet.inference.classify import Classifier
from regnet.inference.decoding import CHUNK, MANY, DecodePool, Job, decoded
from regnet.ir.engine import InferenceEngine
from regnet.pixels.decode_limits import DECODE_LIMITS
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.protocol import OMZ, PYCLS, Preprocess
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ImageError
from regnet.zoo.catalogue import bundled_path, card_by_name

SMALL = replace(OMZ, name="small", resize=40, crop=32)


def in_this_process(preprocess: Preprocess) -> Any:
    return partial(crop_pixels, preprocess=preprocess)


def pool_for(preprocess: Preprocess, pixels: Any = None) -> DecodePool:
    return DecodePool(
        SimpleNamespace(
            metadata=SimpleNamespace(preprocess=preprocess),
            limits=DECODE_LIMITS,
            pixels=pixels or in_this_process(preprocess),
        )
    )


def write_photos(folder: Path, count: int) -> list[Path]:
    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        pixels = rng.integers(0, 256, (40 + number % 7, 50, 3), np.uint8)
        paths.append(folder / f"{number:03}.{'jpg' if number % 2 else 'png'}")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.mark.parametrize("preprocess", [SMALL, replace(PYCLS, resize=40, crop=32)])
def test_crops_and_errors_are_those_of_this_process(preprocess: Preprocess, tmp_path: Path) -> None:
    write_photos(tmp_path, 5)
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff no photo")
    (tmp_path / "empty.png").touch()
    dark = Image.fromarray(np.arange(40 * 50, dtype=np.uint16).reshape(40, 50))
    dark.save(tmp_path / "dark.png")  # it warns
    with zipfile.ZipFile(tmp_path / "more.zip", "w") as archive:  # its reader stays here
        archive.write(sample_photos()[0], "cat.png")
    items = list(iter_items([tmp_path, tmp_path / "more.zip", str(tmp_path / "absent.jpg")]))
    jobs: list[Job] = [(item.source, item.read) for item in items]
    with pytest.warns(match="dark"):
        expected = [decoded(in_this_process(preprocess), job) for job in jobs]
    with closing(pool_for(preprocess)) as pool:
        with pytest.warns(match="dark"):
            made = pool.decode(jobs)
        again = pool.decode(jobs[:1])
    assert [name for name, _ in made] == [name for name, _ in jobs]
    for one, (_, other) in zip(expected, made, strict=True):
        assert type(one) is type(other)
        assert np.array_equal(one, other)
    assert sum(isinstance(one, str) for one in expected) == 3
    assert np.array_equal(again[0][1], expected[0])


def test_a_photo_that_ends_the_process_has_an_error_row(tmp_path: Path) -> None:
    jobs: list[Job] = [(str(path), partial(Path.read_bytes, path)) for path in sample_photos()]
    jobs.insert(1, ("deadly", partial(os._exit, 3)))  # type: ignore[arg-type]
    with closing(pool_for(SMALL)) as pool:
        made = dict(pool.decode(jobs))
    assert made.pop("deadly") == "decoding it ended the decoder"
    for name, pixels in made.items():
        assert np.array_equal(pixels, crop_pixels(name, SMALL))


def test_modules_in_the_working_folder_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    job = (str(sample_photos()[0]), partial(Path.read_bytes, sample_photos()[0]))
    with closing(pool_for(SMALL)) as pool:
        (_, pixels), *_ = pool.decode([job])
    assert np.array_equal(pixels, crop_pixels(sample_photos()[0], SMALL))


def test_a_slow_photo_is_decoded_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(image: Any) -> NDArray[Any]:
        raise ImageError("was asked for")

    job = ("many bytes", partial(bytes, 100))
    with closing(pool_for(SMALL, refuse)) as pool:
        monkeypatch.setattr(decoding.DecodeProcess, "crops", lambda _, jobs: [None] * len(jobs))
        assert pool.decode([job]) == [("many bytes", "was asked for")]


class _Fast(InferenceEngine):
    """An engine whose probabilities tell the pixels apart, and that counts its batches."""

    outruns_decoding, batch = True, 32

    def __init__(self, classifier: Classifier) -> None:
        super().__init__(classifier.metadata, streams=2, limits=DECODE_LIMITS)
        self.sizes: list[int] = []

    def _run(self, pixels: Any, ports: tuple[int, ...]) -> list[NDArray[np.float32]]:
        self.sizes.append(len(pixels))
        rows = np.zeros((len(pixels), self.metadata.classes), np.float32)
        for row, crop in zip(rows, pixels, strict=True):
            row[int(crop.astype(np.int64).sum()) % self.metadata.classes] = 1
        return [rows] * len(ports)


def test_many_photos_are_decoded_by_processes_in_their_order(tmp_path: Path) -> None:
    paths = write_photos(tmp_path, MANY + 2 * CHUNK + 3)
    paths[20].write_bytes(b"\xff\xd8\xff no photo")
    classifier = Classifier(bundled_path(card_by_name("bundled")))
    engine = _Fast(classifier)
    vars(classifier._engines).update(side_by_side=engine, one_at_a_time=engine)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictions = list(classifier.stream([tmp_path]))
    assert [p.source for p in predictions] == list(map(str, paths))
    for path, prediction in zip(paths, predictions, strict=True):
        if path == paths[20]:
            assert prediction.error is not None
            continue
        crop = crop_pixels(path, classifier.metadata.preprocess)
        assert prediction.top.index == int(crop.astype(np.int64).sum()) % engine.metadata.classes
    assert max(engine.sizes) <= 32
    labels = classifier.labels
    items = [
        LabelledItem(str(path), n % 3, partial(Path.read_bytes, path))
        for n, path in enumerate(paths)
    ]
    dataset = Dataset(
        "photos",
        [n.truth for n in items],
        lambda start: iter(items[start:]),
        classes=len(labels),
        fingerprint="",
    )
    batches: list[ScoredBatch] = []
    score(engine, dataset, listeners=[batches.append])
    assert [name for batch in batches for name in batch.sources] == list(map(str, paths))
    rows = iter([row for batch in batches for row in batch.probabilities])
    errors = (error for batch in batches for error in batch.errors)
    for error, prediction in zip(errors, predictions, strict=True):
        assert error == prediction.error
        assert error is not None or next(rows).argmax() == prediction.top.index
    stream = classifier.stream([tmp_path])
    assert next(stream).source == str(paths[0])
    stream.close()
    processes = [each._process for each in classifier._decode_pool._every]
    assert all(process.poll() is None for process in processes)  # they wait for the next call
    classifier._decode_pool.close()
    assert all(process.poll() is not None for process in processes)
