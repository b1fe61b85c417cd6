"""What the user names, to a stream of images: files, folders, patterns, URLs, stdin, archives."""

import contextlib
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
from typing import BinaryIO, Final, cast

from regnet.addresses import without_secrets
from regnet.data.archives import (
    IMAGE_SUFFIXES,
    Member,
    archive_kind,
    check_size,
    failing,
    open_zip,
    tar_members,
    zip_members,
)
from regnet.data.remote import Fetcher
from regnet.data.spool import SharedFile
from regnet.errors import ImageError
from regnet.video.names import is_live, is_video

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


@dataclass(frozen=True)
class Video(Item):
    """A video file, a camera or a stream: many images, those of what is at `address`."""

    address: str


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
    or an archive). Whatever cannot be opened is an item whose `read` raises the reason; so does
    that of a `Video`, which is what a file with the suffix of one, a camera or an rtsp:// address
    gives. `timeout` is in seconds without a byte from a server. For one thread; the items' `read`
    for any.
    """
    fetcher = Fetcher(max_bytes=max_bytes, timeout=timeout)
    walk = Walk(stdin=stdin, max_bytes=max_bytes, fetcher=fetcher)
    for source in sources:
        yield from walk.items(source)


def count_items(sources: Iterable[str | Path]) -> int | None:
    """Return how many items `iter_items` would yield; None where only reading them would tell."""
    walk = _Counting(stdin=None, max_bytes=MAX_BYTES, fetcher=Fetcher(max_bytes=MAX_BYTES))
    try:
        return sum(1 for source in sources for _ in walk.items(source))
    except _UncountableError:
        return None


def image_files(top: str) -> Iterator[tuple[str, OSError | None]]:
    """Yield the images below a folder, sorted; a folder reached twice by links counts once.

    A folder that cannot be looked into comes with the reason.
    """
    seen: set[tuple[int, int]] = set()
    todo = [(top, True)]
    while todo:
        name, is_folder = todo.pop()
        if not is_folder:
            yield name, None
            continue
        try:
            status = Path(name).stat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                todo += sorted(_wanted(name), reverse=True)
        except OSError as exc:
            yield name, exc


class Walk:
    """One walk over sources: what their kinds share; `items` gives those of one source."""

    def __init__(self, *, stdin: BinaryIO | None, max_bytes: int, fetcher: Fetcher) -> None:
        self._stdin = stdin
        self._stdin_used = False
        self._max_bytes = max_bytes
        self._fetcher = fetcher

    def items(self, source: str | Path) -> Iterator[Item]:
        """Yield the items of one source."""
        name = str(source)
        if name == STDIN:
            return self._from_stdin()
        if is_live(name):
            return iter([_video(name)])
        if isinstance(source, str) and (scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", name)):
            return self._url(name, scheme[1].lower())
        return self._local(name)

    def _url(self, url: str, scheme: str) -> Iterator[Item]:
        if scheme in ("http", "https"):
            yield Item(without_secrets(url), partial(self._fetcher.fetch, url))
        else:
            yield _failed(without_secrets(url), f"{scheme}:// is not supported: http and https are")

    def _local(self, name: str) -> Iterator[Item]:
        try:
            name = os.path.expanduser(name)  # noqa: PTH111  (leaves users alone that are none)
            path = Path(name)
            if path.is_dir():
                return _or_failed(self._below(name), name, "no images in this folder")
            if path.is_file():
                return self._file(name)
            if path.exists():  # a pipe or a device
                return iter([_video(name) if is_video(name) else self._item(name)])
        except (OSError, ValueError) as exc:
            return iter([_failed(name, f"cannot be opened: {_why(exc)}")])
        if glob.has_magic(name):
            return _or_failed(self._matches(name), name, "no image matches this pattern")
        return iter([_failed(name, "no such file or folder")])

    def _file(self, name: str) -> Iterator[Item]:
        if Path(name).suffix.lower() in IMAGE_SUFFIXES:
            yield self._item(name)
            return
        if is_video(name):
            yield _video(name)
            return
        try:
            with Path(name).open("rb") as file:
                kind = archive_kind(file.read(_HEAD), name)
            tar = SharedFile(Path(name).open("rb")) if kind == "tar" else None  # noqa: SIM115
        except (OSError, ValueError) as exc:
            yield _failed(name, f"cannot be opened: {_why(exc)}")
            return
        if tar:
            yield from self._tar(name, tar)
        elif kind == "zip":
            yield from self._zip(name, Path(name))
        else:
            yield self._item(name)

    def _item(self, name: str) -> Item:
        return Item(name, partial(read_file, name, self._max_bytes))

    def _below(self, top: str) -> Iterator[Item]:
        """Yield the images below a folder, sorted."""
        for name, problem in image_files(top):
            if problem is None:
                yield self._item(name)
            else:
                yield _failed(name, f"cannot be opened: {_why(problem)}")

    def _matches(self, pattern: str) -> Iterator[Item]:
        """Yield what a pattern matches: images, or any file where the pattern spells its suffix.

        A folder gives the images below it, unless `**` goes there by itself.
        """
        any_suffix = bool(re.search(r"\.\w+$", pattern))
        try:
            names = sorted(glob.iglob(pattern, recursive=True))  # noqa: PTH207
        except (OSError, ValueError, RecursionError) as exc:
            yield _failed(pattern, f"cannot be looked for: {_why(exc)}")
            return
        for name in names:
            if os.path.isdir(name):  # noqa: PTH112  (a Path's raises where it may not look)
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

    def _tar(self, name: str, file: SharedFile) -> Iterator[Item]:
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
        try:
            stream = self._stdin or sys.stdin.buffer
            head = _read_bounded(stream, _HEAD)
            if (kind := archive_kind(head)) is None:
                yield self._stdin_image(head, stream)
                return
            spool = _spooled(head, stream)
        except (OSError, ValueError, AttributeError) as exc:  # there may be no sys.stdin at all
            yield _failed(STDIN, f"cannot be read: {_why(exc)}")
            return
        if kind == "zip":
            yield from self._zip(STDIN, spool)
        else:
            yield from self._tar(STDIN, SharedFile(spool))

    def _stdin_image(self, head: bytes, stream: BinaryIO) -> Item:
        data = head + _read_bounded(stream, self._max_bytes + 1)
        if len(data) > self._max_bytes:
            return _failed(STDIN, f"over the limit of {self._max_bytes:,} bytes for one image file")
        return Item(STDIN, lambda: data)


class _UncountableError(Exception):
    """Only reading would tell how many images there are."""


class _Counting(Walk):
    """A walk of which only the number of items matters: it ends where reading begins."""

    def items(self, source: str | Path) -> Iterator[Item]:
        for item in super().items(source):
            if isinstance(item, Video):
                raise _UncountableError
            yield item

    def _tar(self, name: str, file: SharedFile) -> Iterator[Item]:
        raise _UncountableError

    def _from_stdin(self) -> Iterator[Item]:
        raise _UncountableError


def _video(name: str) -> Video:
    return Video(without_secrets(name), failing("videos are for `regnet classify` alone"), name)


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
            if _is_folder(entry):
                yield entry.path, True
            elif Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and _is_regular(entry):
                yield entry.path, False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, say
        return False


def _is_regular(entry: os.DirEntry[str]) -> bool:
    """Tell files, and links that lead nowhere (worth an error), from pipes and devices."""
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:
        return True


def read_file(name: str, max_bytes: int) -> bytes:
    """Return a file's bytes; raises `ImageError` where it cannot be read or is over the limit."""
    try:
        with Path(name).open("rb") as file:
            check_size(os.fstat(file.fileno()).st_size, max_bytes)
            data = _read_bounded(file, max_bytes + 1)
    except (OSError, ValueError) as exc:
        raise ImageError(f"cannot be read: {_why(exc)}") from exc
    check_size(len(data), max_bytes)
    return data


def _spooled(head: bytes, stream: BinaryIO) -> BinaryIO:
    """Return a stream's bytes in an unnamed temporary file, at its begin."""
    spool = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115  (closed by who gets it)
    try:
        spool.write(head)
        shutil.copyfileobj(stream, spool, _CHUNK)
        spool.seek(0)
    except BaseException:
        with contextlib.suppress(OSError):  # what could not be written cannot be on closing
            spool.close()
        raise
    return spool


def _read_bounded(stream: BinaryIO, limit: int) -> bytes:
    """Return the rest of a stream, but no more than `limit` bytes; pipes give it in parts."""
    parts = []
    while limit > 0 and (part := stream.read(min(limit, _CHUNK))):
        parts.append(part)
        limit -= len(part)
    return b"".join(parts)


def _why(exc: Exception) -> str:
    return (isinstance(exc, OSError) and exc.strerror) or str(exc)
