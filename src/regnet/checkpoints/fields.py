"""What describes a network in JSON, read strictly: spec, protocol, labels and name.

Shared by the metadata of weights (`regnet.checkpoints.provenance`) and of converted models
(`regnet.ir.metadata`).
"""

import json
import re
from typing import Any

from regnet.network.labels import Label, Labels
from regnet.network.spec import Spec, spec_from_dict
from regnet.pixels.protocol import Preprocess, preprocess_from_dict
from regnet.system.errors import ProtocolError, RegNetError, SpecError, shown

MAX_TEXT = 64 * 1024 * 1024  # characters

_MAX_LABEL = 1000
_MAX_NAME = 255


class FieldError(RegNetError):
    """A value is not what its field holds; the message goes on from "the metadata's "."""


def bad(field: str, value: object, allowed: str) -> FieldError:
    """Return the error that a field has another value than those allowed."""
    return FieldError(f"{field} must be {allowed}, not {shown(value)}")


def json_value(field: str, text: str) -> Any:
    """Return the value that a JSON text of at most `MAX_TEXT` characters holds."""
    if len(text) > MAX_TEXT:
        raise FieldError(f"{field} has {len(text):,} characters, over the limit of {MAX_TEXT:,}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise FieldError(f"{field} is not JSON: {exc}") from exc


def spec_field(value: object) -> Spec:
    """Return the spec that `spec_to_dict` wrote."""
    if not isinstance(value, dict):
        raise bad("spec", value, "an object")
    try:
        return spec_from_dict(value)
    except (SpecError, RecursionError) as exc:  # a value too deep to be shown
        raise FieldError(f"spec is impossible: {exc}") from exc


def preprocess_field(value: object) -> Preprocess:
    """Return the protocol that `Preprocess.to_dict` wrote."""
    if not isinstance(value, dict):
        raise bad("preprocess", value, "an object")
    try:
        return preprocess_from_dict(value)
    except ProtocolError as exc:
        raise FieldError(f"preprocess is impossible: {exc}") from exc


def name_field(value: object) -> str:
    """Return a model's name."""
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or not value.isprintable():
        raise bad("name", value, f"1 to {_MAX_NAME} printable characters")
    return value


def assumed_field(value: object) -> tuple[str, ...]:
    """Return the sentences about what was assumed."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise bad("assumed", value, "a list of sentences")
    return tuple(value)


def labels_field(value: object) -> Labels:
    """Return the labels that `labels_to_rows` wrote."""
    if not isinstance(value, list):
        raise bad("labels", value, "a list of [wnid, name]")
    return tuple(map(_label, value))


def labels_to_rows(labels: Labels) -> list[list[str]]:
    """Return labels as JSON values, a row [wnid, name] a class."""
    return [[label.wnid, label.name] for label in labels]


def _label(row: object) -> Label:
    match row:
        case [str(wnid), str(name)] if is_label(wnid) and is_label(name):
            return Label(wnid, name)
    raise bad("labels", row, f"rows of [wnid, name], each at most {_MAX_LABEL} characters of text")


def is_label(text: str) -> bool:
    """Tell whether a text can be the wnid or name of a class: short, and to be had in UTF-8."""
    return len(text) <= _MAX_LABEL and not _SURROGATE.search(text)


_SURROGATE = re.compile("[\ud800-\udfff]")
