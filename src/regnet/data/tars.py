"""Files inside a tar, packed or not, read without extracting anything to disk under its name."""

import posixpath
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, BinaryIO, Final, cast

from regnet.data.archives import (
    BEYOND,
    BROKEN,
    MAX_BYTES,
    OPENERS,
    RATIO,
    TAR_SUFFIXES,
    ArchiveFile,
    Cursor,
    Read,
    Readable,
    Span,
    Spool,
    check_ratio,
    check_size,
    failing,
    in_memory,
    is_tar,
    or_failing,
)
from regnet.data.photo_files import first_clutter
from regnet.pixels.formats import HEAD, has_picture_suffix
from regnet.system.errors import ImageError

# Members that are too large are skipped, but a compressed stream must be read to be skipped.
_MAX_SKIP: Final = 16 << 30
_MAX_NESTED: Final = 4 << 30  # bytes of a tar inside of a compressed one, which is put aside

_IN_MEMORY: Final = 64 << 10  # bytes of a member of a compressed tar
_PART: Final = 1 << 20  # bytes put aside at a time
_MAX_HEADERS: Final = 4 << 20  # bytes of the headers of one member, and at least a part
_MAX_SHARED: Final = 10_000  # values in headers that hold for all members
_MAX_LINKS: Final = 40  # links that lead from one to the next
_MAX_SAME: Final = 100  # links to one file
_SHOWN: Final = 200  # characters of a path in a message
_MAX_PATH: Final = 4096  # characters of a path that links lead along


class _Beyond:
    """Bytes that are left for unpacking beyond the ratio."""

    def __init__(self) -> None:
        self.left = BEYOND

    def spend(self, size: int) -> None:
        """Count bytes beyond the ratio. Raises `ImageError`."""
        self.left -= size
        if self.left < 0:
            limit = f"{RATIO} times its size and {BEYOND >> 20:,} MiB more"
            raise ImageError(f"a tar bomb? It unpacks to over {limit}")


def tar_files(file: Readable, *, outer: _Beyond | None = None) -> Iterator[ArchiveFile]:
    """Yield every file in a tar(.gz, .bz2, .xz) in its order, then the links as files of their own.

    A tar inside of it stands for its files, below a folder of its name without the suffix, one
    level deep (`outer` is set for such a tar). A plain tar is read where a member lies; a
    compressed one only front to back, so `keep` puts members over 64 KiB aside in a temporary file,
    and it may unpack to 200 times its size and 1 GiB beyond it. Raises `ImageError` if the archive
    is broken.
    """
    links: dict[str, str] = {}
    spool, beyond = Spool(), outer or _Beyond()
    with _opened_tar(file, beyond) as opened:
        for info in opened.members():
            if info.issym() or info.islnk():
                base = posixpath.dirname(info.name) if info.issym() else ""
                links[info.name] = posixpath.normpath(posixpath.join(base, info.linkname))
            elif info.isreg():
                member = _Member(opened, info, spool)
                if outer is None and member.is_tar():
                    yield from _nested(member, beyond)
                else:
                    yield ArchiveFile(info.name, info.size, member.head, member.keep)
    if links:
        yield from _linked(file, links, spool)


def tar_folders(file: Readable) -> Iterator[str]:
    """Yield the path of each file's folder in a tar, and of each folder, with repeats."""
    with _opened_tar(file, _Beyond()) as opened:
        for member in opened.members():
            yield member.name if member.isdir() else posixpath.dirname(member.name)


@dataclass(frozen=True)
class _Opened:
    """An open tar; `lies_in` is the file that holds its members unpacked, None if compressed."""

    archive: tarfile.TarFile
    stream: "_Bounded"
    lies_in: Readable | None

    def members(self) -> Iterator[tarfile.TarInfo]:
        """Yield the headers."""
        end = -1
        while (member := self._next()) is not None:
            self.archive.members = []  # type: ignore[attr-defined]  # it keeps every header
            if member.size < 0 or self.archive.offset <= end:  # it could go round for ever
                raise tarfile.ReadError("a header claims less than nothing")
            if self.lies_in is None and member.size > _MAX_SKIP:
                raise ImageError(f"a tar bomb? {member.name} claims {member.size:,} bytes")
            end = self.archive.offset
            yield member

    def _next(self) -> tarfile.TarInfo | None:
        self.stream.headers_left = _MAX_HEADERS
        member = self.archive.next()
        self.stream.headers_left = None
        if len(self.archive.pax_headers) > _MAX_SHARED:
            raise tarfile.ReadError(f"over {_MAX_SHARED:,} values that hold for all members")
        return member


@contextmanager
def _opened_tar(file: Readable, beyond: _Beyond) -> Iterator[_Opened]:
    """Give the open tar; maps its errors."""
    with _broken_is_image_error():
        stream = _Bounded(Cursor(file), beyond)
        with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r:") as archive:
            yield _Opened(archive, stream, None if stream.is_packed else file)


@contextmanager
def _broken_is_image_error() -> Iterator[None]:
    try:
        yield
    except BROKEN as exc:
        raise ImageError(f"this tar archive is corrupt or truncated ({exc})") from exc


class _Member:
    """One file of an open tar, usable until the next header is read."""

    def __init__(self, opened: _Opened, info: tarfile.TarInfo, spool: Spool) -> None:
        self.name = info.name
        self._opened, self._info, self._spool = opened, info, spool
        self._lies_in = None if info.issparse() else opened.lies_in
        self._stream: BinaryIO | None = None
        self._head: bytes | None = None

    def is_tar(self) -> bool:
        """Tell whether it is an archive to look into."""
        if has_picture_suffix(self.name) or first_clutter(self.name) is not None:
            return False
        return is_tar(self.head(), self.name)

    def head(self) -> bytes:
        """Return the first bytes. Raises `ImageError` if the archive is broken."""
        if self._head is None:
            size = min(HEAD, self._info.size)
            with _broken_is_image_error():
                if self._lies_in is None:
                    self._head = self._opened_stream().read(size)
                else:
                    self._head = self._lies_in.read_at(self._info.offset_data, size)
        return self._head

    def keep(self, max_bytes: int) -> Read:
        """Return a reader for later. Raises `ImageError` if the archive is broken."""
        with _broken_is_image_error():
            return or_failing(partial(self.put_aside, max_bytes))

    def put_aside(self, max_bytes: int = sys.maxsize) -> Span:
        """Return where the bytes lie. Raises `ImageError`, or as the archive is broken."""
        info = self._info
        check_size(info.size, max_bytes)
        if info.issparse():
            check_ratio("tar", info.size, sum(size for _, size in cast(Any, info).sparse))
            self._opened.stream.beyond.spend(info.size)
        if self._lies_in is not None:
            if info.offset_data + info.size > self._lies_in.size:
                raise tarfile.ReadError("unexpected end of data")
            return self._lies_in.span(info.offset_data, info.size)
        rest = iter(partial(self._opened_stream().read, _PART), b"")
        parts = chain([self._head or b""], rest)
        return self._spool.put(parts) if info.size > _IN_MEMORY else in_memory(b"".join(parts))

    def nested(self) -> Span:
        """Return the bytes of a tar inside of this one. Raises `ImageError`."""
        if self._lies_in is None and self._info.size > _MAX_NESTED:
            size = f"{self._info.size:,} bytes"
            raise ImageError(f"a tar of {size} inside of a compressed one: unpack it first")
        return self.put_aside()

    def _opened_stream(self) -> BinaryIO:
        if self._stream is None:
            self._stream = cast(BinaryIO, self._opened.archive.extractfile(self._info))
        return self._stream


def _nested(member: _Member, beyond: _Beyond) -> Iterator[ArchiveFile]:
    """Yield the files of a tar inside of a tar; if it is broken, one more with the reason."""
    suffix = max((s for s in TAR_SUFFIXES if member.name.lower().endswith(s)), key=len, default="")
    folder = member.name[: len(member.name) - len(suffix)]
    try:
        for file in tar_files(member.nested(), outer=beyond):
            name = f"{folder}/{file.name.removeprefix('./')}"
            yield replace(file, name=name, keep=partial(_kept_alone, file.keep))
    except ImageError as exc:
        reason = str(exc)
        yield ArchiveFile(member.name, -1, lambda: b"", lambda _: failing(reason), error=reason)


def _kept_alone(keep: Callable[[int], Read], max_bytes: int) -> Read:
    """Return a reader; it fails alone if the tar inside is broken, and the others go on."""
    return or_failing(partial(keep, max_bytes))


def _linked(file: Readable, links: dict[str, str], spool: Spool) -> Iterator[ArchiveFile]:
    """Yield the links as files, in their order: a second pass finds what they lead to."""
    by_path = {posixpath.normpath(name): path for name, path in links.items()}
    ends = {name: _end(path, by_path) for name, path in links.items()}
    wanted = {end for end in ends.values() if end is not None}
    targets: dict[str | None, Span | str] = {}
    folders: set[str | None] = set()
    with _opened_tar(file, _Beyond()) as opened:
        for info in opened.members():
            if len(info.name) > _MAX_PATH:
                continue
            path = posixpath.normpath(info.name)
            folders.update(wanted & set(_parents(path)), wanted & {path} if info.isdir() else ())
            if info.isreg() and path in wanted:
                try:
                    targets[path] = _Member(opened, info, spool).put_aside(MAX_BYTES)
                except ImageError as exc:
                    targets[path] = str(exc)
    links_to: Counter[str | None] = Counter()
    for name, end in ends.items():
        links_to[end] += 1
        target = targets.get(end)
        if links_to[end] > _MAX_SAME and target is not None:
            target = f"one of over {_MAX_SAME} links to the same file"
        what = "as a link to a folder" if end in folders else ""
        yield _link_file(name, links[name], target, what)


def _link_file(name: str, path: str, target: Span | str | None, what: str) -> ArchiveFile:
    """Return a link as a file; `target` is what it leads to, or why that cannot be read."""
    if isinstance(target, Span):
        keep = partial(_kept_alone, target.within)
        return ArchiveFile(name, target.size, partial(target.first, HEAD), keep)
    shown = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}..."
    reason = target or f"a link to {shown}, which is not a file in the archive"
    head = None if target is None and not what else b""
    return ArchiveFile(name, -1, lambda: head, lambda _: failing(reason), what=what)


def _end(path: str, links: dict[str, str]) -> str | None:
    """Return where a chain of links ends, also through links to folders; None if it does not."""
    for _ in range(_MAX_LINKS if len(path) <= _MAX_PATH else 0):
        step = next((p for p in (path, *_parents(path)) if p in links), None)
        if step is None:
            return path
        path = posixpath.normpath(posixpath.join(links[step], path[len(step) :].lstrip("/")))
        if len(path) > _MAX_PATH:
            break
    return None


def _parents(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path).rstrip("/"):
        yield path


class _Bounded:
    """What tarfile reads of a tar: no header of any size claimed, no more than it may unpack to."""

    def __init__(self, file: Cursor, beyond: _Beyond) -> None:
        head = file.read(6)
        file.seek(0)
        opener = next((opener for magic, opener in OPENERS if head.startswith(magic)), None)
        self._packed, self.beyond, self._taken = file, beyond, 0
        self._stream = cast(Any, opener(cast(BinaryIO, file)) if opener else file)
        self.is_packed = opener is not None
        self.headers_left: int | None = _MAX_HEADERS  # tarfile reads the first one at once
        self.tell = self._stream.tell

    def read(self, size: int) -> bytes:
        if self.headers_left is not None:
            self.headers_left -= size
        if size < 0 or (self.headers_left is not None and self.headers_left < 0):
            raise tarfile.ReadError(f"headers of a file claim more than {_MAX_HEADERS:,} bytes")
        data: bytes = self._stream.read(size)
        self._check()
        return data

    def seek(self, offset: int) -> int:
        if self.is_packed:  # what is skipped is unpacked too
            while offset - self._stream.tell() > _PART and self._stream.read(_PART):
                self._check()
        return int(self._stream.seek(offset))

    def _check(self) -> None:
        if self.is_packed:
            beyond = self._stream.tell() - RATIO * self._packed.tell()
            if beyond > self._taken:
                self.beyond.spend(beyond - self._taken)
                self._taken = beyond
