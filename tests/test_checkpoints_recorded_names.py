from typing import Any

import pytest

from regnet.checkpoints.plain_types import Record
from regnet.checkpoints.recorded_names import recorded_names
from regnet.network.labels import Label, imagenet_labels


def record(**state: Any) -> Record:
    made = Record("argparse.Namespace")
    made.state = state
    return made


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
