from typing import Any

import pytest

from regnet.checkpoints.plain_types import Record
from regnet.checkpoints.recorded_protocol import recorded_protocol
from regnet.protocol import OMZ

ARGS = {"val_resize_size": 232, "val_crop_size": 224, "interpolation": "bilinear", "lr": 0.5}


def record(**state: Any) -> Record:
    made = Record("argparse.Namespace")
    made.state = state
    return made


@pytest.mark.parametrize("args", [ARGS, record(**ARGS)])
def test_torchvision_s_script_says_how_it_validated(args: Any) -> None:
    found = recorded_protocol({"model": {}, "epoch": 3, "args": args})
    assert found is not None
    assert (found.resize, found.crop, found.interpolation) == (232, 224, "bilinear")
    assert (found.mean, found.scale, found.offset) == (OMZ.mean, OMZ.scale, "round")


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
        {"args": {"interpolation": "bicubic", "crop_pct": 0.9, "img_size": None}},  # timm's
    ],
)
def test_what_is_no_protocol_of_ours_is_left(content: Any) -> None:
    assert recorded_protocol(content) is None
