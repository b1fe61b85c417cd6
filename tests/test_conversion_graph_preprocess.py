"""Preprocessing inside the graph: the pixels of the protocol, from whole images of any size."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from test_conversion_export import SMALL, TINY, arrays, confident, described, probabilities

from regnet.conversion.export import export_network, onnx_pixel_bound
from regnet.conversion.graph_preprocess import PIXELS, embed_preprocessing, preprocessing_model
from regnet.conversion.values import Request, read_conversion, write_conversion
from regnet.conversion.whole_photo import odd_images, pixel_bound
from regnet.ir.engine import Engine, read_model
from regnet.ir.graph import graph_metadata, read_graph
from regnet.ir.graph_cost import graph_cost
from regnet.pixels.preprocess import crop_pixels, rgb_pixels
from regnet.pixels.protocol import OMZ, PYCLS, Preprocess
from regnet.pixels.samples import sample_crops, sample_photos
from regnet.system.errors import ConversionError, ProtocolError
from regnet.system.runtime import core, ov

Pixels = NDArray[Any]

CEIL = replace(OMZ, name="ceil", interpolation="bilinear", offset="ceil", channels="RGB")
FLOOR = replace(OMZ, name="floor", offset="floor")
UNEVEN = replace(OMZ, name="uneven", resize=233, crop=177)  # no multiple of a block
STRETCHED = replace(OMZ, name="stretched", fit="stretch")
SINGLE = replace(OMZ, name="single", resize=9, crop=1)


def compiled(model: ov.Model, **options: str) -> Callable[[Pixels], Pixels]:
    """Return a model's last output as a function of one image."""
    run = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", **options})
    return lambda image: run(image[None])[len(run.outputs) - 1][0]


def differences(run: Callable[[Pixels], Pixels], image: Pixels, preprocess: Preprocess) -> Pixels:
    return np.abs(run(image).transpose(1, 2, 0) - crop_pixels(image, preprocess))


def noise(*size: int) -> Pixels:
    return np.random.default_rng(sum(size)).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize(
    "preprocess", [OMZ, CEIL, FLOOR, UNEVEN, STRETCHED, SINGLE, TINY], ids=lambda p: p.name
)
def test_pixels_are_the_protocols(preprocess: Preprocess) -> None:
    run = compiled(preprocessing_model(preprocess))
    photos = [rgb_pixels(photo) for photo in sample_photos()]
    apart = [differences(run, image, preprocess) for image in (*photos, *odd_images(preprocess))]
    assert max(each.max() for each in apart) <= 1
    assert np.mean([(each == 0).mean() for each in apart]) >= 0.9999


@pytest.mark.parametrize("resize", [256, 232])
def test_pixels_of_all_shared_photos(photos: list[Path], resize: int) -> None:
    preprocess = replace(OMZ, resize=resize)
    run = compiled(preprocessing_model(preprocess))
    apart = [differences(run, rgb_pixels(photo), preprocess) for photo in photos]
    assert max(each.max() for each in apart) <= 1
    assert np.mean([(each == 0).mean() for each in apart]) >= 0.9999


def test_any_size_comes_to_the_right_size_and_place() -> None:
    small = replace(OMZ, name="small", resize=24, crop=17)
    run = compiled(preprocessing_model(small))
    sizes = np.random.default_rng(3).integers(1, 420, (150, 2)).tolist()
    wrong = [size for size in sizes if differences(run, noise(*size), small).max() > 1]
    assert wrong == []


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (2, 65_535), (65_535, 3)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    run = compiled(preprocessing_model(OMZ))
    apart = differences(run, noise(*size), OMZ)
    assert apart.max() <= 1
    assert (apart == 0).mean() >= 0.9999


def test_an_image_of_the_right_size_is_only_cut() -> None:
    image = noise(256, 256)
    found = compiled(preprocessing_model(OMZ))(image)
    assert np.array_equal(found, image[16:240, 16:240, ::-1].transpose(2, 0, 1))


def test_tall_images_are_resized_vertically_first() -> None:
    image = noise(900, 330)
    size, bicubic = OMZ.resized(330, 900), Image.Resampling.BICUBIC
    across = Image.fromarray(image).resize((size[0], 900), bicubic).resize(size, bicubic)
    horizontal_first = np.asarray(across.crop(OMZ.crop_box(*size)))[:, :, ::-1]
    found = compiled(preprocessing_model(OMZ))(image).transpose(1, 2, 0)
    assert (found != horizontal_first).mean() > 0.01
    assert (found == crop_pixels(image, OMZ)).mean() >= 0.9999


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a converted model that takes whole images."""
    path = tmp_path_factory.mktemp("whole") / "small-graph.xml"
    metadata = replace(described(SMALL), preprocessing="graph")
    conversion = export_network(arrays(confident(SMALL)), metadata, path, photos_whole())
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(conversion.files)
    write_conversion(path.parent, conversion)
    return path


def photos_whole() -> list[Pixels]:
    return [rgb_pixels(photo) for photo in sample_photos()]


def test_the_model_takes_images_and_gives_the_networks_probabilities(whole: Path) -> None:
    model = read_graph(whole)
    assert [port.any_name for port in (*model.inputs, *model.outputs)] == ["image", "prob"]
    assert str(model.input(0).partial_shape) == "[1,?,?,3]"
    assert model.input(0).element_type == ov.Type.u8
    assert str(model.output(0).partial_shape) == "[1,7]"
    engine = Engine(read_model(whole))
    images = [*photos_whole(), noise(50, 333)]
    crops = np.stack([crop_pixels(image, TINY) for image in images]).transpose(0, 3, 1, 2)
    expected = probabilities(confident(SMALL), described(SMALL), crops.astype(np.float32))
    assert np.abs(engine.infer(images) - expected).max() <= 1e-5


def test_the_bound_travels_in_the_model_and_in_the_record(whole: Path) -> None:
    metadata = graph_metadata(read_graph(whole), source="m")
    assert metadata.preprocessing == "graph"
    bound = metadata.pixel_bound
    assert bound is not None
    assert bound.levels <= 1
    assert bound.identical >= 0.9999
    assert bound.photos == len(sample_photos()) + len(odd_images(TINY))
    conversion = read_conversion(whole.parent)
    assert conversion is not None
    assert conversion.pixel_bound == bound


@pytest.mark.parametrize("cached", [False, True])
def test_pixels_stay_exact_where_the_network_runs_in_bf16(
    whole: Path, tmp_path: Path, cached: bool
) -> None:
    options = {"INFERENCE_PRECISION_HINT": "bf16"}
    options |= {"CACHE_DIR": str(tmp_path)} if cached else {}
    for _ in range(1 + cached):  # the second comes out of the folder
        model = read_graph(whole)
        model.add_outputs(PIXELS)
        run = compiled(model, **options)
        assert max(differences(run, image, TINY).max() for image in photos_whole()) <= 1


def test_embedding_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "m.xml"
    crops = [crop_pixels(photo, TINY) for photo in sample_photos()]
    export_network(arrays(confident(SMALL)), described(SMALL), path, crops)
    model = read_graph(path)
    embedded = embed_preprocessing(model, TINY)
    assert str(model.input(0).partial_shape) == "[?,3,64,64]"
    assert str(embedded.input(0).partial_shape) == "[1,?,?,3]"
    assert pixel_bound(embedded, TINY, photos_whole()).levels <= 1
    other = replace(TINY, resize=80)
    with pytest.raises(ConversionError, match=r"nothing was written"):
        pixel_bound(embedded, other, photos_whole())


def test_the_cost_is_that_of_the_network(whole: Path) -> None:
    metadata = described(SMALL)
    export_network(
        arrays(confident(SMALL)), metadata, whole.parent / "crops.xml", sample_crops(TINY)
    )
    assert graph_cost(read_graph(whole)) == graph_cost(read_graph(whole.parent / "crops.xml"))


def test_what_is_not_pillows_cannot_be_embedded(tmp_path: Path) -> None:
    with pytest.raises(ProtocolError, match="opencv-linear cannot be put into the graph"):
        preprocessing_model(PYCLS)
    metadata = replace(described(SMALL, PYCLS), preprocessing="graph")
    with pytest.raises(ProtocolError):
        export_network(arrays(confident(SMALL)), metadata, tmp_path / "m.xml", photos_whole())
    assert list(tmp_path.iterdir()) == []


def test_the_cache_tells_them_apart() -> None:
    request = Request(weights=Path("w.pyth"))
    whole = replace(request, preprocessing="graph")
    assert request.key_parts() != whole.key_parts()
    assert whole.file_name == "w-graph.xml"
    assert replace(whole, format="onnx").file_name == "w-graph.onnx"


def convert_command(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "regnet", "convert", "--preprocessing", "graph"]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize("preprocess", [OMZ, CEIL, UNEVEN, STRETCHED], ids=lambda p: p.name)
def test_pixels_are_the_protocols_in_onnx_runtime(preprocess: Preprocess) -> None:
    pytest.importorskip("onnxruntime")
    bound = onnx_pixel_bound(preprocess, photos_whole())
    assert (bound.identical, bound.levels) == (1, 0)


def test_a_file_of_onnx_makes_its_crops_itself(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from regnet.conversion.store import Library
    from regnet.inference.onnx_predictor import OnnxPredictor

    metadata = replace(described(SMALL), preprocessing="graph")
    path = tmp_path / "m.onnx"
    conversion = export_network(arrays(confident(SMALL)), metadata, path, photos_whole())
    assert conversion.pixel_bound is not None
    assert conversion.pixel_bound.levels <= 1
    predictor = OnnxPredictor(path)
    engine = Engine(read_model(Library(folder=tmp_path / "cache").ir(path)))
    for photo in sample_photos():
        rows = predictor.outputs([predictor.pixels(photo)]).probabilities
        assert np.abs(rows - engine.infer([engine.pixels(photo)])).max() <= 1e-5


def test_the_command_says_what_was_measured(tmp_path: Path) -> None:
    import torch

    torch.save({"model_state": confident(SMALL).state_dict()}, tmp_path / "small.pyth")
    options = ("--resize", 72, "--crop", 64, "-o", tmp_path)
    text = convert_command(tmp_path / "small.pyth", *options).stdout
    assert "resizes and crops by itself: " in text
    record = json.loads(convert_command(tmp_path / "small.pyth", *options, "--json").stdout)
    assert record["path"] == str(tmp_path / "small-graph.xml")
    assert record["pixel_bound"]["levels"] <= 1
    assert Engine(read_model(Path(record["path"]))).infer(photos_whole()).shape == (3, 7)
