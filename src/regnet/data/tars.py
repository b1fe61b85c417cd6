"""Files inside a tar, packed or not, read without extracting anything to disk under its name."""

import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator
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
    Read,
    check_ratio,
    check_size,
    failing,
    is_tar,
)
from regnet.data.clutter import first_clutter
from regnet.data.spool import Cursor, Readable, Span, Spool, Window
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


def tar_files(file: Readable, *, outer: _Beyond | None = None) -> Iterator[ArchiveFile]:
    """Yield every file in a tar(.gz, .bz2, .xz) in its order, and after them what links name.

    Of a tar inside of it the files are those below a folder of its name without the suffix, one
    level deep (`outer`: for such a one). Readers of a plain tar read where a member lies; what is
    compressed can only be read front to back, so members over 64 KiB are put aside in a temporary
    file by `keep`, and it may unpack to 200 times its size and 1 GiB beyond it.
    Hard and symbolic links are files of their own; they are looked for in a second pass, if there
    are any. Raises `ImageError` where the archive is broken.
    """
    links: dict[str, _Link] = {}
    spool, beyond = Spool(), outer or _Beyond()
    with _opened_tar(file, beyond) as opened:
        for member in opened.members():
            if member.issym() or member.islnk():
                links[member.name] = _link(member)
            elif member.isreg():
                one = _Member(opened, member, spool)
                if outer is None and one.is_tar():
                    yield from _nested(one, beyond)
                else:
                    yield one.file()
    if links:
        yield from _linked(file, links, spool)


def tar_folders(file: Readable) -> Iterator[str]:
    """Yield the path of each file's folder in a tar, and of each folder, again and again."""
    with _opened_tar(file, _Beyond()) as opened:
        for member in opened.members():
            yield member.name if member.isdir() else posixpath.dirname(member.name)


@dataclass(frozen=True)
class _Opened:
    """An open tar; `lies_in` is the file where its members lie as they are, None if compressed."""

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
    plain = Cursor(file)
    try:
        bounded = _Bounded(_unpacked(plain), plain, beyond)
        with tarfile.open(fileobj=cast(BinaryIO, bounded), mode="r:") as archive:
            yield _Opened(archive, bounded, None if bounded.is_packed else file)
    except BROKEN as exc:
        raise _broken(exc) from exc


def _broken(exc: BaseException) -> ImageError:
    return ImageError(f"this tar archive is corrupt or truncated ({exc})")


class _Member:
    """One file of an open tar, usable until the next header is read."""

    def __init__(self, opened: _Opened, info: tarfile.TarInfo, spool: Spool) -> None:
        self._opened, self._info, self._spool = opened, info, spool
        self._stream: BinaryIO | None = None
        self._head: bytes | None = None

    @property
    def name(self) -> str:
        return self._info.name

    def file(self) -> ArchiveFile:
        return ArchiveFile(self.name, self._info.size, self.head, self.keep)

    def is_tar(self) -> bool:
        """Tell whether it is an archive to look into."""
        if has_picture_suffix(self.name) or first_clutter(self.name) is not None:
            return False
        return is_tar(self.head(), self.name)

    def head(self) -> bytes:
        """Return the first bytes. Raises `ImageError` where the archive is broken."""
        if self._head is None:
            lies_in, size = self._lies_in(), min(HEAD, self._info.size)
            try:
                if lies_in is None:
                    self._head = self._opened_stream().read(size)
                else:
                    self._head = lies_in.read_at(self._info.offset_data, size)
            except BROKEN as exc:
                raise _broken(exc) from exc
        return self._head

    def keep(self, max_bytes: int) -> Read:
        """Return a reader for later. Raises `ImageError` where the archive is broken."""
        try:
            check_size(self._info.size, max_bytes)
            return self.put_aside()
        except ImageError as exc:
            return failing(str(exc))
        except BROKEN as exc:
            raise _broken(exc) from exc

    def put_aside(self) -> "Span | Held":
        """Return where the bytes lie, or them. Raises `ImageError`, or as the archive is broken."""
        info, lies_in = self._info, self._lies_in()
        if info.issparse():
            check_ratio("tar", info.size, sum(size for _, size in cast(Any, info).sparse))
            self._opened.stream.spend(info.size)
        if lies_in is not None:
            if info.offset_data + info.size > lies_in.size:
                raise tarfile.ReadError("unexpected end of data")
            return lies_in.span(info.offset_data, info.size)
        rest = iter(partial(self._opened_stream().read, _PART), b"")
        parts = chain([self._head or b""], rest)
        return self._spool.put(parts) if info.size > _IN_MEMORY else Held(b"".join(parts))

    def window(self) -> Window:
        """Return the member as a file of its own. Raises `ImageError`."""
        if self._lies_in() is None and self._info.size > _MAX_NESTED:
            size = f"{self._info.size:,} bytes"
            raise ImageError(f"a tar of {size} inside of a compressed one: unpack it first")
        kept = self.put_aside()
        return (kept if isinstance(kept, Span) else self._spool.put([kept()])).window()

    def _lies_in(self) -> Readable | None:
        return None if self._info.issparse() else self._opened.lies_in

    def _opened_stream(self) -> BinaryIO:
        if self._stream is None:
            self._stream = cast(BinaryIO, self._opened.archive.extractfile(self._info))
        return self._stream


class Held:
    """Bytes that are read when called, as those of a `Span`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def __call__(self) -> bytes:
        """Return the bytes."""
        return self._data

    def first(self, count: int) -> bytes:
        """Return the first bytes, at most `count`."""
        return self._data[:count]


def _nested(member: _Member, beyond: _Beyond) -> Iterator[ArchiveFile]:
    """Yield the files of a tar inside of a tar; where it breaks, one with the reason."""
    folder = _without_suffix(member.name)
    try:
        for file in tar_files(member.window(), outer=beyond):
            name = f"{folder}/{file.name.removeprefix('./')}"
            yield replace(file, name=name, keep=partial(_kept_alone, file))
    except ImageError as exc:
        reason = str(exc)
        yield ArchiveFile(member.name, -1, lambda: b"", lambda _: failing(reason), error=reason)


def _kept_alone(file: ArchiveFile, max_bytes: int) -> Read:
    """Return a reader that fails alone where the tar inside is broken, for others go on."""
    try:
        return file.keep(max_bytes)
    except ImageError as exc:
        return failing(str(exc))


def _without_suffix(name: str) -> str:
    found = [suffix for suffix in TAR_SUFFIXES if name.lower().endswith(suffix)]
    return name[: -len(max(found, key=len))] if found else name


@dataclass(frozen=True, slots=True)
class _Link:
    """Where a link leads, as a path in the archive; one that begins with .. or / leads outside."""

    path: str


def _link(member: tarfile.TarInfo) -> _Link:
    base = posixpath.dirname(member.name) if member.issym() else ""
    return _Link(_plain(posixpath.join(base, member.linkname)))


def _plain(name: str) -> str:
    """Return a path without . and .. in it, the same if it began with ./ or not."""
    return posixpath.normpath(name)


def _linked(file: Readable, links: dict[str, _Link], spool: Spool) -> Iterator[ArchiveFile]:
    """Yield the links as files, in their order: a second pass finds what they lead to."""
    by_path = {_plain(name): link for name, link in links.items()}
    ends = {name: _end(link.path, by_path) for name, link in links.items()}
    wanted = {end for end in ends.values() if end is not None}
    found: dict[str, Span | Held | str] = {}
    folders: set[str] = set()
    with _opened_tar(file, _Beyond()) as opened:
        for info in opened.members():
            if len(info.name) > _MAX_PATH:
                continue
            path = _plain(info.name)
            folders.update(wanted & set(_parents(path)), wanted & {path} if info.isdir() else ())
            if info.isreg() and path in wanted:
                found[path] = _kept(_Member(opened, info, spool), info.size)
    links_to: Counter[str | None] = Counter()
    for name, end in ends.items():
        links_to[end] += 1
        target = found.get(end or "")
        if links_to[end] > _MAX_SAME and target is not None:
            target = f"one of over {_MAX_SAME} links to the same file"
        what = "as a link to a folder" if end in folders else ""
        yield _link_file(name, links[name].path, target, what)


def _kept(member: _Member, size: int) -> Span | Held | str:
    """Return what a link leads to, put aside, or why it cannot be."""
    try:
        check_size(size, MAX_BYTES)
        return member.put_aside()
    except ImageError as exc:
        return str(exc)


def _link_file(name: str, path: str, target: Span | Held | str | None, what: str) -> ArchiveFile:
    if target is None or isinstance(target, str):
        shown = path if len(path) <= _SHOWN else f"{path[:_SHOWN]}..."
        reason = target or f"a link to {shown}, which is no file in the archive"
        head = None if target is None and not what else b""
        return ArchiveFile(name, -1, lambda: head, lambda _: failing(reason), what=what)
    return ArchiveFile(name, target.size, partial(target.first, HEAD), partial(_within, target))


def _within(target: Span | Held, max_bytes: int) -> Read:
    try:
        check_size(target.size, max_bytes)
    except ImageError as exc:
        return failing(str(exc))
    return target


def _end(path: str, links: dict[str, _Link]) -> str | None:
    """Return where a chain of links ends, also through links to folders; None if it does not."""
    for _ in range(_MAX_LINKS if len(path) <= _MAX_PATH else 0):
        step = next((p for p in (path, *_parents(path)) if p in links), None)
        if step is None:
            return path
        path = _plain(posixpath.join(links[step].path, path[len(step) :].lstrip("/")))
        if len(path) > _MAX_PATH:
            break
    return None


def _parents(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path).rstrip("/"):
        yield path


def _unpacked(stream: Cursor) -> Cursor | BinaryIO:
    head = stream.read(6)
    stream.seek(0)
    for magic, opener in OPENERS:
        if head.startswith(magic):
            return cast(BinaryIO, opener(cast(BinaryIO, stream)))
    return stream


class _Bounded:
    """What tarfile reads of a tar: no header of any size claimed, no more than it may unpack to."""

    def __init__(self, stream: Cursor | BinaryIO, packed: Cursor, beyond: _Beyond) -> None:
        self._stream, self._packed, self._beyond = stream, packed, beyond
        self._taken = 0
        self.is_packed = stream is not packed
        self.headers_left: int | None = _MAX_HEADERS  # tarfile reads the first one at once
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        if self.headers_left is not None:
            self.headers_left -= size
        if size < 0 or (self.headers_left is not None and self.headers_left < 0):
            raise tarfile.ReadError(f"headers of a file claim more than {_MAX_HEADERS:,} bytes")
        data = self._stream.read(size)
        self._check()
        return data

    def seek(self, offset: int) -> int:
        if self.is_packed:  # what is skipped is unpacked too
            while offset - self._stream.tell() > _PART and self._stream.read(_PART):
                self._check()
        return self._stream.seek(offset)

    def _check(self) -> None:
        if not self.is_packed:
            return
        beyond = self._stream.tell() - RATIO * self._packed.tell()
        if beyond > self._taken:
            taken, self._taken = self._taken, beyond
            self.spend(beyond - taken)

    def spend(self, size: int) -> None:
        """Count bytes beyond the ratio. Raises `ImageError`."""
        self._beyond.left -= size
        if self._beyond.left < 0:
            limit = f"{RATIO} times its size and {BEYOND >> 20:,} MiB more"
            raise ImageError(f"a tar bomb? It unpacks to over {limit}")
