"""Classifiers that regnet did not write: adopted with a proof, or refused in a sentence."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run_main
from foreign_models import (
    CLASSES,
    SIZE,
    pooled_then,
    write_classifier,
    write_onnx,
    write_refused,
)
from onnx import TensorProto, helper

from regnet.conversion import adopt
from regnet.conversion.foreign_graph import read_foreign
from regnet.conversion.model_copy import Form, write_copy
from regnet.conversion.protocol_choice import choose_protocol, protocol_of_maker
from regnet.conversion.store import Library
from regnet.conversion.values import Conversion, Request
from regnet.explanation.linear_head import read_head
from regnet.ir.engine import Engine, read_model
from regnet.ir.graph import read_graph, write_ir
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Label
from regnet.pixels.protocol import KERAS, OMZ, TENSORFLOW, TORCHVISION, Preprocess
from regnet.pixels.samples import sample_photos
from regnet.statistics.conformal import softmax64
from regnet.system.errors import ConversionError, ModelError, ProtocolError, RegNetError
from regnet.system.runtime import core, ov

onnxruntime = pytest.importorskip("onnxruntime", reason="the originals run in ONNX Runtime")

MEAN, SCALE = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
LABELS = tuple(Label("", name) for name in ("ant", "bee", "cat", "dog"))


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(folder=tmp_path / "cache")


def adopted(library: Library, path: Path, **given: Any) -> Conversion:
    return library.convert(Request(weights=path, **given))


def metadata_of(conversion: Conversion) -> ModelMetadata:
    return read_model(conversion.path).metadata


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch": 1},
        {"channels_last": True, "softmax": True},
        {"element": TensorProto.UINT8, "channels_last": True},
    ],
    ids=["dynamic", "one-by-one", "nhwc-softmax", "uint8"],
)
def test_probabilities_are_the_originals(
    options: dict[str, Any], library: Library, tmp_path: Path
) -> None:
    path = write_classifier(tmp_path / "other.onnx", **options)
    has_bytes = "element" in options
    numbers = {} if has_bytes else {"mean": MEAN, "scale": SCALE}
    conversion = adopted(library, path, protocol={"fit": "stretch", **numbers}, labels=LABELS)
    pixels = np.random.default_rng(1).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)

    session = onnxruntime.InferenceSession(path)
    images = pixels if has_bytes else ((pixels - np.array(MEAN)) / SCALE).astype(np.float32)
    images = images if "channels_last" in options else images.transpose(0, 3, 1, 2)
    (name,) = (port.name for port in session.get_inputs())
    rows = np.concatenate([session.run(None, {name: image[None]})[0] for image in images])
    expected = rows if "softmax" in options else softmax64(rows.astype(np.float64))
    engine = Engine(read_model(conversion.path, logits=True))
    outputs = engine.outputs(pixels)
    np.testing.assert_allclose(outputs.probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(softmax64(outputs.logits.astype(np.float64)), expected, atol=1e-6)
    assert conversion.original == "other.onnx in ONNX Runtime"
    assert conversion.max_delta <= 1e-5


def test_the_model_says_what_it_is(library: Library, tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "other.onnx")
    named = TORCHVISION.to_dict()
    given = {"named": named, "resize": 40}
    found = metadata_of(adopted(library, path, protocol=given, labels=LABELS, licence="MIT"))
    assert (found.spec, found.classes, found.labels) == (None, CLASSES, LABELS)
    assert (found.licence, found.assumed) == ("MIT", ())
    assert found.origin.startswith("other.onnx (")
    assert "ONNX opset 17" in found.origin
    assert (found.preprocess.name, found.preprocess.resize) == ("custom", 40)
    assert (found.preprocess.crop, found.preprocess.channels) == (SIZE, "RGB")


def test_what_is_not_said_is_assumed(library: Library, tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "other.onnx", size="S")  # type: ignore[arg-type]
    conversion = adopted(library, path)
    assert conversion.assumed == (
        "names: its classes are numbered",
        "protocol: torchvision (short side 256, bilinear interpolation, RGB, "
        "ImageNet's mean and scale, crop 224)",
    )
    assert conversion.notes == ("outputs: logits, for they do not sum to 1 on the sample photos",)
    background = write_classifier(tmp_path / "tf.onnx", classes=1001, softmax=True)
    assert "a background and ImageNet-1k's" in adopted(library, background).assumed[0]
    assert metadata_of(adopted(library, background)).labels[1].name.startswith("tench")


WORDS = {
    "detector": "gives 2 outputs",
    "segmenter": "as a segmenter does",
    "two-inputs": "takes 2 inputs",
    "token-ids": r"its input is input_ids \[1,16\] of i64",
    "rectangle": "only square images",
    "one-channel": "an image classifier takes images",
    "custom-op": "example.org.Guess",
    "nan": r"hold NaN or infinity \(in stem\)",
    "outside": "outside its folder",
    "missing-data": "absent.data are missing",
    "new-opset": "is of ONNX opset 999",
    "truncated": "not an ONNX model, or damaged",
}


def test_what_is_no_classifier_is_refused_in_a_sentence(library: Library, tmp_path: Path) -> None:
    paths = write_refused(tmp_path / "refused")
    assert paths.keys() == WORDS.keys()
    for name, path in paths.items():
        with pytest.raises(ModelError, match=f"^{path}: .*{WORDS[name]}") as caught:
            adopted(library, path)
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.xml"))


def test_millions_of_classes_are_refused(library: Library, tmp_path: Path) -> None:
    wide = {"w": np.ones((3, 1)), "to": np.array([1, 2_000_000], np.int64)}
    one = helper.make_node("MatMul", ["f", "w"], ["m"])
    many = helper.make_node("Expand", ["m", "to"], ["scores"])
    path = pooled_then(tmp_path / "wide.onnx", one, many, classes=2_000_000, **wide)
    with pytest.raises(ModelError, match=r"at most 1,000,000 classes are allowed"):
        adopted(library, path)


def test_what_draws_or_mixes_images_is_refused(library: Library, tmp_path: Path) -> None:
    noise = helper.make_node("RandomNormalLike", ["f"], ["r"])
    added = helper.make_node("Add", ["f", "r"], ["scores"])
    with pytest.raises(ModelError, match="draws random numbers"):
        adopted(library, pooled_then(tmp_path / "a.onnx", noise, added))
    weights = {"w": np.eye(3, 16), "to": np.array([-1, 8], np.int64)}
    logits = helper.make_node("MatMul", ["f", "w"], ["m"])
    softmax = helper.make_node("Softmax", ["m"], ["p"], axis=1)
    mixed = helper.make_node("Reshape", ["p", "to"], ["scores"])
    path = pooled_then(tmp_path / "b.onnx", logits, softmax, mixed, classes=8, **weights)
    with pytest.raises(ConversionError, match="12 rows for 6 images"):
        adopted(library, path, outputs="logits")


def test_percentages_are_neither_logits_nor_probabilities(library: Library, tmp_path: Path) -> None:
    weights = {"w": np.eye(3, 4), "hundred": np.array(100.0)}
    nodes = [
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Softmax", ["m"], ["p"], axis=1),
        helper.make_node("Mul", ["p", "hundred"], ["scores"]),
    ]
    path = pooled_then(tmp_path / "a.onnx", *nodes, classes=4, **weights)
    for outputs in (None, "probabilities"):
        with pytest.raises(ModelError, match=r"sum to 100 to 100 .*, where probabilities sum to 1"):
            adopted(library, path, outputs=outputs)
    assert adopted(library, path, outputs="logits").max_delta <= 1e-5


def test_classes_that_do_not_exclude_each_other_are_refused(
    library: Library, tmp_path: Path
) -> None:
    path = write_classifier(tmp_path / "other.onnx")
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Sigmoid", ["logits"], ["scores"]))
    model.graph.output[0].name = "scores"
    onnx.save(model, path)
    with pytest.raises(ModelError, match="ends in a sigmoid"):
        adopted(library, path)
    assert adopted(library, path, outputs="logits").max_delta <= 1e-5


@pytest.mark.parametrize("last", ["sigmoid", "logit", "probability"])
def test_one_number_is_that_of_the_second_of_two_classes(
    last: str, library: Library, tmp_path: Path
) -> None:
    weights = {"w": np.array([[1.5], [-2], [1]]), "low": np.array(0.05), "high": np.array(0.95)}
    nodes = [helper.make_node("MatMul", ["f", "w"], ["scores" if last == "logit" else "m"])]
    if last == "sigmoid":
        nodes.append(helper.make_node("Sigmoid", ["m"], ["scores"]))
    if last == "probability":
        nodes.append(helper.make_node("Clip", ["m", "low", "high"], ["scores"]))
    path = pooled_then(tmp_path / "a.onnx", *nodes, classes=1, **weights)
    if last != "sigmoid":
        with pytest.raises(ModelError, match="one number per image"):
            adopted(library, path)
    given: Any = {"logit": "logits", "probability": "probabilities"}.get(last)
    conversion = adopted(library, path, outputs=given)
    assert bool(conversion.notes) is (last == "sigmoid")
    engine = Engine(read_model(conversion.path))
    crops = [engine.pixels(photo) for photo in sample_photos()]
    session, named = onnxruntime.InferenceSession(path), TORCHVISION
    images = [((crop - np.array(named.mean)) / named.scale).transpose(2, 0, 1) for crop in crops]
    feeds = [{"image": image[None].astype(np.float32)} for image in images]
    raw = np.array([session.run(None, feed)[0].item() for feed in feeds])
    second = 1 / (1 + np.exp(-raw)) if last == "logit" else raw
    np.testing.assert_allclose(engine.infer(crops), np.stack([1 - second, second], 1), atol=1e-6)
    if last != "probability":  # what speaks for one class speaks against the other
        head = read_head(read_graph(conversion.path), source="a")
        assert np.array_equal(head.weights, weights["w"].T * [[-0.5], [0.5]])


def test_probabilities_of_no_softmax_are_compared_as_they_are(
    library: Library, tmp_path: Path
) -> None:
    """The logarithms of the smallest are all rounding, which differs between engines."""
    nodes = [
        helper.make_node("MatMul", ["f", "w"], ["m"]),
        helper.make_node("Softplus", ["m"], ["positive"]),
        helper.make_node("ReduceSum", ["positive", "axis"], ["sum_"]),
        helper.make_node("Div", ["positive", "sum_"], ["scores"]),
    ]
    weights = {"w": 12.0 * np.eye(3, 4) - 6, "axis": np.array([1], np.int64)}
    path = pooled_then(tmp_path / "a.onnx", *nodes, classes=4, **weights)
    assert adopted(library, path).max_delta <= 1e-5


def test_a_network_in_training_mode_is_refused(library: Library, tmp_path: Path) -> None:
    norm = helper.make_node("BatchNormalization", ["pooled", *"abcd"], ["n"], training_mode=1)
    flat = helper.make_node("Flatten", ["n"], ["scores"])
    weights = dict.fromkeys("abcd", np.ones(3))
    mean = helper.make_node("GlobalAveragePool", ["image"], ["c"])  # no stored one
    own = pooled_then(tmp_path / "b.onnx", mean, norm, flat, **{k: weights[k] for k in "abd"})
    assert read_foreign(own).inputs
    with pytest.raises(ModelError, match="is in training mode; call eval"):
        adopted(library, pooled_then(tmp_path / "a.onnx", norm, flat, **weights))


def test_external_weights_in_the_folder_are_read(library: Library, tmp_path: Path) -> None:
    whole = write_classifier(tmp_path / "whole" / "other.onnx")
    path = tmp_path / "apart" / "other.onnx"
    path.parent.mkdir()
    onnx.save_model(
        onnx.load(whole), path, save_as_external_data=True, location="w", size_threshold=0
    )
    first, second = (metadata_of(adopted(library, p)) for p in (whole, path))
    assert first.weights_sha384 != second.weights_sha384  # of both files
    (path.parent / "w").unlink()
    (path.parent / "w").symlink_to(tmp_path / "whole" / "other.onnx")
    with pytest.raises(ModelError, match="outside its folder"):
        adopted(library, path)


@pytest.mark.parametrize("place", ["/etc/passwd", "sub/../../w", "w\0", "w" * 5000, "loop", ""])
def test_external_weights_from_elsewhere_are_refused(
    place: str, library: Library, tmp_path: Path
) -> None:
    path = write_classifier(tmp_path / "other.onnx")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    model = onnx.load(path)
    head = model.graph.initializer[5]
    head.ClearField("raw_data")
    head.data_location = TensorProto.EXTERNAL
    head.external_data.add(key="location", value=place)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"outside its folder|are missing"):
        adopted(library, path)


def test_a_graph_larger_than_memory_is_a_sentence(library: Library, tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "other.onnx")
    model = onnx.load(path)
    size = helper.make_tensor("size", TensorProto.INT64, [1], [10**14])
    model.graph.initializer.append(size)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["size"], ["huge"]))
    model.graph.node.insert(1, helper.make_node("ReduceMean", ["huge"], ["zero_"], keepdims=0))
    model.graph.node.append(helper.make_node("Add", ["logits", "zero_"], ["sum"]))
    model.graph.output[0].name = "sum"
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"needs 372,529.0 GiB for a value \(huge\)"):
        adopted(library, path)


FAULTS = {
    "channels": lambda p: p.in_order("BGR"),
    "mean": lambda p: replace(p, mean=(p.mean[0], p.mean[1], p.mean[2] + 1)),
    "scale": lambda p: replace(p, scale=(p.scale[0] * 1.01, *p.scale[1:])),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_graph_that_differs_from_the_original_is_not_written(
    fault: str, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_classifier(tmp_path / "other.onnx")
    right = adopt.adopt_graph

    def wrong(graph: Any, face: Any, preprocess: Preprocess, outputs: Any, path: Path) -> Any:
        return right(graph, face, FAULTS[fault](preprocess), outputs, path)

    monkeypatch.setattr(adopt, "adopt_graph", wrong)
    with pytest.raises(ConversionError, match=r"disagrees with other\.onnx in ONNX Runtime"):
        adopted(library, path)
    assert not list((tmp_path / "cache").rglob("*.xml"))


def test_a_float16_input_is_fed(library: Library, tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "other.onnx")
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    model.graph.node[0].input[0] = "single"
    cast = helper.make_node("Cast", ["image"], ["single"], to=TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    onnx.save(model, path)
    assert adopted(library, path).max_delta <= 1e-3  # pixels are rounded to 11 bits


@pytest.mark.parametrize("stored", [TensorProto.FLOAT16, TensorProto.FLOAT])
def test_a_graph_that_computes_in_float16_is_adopted(
    stored: int, library: Library, tmp_path: Path
) -> None:
    """All in float16, or with an input and an output of float32, as converters write it."""
    path = write_classifier(tmp_path / "other.onnx", classes=1000)
    model, half = onnx.load(path), TensorProto.FLOAT16
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for port in (model.graph.input[0], model.graph.output[0]):
        port.type.tensor_type.elem_type = stored
    if stored != half:
        model.graph.node[0].input[0], model.graph.node[-1].output[0] = "half", "last"
        model.graph.node.insert(0, helper.make_node("Cast", ["image"], ["half"], to=half))
        model.graph.node.append(helper.make_node("Cast", ["last"], ["logits"], to=stored))
    onnx.save(model, path)
    conversion = adopted(library, path)
    assert metadata_of(conversion).precision == "fp16"
    exported = write_copy(conversion.path, tmp_path / "onnx", Form(format="onnx"))
    assert exported.max_delta <= 1e-5  # the first weights, which took in the scale, stay FP32


def test_a_network_of_uint8_is_exported(library: Library, tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "other.onnx", element=TensorProto.UINT8)
    exported = write_copy(adopted(library, path).path, tmp_path / "onnx", Form(format="onnx"))
    assert exported.max_delta <= 1e-5


def test_hints_name_the_original_where_it_is_known(library: Library, tmp_path: Path) -> None:
    path = adopted(library, write_classifier(tmp_path / "other.onnx")).path
    options = "--labels FILE --protocol NAME"
    done = run_main("compare", path, path, sample_photos()[0])
    assert f"regnet convert other.onnx {options}" in done.stderr.decode()
    done = run_main("convert", path, "--precision", "fp16", "-o", tmp_path / "copy")
    assert f"regnet convert MODEL {options}" in done.stderr.decode()


def test_integers_are_no_outputs(library: Library, tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "other.onnx")
    model = onnx.load(path)
    model.graph.initializer.append(helper.make_tensor("three", TensorProto.INT64, [1], [3]))
    model.graph.node.append(helper.make_node("TopK", ["logits", "three"], ["best", "places"]))
    model.graph.output[0].name = "places"
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"gives places \[\?,3\] of i64; a classifier gives"):
        adopted(library, path)


def test_ultralytics_metadata_is_read(library: Library, tmp_path: Path) -> None:
    names = {0: "ant", 1: "bee", 2: "cat", 3: "dog"}
    properties = {"names": str(names), "imgsz": f"[{SIZE}, {SIZE}]", "license": "AGPL-3.0"}
    path = tmp_path / "yolo.onnx"
    write_classifier(path, batch=1, softmax=True, properties=properties | {"task": "classify"})
    found = metadata_of(adopted(library, path))
    assert (found.assumed, found.labels, found.licence) == ((), LABELS, "AGPL-3.0")
    assert found.preprocess.scale == (255.0,) * 3
    for wrong in ({"names": "{[]: 1}"}, {"names": "["}, {"imgsz": "[]"}, {"imgsz": "9" * 5000}):
        changed = properties | {"task": "classify"} | wrong
        write_classifier(path, batch=1, properties=changed)
        with pytest.raises(ModelError, match=f"cannot be used: {next(iter(wrong))} is '"):
            adopted(library, path)
    write_classifier(path, batch=1, properties=properties | {"task": "detect"})
    with pytest.raises(ModelError, match="its task is 'detect': no classifier"):
        adopted(library, path)


def test_settings_of_model_api_are_read(library: Library, tmp_path: Path) -> None:
    model = core.read_model(write_classifier(tmp_path / "source.onnx"))
    info = {
        "model_type": "Classification",
        "labels": "ant bee black_cat dog",
        "mean_values": "120 110 100",
        "scale_values": "60",
        "reverse_input_channels": "True",
        "resize_type": "standard",
    }
    model.set_rt_info(info, ["model_info"])
    path = tmp_path / "ir" / "model.xml"
    ov.save_model(model, path)
    conversion = adopted(library, path)
    assert conversion.original == "model.xml in OpenVINO"
    assert conversion.path.name == "ir.xml"
    found = metadata_of(conversion)
    assert found.labels[2].name == "black cat"
    assert found.preprocess == Preprocess(
        name="model-api",
        resize=SIZE,
        crop=SIZE,
        interpolation="opencv-linear",
        channels="RGB",
        mean=MEAN,
        scale=(60.0, 60.0, 60.0),
        fit="stretch",
    )
    model.set_rt_info("crop", ["model_info", "resize_type"])
    ov.save_model(model, path)
    assert metadata_of(adopted(library, path)).preprocess.fit == "square"
    model.set_rt_info("Detection", ["model_info", "model_type"])
    ov.save_model(model, path)
    with pytest.raises(ModelError, match="model_type 'Detection': no classifier"):
        adopted(library, path)


def test_a_folder_of_hugging_face_is_read(library: Library, tmp_path: Path) -> None:
    folder = tmp_path / "my-vit"
    write_classifier(folder / "model.onnx")
    labels = {str(n): label.name for n, label in enumerate(LABELS)}
    config = {"model_type": "vit", "id2label": labels}
    (folder / "config.json").write_text(json.dumps(config))
    processor = {"size": {"height": SIZE, "width": SIZE}, "image_mean": [0.5, 0.4, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    assert b"MParams" in run_main("info", folder).stdout
    conversion = library.convert(library.request(folder))
    assert (conversion.path.name, conversion.assumed) == ("my-vit.xml", ())
    found = metadata_of(conversion)
    assert (found.labels, found.preprocess.fit) == (LABELS, "stretch")
    assert found.preprocess.mean == pytest.approx((127.5, 102.0, 76.5))
    write_classifier(folder / "other.onnx")
    with pytest.raises(RegNetError, match=r"holds 2 models \(model.onnx, other.onnx\)"):
        library.request(folder)


def chosen(size: int | None = 224, **given: Any) -> Preprocess:
    if isinstance(name := given.pop("name", None), str):
        given["named"] = protocol_of_maker(name).to_dict()
    options = {"channels": given.pop("channels", None), "known": None, "nhwc": False}
    has_bytes = given.pop("has_bytes", False)
    return choose_protocol(given, size=size, has_bytes=has_bytes, **options)[0]


def test_protocols_of_makers(tmp_path: Path) -> None:
    assert chosen() == chosen(name="torchvision") == TORCHVISION
    assert chosen(name="omz") == OMZ
    assert chosen(name="omz", channels="RGB") == OMZ.in_order("RGB")
    assert (chosen(299, name="torchvision").resize, chosen(299, name="keras").resize) == (342, 299)
    assert chosen(name="tensorflow", crop=224) == TENSORFLOW
    assert chosen(name="keras", fit="crop", resize=256).fit == "crop"
    assert chosen(fit="stretch").resize == 224
    assert chosen(name="keras", has_bytes=True).scale == (1.0, 1.0, 1.0)
    assert chosen(None, name="keras", crop=96).crop == 96
    config = {"input_size": [3, 288, 288], "crop_pct": 0.95, "interpolation": "bilinear"}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": config}))
    timm = chosen(288, name=f"timm:{tmp_path}")
    assert (timm.resize, timm.interpolation, timm.channels) == (303, "bilinear", "RGB")
    assert chosen(None, name=f"timm:{tmp_path / 'config.json'}") == timm
    assert chosen(name="timm:regnety_032.ra_in1k").channels == "RGB"
    assert KERAS.interpolation == "nearest"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "tourch"}, "known are omz, pycls, torchvision, keras, tensorflow, timm:CONFIG"),
        ({"crop": 192}, "--crop 192 contradicts the network, which takes 224 x 224"),
        ({"has_bytes": True, "mean": MEAN}, "--mean and --scale are for networks of floats"),
        ({"name": "timm:nothing_of_that_name"}, "no card of regnet's"),
        ({"resize": 100}, "crop must be a whole number from 1 to 100"),
    ],
)
def test_protocols_that_contradict_themselves(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        chosen(**given)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGNET_CACHE", str(tmp_path / "cache"))
    path = write_classifier(tmp_path / "other.onnx")
    labels = tmp_path / "labels.txt"
    labels.write_text("ant\nbee\ncat\ndog\n")
    photo = sample_photos()[0]
    refusal = run_main("classify", "-m", path, photo)
    assert refusal.returncode == 2
    assert f"regnet convert {path} --labels FILE --protocol NAME" in refusal.stderr.decode()
    options = ("--labels", labels, "--protocol", "keras", "--mean", "120,110,100", "--scale", 60)
    for more in (["--card", "bundled"], ["--spec", "regnetx-200mf"]):
        assert run_main("convert", path, *options, *more).returncode == 2
    assert run_main("convert", path, "--mean", "1,2").returncode == 2
    done = run_main("convert", path, *options, "-o", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stdout
    values = json.loads(done.stdout)
    assert values["original"] == "other.onnx in ONNX Runtime"
    assert (values["assumed"], values["max_delta"] <= 1e-5) == ([], True)
    found = read_model(Path(values["path"])).metadata.preprocess
    assert (found.mean, found.scale, found.fit) == (MEAN, (60.0,) * 3, "stretch")
    assert run_main("classify", "-m", values["path"], photo).returncode == 0
    assert b"other.onnx (an unknown program" in run_main("info", values["path"]).stdout
    as_onnx = ("--format", "onnx", "-o", tmp_path / "onnx")
    assert run_main("convert", path, *options, *as_onnx).returncode == 0
    assert run_main("classify", "-m", tmp_path / "onnx" / "other.onnx", photo).returncode == 0
    whole = ("--interpolation", "bilinear", "--preprocessing", "graph", "-o", tmp_path / "out")
    assert b"resizes and crops by itself" in run_main("convert", path, *options, *whole).stdout


def test_weights_in_fp16_stay_so(library: Library, tmp_path: Path) -> None:
    model = core.read_model(write_classifier(tmp_path / "source.onnx", classes=1000))
    sizes = {}
    for half in (False, True):
        path = tmp_path / f"{half}.xml"
        ov.save_model(model, path, compress_to_fp16=half)
        conversion = adopted(library, path)
        sizes[metadata_of(conversion).precision] = (
            conversion.path.with_suffix(".bin").stat().st_size
        )
    assert sizes["fp16"] < 0.6 * sizes["fp32"]


def test_the_original_is_not_overwritten(tmp_path: Path) -> None:
    source = write_classifier(tmp_path / "source.onnx")
    path = tmp_path / "other.xml"
    ov.save_model(core.read_model(source), path)
    before = path.read_bytes()
    done = run_main("convert", path, "-o", tmp_path, "--cache-dir", tmp_path / "cache")
    assert (done.returncode, path.read_bytes()) == (2, before)
    assert b"is the original: choose another folder" in done.stderr


def test_a_quantized_model_is_refused(library: Library, tmp_path: Path) -> None:
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "step", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    weights = {"step": np.array(0.1), "zero": np.array(0, np.int8)}
    path = write_onnx(tmp_path / "int8.onnx", nodes, [image], [scores], weights)
    with pytest.raises(ModelError, match="is quantized; adopt the model that it was made from"):
        adopted(library, path)


def test_the_ir_of_another_version_is_found_by_its_metadata(
    library: Library, tmp_path: Path
) -> None:
    conversion = adopted(library, write_classifier(tmp_path / "other.onnx"))
    model = core.read_model(conversion.path)
    path = tmp_path / "again.xml"
    write_ir(model, metadata_of(conversion), path)
    assert library.ir(path) == path
    assert read_model(path).metadata == metadata_of(conversion)
