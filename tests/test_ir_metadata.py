"""Metadata of converted models: read back whole, or refused with the file's name."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regnet.checkpoints import fields
from regnet.ir.assumptions import AssumptionWarning
from regnet.ir.metadata import ModelMetadata, metadata_from_strings
from regnet.ir.records import Calibration, Certificate, PixelBound
from regnet.network.labels import Label
from regnet.network.spec import RegNetSpec
from regnet.pixels.protocol import OMZ
from regnet.system.errors import ModelError, RegNetError

SPEC = RegNetSpec(d=5, w0=16, wa=16.0, wm=2.0, g=8, classes=2)


BOUND = {"identical": 0.99997, "levels": 1, "photos": 200}
CERTIFICATE = {
    "agreement": 0.995,
    "low": 0.98,
    "photos": 200,
    "kl": 0.001,
    "min_agreement": 0.99,
    "calibration_photos": 300,
    "restored": ["stem", "head"],
}
CALIBRATION = {
    "temperature": 1.25,
    "coverage": 0.9,
    "method": "aps",
    "threshold": 0.97,
    "photos": 500,
    "held_out": 500,
    "measured_coverage": 0.91,
    "mean_size": 3.5,
}


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


def test_what_was_measured_survives() -> None:
    measured = replace(
        described(),
        precision="int8",
        preprocessing="graph",
        pixel_bound=PixelBound.from_dict(BOUND),
        certificate=Certificate.from_dict(CERTIFICATE),
        calibration=Calibration.from_dict(CALIBRATION),
    )
    strings = measured.to_strings()
    assert json.loads(strings["certificate"]) == CERTIFICATE
    assert metadata_from_strings(strings, source="m.xml") == measured


def test_what_older_versions_assumed_is_unknown_but_of_published_weights() -> None:
    strings = replace(described(), card="", version="0.4.0").to_strings()
    assert metadata_from_strings(strings, source="m.xml").assumed == ()
    del strings["assumed"]
    (sentence,) = metadata_from_strings(strings, source="m.xml").assumed
    assert sentence.startswith("names, protocol: unknown, for regnet 0.4.0 did not")
    assert str(AssumptionWarning("m.xml", [sentence])).endswith("regnet convert MODEL")
    strings["card"] = "regnetx-3.2gf"
    assert metadata_from_strings(strings, source="m.xml").assumed == ()


def test_metadata_of_before_these_fields_is_read() -> None:
    strings = described().to_strings()
    del strings["preprocessing"]
    assert metadata_from_strings(strings, source="m.xml") == described()


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
        ("spec", "[]", "spec: expected a table of"),
        ("spec", json.dumps({"d": 5}), "spec: the field 'w0' is missing"),
        (
            "spec",
            json.dumps({"d": 5, "w0": 16, "wa": 10**400, "wm": 2, "g": 8}),
            "spec: wa must be",
        ),
        (
            "preprocess",
            json.dumps(OMZ.to_dict() | {"mean": [10**400, 1, 1]}),
            "preprocess: mean must",
        ),
        ("preprocess", json.dumps(OMZ.to_dict() | {"mean": 3}), "preprocess: mean must"),
        ("preprocess", "3", "preprocess must be a table of name"),
        ("name", "", "name must be"),
        ("name", "\x1b[31m", "name must be"),
        ("name", "x" * 256, "name must be"),
        ("precision", "int4", "precision must be"),
        ("preprocessing", "server", "preprocessing must be 'caller' or 'graph'"),
        ("pixel_bound", "{}", "pixel_bound: the field 'identical' is missing"),
        (
            "pixel_bound",
            json.dumps(BOUND | {"identical": 1.5}),
            "identical must be a finite number from 0 to 1",
        ),
        (
            "pixel_bound",
            json.dumps(BOUND | {"identical": math.nan}),
            "identical must be a finite number from 0 to 1",
        ),
        ("certificate", json.dumps(CERTIFICATE | {"photos": -1}), "photos must be a whole"),
        ("certificate", json.dumps(CERTIFICATE | {"restored": [1]}), "restored must be a list"),
        ("certificate", json.dumps(CERTIFICATE | {"more": 1}), "certificate: unknown field 'more'"),
        ("calibration", json.dumps(CALIBRATION | {"temperature": 0}), "temperature must be"),
        ("calibration", json.dumps(CALIBRATION | {"method": "x"}), "method must be 'aps' or 'lac'"),
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
    for licence in ("A\0B", "A\nB", "x" * 1001):
        with pytest.raises(ModelError, match="licence must be a text of at most 1000 printable"):
            replace(described(), licence=licence)
    with pytest.raises(ModelError, match=r"class 1 has 1,001 characters, 'yyyy.* at most 1,000"):
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
