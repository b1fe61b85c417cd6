"""The folder that a run writes: one Parquet file a partition, and a manifest of all.

    _manifest.json       model, options and sources; with "complete": true all partitions
    _finished/*.json     while it runs, what is known of each partition that is there
    part-00000.parquet   the rows of the first partition

Every file appears whole: what has its record in `_finished` is never done again. A record that is
damaged counts as none.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from regnet.data.remote import ObjectStore, is_object_address
from regnet.system.checked import Checked
from regnet.system.errors import ClusterError, OutputError, reason_of
from regnet.system.files import write_whole
from regnet.system.json_text import json_bytes

MANIFEST: Final = "_manifest.json"
_FINISHED: Final = "_finished"
_LOCK: Final = ".lock"
_IDENTITY: Final = ("format", "version", "model", "options", "sources")


@dataclass(frozen=True, kw_only=True)
class PartitionFile(Checked, error=OutputError):
    """A finished partition: its file, rows, how many of them failed, size and hash.

    `images` is the hash of the entries that it was made of.
    """

    file: str
    rows: int
    failed: int
    bytes: int
    sha256: str
    images: str


def part_name(number: int) -> str:
    """Return the file name of a partition."""
    return f"part-{number:05}.parquet"


def part_of(number: int, data: bytes, *, rows: int, failed: int, images: str) -> PartitionFile:
    """Return what is to be known of a partition's file."""
    return PartitionFile(
        file=part_name(number),
        rows=rows,
        failed=failed,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        images=images,
    )


class Output:
    """One run's folder. `identity` says what it is: model, options, sources.

    Raises `OutputError` where the folder holds another run, or what is none.
    """

    def __init__(
        self, folder: "_LocalFolder | _StoreFolder", shown: str, identity: dict[str, Any]
    ) -> None:
        self._folder, self._shown = folder, shown
        self._identity: dict[str, Any] = json.loads(json.dumps({"format": 1, **identity}))
        self._parts: list[PartitionFile] = []
        if (data := folder.read(MANIFEST)) is None:
            if names := folder.names(""):
                raise OutputError(
                    f"{shown}: holds other files ({names[0]}, ...): name a new folder"
                )
            self._write_manifest(None)
        else:
            self._require_same(data)

    def finished(self) -> dict[str, PartitionFile]:
        """Return the partitions that are there, by file name."""
        names = self._folder.names(_FINISHED)
        records = (self._folder.read(f"{_FINISHED}/{name}") for name in names)
        parts = {part.file: part for part in (*self._parts, *filter(None, map(_part, records)))}
        return {name: part for name, part in parts.items() if self._folder.size(name) == part.bytes}

    def add(self, part: PartitionFile, data: bytes) -> None:
        """Write a partition, and only then that it is there."""
        self._folder.write(part.file, data)
        record = json_bytes(part.to_dict())
        self._folder.write(f"{_FINISHED}/{Path(part.file).stem}.json", record)

    def complete(self, parts: list[PartitionFile]) -> None:
        """Write the manifest of all partitions, in their order."""
        self._write_manifest(parts)
        self._folder.remove(_FINISHED)

    def _write_manifest(self, parts: list[PartitionFile] | None) -> None:
        manifest = dict(self._identity, complete=parts is not None)
        if parts is not None:
            manifest["images"] = sum(part.rows for part in parts)
            manifest["failed"] = sum(part.failed for part in parts)
            manifest["partitions"] = [part.to_dict() for part in parts]
        self._folder.write(MANIFEST, json_bytes(manifest, indent=1) + b"\n")

    def _require_same(self, data: bytes) -> None:
        try:
            there = json.loads(data)
            changed = [name for name in _IDENTITY if there.get(name) != self._identity[name]]
            self._parts = list(map(PartitionFile.from_dict, there.get("partitions", ())))
        except (ValueError, AttributeError, TypeError, RecursionError, OutputError) as exc:
            raise OutputError(
                f"{self._shown}/{MANIFEST}: is damaged ({exc}), and without it nobody knows what "
                "the folder holds: remove the folder, or name a new one"
            ) from exc
        if changed:
            name = changed[0]
            was, now = json.dumps(there.get(name)), json.dumps(self._identity[name])
            raise OutputError(
                f"{self._shown}: holds a run with another {name}: {was}, now {now}; name a new "
                "folder, or call it as it was called"
            )


def _part(record: bytes | None) -> PartitionFile | None:
    """Return what a record says; None where it is damaged, so that its partition is done again."""
    try:
        return PartitionFile.from_dict(json.loads(record or b""))
    except (ValueError, RecursionError, OutputError):
        return None


@contextmanager
def open_output(address: str, identity: dict[str, Any]) -> Iterator[Output]:
    """Give the output at a path or an address of an object store; one run at a time in a path.

    Raises `OutputError` where it cannot be written, and what `Output` raises.
    """
    try:
        if is_object_address(address) and not address.startswith("file://"):
            store = ObjectStore(address)
            yield Output(_StoreFolder(store), address, identity)
            return
        folder = Path(address.removeprefix("file://")).expanduser()
        with _alone(folder):
            yield Output(_LocalFolder(folder), str(folder), identity)
    except OSError as exc:
        raise OutputError(f"cannot write to {address}: {reason_of(exc)}") from exc


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot write to {folder}: it is a file, and a folder is wanted")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        with lock.acquire(timeout=0):
            yield
    except Timeout as exc:
        raise ClusterError(f"{folder}: another run is writing there") from exc


class _LocalFolder:
    """A folder on disk; its files and folders below have names, and may not be there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        with suppress(FileNotFoundError):
            return (self._folder / name).read_bytes()
        return None

    def write(self, name: str, data: bytes) -> None:
        path = self._folder / name
        path.parent.mkdir(exist_ok=True)
        write_whole(path, data)

    def size(self, name: str) -> int | None:
        with suppress(FileNotFoundError):
            return (self._folder / name).stat().st_size
        return None

    def names(self, folder: str) -> list[str]:
        with suppress(FileNotFoundError):
            # A killed process leaves hidden folders, of files that it was writing.
            names = (path.name for path in (self._folder / folder).iterdir())
            return sorted(name for name in names if not name.startswith("."))
        return []

    def remove(self, folder: str) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder / folder)


class _StoreFolder:
    """A folder in an object store, where a file appears whole when it was sent."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def _path(self, name: str) -> str:
        return f"{self._store.path}/{name}".rstrip("/")

    def read(self, name: str) -> bytes | None:
        return self._store.read(self._path(name))

    def write(self, name: str, data: bytes) -> None:
        self._store.write(self._path(name), data)

    def size(self, name: str) -> int | None:
        with suppress(FileNotFoundError):
            return int(self._store.info(self._path(name))["size"])
        return None

    def names(self, folder: str) -> list[str]:
        top = self._path(folder)
        with suppress(FileNotFoundError):
            return sorted(path[len(top) + 1 :] for path in self._store.below(top))
        return []

    def remove(self, folder: str) -> None:
        with suppress(FileNotFoundError):
            self._store.remove(self._path(folder))
