"""Bodies as clients compress them (Content-Encoding), unpacked piece by piece.

Source: RFC 9110, 8.4.1. "deflate" is zlib's format there; one without zlib's header is taken too.
"""

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

from regnet.serving.refusals import BadRequest, Refused

_PIECE: Final = 1 << 20  # bytes that are unpacked in one step, however well they were compressed
_MOST_MEMBERS: Final = 1000  # of gzip: each costs the same time, however little is in it
_GZIP, _ZLIB, _RAW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS


class Unsupported(Refused):
    """Its body is of a kind that is not taken."""

    status = 415


class Unpacker(Protocol):
    """Takes the bytes of a body as they come."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next bytes stand for; raises `BadRequest` if they are damaged."""

    def end(self) -> None:
        """Raise `BadRequest` if the body is not complete."""


def unpacker(coding: str | None) -> Unpacker:
    """Return what unpacks bodies of a content coding; raises `Unsupported` for unknown ones."""
    name = (coding or "identity").strip().lower()
    if name == "identity":
        return _Plain()
    if name in ("gzip", "x-gzip", "deflate"):
        return _Compressed(name)
    raise Unsupported(
        f"a body with Content-Encoding {name[:100]!r} is not taken: send gzip, deflate or none"
    )


class _Plain:
    """A body as it is."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        yield data

    def end(self) -> None:
        pass


class _Compressed:
    """A body in gzip, of one member or more, or in deflate."""

    def __init__(self, name: str) -> None:
        self._name, self._gzip = name, name != "deflate"
        self._stream: zlib._Decompress | None = None
        self._members = 1

    def pieces(self, data: bytes) -> Iterator[bytes]:
        full = False
        while data or full:
            stream = self._current(data)
            try:
                piece = stream.decompress(data, _PIECE)
            except zlib.error as exc:
                raise BadRequest(f"the body is not {self._name} ({exc})") from exc
            yield piece
            full = len(piece) == _PIECE
            data = stream.unconsumed_tail or stream.unused_data

    def _current(self, data: bytes) -> "zlib._Decompress":
        """Return what unpacks the next bytes."""
        if self._stream is None:
            headless = not self._gzip and data[0] & 15 != 8
            self._stream = zlib.decompressobj(_GZIP if self._gzip else _RAW if headless else _ZLIB)
        elif self._stream.eof and data:
            self._members += 1
            if not self._gzip or self._members > _MOST_MEMBERS:
                raise BadRequest(f"bytes follow the end of the body's {self._name}")
            self._stream = zlib.decompressobj(_GZIP)
        return self._stream

    def end(self) -> None:
        if self._stream is not None and not self._stream.eof:
            raise BadRequest(f"the body's {self._name} is cut off")
