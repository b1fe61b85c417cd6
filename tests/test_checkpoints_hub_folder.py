import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regnet.checkpoints.hub_settings import read_settings
from regnet.checkpoints.layouts import LAYOUTS, from_pycls
from regnet.checkpoints.model_files import model_files
from regnet.conversion.store import Library
from regnet.network.labels import Label, imagenet_labels
from regnet.network.spec import AnyNetSpec, Stage
from regnet.pixels.preprocess import crop_pixels, rgb_pixels
from regnet.pixels.protocol import OMZ, Preprocess
from regnet.system.errors import MismatchError, UnknownModelError, WeightsError

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402

from regnet.checkpoints.weights import load_into, read_checkpoint, write_safetensors  # noqa: E402
from regnet.network.modules import RegNet  # noqa: E402

SPEC = AnyNetSpec(stages=(Stage(1, 16, 8), Stage(2, 32, 8)), stem_width=16, classes=5)
NAMES = ("ash", "beech", "elm", "oak", "yew")
CONVNEXT = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "crop_pct": 0.875,
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "image_processor_type": "ConvNextImageProcessor",
}
CONFIG = {"model_type": "regnet", "id2label": {str(n): name for n, name in enumerate(NAMES)}}
TIMM = {
    "architecture": "regnetx_002",
    "num_classes": 5,
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "crop_pct": 0.965,
        "crop_mode": "center",
        "interpolation": "bilinear",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.3, 0.2, 0.1],
        "num_classes": 5,
    },
}


def state(layout: str = "transformers", *, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    own = RegNet(SPEC).state_dict()
    for tensor in own.values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)
    names = from_pycls(own, next(known for known in LAYOUTS if known.name == layout))
    return {names[key]: tensor for key, tensor in own.items()}


def write(folder: Path, name: str, content: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content), "utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as transformers writes it."""
    made = tmp_path / "trees"
    write(made, "config.json", CONFIG)
    write(made, "preprocessor_config.json", CONVNEXT)
    save_file(state(), made / "model.safetensors")
    return made


def settings(folder: Path, config: object, preprocessor: object | None = None) -> Any:
    write(folder, "config.json", config)
    if preprocessor is not None:
        write(folder, "preprocessor_config.json", preprocessor)
    (folder / "model.safetensors").touch()
    return read_settings(model_files(folder))


@pytest.mark.parametrize("named", ["", "model.safetensors"])
def test_a_folder_and_the_file_in_it_are_the_model(named: str, folder: Path) -> None:
    checkpoint = read_checkpoint(folder / named)
    assert checkpoint.labels == tuple(Label("", name) for name in NAMES)
    assert (checkpoint.spec, checkpoint.layout) == (SPEC, "transformers")
    expected = Preprocess(name="transformers", offset="floor")
    assert checkpoint.preprocess == expected
    assert (expected.resize, expected.crop, expected.mean) == (256, 224, OMZ.mean)
    save_file(state(), folder / "alone.safetensors")
    alone = read_checkpoint(folder / "alone.safetensors")
    assert (alone.labels, alone.preprocess) == (None, None)
    assert all(np.array_equal(checkpoint.state[key], tensor) for key, tensor in alone.state.items())


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_sharded_weights(suffix: str, folder: Path) -> None:
    whole = read_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    tensors = list(state().items())
    parts = {f"{stem}-0000{n}-of-00002.{suffix}": dict(tensors[n - 1 :: 2]) for n in (1, 2)}
    for name, part in parts.items():
        (save_file if suffix == "safetensors" else torch.save)(part, folder / name)
    index = {"weight_map": {key: name for name, part in parts.items() for key in part}}
    write(folder, f"{stem}.{suffix}.index.json", index)
    for named in ("", f"{stem}.{suffix}.index.json", next(iter(parts))):
        read = read_checkpoint(folder / named)
        assert read.labels == whole.labels
        assert all(np.array_equal(read.state[key], tensor) for key, tensor in whole.state.items())
        assert read.sha384 not in (whole.sha384, None)
    (folder / list(parts)[1]).unlink()
    with pytest.raises(WeightsError, match=r"00002-of-00002.* is missing"):
        read_checkpoint(folder)
    (folder / f"{stem}.{suffix}.index.json").unlink()
    with pytest.raises(WeightsError, match=r"index\.json is missing"):
        read_checkpoint(folder / next(iter(parts)))


def test_an_index_cannot_leave_its_folder(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    write(folder, "model.safetensors.index.json", {"weight_map": {"a": "../x.safetensors"}})
    with pytest.raises(WeightsError, match="not a file of its folder"):
        model_files(folder)


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ([], r"config\.json and weights"),
        (["config.json"], "lacks weights"),
        (["model.safetensors"], r"lacks config\.json"),
    ],
)
def test_a_folder_that_is_no_model(files: list[str], missing: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(WeightsError, match=missing):
        read_checkpoint(tmp_path)


def test_a_folder_of_a_cards_name_does_not_hide_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundled").mkdir()
    assert Library(folder=tmp_path / "cache").ir("bundled").suffix == ".xml"
    (tmp_path / "photos").mkdir()
    with pytest.raises((WeightsError, UnknownModelError), match=r"photos.*config\.json"):
        Library(folder=tmp_path / "cache").ir("photos")


def test_the_cache_knows_all_files(folder: Path) -> None:
    before = model_files(folder).digest
    write(folder, "config.json", {**CONFIG, "id2label": {str(n): f"tree {n}" for n in range(5)}})
    after = model_files(folder)
    assert after.digest != before
    assert after.weights_sha384 == read_checkpoint(folder).sha384


def test_our_own_metadata_comes_first(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    own = tuple(Label("", f"own {n}") for n in range(5))
    write_safetensors(
        folder / "model.safetensors", checkpoint.state, spec=SPEC, labels=own, preprocess=OMZ
    )
    assert (read_checkpoint(folder).labels, read_checkpoint(folder).preprocess) == (own, OMZ)


def test_as_many_labels_as_classes(folder: Path) -> None:
    write(folder, "config.json", {**CONFIG, "id2label": {"0": "a", "1": "b"}})
    with pytest.raises(MismatchError, match=r"2 labels in config\.json, 5 in the weights"):
        read_checkpoint(folder)
    assert read_checkpoint(folder, new_head=2).labels is None


@pytest.mark.parametrize(
    ("id2label", "names"),
    [
        ({"1": "b", "0": "a", "2": "c"}, ("a", "b", "c")),
        ({str(n): str(9 - n) for n in range(10)}, tuple(str(9 - n) for n in range(10))),
        ({str(n): f"LABEL_{n}" for n in range(3)}, None),
        ({}, None),
    ],
)
def test_names_of_classes(id2label: Any, names: Any, tmp_path: Path) -> None:
    found = settings(tmp_path, {"model_type": "regnet", "id2label": id2label}).labels
    assert (found and tuple(label.name for label in found)) == names


def test_imagenets_classes_have_their_wnids(tmp_path: Path) -> None:
    labels = imagenet_labels()
    id2label = {str(n): label.name for n, label in enumerate(labels)}
    found = settings(tmp_path, {"model_type": "regnet", "id2label": id2label})
    assert found.labels == labels
    timm = {**TIMM, "label_names": [label.wnid for label in labels]}
    assert settings(tmp_path, timm).labels == labels


@pytest.mark.parametrize("id2label", [{"0": "a", "2": "b"}, {"x": "a"}, {"0": "a", "00": "b"}])
def test_impossible_names_of_classes(id2label: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="id2label"):
        settings(tmp_path, {"model_type": "regnet", "id2label": id2label})


def test_several_labels_of_a_photo_are_said(tmp_path: Path) -> None:
    config = {**CONFIG, "problem_type": "multi_label_classification"}
    (sentence,) = settings(tmp_path, config).assumed
    assert sentence.startswith("output: a softmax")
    assert settings(tmp_path, CONFIG | {"problem_type": None}).assumed == ()


def test_the_only_weights_of_a_folder(folder: Path) -> None:
    own = (folder / "model.safetensors").rename(folder / "trees.safetensors")
    assert read_checkpoint(folder).labels == read_checkpoint(own).labels is not None
    save_file(state(seed=1), folder / "more.safetensors")
    assert read_checkpoint(own).labels is None
    with pytest.raises(WeightsError, match="lacks weights"):
        read_checkpoint(folder)


def test_timms_folders(tmp_path: Path) -> None:
    config = {**TIMM, "label_names": list(NAMES)}
    write(tmp_path, "config.json", config)
    save_file(state("timm"), tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(tmp_path)
    assert [label.name for label in checkpoint.labels or ()] == list(NAMES)
    assert checkpoint.preprocess == Preprocess(
        name="timm",
        resize=232,
        crop=224,
        interpolation="bilinear",
        mean=(76.5, 102.0, 127.5),
        scale=(25.5, 51.0, 76.5),
    )


@pytest.mark.parametrize(
    ("changes", "resize", "crop", "sentence"),
    [
        ({}, 256, 224, None),
        ({"size": 224, "feature_extractor_type": "ConvNextFeatureExtractor"}, 256, 224, None),
        ({"size": {"shortest_edge": 160}, "crop_pct": 0.9}, 177, 160, None),
        ({"size": {"shortest_edge": 384}}, 384, 384, None),
        ({"resample": 1}, 256, 224, "resample 1"),
        ({"do_resize": False}, 256, 224, "no resize"),
        ({"do_flip_channel_order": True}, 256, 224, "BGR photos"),
    ],
)
def test_protocols_of_convnexts_kind(
    changes: Any, resize: int, crop: int, sentence: str | None, tmp_path: Path
) -> None:
    found = settings(tmp_path, CONFIG, {**CONVNEXT, **changes})
    assert (found.preprocess.resize, found.preprocess.crop) == (resize, crop)
    assert len(found.assumed) == (sentence is not None)
    assert all(text.startswith("protocol: ") and (sentence or "") in text for text in found.assumed)


PLAIN = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 256},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "resample": 2,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.3, 0.2, 0.1],
}


@pytest.mark.parametrize(
    ("changes", "expected", "sentence"),
    [
        ({}, {}, None),
        ({"crop_size": 200, "resample": 3}, {"crop": 200, "interpolation": "bicubic"}, None),
        ({"do_normalize": False}, {"mean": (0.0,) * 3, "scale": (255.0,) * 3}, None),
        ({"do_rescale": False, "image_mean": [90, 100, 110], "image_std": 50},
         {"mean": (110.0, 100.0, 90.0), "scale": (50.0,) * 3}, None),
        ({"size": {"height": 224, "width": 224}, "do_center_crop": False},
         {"resize": 224, "fit": "stretch"}, None),
        ({"size": {"height": 224, "width": 320}, "do_center_crop": False},
         {"resize": 224, "fit": "stretch"}, "images of 320 x 224"),
        ({"do_center_crop": False}, {"crop": 256}, "not cropped"),
        ({"crop_size": 300}, {"crop": 256}, "padded"),
    ],
)  # fmt: skip
def test_other_protocols_of_transformers(
    changes: Any, expected: Any, sentence: str | None, tmp_path: Path
) -> None:
    found = settings(tmp_path, CONFIG, {**PLAIN, **changes})
    values = {"resize": 256, "crop": 224, "interpolation": "bilinear", "offset": "floor",
              "mean": (76.5, 102.0, 127.5), "scale": (25.5, 51.0, 76.5), **expected}  # fmt: skip
    for name, value in values.items():
        assert getattr(found.preprocess, name) == (
            pytest.approx(value) if name in ("mean", "scale") else value
        )
    assert bool(found.assumed) == (sentence is not None)
    assert all((sentence or "") in text for text in found.assumed)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "resnet"}, "model_type 'resnet'; regnet reads 'regnet'"),
        ({}, "no model_type"),
        ({**TIMM, "pretrained_cfg": {"input_size": 224}}, "not"),
        ([], "not a JSON object"),
    ],
)
def test_other_descriptions(config: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        settings(tmp_path, config)


@pytest.mark.parametrize("text", ["{}", '{"lr": 0.1}', "[]", "{"])
def test_a_file_beside_another_config_is_a_checkpoint_of_its_own(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    assert read_checkpoint(folder / "model.safetensors").labels is None
    with pytest.raises(WeightsError):
        read_checkpoint(folder)


def test_files_that_are_not_json(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json: cannot be read as JSON"):
        read_checkpoint(folder)


def transformers_model(folder: Path, **options: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.RegNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 2], groups_width=8, layer_type="y",
        id2label=dict(enumerate(NAMES)), label2id={name: n for n, name in enumerate(NAMES)},
    )  # fmt: skip
    torch.manual_seed(3)
    network = transformers.RegNetForImageClassification(config).eval()
    for key, tensor in network.state_dict().items():
        if key.endswith("running_mean"):
            tensor.normal_(std=0.2)
        elif tensor.ndim == 1 and tensor.is_floating_point():
            tensor.uniform_(0.5, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network.save_pretrained(folder, **options)
        processing = transformers.ConvNextImageProcessorPil
        processor = processing(**{k: v for k, v in CONVNEXT.items() if "type" not in k})
        processor.save_pretrained(folder)
    return network, processor


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "20KB"}], ids=["whole", "sharded"])
def test_folders_of_transformers_itself(options: Any, tmp_path: Path) -> None:
    network, processor = transformers_model(tmp_path / "saved", **options)
    assert (len(list((tmp_path / "saved").glob("*.safetensors"))) > 1) == bool(options)
    checkpoint = read_checkpoint(tmp_path / "saved")
    assert [label.name for label in checkpoint.labels or ()] == list(NAMES)
    noise = np.random.default_rng(0).integers(0, 256, (301, 407, 3), np.uint8)
    photo = tmp_path / "photo.png"
    Image.fromarray(noise).save(photo)
    assert checkpoint.preprocess is not None
    crop = crop_pixels(rgb_pixels(photo), checkpoint.preprocess).astype(np.float64)
    scaled = (crop - checkpoint.preprocess.mean) / checkpoint.preprocess.scale
    own = RegNet(checkpoint.spec).eval().double()
    load_into(own, checkpoint.state)
    given = processor(Image.open(photo), return_tensors="pt")["pixel_values"]
    ours = torch.from_numpy(scaled.transpose(2, 0, 1)[None].copy())
    assert float((ours.flip(1) - given).abs().max()) < 1e-5
    with torch.inference_mode():
        assert float((own(ours) - network(given).logits).abs().max()) < 1e-4
