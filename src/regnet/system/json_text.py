"""JSON in UTF-8: names in any script as they are, not as escapes."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

# Control characters, line separators, and the surrogates that stand for undecodable bytes of names.
_NOT_TEXT: Final = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SHOWN: Final = 5


def json_text(value: Any, **options: Any) -> str:
    """Return `value` as JSON that UTF-8 can encode; `options` are those of `json.dumps`.

    Only what is no text is escaped. Raises `ValueError` for NaN and infinity if `allow_nan` is
    False.
    """
    text = json.dumps(value, ensure_ascii=False, **options)
    return text if text.isascii() else _NOT_TEXT.sub(_escape, text)


def plain(value: Any) -> Any:
    """Return a value as JSON's types, by `to_dict` where it has one; dataclasses by their fields.

    Tuples and arrays become lists, paths texts.
    """
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "tolist"):  # of numpy
        return value.tolist()
    if is_dataclass(value):
        return plain_fields(value)
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def plain_fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, as JSON's types."""
    return {field.name: plain(getattr(value, field.name)) for field in fields(value)}


class ToDict:
    """Base of dataclasses whose JSON object is their fields; a subclass may add to `to_dict`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return plain_fields(self)


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, as an `object_pairs_hook`.

    Raises `ValueError` for a key that is there twice: `json` keeps only the last.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = [key for key, count in counts.items() if count > 1]
        raise ValueError(f"has entries twice: {', '.join(map(repr, twice[:_SHOWN]))}")
    return value


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def json_bytes(value: Any, **options: Any) -> bytes:
    """Return `json_text` in UTF-8."""
    return json_text(value, **options).encode()
