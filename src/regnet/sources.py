"""What the user names, to a stream of images: files, folders, patterns, URLs, stdin, archives."""

import glob
import os
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from regnet.archives import (
    IMAGE_SUFFIXES,
    Member,
    archive_kind,
    check_size,
    failing,
    open_zip,
    tar_members,
    zip_members,
)
from regnet.errors import ImageError
from regnet.remote import Fetcher

MAX_BYTES: Final = 256 << 20
STDIN: Final = "-"

_CHUNK: Final = 1 << 20
_HEAD: Final = 512  # bytes that tell what a file is


@dataclass(frozen=True)
class Item:
    """One image: the name it is reported under, and its encoded bytes once they are wanted.

    `read` is thread-safe and raises `ImageError` with the reason, so that the others go on.
    """

    source: str
    read: Callable[[], bytes]


def iter_items(
    sources: Iterable[str | Path],
    *,
    stdin: BinaryIO | None = None,
    max_bytes: int = MAX_BYTES,
    timeout: float = 20.0,
) -> Iterator[Item]:
    """Yield every image in the sources, in their order; nothing is read before it is wanted.

    A source is a file, a folder (all images below it, sorted), a pattern such as `photos/*.jpg` or
    `photos/**/*.png`, a zip or tar archive, an http(s) URL, or `-` for standard input (one image,
    or an archive). Whatever cannot be opened is an item whose `read` raises the reason. `timeout`
    is in seconds without a byte from a server. For one thread; the items' `read` for any.
    """
    fetcher = Fetcher(max_bytes=max_bytes, timeout=timeout)
    walk = _Walk(stdin=stdin, max_bytes=max_bytes, fetcher=fetcher)
    for source in sources:
        yield from walk.items(source)


def count_items(sources: Iterable[str | Path]) -> int | None:
    """Return how many items `iter_items` would yield; None where only reading them would tell."""
    sources = list(sources)
    if any(str(source) == STDIN or _is_tar(source) for source in sources):
        return None
    return sum(1 for _ in iter_items(sources))


class _Walk:
    """One walk over sources: what their kinds share."""

    def __init__(self, *, stdin: BinaryIO | None, max_bytes: int, fetcher: Fetcher) -> None:
        self._stdin = stdin
        self._stdin_used = False
        self._max_bytes = max_bytes
        self._fetcher = fetcher

    def items(self, source: str | Path) -> Iterator[Item]:
        name = str(source)
        if name == STDIN:
            return self._from_stdin()
        if isinstance(source, str) and (scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", name)):
            return self._url(name, scheme[1].lower())
        return self._local(name)

    def _url(self, url: str, scheme: str) -> Iterator[Item]:
        if scheme in ("http", "https"):
            yield Item(url, partial(self._fetcher.fetch, url))
        else:
            yield _failed(url, f"{scheme}:// is not supported: http and https are")

    def _local(self, name: str) -> Iterator[Item]:
        name = str(Path(name).expanduser()) if name.startswith("~") else name
        path = Path(name)
        try:
            if path.is_dir():
                return _or_failed(self._below(name), name, "no images in this folder")
            if path.is_file():
                return self._file(name)
            if path.exists():  # a pipe or a device
                return iter([self._item(name)])
        except (OSError, ValueError) as exc:
            return iter([_failed(name, f"cannot be opened: {_why(exc)}")])
        if glob.has_magic(name):
            return _or_failed(self._matches(name), name, "no image matches this pattern")
        return iter([_failed(name, "no such file or folder")])

    def _file(self, name: str) -> Iterator[Item]:
        if Path(name).suffix.lower() in IMAGE_SUFFIXES:
            yield self._item(name)
            return
        try:
            with Path(name).open("rb") as file:
                kind = archive_kind(file.read(_HEAD), name)
                if kind == "tar":
                    yield from self._tar(name, file)
        except OSError as exc:
            yield _failed(name, f"cannot be opened: {_why(exc)}")
            return
        if kind == "zip":
            yield from self._zip(name, Path(name))
        elif kind is None:
            yield self._item(name)

    def _item(self, name: str) -> Item:
        return Item(name, partial(_read_file, name, self._max_bytes))

    def _below(self, top: str) -> Iterator[Item]:
        """Yield the images below a folder, sorted; a folder reached twice by links counts once."""
        seen: set[tuple[int, int]] = set()
        todo = [(top, True)]
        while todo:
            name, is_folder = todo.pop()
            if not is_folder:
                yield self._item(name)
                continue
            try:
                status = Path(name).stat()
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    todo += sorted(_wanted(name), reverse=True)
            except OSError as exc:
                yield _failed(name, f"cannot be opened: {_why(exc)}")

    def _matches(self, pattern: str) -> Iterator[Item]:
        """Yield what a pattern matches: images, or any file where the pattern spells its suffix.

        A folder gives the images below it, unless `**` goes there by itself.
        """
        any_suffix = bool(re.search(r"\.\w+$", pattern))
        for name in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207
            if Path(name).is_dir():
                yield from () if "**" in pattern else self._below(name)
            elif any_suffix or Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield from self._file(name)

    def _zip(self, name: str, file: Path | BinaryIO) -> Iterator[Item]:
        try:
            archive = open_zip(file)
        except ImageError as exc:
            if not isinstance(file, Path):
                file.close()
            return iter([_failed(name, str(exc))])
        if not isinstance(file, Path):
            weakref.finalize(archive, file.close)
        return self._members(name, zip_members(archive, max_bytes=self._max_bytes))

    def _tar(self, name: str, file: BinaryIO) -> Iterator[Item]:
        file.seek(0)
        return self._members(name, tar_members(file, max_bytes=self._max_bytes))

    def _members(self, name: str, members: Iterator[Member]) -> Iterator[Item]:
        items = (Item(f"{name}/{member}", read) for member, read in members)
        try:
            yield from _or_failed(items, name, "no images in this archive")
        except ImageError as exc:
            yield _failed(name, str(exc))

    def _from_stdin(self) -> Iterator[Item]:
        if self._stdin_used:
            yield _failed(STDIN, "standard input was read before: name it once")
            return
        self._stdin_used = True
        stream = self._stdin or sys.stdin.buffer
        head = _read_bounded(stream, _HEAD)
        kind = archive_kind(head)
        if kind is None:
            yield self._stdin_image(head, stream)
            return
        spool = tempfile.TemporaryFile()  # noqa: SIM115  (a zip is read after this returns)
        spool.write(head)
        shutil.copyfileobj(stream, spool, _CHUNK)
        spool.seek(0)
        if kind == "zip":
            yield from self._zip(STDIN, spool)
        else:
            with spool:
                yield from self._tar(STDIN, spool)

    def _stdin_image(self, head: bytes, stream: BinaryIO) -> Item:
        data = head + _read_bounded(stream, self._max_bytes + 1)
        if len(data) > self._max_bytes:
            return _failed(STDIN, f"over the limit of {self._max_bytes:,} bytes for one image file")
        return Item(STDIN, lambda: data)


def _failed(source: str, reason: str) -> Item:
    return Item(source, failing(reason))


def _or_failed(items: Iterable[Item], name: str, reason: str) -> Iterator[Item]:
    """Yield the items; where there are none, one that fails with the reason."""
    found = False
    for item in items:
        found = True
        yield item
    if not found:
        yield _failed(name, reason)


def _wanted(folder: str) -> Iterator[tuple[str, bool]]:
    """Yield the images and folders (True) in a folder that are not hidden, in no order."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield entry.path, True
            elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and _is_regular(entry):
                yield entry.path, False


def _is_regular(entry: os.DirEntry[str]) -> bool:
    """Tell a file, or a link to none (which is worth an error), from pipes and devices."""
    return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())


def _read_file(name: str, max_bytes: int) -> bytes:
    """Return a file's bytes; raises `ImageError`."""
    try:
        with Path(name).open("rb") as file:
            check_size(os.fstat(file.fileno()).st_size, max_bytes)
            data = _read_bounded(file, max_bytes + 1)
    except (OSError, ValueError) as exc:
        raise ImageError(f"cannot be read: {_why(exc)}") from exc
    check_size(len(data), max_bytes)
    return data


def _read_bounded(stream: BinaryIO, limit: int) -> bytes:
    """Return the rest of a stream, but no more than `limit` bytes; pipes give it in parts."""
    parts = []
    while limit > 0 and (part := stream.read(min(limit, _CHUNK))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def _is_tar(source: str | Path) -> bool:
    path = Path(source).expanduser()
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return False
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return archive_kind(file.read(_HEAD), path.name) == "tar"
    except (OSError, ValueError):
        return False


def _why(exc: Exception) -> str:
    return (isinstance(exc, OSError) and exc.strerror) or str(exc)
