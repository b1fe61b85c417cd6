"""A file that is still arriving: its bytes, its hashes, and what it is a part of."""

import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from regnet.system.files import write_all
from regnet.zoo.record import Digests, Hasher, clear_way, hash_file, read_json, write_json


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a server said of the whole file when its first bytes came; `total` in bytes."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None

    @property
    def validator(self) -> str | None:
        """What If-Range may be asked with: a strong ETag, else the date of the last change."""
        strong = None if (self.etag or "").startswith("W/") else self.etag
        return next((v for v in (strong, self.last_modified) if v and _is_plain(v)), None)


def _is_plain(value: str) -> bool:
    """Tell whether a header's value can be sent back; some servers send what cannot."""
    return value.isascii() and value.isprintable()


class PartialFile:
    """The file `<name>.part` and, beside it, its origin as JSON.

    Every byte goes to the system at once, so that what a killed process received is still there.
    `mixed` tells whether the bytes are of several responses, or of an earlier run. As a context
    manager it leaves no empty part behind. Raises `OSError`.
    """

    def __init__(self, final: Path) -> None:
        self.path = final.with_name(f"{final.name}.part")
        self._origin_path = _origin_path(final)
        clear_way(self.path)
        self.origin = read_json(self._origin_path, Origin)
        self._hasher = Hasher()
        if self.origin is not None and self.path.exists():
            self._hasher = hash_file(self.path)
        self.mixed = self.size > 0
        self._stream = self.path.open("ab" if self.size else "wb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
        if self.size == 0:
            self.path.unlink(missing_ok=True)
            self._origin_path.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Bytes that are here."""
        return self._hasher.size

    @property
    def digests(self) -> Digests:
        """Digests of the bytes that are here."""
        return self._hasher.digests()

    def append(self, chunk: bytes) -> None:
        """Add the next bytes; they are in the file when this returns."""
        write_all(self._stream.fileno(), chunk)
        self._hasher.update(chunk)

    def start(self, origin: Origin) -> None:
        """Begin anew, as a part of another file. Bytes never lie under a foreign origin."""
        self.clear()
        write_json(self._origin_path, asdict(origin))
        self.origin = origin

    def clear(self) -> None:
        """Drop the bytes and the origin."""
        self._stream.truncate(0)
        self._stream.seek(0)
        self._origin_path.unlink(missing_ok=True)
        self.origin = None
        self._hasher = Hasher()
        self.mixed = False

    def finish(self, final: Path) -> None:
        """Give the complete file its final name, once it is on the disk."""
        os.fsync(self._stream.fileno())
        self._stream.close()
        self.path.replace(final)
        drop_origin(final)


def drop_origin(final: Path) -> None:
    """Remove the origin beside a complete file; a cache that cannot be written keeps it."""
    with suppress(OSError):
        _origin_path(final).unlink()


def _origin_path(final: Path) -> Path:
    return final.with_name(f"{final.name}.part.json")
