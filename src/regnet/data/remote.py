"""Images by path, and in stores that fsspec or pyarrow opens, such as s3."""

import os
import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from regnet.data.archives import check_size
from regnet.data.photo_files import VIDEO_SUFFIXES, SkipTally, counts_as_photo, is_clutter
from regnet.pixels.formats import HEAD, has_picture_suffix, suffix_of
from regnet.system.addresses import without_secrets
from regnet.system.errors import DatasetError, ImageError, MissingExtraError, reason_of
from regnet.system.in_flight import wait_for_room
from regnet.system.retry import BrokenError, FinalError, Retry

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_OTHERS: Final = frozenset(("http", "https", "rtsp", "rtsps"))
CHUNK: Final = 1 << 20

_RETRY: Final = Retry(attempts=3)
_SNIFFED: Final = 256  # objects whose first bytes are asked for at once
_NO_PICTURES: Final = VIDEO_SUFFIXES | frozenset(
    (".csv", ".gz", ".htm", ".html", ".json", ".jsonl", ".log", ".md", ".parquet", ".pdf", ".py")
) | {".tar", ".tgz", ".tsv", ".txt", ".xml", ".yaml", ".yml", ".zip"}  # fmt: skip
_SETTLED: Final = (FileNotFoundError, IsADirectoryError, PermissionError)  # not worth a retry


def is_object_address(name: str) -> bool:
    """Tell whether a name is an address of an object store, or one like file:// and memory://."""
    scheme = _SCHEME.match(name)
    return scheme is not None and scheme[1].lower() not in _OTHERS


def open_file(name: str) -> BinaryIO:
    """Return the open file at a path or an address. Raises `OSError`, `DatasetError`."""
    if not is_object_address(name):
        return Path(name).open("rb")
    store = ObjectStore(name)
    return store.open(store.path)


def file_size(name: str) -> int:
    """Return the bytes of the file at a path or an address. Raises `OSError`, `DatasetError`."""
    if not is_object_address(name):
        return Path(name).stat().st_size
    store = ObjectStore(name)
    return int(store.info(store.path)["size"])


def read_file(name: str, max_bytes: int) -> bytes:
    """Return a file's bytes; raises `ImageError` if it cannot be read or is over the limit."""
    try:
        with Path(name).open("rb") as file:
            check_size(size := os.fstat(file.fileno()).st_size, max_bytes)
            wait_for_room(size)
            data = read_bounded(file, max_bytes + 1)
    except (OSError, ValueError) as exc:
        raise ImageError(f"cannot be read: {reason_of(exc)}") from exc
    check_size(len(data), max_bytes)
    return data


def read_bounded(stream: BinaryIO, limit: int) -> bytes:
    """Return the rest of a stream, but no more than `limit` bytes; pipes give it in parts."""
    parts = []
    while limit > 0 and (part := stream.read(min(limit, CHUNK))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def read_object(address: str, max_bytes: int) -> bytes:
    """Return the bytes at an address; raises `ImageError` if three attempts do not get them."""
    try:
        return _RETRY.run(partial(_read_once, address, max_bytes))
    except (FinalError, *_SETTLED) as exc:
        raise ImageError(f"cannot be read: {reason_of(exc)}") from exc
    except DatasetError as exc:
        raise ImageError(str(exc)) from exc


def _read_once(address: str, max_bytes: int) -> bytes:
    try:
        store = ObjectStore(address)
        check_size(size := int(store.info(store.path).get("size") or 0), max_bytes)
        wait_for_room(size)
        with store.open(store.path) as file:
            data = file.read(max_bytes + 1)
    except _SETTLED:
        raise
    except (OSError, ValueError) as exc:
        raise BrokenError(reason_of(exc)) from exc
    check_size(len(data), max_bytes)
    return data


class ObjectStore:
    """The store of an address; `path` is the address's own there.

    Raises `MissingExtraError` without fsspec, `DatasetError` if nothing opens the address.
    """

    def __init__(self, address: str) -> None:
        scheme = _SCHEME.match(address)
        if scheme is None:
            raise ValueError(f"{address} is not an address")
        self._scheme = scheme[1].lower()
        self._fs, path = _filesystem(address, self._scheme)
        self.path = path.rstrip("/") or path

    def open(self, path: str) -> BinaryIO:
        """Return an open file."""
        return cast(BinaryIO, self._fs.open(path, "rb"))

    def info(self, path: str) -> dict[str, Any]:
        """Return `type` and `size` of what is at a path. Raises `FileNotFoundError`."""
        return cast(dict[str, Any], self._fs.info(path))

    def is_folder(self) -> bool:
        """Tell whether the address is a folder. Raises `FileNotFoundError`."""
        return bool(self.info(self.path)["type"] == "directory")

    def matches(self) -> list[str]:
        """Return the paths that the address matches as a pattern, sorted."""
        return sorted(self._fs.glob(self.path))

    def below(self, top: str) -> Iterator[str]:
        """Yield the files below a folder that are not hidden, sorted folder by folder."""
        todo = [(top, True)]
        while todo:
            path, is_folder = todo.pop()
            if not is_folder:
                yield path
                continue
            entries = self._fs.ls(path, detail=True)
            self._fs.invalidate_cache(path)  # fsspec would keep every listing
            todo += sorted(
                (str(entry["name"]), entry["type"] == "directory")
                for entry in entries
                # stores may keep an empty object that stands for the folder
                if entry["name"].rstrip("/") != path.rstrip("/")
                and not is_clutter(Path(entry["name"]).name)
            )[::-1]

    def photos(self, paths: Iterable[str], place: str, tally: SkipTally | None) -> Iterator[str]:
        """Yield the photos among these paths; count the others as skipped.

        Objects of unknown suffixes are told by their first bytes, many at a time.
        """
        left = iter(paths)
        while batch := list(islice(left, _SNIFFED)):
            heads = self._heads(
                path
                for path in batch
                if not has_picture_suffix(path) and suffix_of(path) not in _NO_PICTURES
            )
            for path in batch:
                name = path.rpartition("/")[2]
                if counts_as_photo(name, partial(heads.get, path, b"")):
                    yield path
                elif tally is not None:
                    tally.add(place, name)

    def _heads(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return the first bytes of each object that can be read."""
        paths = list(paths)
        sizes = [HEAD] * len(paths)
        heads = (
            self._fs.cat_ranges(paths, [0] * len(paths), sizes, on_error="return") if paths else []
        )
        return {p: head for p, head in zip(paths, heads, strict=True) if isinstance(head, bytes)}

    def write(self, path: str, data: bytes) -> None:
        """Write a file; in an object store it appears whole."""
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(path, data)

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None without such a file."""
        try:
            return bytes(self._fs.cat_file(path))
        except FileNotFoundError:
            return None

    def remove(self, path: str) -> None:
        """Remove a folder with all that is in it."""
        self._fs.rm(path, recursive=True)

    def address_of(self, path: str) -> str:
        """Return the address of a path in this store."""
        return f"{self._scheme}://{path}"


def _filesystem(address: str, scheme: str) -> tuple[Any, str]:
    """Return the file system of an address and its path there: fsspec's, else pyarrow's."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as exc:
        raise MissingExtraError(f"{scheme}://", "cluster") from exc
    reasons = ""
    try:
        try:
            fs, path = url_to_fs(address)
        except ImportError as exc:  # fsspec knows the scheme; its package is not installed
            reasons = f"{exc}; and pyarrow: "
            from fsspec.implementations.arrow import ArrowFSWrapper
            from pyarrow.fs import FileSystem

            arrow, path = FileSystem.from_uri(address)
            fs = ArrowFSWrapper(arrow)
    except (ImportError, OSError, ValueError, TypeError) as exc:
        reason = f"{reasons}{reason_of(exc)}"
        raise DatasetError(f"cannot open {without_secrets(address)}: {reason}") from exc
    return fs, str(path)
