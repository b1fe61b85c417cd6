from typing import Any

import pytest

from regnet.checkpoints.hub_settings import recorded_names, recorded_protocol
from regnet.checkpoints.plain_types import Record
from regnet.network.labels import Label, imagenet_labels
from regnet.pixels.protocol import OMZ

TIMM: dict[str, Any] = {
    **dict.fromkeys(("img_size", "input_size", "crop_pct", "mean", "std")),
    "interpolation": "",
}
ARGS = {"val_resize_size": 232, "val_crop_size": 224, "interpolation": "bilinear", "lr": 0.5}


def record(**state: Any) -> Record:
    made = Record("argparse.Namespace")
    made.state = state
    return made


@pytest.mark.parametrize("args", [ARGS, record(**ARGS)])
def test_torchvision_s_script_says_how_it_validated(args: Any) -> None:
    found = recorded_protocol({"model": {}, "epoch": 3, "args": args})
    assert found is not None
    preprocess, assumed = found
    assert (preprocess.resize, preprocess.crop) == (232, 224)
    assert preprocess.interpolation == "bilinear"
    assert (preprocess.mean, preprocess.scale) == (OMZ.mean, OMZ.scale)
    assert (preprocess.offset, assumed) == ("round", ())


def test_timm_s_script_says_a_part() -> None:
    found = recorded_protocol({"args": {**TIMM, "img_size": 128, "crop_pct": 0.95}})
    assert found is not None
    preprocess, assumed = found
    assert (preprocess.resize, preprocess.crop) == (134, 128)
    assert (preprocess.interpolation, preprocess.mean) == ("bicubic", OMZ.mean)
    assert assumed == (
        "protocol: timm's usual interpolation, mean, std beside the input_size, crop_pct in args",
    )


def test_timm_s_script_says_all() -> None:
    half = [0.5, 0.5, 0.5]
    args = {"input_size": [3, 64, 64], "crop_pct": 1.0, "interpolation": "bilinear"}
    found = recorded_protocol({"args": {**TIMM, **args, "mean": half, "std": half}})
    assert found is not None
    preprocess, assumed = found
    assert (preprocess.resize, preprocess.crop) == (64, 64)
    assert (preprocess.interpolation, preprocess.mean) == ("bilinear", (127.5, 127.5, 127.5))
    assert assumed == ()


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        {"args": None},
        {"args": {**ARGS, "val_crop_size": None}},
        {"args": {**ARGS, "val_resize_size": "232"}},
        {"args": {**ARGS, "val_crop_size": 0}},
        {"args": {**ARGS, "val_crop_size": 256}},  # torchvision pads with black
        {"args": {**ARGS, "interpolation": "nearest"}},
        {"args": {**ARGS, "interpolation": ["bilinear"]}},
        {"args": {"interpolation": "bicubic", "crop_pct": 0.9, "img_size": 224}},  # of neither
        {"args": TIMM},
        {"args": {**TIMM, "img_size": "128"}},
        {"args": {**TIMM, "input_size": 128}},
        {"args": {**TIMM, "mean": ["x"]}},
    ],
)
def test_what_is_no_protocol_of_ours_is_left(content: Any) -> None:
    assert recorded_protocol(content) is None


@pytest.mark.parametrize(
    "content",
    [
        {"class_names": ["ash", "elm"]},
        {"model": {}, "classes": ("ash", "elm")},
        {"meta": {"CLASSES": ["ash", "elm"]}},
        {"hyper_parameters": {"data": {"label_names": ["ash", "elm"]}}},
        {"args": record(class_names=["ash", "elm"])},
        {"names": {0: "ash", 1: "elm"}},
        {"config": {"id2label": {"0": "ash", "1": "elm"}}},
        {"class_to_idx": {"elm": 1, "ash": 0}},
        {"label2id": {"ash": 0, "elm": 1}, "classes": ["ash", "elm"]},
        {"classes": ["ash", "elm"], "superclasses": ["tree", "x"], "names": ["a", "b", "c"]},
    ],
)
def test_names_are_found(content: Any) -> None:
    assert recorded_names(content, 2) == ((Label("", "ash"), Label("", "elm")), ())


@pytest.mark.parametrize(
    "content",
    [
        {},
        [["ash", "elm"]],
        {"classes": 2},
        {"classes": ["ash", "ash"]},
        {"classes": ["ash", " "]},
        {"classes": ["ash", 3]},
        {"classes": ["ash", "elm", "oak"]},
        {"classes": ["ash", "elm"], "class_names": ["elm", "ash"]},
        {"class_to_idx": {"ash": 1, "elm": 2}},
        {"class_to_idx": {"ash": 0, "elm": 0}},
        {"a": {"b": {"c": {"classes": ["ash", "elm"]}}}},
    ],
)
def test_what_is_unclear_is_left(content: Any) -> None:
    assert recorded_names(content, 2)[0] is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"classes": ["ash", "elm", "oak"]}, ("names: the file has 3 for 2 classes",)),
        (
            {"args": {"classes": list("abc"), "names": "a"}},
            ("names: the file has 3 for 2 classes",),
        ),
        ({"names": ["a"], "classes": list("abc")}, ("names: the file has 1, 3 for 2 classes",)),
        (
            {"classes": ["a", "b"], "names": ["b", "a"]},
            ("names: the file has 2 lists of them that differ",),
        ),
        ({"classes": 3}, ()),
    ],
)
def test_lists_that_do_not_fit_are_said(content: Any, said: tuple[str, ...]) -> None:
    assert recorded_names(content, 2) == (None, said)


def test_wnids_have_the_names_of_imagenet() -> None:
    tench, goldfish = imagenet_labels()[:2]
    assert recorded_names({"classes": [tench.wnid, goldfish.wnid]}, 2)[0] == (tench, goldfish)
