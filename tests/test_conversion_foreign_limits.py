"""Foreign models that ask too much of the machine: each is refused in a sentence, at once."""

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from foreign_models import SIZE, pooled_then, write_classifier
from onnx import TensorProto, helper

from regnet.conversion.foreign_files import foreign_files, foreign_model
from regnet.conversion.foreign_graph import read_face, read_foreign, resized
from regnet.system.errors import ModelError

node = helper.make_node
Value = helper.make_tensor_value_info


def integers(*values: int) -> Any:
    return np.array(values, np.int64)


def in_a_row(kind: str, count: int, weights: int = 2) -> list[Any]:
    names = ["f", *(f"x{i}" for i in range(count - 1)), "scores"]
    pairs = enumerate(itertools.pairwise(names))
    return [
        node(kind, [x, f"w{i % weights}"][: 1 + (kind == "MatMul")], [y]) for i, (x, y) in pairs
    ]


def mean_added(x: str) -> list[Any]:
    return [node("ReduceMean", [x], ["m"], keepdims=0), node("Add", ["f", "m"], ["scores"])]


def loop() -> list[Any]:
    """Doubles the features as often as `times` says."""
    body = helper.make_graph(
        [node("Identity", ["go"], ["goes"]), node("Add", ["x", "x"], ["y"])],
        "body",
        [Value("i", TensorProto.INT64, []), Value("go", TensorProto.BOOL, []), Value("x", 1, None)],
        [Value("goes", TensorProto.BOOL, []), Value("y", 1, None)],
    )
    return [node("Loop", ["times", "", "f"], ["scores"], body=body)]


def branches() -> list[Any]:
    """Takes the features, or 37 GiB of zeros."""
    size = helper.make_tensor("size", TensorProto.INT64, [1], [10**10])
    huge = [
        node("ConstantOfShape", ["size"], ["zeros"]),
        node("ReduceMean", ["zeros"], ["zero"], keepdims=0),
        node("Add", ["f", "zero"], ["added"]),
    ]
    then = helper.make_graph(huge, "then", [], [Value("added", 1, None)], [size])
    same = helper.make_graph(
        [node("Identity", ["f"], ["same"])], "else", [], [Value("same", 1, None)]
    )
    return [
        node("ReduceMax", ["image"], ["most"], keepdims=0),
        node("Greater", ["most", "one"], ["is_bright"]),
        node("If", ["is_bright"], ["scores"], then_branch=then, else_branch=same),
    ]


def many_zeros() -> list[Any]:
    zeros = [node("ConstantOfShape", ["size"], [f"z{i}"]) for i in range(17)]
    return [*zeros, node("Max", [f"z{i}" for i in range(17)], ["z"]), *mean_added("z")]


def range_of_pixels() -> list[Any]:
    """Counts to the brightest pixel times 10 billion."""
    brightest = node("ReduceMax", ["image"], ["most"], keepdims=0)
    end = node("Mul", ["most", "times"], ["end"])
    return [brightest, end, node("Range", ["zero", "end", "one"], ["r"]), *mean_added("r")]


def expanded() -> list[Any]:
    wide = [
        node("Unsqueeze", ["f", "axis"], ["column"]),
        node("Expand", ["column", "to"], ["wide"]),
    ]
    return [*wide, node("ReduceMean", ["wide"], ["scores"], axes=[2], keepdims=0)]


HUGE: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "products": (
        in_a_row("MatMul", 1501),
        {"w0": np.eye(3), "w1": np.eye(3)},
        "1,501 convolutions and products; at most 1,500",
    ),
    "chain": (
        in_a_row("Relu", 2000),
        {},
        r"2,00. operations in a row without a product; at most 2,000",
    ),
    "users": (
        in_a_row("MatMul", 1001, weights=1),
        {"w0": np.eye(3)},
        r"1,001 operations that take a value; at most 1,000",
    ),
    "nodes": (in_a_row("Relu", 20_000), {}, "20,002 operations; at most 20,000"),
    "loop": (
        loop(),
        {"times": np.array(10**12, np.int64)},
        r"repeats a part of its graph \(Loop\)",
    ),
    "branch": (branches(), {"one": np.array(1.0)}, r"needs 37.3 GiB for a value \(.*zeros.*\)"),
    "many": (
        many_zeros(),
        {"size": integers(2**27)},
        "needs 8.5 GiB for values that it computes of constants; at most 8",
    ),
    "range": (
        range_of_pixels(),
        {"times": np.array(1e10), "zero": np.array(0.0), "one": np.array(1.0)},
        r"the size of a value \(r\) depends on the photo",
    ),
    "expand": (
        expanded(),
        {"axis": integers(2), "to": integers(1, 1, 10**10)},
        r"needs 111.8 GiB for a value \(wide\)",
    ),
}


@pytest.mark.parametrize("name", HUGE)
def test_what_asks_too_much_is_refused(name: str, tmp_path: Path) -> None:
    nodes, weights, words = HUGE[name]
    path = pooled_then(tmp_path / "huge.onnx", *nodes, **weights)
    with pytest.raises(ModelError, match=words) as caught:
        graph = read_foreign(path)
        resized(graph, read_face(graph, path), SIZE, path)
    assert "\n" not in str(caught.value)


def test_an_ir_of_too_many_layers_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.xml"
    path.write_bytes(b'<net version="11">' + b"<layer />" * 20_001)
    with pytest.raises(ModelError, match="has 20,001 operations; at most 20,000 are allowed"):
        read_foreign(path)


def test_sparse_files_of_any_size_are_not_read(tmp_path: Path) -> None:
    whole = onnx.load(write_classifier(tmp_path / "whole.onnx"))
    path = tmp_path / "apart" / "other.onnx"
    path.parent.mkdir()
    onnx.save_model(whole, path, save_as_external_data=True, location="w", size_threshold=0)
    os.truncate(path.parent / "w", 9 << 30)
    with pytest.raises(ModelError, match=r"has 9\.0 GiB with its weights; at most 8 are read"):
        foreign_files(path)
    for name, start in {"a.onnx": b"", "a.xml": b"<net>"}.items():
        path = tmp_path / name
        path.write_bytes(start)
        os.truncate(path, 3 << 30)
        assert foreign_model(path) == path
        with pytest.raises(ModelError, match=r"has 3\.0 GiB; at most 2 are read"):
            foreign_files(path)
