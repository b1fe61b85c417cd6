"""Metadata of converted models: read back whole, or refused with the file's name."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regnet import fields
from regnet.errors import ModelError, RegNetError
from regnet.labels import Label
from regnet.metadata import ModelMetadata, metadata_from_strings
from regnet.protocol import OMZ
from regnet.spec import RegNetSpec

SPEC = RegNetSpec(d=5, w0=16, wa=16.0, wm=2.0, g=8, classes=2)


def described(name: str = "small", second: str = "dog") -> ModelMetadata:
    return ModelMetadata(
        card="",
        name=name,
        spec=SPEC,
        preprocess=OMZ,
        labels=(Label("n1", "cat, \u985e"), Label("", second)),
        weights_sha384="0" * 96,
        precision="fp32",
        licence="MIT",
        version="1",
    )


def test_metadata_survives() -> None:
    assert metadata_from_strings(described().to_strings(), source="m.xml") == described()


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        ("labels", json.dumps(["ab", "cd"]), "labels must be rows"),
        ("labels", json.dumps([[1, None], ["a", "b"]]), "labels must be rows"),
        ("labels", json.dumps([["a", "b", "c"]] * 2), "labels must be rows"),
        ("labels", json.dumps([["a", "b" * 1001]] * 2), "labels must be rows"),
        ("labels", json.dumps({"a": "b", "c": "d"}), "labels must be a list"),
        ("labels", json.dumps([["a", "b"]]), "1 labels for 2 classes"),
        ("labels", "[" * 200_000, "labels is not JSON"),
        ("spec", "[" * 200_000, "spec is not JSON"),
        ("spec", "[]", "spec must be an object"),
        ("spec", json.dumps({"d": 5}), "spec is impossible"),
        ("spec", json.dumps({"d": 5, "w0": 16, "wa": 10**400, "wm": 2, "g": 8}), "impossible"),
        ("preprocess", json.dumps(OMZ.to_dict() | {"mean": [10**400, 1, 1]}), "impossible"),
        ("preprocess", json.dumps(OMZ.to_dict() | {"mean": 3}), "preprocess is impossible"),
        ("preprocess", "3", "preprocess must be an object"),
        ("name", "", "name must be"),
        ("name", "\x1b[31m", "name must be"),
        ("name", "x" * 256, "name must be"),
        ("precision", "int8", "precision must be"),
    ],
)
def test_bad_fields_are_named(field: str, text: str, reason: str) -> None:
    values = described().to_strings() | {field: text}
    with pytest.raises(ModelError, match=rf"^m\.xml: its regnet metadata .*{reason}"):
        metadata_from_strings(values, source="m.xml")


def test_fields_that_are_too_long_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    values = described().to_strings()
    longest = max(len(values[name]) for name in ("spec", "preprocess", "labels"))
    monkeypatch.setattr(fields, "MAX_TEXT", longest)
    metadata_from_strings(values, source="m.xml")
    long = values | {"labels": values["labels"] + " " * longest}
    expected = rf"labels has {len(long['labels']):,} characters, over the limit of {longest:,}"
    with pytest.raises(ModelError, match=rf"m\.xml.*{expected}"):
        metadata_from_strings(long, source="m.xml")


def test_what_could_not_be_read_back_is_not_written() -> None:
    described(name="x" * 255, second="y" * 1000).to_strings()
    with pytest.raises(ModelError, match="name must be"):
        described(name="x" * 256).to_strings()
    with pytest.raises(ModelError, match="each at most 1000 characters"):
        described(second="y" * 1001).to_strings()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.sampled_from(["spec", "preprocess", "labels"]), json_values, st.text(max_size=5))
def test_any_value_is_a_model_error(field: str, value: object, text: str) -> None:
    for bad in (json.dumps(value), text):
        try:
            metadata_from_strings(described().to_strings() | {field: bad}, source="m.xml")
        except RegNetError as exc:
            assert type(exc) is ModelError  # noqa: PT017
            assert str(exc).startswith("m.xml: ")  # noqa: PT017
