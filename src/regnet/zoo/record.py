"""What is known of files of weights: hashes, records beside them, and hashes seen before."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from regnet.system.checked import Checked
from regnet.system.errors import DownloadError, RegNetError, reason_of
from regnet.system.files import write_whole
from regnet.system.json_text import json_bytes
from regnet.zoo.card import Card

CHUNK = 1 << 20

T = TypeVar("T", bound=Checked)


@dataclass(frozen=True)
class Digests:
    """Size in bytes and hashes (hex) of a file's content."""

    size: int
    sha384: str
    sha256: str


class Hasher:
    """Both hashes of a growing content, and its size in bytes."""

    def __init__(self) -> None:
        self._sha384 = hashlib.sha384()
        self._sha256 = hashlib.sha256()
        self.size = 0

    def update(self, chunk: bytes) -> None:
        """Add the next bytes."""
        self._sha384.update(chunk)
        self._sha256.update(chunk)
        self.size += len(chunk)

    def digests(self) -> Digests:
        """Return the digests of the content so far."""
        return Digests(self.size, self._sha384.hexdigest(), self._sha256.hexdigest())


def hash_file(path: Path) -> Hasher:
    """Return a hasher with a file's content. Raises `OSError`."""
    hasher = Hasher()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            hasher.update(chunk)
    return hasher


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a file must be: as published, or (`seen`) as it was when first downloaded."""

    model: str
    size: int | None = None
    sha384: str | None = None
    sha256_prefix: str | None = None
    size_at_least: int | None = None
    seen: bool = False

    @property
    def hashed(self) -> bool:
        """Whether a hash decides; without one only the server's word does."""
        return self.sha384 is not None or self.sha256_prefix is not None

    def problem(self, digests: Digests) -> str | None:
        """Return what is wrong with a file's content, or None."""
        if wrong := self.size_problem(digests.size):
            return wrong
        if self.sha384 is not None and digests.sha384 != self.sha384:
            return self._wrong("sha384", digests.sha384, self.sha384)
        if not digests.sha256.startswith(self.sha256_prefix or ""):
            return self._wrong("sha256", digests.sha256, f"{self.sha256_prefix}...")
        return None

    def size_problem(self, size: int) -> str | None:
        """Return what is wrong with a file's size in bytes, or None."""
        if self.size is not None and size != self.size:
            return self._wrong("size", f"{size:,} bytes", f"{self.size:,}")
        if self.size_at_least is not None and size < self.size_at_least:
            return f"{size:,} bytes are too few: the parameters alone take {self.size_at_least:,}"
        return None

    def _wrong(self, what: str, actual: str, expected: str) -> str:
        text = f"its {what} is {actual}, not {expected}"
        if self.seen:
            text += (
                " as in the first download (if the publisher changed the file on purpose: "
                f"`regnet download --forget {self.model}`)"
            )
        return text


@dataclass(frozen=True, kw_only=True)
class Record(Checked):
    """Where a file came from and what it was when verified; lies beside it as JSON."""

    url: str
    size: int
    sha384: str
    sha256: str
    etag: str | None
    time: str
    mtime_ns: int

    def describes(self, stat: os.stat_result) -> bool:
        """Tell whether a file is, by size and time of change, still the one verified."""
        return (self.size, self.mtime_ns) == (stat.st_size, stat.st_mtime_ns)

    @property
    def digests(self) -> Digests:
        """The content's digests when it was verified."""
        return Digests(self.size, self.sha384, self.sha256)


def record_path(file: Path) -> Path:
    """Return the path of the record of a file."""
    return file.with_name(f"{file.name}.json")


def read_record(file: Path) -> Record | None:
    """Return the record beside a file; None where there is none that can be read."""
    return read_json(record_path(file), Record)


def write_record(
    file: Path, verified: Path, digests: Digests, *, url: str, etag: str | None
) -> None:
    """Record beside a file, atomically, that the one at `verified` is right."""
    mtime_ns = verified.stat().st_mtime_ns
    record = Record(url=url, etag=etag, time=_now(), mtime_ns=mtime_ns, **asdict(digests))
    write_json(record_path(file), asdict(record))


def clear_way(path: Path) -> None:
    """Remove a link, pipe, socket or device at a path of ours; raises `OSError` for a folder."""
    with suppress(FileNotFoundError):
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "a folder is in the way: remove it", str(path))
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            path.unlink()


def write_json(path: Path, values: Any) -> None:
    """Write JSON, atomically. Raises `OSError`."""
    clear_way(path)
    write_whole(path, json_bytes(values, indent=1) + b"\n")


def read_json(path: Path, kind: type[T]) -> T | None:
    """Return the dataclass in a JSON file; None without it, or where its fields are not right."""
    if not path.is_file():  # reading a pipe would wait for ever
        return None
    with suppress(OSError, ValueError, RecursionError, RegNetError):
        return kind.from_dict(json.loads(path.read_text("utf-8")))
    return None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class SeenHashes:
    """Hashes of files for which none was published, as first downloaded.

    They are one JSON file, `known-hashes.json`, that outlives the weights themselves.
    Raises `DownloadError` where it cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "known-hashes.json"

    def expected(self, card: Card) -> Expected:
        """Return what the file of a card must be."""
        if (file := card.file) is None:
            return Expected(model=card.name)
        seen = self._read().get(_key(card)) if file.sha384 is None else None
        return Expected(
            model=card.name,
            size=seen["size"] if seen else file.size,
            sha384=seen["sha384"] if seen else file.sha384,
            sha256_prefix=file.sha256_prefix,
            size_at_least=None if seen else file.size_at_least,
            seen=seen is not None,
        )

    def remember(self, card: Card, digests: Digests, *, url: str) -> None:
        """Hold later downloads to these digests, unless a full hash was published."""
        if card.file is not None and card.file.sha384 is None:
            seen = {"size": digests.size, "sha384": digests.sha384, "url": url, "time": _now()}
            with self._locked() as hashes:
                hashes.setdefault(_key(card), seen)

    def forget(self, card: Card) -> bool:
        """Forget the hash of a card's file; tell whether there was one."""
        with self._locked() as hashes:
            return hashes.pop(_key(card), None) is not None

    @contextmanager
    def _locked(self) -> Iterator[dict[str, Any]]:
        """Give the hashes to change; they are written back atomically."""
        from filelock import FileLock

        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = self._path.with_name(f"{self._path.name}.lock")
            clear_way(lock)
            with FileLock(lock):
                before = self._read()
                hashes = dict(before)
                yield hashes
                if hashes != before:
                    write_json(self._path, hashes)
        except OSError as exc:
            raise DownloadError(f"cannot write {self._path}: {reason_of(exc)}") from exc

    def _read(self) -> dict[str, Any]:
        if not os.path.lexists(self._path):
            return {}
        try:
            if not self._path.is_file():
                raise ValueError("it is not a file")
            hashes = json.loads(self._path.read_text("utf-8"))
            if not isinstance(hashes, dict) or not all(map(_is_seen, hashes.values())):
                raise ValueError("not the hashes that regnet wrote")
        except (OSError, ValueError, RecursionError) as exc:
            raise DownloadError(
                f"cannot read {self._path}: {reason_of(exc)}; it holds hashes of weights: restore "
                "or remove it"
            ) from exc
        return hashes


def _key(card: Card) -> str:
    return f"{card.name}/{card.file.name if card.file else ''}"


def _is_seen(seen: Any) -> bool:
    return isinstance(seen, dict) and [type(seen.get(k)) for k in ("size", "sha384")] == [int, str]
