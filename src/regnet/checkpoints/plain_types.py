"""Stand-ins for Python's and numpy's plain types in a pickle: values, and inert records."""

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


class Record:
    """An inert stand-in for an instance of a class: what the pickle said of it, and no more.

    `items` holds what it has as a dict, `entries` what it has as a list, `state` its attributes.
    """

    __slots__ = ("arguments", "entries", "items", "kind", "state")

    def __init__(self, kind: str, *arguments: Any) -> None:
        self.kind = kind
        self.arguments = arguments
        self.items: dict[Any, Any] = {}
        self.entries: list[Any] = []
        self.state: Any = None


def named_values(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the named values of a dict or of an inert record's attributes; none of other values."""
    parts = (value.items, value.state) if isinstance(value, Record) else (value,)
    for part in parts:
        if isinstance(part, Mapping):
            yield from ((key, child) for key, child in part.items() if isinstance(key, str))


def require(value: Any, *kinds: type) -> None:
    """Raise `TypeError` where a value is of none of these kinds."""
    if not isinstance(value, kinds):
        raise TypeError(f"the pickle has a {type(value).__name__} where it cannot be")


def as_key(value: Any) -> Any:
    """Return a key for a dict; what is not plain text, bytes or a number is one by identity.

    Deeply nested tuples would take for ever to hash, or end the process; of complex numbers, and of
    whole ones with more digits than a hash has, many can be made that have the same hash.
    """
    plain = isinstance(value, str | bytes | int | float | None)
    large = isinstance(value, int) and not -_LARGEST_KEY < value < _LARGEST_KEY
    return value if plain and not large else Record("key", value)


_LARGEST_KEY = 2**60


@dataclass
class Dtype:
    """Stands in for numpy.dtype: a kind such as "f8" and a byte order."""

    kind: str
    order: str = "<"


_STRUCT_CODES = {
    "f8": "d", "f4": "f", "f2": "e", "b1": "?", "c8": "ff", "c16": "dd",
    "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u8": "Q", "u4": "I", "u2": "H", "u1": "B",
}  # fmt: skip


def _numpy_scalar(dtype: Any, data: Any = b"") -> Any:
    """Return a number, text or bytes for numpy's scalar; a record for the other kinds."""
    if not isinstance(dtype, Dtype) or not isinstance(data, str | bytes):
        return Record("numpy.generic")
    raw = data.encode("latin-1") if isinstance(data, str) else data
    if dtype.kind.startswith("U"):
        return raw.decode("utf-32-be" if dtype.order == ">" else "utf-32-le")
    if dtype.kind.startswith("S"):
        return raw
    if dtype.kind not in _STRUCT_CODES:
        return Record("numpy.generic", dtype.kind, raw)
    numbers = struct.unpack(dtype.order + _STRUCT_CODES[dtype.kind], raw)
    return complex(*numbers) if len(numbers) == 2 else numbers[0]


def _numpy_dtype(kind: Any, *_: Any) -> Dtype:
    require(kind, str)
    return Dtype(kind)


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """Return bytes as protocols 0 to 2 write them: by `_codecs.encode(text, "latin1")`."""
    require(text, str)
    require(encoding, str)
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding!r:.40}")
    return text.encode("latin-1")


def _mapping(content: Any = None, *_: Any) -> Any:
    """Return a dict for one of the standard library: of a dict, of Python 2's pairs, or empty.

    Nothing is copied twice: a short pickle could ask for copies of a long list very often.
    """
    if not isinstance(content, list):
        return content if isinstance(content, dict) else {}
    pairs = {as_key(key): value for key, value in content}
    content.clear()
    return pairs


def _sequence(items: Any = None, *_: Any) -> Any:
    """Return the items of a list, deque, tuple or set as they come."""
    return items if isinstance(items, list | tuple) and items else []


def _record_of(name: str) -> Callable[..., Record]:
    return lambda *arguments: Record(name, *arguments)


def _numpy_names(name: str) -> Iterator[str]:
    """Yield a name as old and new versions of numpy call it."""
    yield from (f"numpy.core.{name}", f"numpy._core.{name}")


_PATHS = (
    f"{module}.{name}"
    for module in ("pathlib", "pathlib._local")
    for pure in ("PurePath", "PurePosixPath", "PureWindowsPath")
    for name in (pure, pure.removeprefix("Pure"))
)
_RECORDS = (
    *("argparse.Namespace", "types.SimpleNamespace", "collections.UserDict", *_PATHS),
    *(f"datetime.{name}" for name in ("date", "time", "datetime", "timedelta", "timezone")),
    *("zoneinfo.ZoneInfo._unpickle", "time.struct_time"),
    *("decimal.Decimal", "fractions.Fraction", "uuid.UUID"),
    *(f"builtins.{name}" for name in ("bytes", "bytearray", "complex", "range", "xrange", "slice")),
)
_SEQUENCES = ("builtins.list", "builtins.tuple", "builtins.set", "builtins.frozenset")

PLAIN_CALLS: dict[str, Callable[..., Any]] = {
    **{name: _record_of(name) for name in _RECORDS},
    **dict.fromkeys(("collections.OrderedDict", "collections.Counter"), _mapping),
    "collections.defaultdict": lambda *arguments: _mapping(*arguments[1:]),
    "builtins.dict": _mapping,
    **dict.fromkeys(["collections.deque", *_SEQUENCES], _sequence),
    "_codecs.encode": _encoded,
    "numpy.dtype": _numpy_dtype,
    **dict.fromkeys(_numpy_names("multiarray.scalar"), _numpy_scalar),
    **dict.fromkeys(_numpy_names("multiarray._reconstruct"), _record_of("numpy.ndarray")),
    **dict.fromkeys(_numpy_names("numeric._frombuffer"), _record_of("numpy.ndarray")),
}

_BITS = (8, 16, 32, 64)

# Types that a pickle may mention (as a defaultdict's factory, say) without calling them.
PLAIN_TYPES = frozenset(
    (
        *(f"builtins.{name}" for name in ("int", "long", "float", "bool", "str", "unicode")),
        *(f"builtins.{name}" for name in ("list", "tuple", "set", "frozenset", "dict", "bytes")),
        *(f"typing.{name}" for name in ("Any", "Union", "Optional", "List", "Dict", "Tuple")),
        *("builtins.object", "numpy.ndarray", "numpy.generic", "numpy.bool", "numpy.bool_"),
        *(f"numpy.{kind}{bits}" for kind in ("int", "uint", "float") for bits in _BITS),
    )
)
