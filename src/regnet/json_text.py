"""JSON in UTF-8: names in any script as they are, not as escapes."""

import json
import re
from typing import Any, Final

# Control characters, line separators, and the surrogates that stand for undecodable bytes of names.
_NOT_TEXT: Final = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def json_text(value: Any, **options: Any) -> str:
    """Return `value` as JSON that UTF-8 can encode; `options` are those of `json.dumps`.

    Only what is no text is escaped. Raises `ValueError` for NaN and infinity if `allow_nan` is
    False.
    """
    text = json.dumps(value, ensure_ascii=False, **options)
    return text if text.isascii() else _NOT_TEXT.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"


def json_bytes(value: Any, **options: Any) -> bytes:
    """Return `json_text` in UTF-8."""
    return json_text(value, **options).encode()
