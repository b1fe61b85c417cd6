"""Bodies that clients compress (Content-Encoding), unpacked piece by piece.

Source: RFC 9110, 8.4.1. "deflate" is zlib's format there; raw deflate without its header is taken
too.
"""

import zlib
from collections.abc import Iterator
from typing import Final

from regnet.serving.refusals import BadRequest, Unsupported

_PIECE: Final = 1 << 20  # bytes unpacked in one step, however well they were compressed
_MAX_MEMBERS: Final = 1000  # of gzip: each costs the same time, however little is in it
_GZIP, _ZLIB, _RAW = zlib.MAX_WBITS | 16, zlib.MAX_WBITS, -zlib.MAX_WBITS


class Unpacker:
    """Unpacks a body in a content coding; raises `Unsupported` for an unknown one."""

    def __init__(self, coding: str | None) -> None:
        self._name = (coding or "identity").strip().lower()
        if self._name not in ("identity", "gzip", "x-gzip", "deflate"):
            raise Unsupported(
                f"a body with Content-Encoding {self._name[:100]!r} is not taken: send gzip, "
                "deflate or none"
            )
        self._stream: zlib._Decompress | None = None
        self._members = 1

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield the unpacked next bytes of the body; raises `BadRequest` if they are damaged."""
        if self._name == "identity":
            yield data
            return
        full = False
        while data or full:
            stream = self._stream = self._current(data)
            try:
                piece = stream.decompress(data, _PIECE)
            except zlib.error as exc:
                raise BadRequest(f"the body is not {self._name} ({exc})") from exc
            yield piece
            full = len(piece) == _PIECE
            data = stream.unconsumed_tail or stream.unused_data

    def _current(self, data: bytes) -> "zlib._Decompress":
        """Return the decompressor of the next bytes: gzip may have several members."""
        is_deflate = self._name == "deflate"
        if self._stream is None:
            has_header = data[0] & 15 == 8
            return zlib.decompressobj(_GZIP if not is_deflate else _ZLIB if has_header else _RAW)
        if not self._stream.eof or not data:
            return self._stream
        self._members += 1
        if is_deflate or self._members > _MAX_MEMBERS:
            raise BadRequest(f"bytes follow the end of the body's {self._name}")
        return zlib.decompressobj(_GZIP)

    def end(self) -> None:
        """Raise `BadRequest` if the body is not complete."""
        if self._stream is not None and not self._stream.eof:
            raise BadRequest(f"the body's {self._name} is cut off")
