"""A served model gives what the classifier gives, in whatever batches photos arrive."""

import asyncio
import io
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regnet.conversion.graph_preprocess import embed_preprocessing
from regnet.explanation.activation_maps import Explainer
from regnet.inference.classify import Classifier
from regnet.inference.result import Wanted
from regnet.ir.engine import Engine, read_model
from regnet.ir.graph import graph_metadata, read_graph, set_graph_metadata
from regnet.ir.metadata import ModelMetadata
from regnet.ir.records import Calibration
from regnet.pixels.photo_cost import Cost, cost_of
from regnet.pixels.preprocess import rgb_pixels
from regnet.pixels.samples import sample_photos
from regnet.serving.decoders import Decoders
from regnet.serving.limits import Limits
from regnet.serving.refusals import NotReady, TooLarge, TooLate, Unprocessable
from regnet.serving.served_model import ServedModel, limit_of
from regnet.system.runtime import ov
from regnet.zoo.catalogue import bundled_path, card_by_name

BUNDLED = bundled_path(card_by_name("bundled"))
PHOTOS = [photo.read_bytes() for photo in sample_photos()]
CALIBRATION = Calibration(
    temperature=1.0,
    coverage=0.9,
    method="aps",
    threshold=0.8,
    photos=100,
    held_out=100,
    measured_coverage=0.9,
    mean_size=3.0,
)

DEFAULTS = Limits()

Scenario = Callable[[ServedModel], Coroutine[Any, Any, None]]


def opened(path: Path = BUNDLED, *, name: str = "m", limits: Limits = DEFAULTS) -> ServedModel:
    return ServedModel(path, name=name, decoders=Decoders(limits), limits=limits)


def serve(scenario: Scenario, path: Path = BUNDLED, *, limits: Limits = DEFAULTS) -> None:
    async def run() -> None:
        model = await asyncio.to_thread(opened, path, limits=limits)
        await scenario(model)
        await model.close()
        await model._decoders.close()

    asyncio.run(run())


def later(seconds: float = 60.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def changed(folder: Path, graph: ov.Model | None = None, **changes: Any) -> Path:
    """Return a copy of the bundled model with other metadata."""
    graph = graph or read_graph(BUNDLED)
    set_graph_metadata(graph, replace(graph_metadata(graph, source=""), **changes))
    path = folder / "changed.xml"
    ov.save_model(graph, path, compress_to_fp16=False)
    return path


def metadata() -> ModelMetadata:
    return graph_metadata(read_graph(BUNDLED), source="")


def crowd() -> list[bytes]:
    """Return photos of many sizes, and some that are none."""
    photos = list(PHOTOS)
    draw = np.random.default_rng(0)
    for number in range(30):
        pixels = draw.integers(0, 256, (40 + number, 90 - number, 3), np.uint8)
        image = Image.fromarray(pixels).resize((200 + 7 * number, 300 - 5 * number))
        photos.append(image._repr_png_() or b"")
    photos[7:7] = [b"", b"no photo", PHOTOS[2][:5000], b"\xff\xd8\xff"]
    return photos


def test_in_a_crowd_all_get_exactly_what_the_classifier_says() -> None:
    photos = crowd()
    classifier = Classifier(BUNDLED)
    found = [classifier.classify(photo, top_k=7) for photo in photos]
    expected = [replace(one, model="m") for one in found]

    async def ask(model: ServedModel, number: int) -> None:
        found, timing = await model.classify(
            [photos[number]], sources=["image 0"], wanted=Wanted(7), deadline=later()
        )
        assert found == [expected[number]]
        assert 1 <= timing.batch <= 8

    async def scenario(model: ServedModel) -> None:
        await ask(model, 0)
        await asyncio.gather(*(ask(model, number) for number in range(len(photos))))
        found, timing = await model.classify(
            photos, sources=list(map(str, range(len(photos)))), wanted=Wanted(7), deadline=later()
        )
        assert [prediction.source for prediction in found] == list(map(str, range(len(photos))))
        assert [replace(prediction, source="image 0") for prediction in found] == expected
        assert timing.batch > 1
        assert sum(prediction.error is not None for prediction in found) == 4

    serve(scenario)


def test_a_calibrated_model_gives_sets_and_another_refuses(tmp_path: Path) -> None:
    path = changed(tmp_path, calibration=CALIBRATION)
    wanted = Wanted(2, sets=True, unknown=True)
    found = Classifier(path).classify([*PHOTOS, b"none"], top_k=2, sets=True, unknown=True)  # type: ignore[arg-type]
    expected = [replace(one, model="m") for one in found]
    sources = [f"image {number}" for number in range(4)]

    async def calibrated(model: ServedModel) -> None:
        found, _ = await model.classify(
            [*PHOTOS, b"none"], sources=sources, wanted=wanted, deadline=later()
        )
        assert found == expected
        assert found[0].set is not None

    async def other(model: ServedModel) -> None:
        with pytest.raises(Unprocessable, match="not calibrated"):
            await model.classify(PHOTOS, sources=sources[:3], wanted=wanted, deadline=later())

    serve(calibrated, path)
    serve(other)


def test_probabilities_are_those_of_the_engine_for_photos_and_pixels() -> None:
    engine = Engine(read_model(BUNDLED))
    crops = np.stack([engine.pixels(photo) for photo in PHOTOS])
    expected = engine.infer(crops)

    async def scenario(model: ServedModel) -> None:
        for given in (PHOTOS, crops, list(crops)):
            rows, timing = await model.probabilities(given, deadline=later())
            assert rows.dtype == np.float32
            assert np.array_equal(rows, expected)
            assert timing.infer_ms > 0
        none, _ = await model.probabilities([], deadline=later())
        assert none.shape == (0, len(model.metadata.labels))
        many, _ = await model.probabilities(np.repeat(crops, 20, axis=0), deadline=later())
        assert np.array_equal(many, np.repeat(expected, 20, axis=0))

    serve(scenario)


def test_a_photo_that_cannot_be_read_is_refused_by_its_place() -> None:
    async def scenario(model: ServedModel) -> None:
        with pytest.raises(Unprocessable, match="image 1: not an image of a known format"):
            await model.probabilities([PHOTOS[0], b"no photo"], deadline=later())

    serve(scenario)


def test_images_of_too_many_pixels_are_not_decoded() -> None:
    height, width, _ = rgb_pixels(PHOTOS[0]).shape
    limits = Limits(pixels=height * width - 1)
    message = "too many pixels"

    async def scenario(model: ServedModel) -> None:
        found, _ = await model.classify(
            [PHOTOS[0], b"none"], sources=["a", "b"], wanted=Wanted(), deadline=later()
        )
        assert message in (found[0].error or "")
        assert [limit_of(prediction.error or "") for prediction in found] == ["pixels", None]
        with pytest.raises(Unprocessable, match=f"image 0: {message}") as refused:
            await model.probabilities([PHOTOS[0]], deadline=later())
        assert refused.value.limit == "pixels"

    serve(scenario, limits=limits)


def test_a_model_whose_graph_crops_takes_whole_images(tmp_path: Path) -> None:
    graph = embed_preprocessing(read_graph(BUNDLED), metadata().preprocess)
    path = changed(tmp_path, graph, preprocessing="graph")
    expected = [replace(one, model="m") for one in Classifier(path).classify(PHOTOS)]
    image = rgb_pixels(PHOTOS[0])
    sources = [f"image {number}" for number in range(3)]

    async def scenario(model: ServedModel) -> None:
        found, _ = await model.classify(PHOTOS, sources=sources, wanted=Wanted(), deadline=later())
        assert found == expected
        rows, _ = await model.probabilities([image], deadline=later())
        assert rows.max() == np.float32(expected[0].top.probability)

    serve(scenario, path)


def test_limits_and_deadlines_hold() -> None:
    async def scenario(model: ServedModel) -> None:
        model.require_room(2)
        with pytest.raises(TooLarge):
            model.require_room(3)
        with pytest.raises(TooLarge):
            await model.probabilities(PHOTOS, deadline=later())
        with pytest.raises(TooLate):
            await model.probabilities(PHOTOS[:1], deadline=later(0))

    serve(scenario, limits=Limits(batch=2))


def test_it_explains_the_best_class() -> None:
    expected = Explainer(BUNDLED).explain(PHOTOS[0])

    async def scenario(model: ServedModel) -> None:
        predictions, _ = await model.classify(
            [PHOTOS[0], b"none"], sources=["a", "b"], wanted=Wanted(), deadline=later()
        )
        found = await model.explain(PHOTOS[0], predictions[0], deadline=later())
        assert found.to_dict() == expected[0].to_dict()
        for photo, prediction in ((b"none", predictions[0]), (PHOTOS[0], predictions[1])):
            with pytest.raises(Unprocessable, match="not an image"):
                await model.explain(photo, prediction, deadline=later())

    serve(scenario)


def test_what_comes_late_goes_to_the_successor_or_is_refused() -> None:
    async def scenario(model: ServedModel) -> None:
        old = await asyncio.to_thread(opened, name="old")
        wanted = {"sources": ["a"], "wanted": Wanted(), "deadline": later()}
        (before,), _ = await old.classify(PHOTOS[:1], **wanted)  # type: ignore[arg-type]
        await old.close()
        with pytest.raises(NotReady, match="old is being unloaded"):
            await old.classify(PHOTOS[:1], **wanted)  # type: ignore[arg-type]
        old.succeeded_by(model)
        old.require_room()
        (after,), _ = await old.classify(PHOTOS[:1], **wanted)  # type: ignore[arg-type]
        assert after == replace(before, model="m")
        rows, _ = await old.probabilities(PHOTOS[:1], deadline=later())
        assert rows.shape[0] == 1
        explanation = await old.explain(PHOTOS[0], after, deadline=later())
        assert explanation.label.index == after.top.index
        crop = np.zeros((1, *[model.metadata.preprocess.crop] * 2, 3), np.uint8)
        rows, _ = await old.probabilities(crop, deadline=later())
        assert rows.shape[0] == 1
        smaller = replace(model.metadata.preprocess, crop=64)
        model.metadata = replace(model.metadata, preprocess=smaller)
        with pytest.raises(NotReady, match="replaced by a model that takes other pixels"):
            await old.probabilities(crop, deadline=later())
        await old._decoders.close()

    serve(scenario)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("m ", "old"))]


def png(width: int, height: int, *, noise: bool = False) -> bytes:
    draw = np.random.default_rng(0)
    shape = (height, width, 3)
    pixels = draw.integers(0, 256, shape, np.uint8) if noise else np.zeros(shape, np.uint8)
    return Image.fromarray(pixels)._repr_png_() or b""


def tiff() -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(PHOTOS[1])).save(file, "TIFF")
    return file.getvalue()


def test_photos_that_may_take_long_get_exactly_what_the_classifier_says() -> None:
    photos = [tiff(), PHOTOS[0], png(2100, 2000), b"II*\0 no photo"]
    assert [cost_of(photo).quick for photo in photos] == [False, True, False, False]
    assert cost_of(png(700, 600, noise=True)).quick
    found = Classifier(BUNDLED).classify(photos, top_k=3)  # type: ignore[arg-type]
    expected = [replace(one, model="m") for one in found]
    sources = [f"image {number}" for number in range(len(photos))]

    async def scenario(model: ServedModel) -> None:
        found, _ = await model.classify(photos, sources=sources, wanted=Wanted(3), deadline=later())
        assert found == expected
        explained = await model.explain(photos[0], found[0], deadline=later())
        (same,) = Explainer(BUNDLED).explain(photos[0], classes=[found[0].top.index])
        assert np.array_equal(explained.map, same.map)
        rows, _ = await model.probabilities(photos[:3], deadline=later())
        assert rows.shape == (3, 200)

    serve(scenario)


def test_a_decode_that_is_over_its_time_is_ended_and_the_next_photo_is_decoded() -> None:
    slow, small = png(7000, 7000), tiff()

    async def scenario(model: ServedModel) -> None:
        await model.classify([small], sources=["a"], wanted=Wanted(), deadline=later())
        running = set(model._decoders._running)
        (late,), _ = await model.classify([slow], sources=["a"], wanted=Wanted(), deadline=later())
        assert late.error == "decoding took longer than the limit of 0.2 s (--max-decode)"
        assert limit_of(late.error) == "decode_seconds"
        for decoder in running - model._decoders._running:
            decoder._process.wait(60)
        with pytest.raises(TooLate):
            await model.classify([slow], sources=["a"], wanted=Wanted(), deadline=later(0.05))
        model._decoders._limits = Limits()
        (good,), _ = await model.classify([small], sources=["a"], wanted=Wanted(), deadline=later())
        assert good.error is None

    serve(scenario, limits=Limits(decode_seconds=0.2))


def test_all_photos_of_a_request_together_have_a_limit_of_pixels() -> None:
    file = io.BytesIO()
    Image.new("RGB", (7000, 7000)).save(file, "WEBP", lossless=True)

    async def scenario(model: ServedModel) -> None:
        with pytest.raises(TooLarge, match="784,000,000 pixels in one request") as refused:
            await model.classify(
                [file.getvalue()] * 16, sources=["a"] * 16, wanted=Wanted(), deadline=later()
            )
        assert refused.value.limit == "request_pixels"
        assert not model._decoders._running

    serve(scenario)


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "WEBP", "JPEG"])
@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"progressive": True}])
def test_the_claimed_pixels_are_those_of_the_photo(form: str, options: dict[str, Any]) -> None:
    file = io.BytesIO()
    Image.new("RGB", (123, 45)).save(file, form, **options)
    assert cost_of(file.getvalue()) == Cost(123 * 45, quick=True)


def test_webp_with_metadata_claims_its_pixels_too() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (123, 45)).save(file, "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0")
    assert file.getvalue()[12:16] == b"VP8X"
    assert cost_of(file.getvalue()).pixels == 123 * 45


def test_whole_photos_of_formats_without_a_known_size_share_the_limit_too(tmp_path: Path) -> None:
    graph = embed_preprocessing(read_graph(BUNDLED), metadata().preprocess)
    path = changed(tmp_path, graph, preprocessing="graph")
    file = io.BytesIO()
    Image.new("RGB", (300, 200)).save(file, "TIFF")

    async def scenario(model: ServedModel) -> None:
        found, _ = await model.classify(
            [file.getvalue()] * 3, sources=list("abc"), wanted=Wanted(), deadline=later()
        )
        assert [prediction.error is None for prediction in found] == [True, True, False]
        assert limit_of(found[2].error or "") == "pixels"

    serve(scenario, path, limits=Limits(request_pixels=130_000))
