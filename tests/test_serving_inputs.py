"""Named tensors to photos and pixels, for models of each kind; and what is answered."""

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from regnet.ir.engine import read_model
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Label
from regnet.pixels.protocol import PYCLS
from regnet.serving.inputs import Tensor, images
from regnet.serving.kserve import description, from_base64, infer_request, named_classes, packed
from regnet.serving.limits import Limits
from regnet.serving.refusals import BadRequest, TooLarge, Unprocessable
from regnet.zoo.catalogue import bundled_path, card_by_name

LIMITS = Limits(pixels=1000, batch=4)
WHOLE: ModelMetadata = read_model(bundled_path(card_by_name("bundled"))).metadata
SIDE = WHOLE.preprocess.crop
FRACTIONS = replace(
    WHOLE, preprocess=replace(WHOLE.preprocess, interpolation=PYCLS.interpolation, offset="ceil")
)
GRAPH = replace(WHOLE, preprocessing="graph")


@pytest.mark.parametrize("size", [0, 1, 1000, (3 << 20) // 4, 2_000_000, 2_000_001])
def test_base64_of_any_length_is_read(size: int) -> None:
    data = np.random.default_rng(0).bytes(size)
    text = base64.b64encode(data).decode()
    assert from_base64(text, "image 0") == data
    for wrong in (text + "A", text[:-1] + "!" if text else "!", f"AA=={text}AAAA"):
        with pytest.raises(BadRequest, match="image 0 is not base64"):
            from_base64(wrong, "image 0")


def given(tensor: Tensor, metadata: ModelMetadata = WHOLE) -> Any:
    return images(tensor, metadata, LIMITS)


def crop(array: Any, datatype: str) -> Tensor:
    return Tensor("data", datatype, array.shape, raw=array.tobytes())


def test_photos_of_bytes_and_of_values() -> None:
    raw = b"\x02\0\0\0ab\0\0\0\0"
    assert given(Tensor("image", "BYTES", (2,), raw=raw)) == [b"ab", b""]
    assert given(Tensor("image", "BYTES", (2, 1), raw=memoryview(raw))) == [b"ab", b""]
    assert given(Tensor("image", "BYTES", (2,), values=[b"ab", b""])) == [b"ab", b""]


@pytest.mark.parametrize("first", [False, True])
def test_crops_of_whole_numbers(first: bool) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, SIDE, SIDE, 3)).astype(np.uint8)
    sent = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if first else pixels
    for array, datatype in ((sent, "UINT8"), (sent.astype("<f4"), "FP32")):
        found = given(crop(array, datatype))
        assert found.dtype == np.uint8
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, pixels)
    found = given(Tensor("data", "UINT8", sent.shape, values=sent.ravel().tolist()))
    np.testing.assert_array_equal(found, pixels)


def test_crops_of_fractions() -> None:
    pixels = np.random.default_rng(1).uniform(0, 255, (1, SIDE, SIDE, 3)).astype("<f4")
    found = given(crop(pixels, "FP32"), FRACTIONS)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, pixels)
    whole = pixels.astype(np.uint8)
    np.testing.assert_array_equal(given(crop(whole, "UINT8"), FRACTIONS), whole)
    with pytest.raises(Unprocessable, match="whole numbers"):
        given(crop(pixels, "FP32"))


@pytest.mark.parametrize("wrong", [-0.1, 255.1, np.nan, np.inf, -np.inf, 1e30])
def test_numbers_that_are_no_pixels(wrong: float) -> None:
    pixels = np.zeros((1, SIDE, SIDE, 3), "<f4")
    pixels[0, 3, 4, 1] = wrong
    for metadata in (WHOLE, FRACTIONS):
        with pytest.raises(Unprocessable, match=r"0\.\.255"):
            given(crop(pixels, "FP32"), metadata)


def test_whole_images_where_the_graph_crops() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 20, 30, 3)).astype(np.uint8)
    found = given(crop(pixels, "UINT8"), GRAPH)
    assert [image.shape for image in found] == [(20, 30, 3)] * 2
    with pytest.raises(Unprocessable, match="limit of 1,000") as error:
        given(crop(np.zeros((1, 40, 30, 3), np.uint8), "UINT8"), GRAPH)
    assert error.value.limit == "pixels"
    for array, datatype in (
        (pixels.astype("<f4"), "FP32"),
        (pixels.transpose(0, 3, 1, 2), "UINT8"),
    ):
        with pytest.raises(BadRequest, match="whole images"):
            given(crop(array, datatype), GRAPH)


def test_too_many_images() -> None:
    with pytest.raises(TooLarge) as error:
        given(Tensor("image", "BYTES", (5,), values=[b""] * 5))
    assert error.value.limit == "batch"


def test_a_shape_is_held_against_what_came_before_anything_is_allocated() -> None:
    huge = (1 << 30, 1 << 30, 1 << 30, 3)
    for metadata in (WHOLE, GRAPH):
        with pytest.raises((BadRequest, TooLarge, Unprocessable)):
            given(Tensor("data", "FP32", huge, raw=b"1234"), metadata)
    with pytest.raises(BadRequest, match="49152 bytes, 4 came"):
        given(Tensor("data", "UINT8", (1, SIDE, SIDE, 3), raw=b"1234"))


@pytest.mark.parametrize(
    "values", [[1.0, "2"], [[1], [1, 2]], [None], ["1"], [True], [{}], [10**400]]
)
def test_values_that_are_no_numbers(values: list[Any]) -> None:
    data = values * (SIDE * SIDE * 3 // len(values))
    with pytest.raises(BadRequest):
        given(Tensor("data", "UINT8", (1, SIDE, SIDE, 3), values=data))


def asked(outputs: list[dict[str, Any]]) -> int:
    """Return how many of the best classes a request asks for by name."""
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["AA=="]}
    body = json.dumps({"inputs": [tensor], "outputs": outputs}).encode()
    return infer_request(body, None, WHOLE, LIMITS).classes


def test_inputs_and_outputs() -> None:
    about = description(WHOLE, model="m", version="1")
    assert about["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert about["outputs"] == [{"name": "prob", "datatype": "FP32", "shape": [-1, 200]}]
    prob = {"name": "prob"}
    assert asked([]) == asked([prob]) == 0
    assert asked([prob | {"parameters": {"classification": 3}}]) == 3
    many = [prob | {"parameters": {"classification": count}} for count in (-1, True, "3", None)]
    for wrong in ([{"name": "logits"}], [prob] * 2, [{}], *([one] for one in many)):
        with pytest.raises(BadRequest):
            asked(wrong)


def test_names_of_classes() -> None:
    labels = (Label("n1", "a:b"), Label("n2", "ä"), Label("", "c"))
    rows = np.array([[0.25, 0.5, 0.25], [1e-9, 0, 1]], np.float32)
    found = named_classes(rows, labels, 2)
    assert found == [["0.5:1:ä", "0.25:0:a:b"], ["1.:2:c", "0.000000001:0:a:b"]]
    assert [float(one.split(":", 2)[0]) for one in found[1]] == pytest.approx([1, 1e-9])
    assert packed([["ab", ""], ["c"]]) == b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c"
