"""Everything the user can name, as a stream of images: files, folders, patterns, URLs, archives."""

import glob
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from regnet.data.archives import (
    MAX_BYTES,
    ArchiveFile,
    ArchiveKind,
    Readable,
    SharedFile,
    Spool,
    archive_kind,
    failing,
    photos_in,
    reader,
)
from regnet.data.photo_files import (
    SkipTally,
    count_files,
    image_files,
    is_clutter,
    is_live,
    is_picture_file,
    is_stream,
    is_video,
)
from regnet.data.remote import CHUNK, read_bounded, read_file
from regnet.pixels.formats import HEAD, checked_read, has_picture_suffix, suffix_of
from regnet.system.addresses import is_local_address, without_secrets
from regnet.system.errors import DatasetError, ImageError, reason_of

if TYPE_CHECKING:
    from regnet.data.fetcher import Fetcher

STDIN: Final = "-"
PARQUET: Final = ".parquet"
_PARQUET_MAGIC: Final = b"PAR1"
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class Item:
    """One image: its reported name, and `read`, which returns its encoded bytes.

    `read` is thread-safe and raises `ImageError` with the reason, so that other images go on.
    """

    source: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Video(Item):
    """A video file, a camera or a stream at `address`: many images."""

    address: str


def iter_items(
    sources: Iterable[str | Path],
    *,
    stdin: BinaryIO | None = None,
    max_bytes: int = MAX_BYTES,
    timeout: float = 20.0,
    offline: bool = False,
) -> Iterator[Item]:
    """Yield an `Item` for every image in the sources, in their order, without reading it.

    A source is a file, a folder (all images below it, sorted), a pattern such as `photos/*.jpg` or
    `photos/**/*.png`, a zip or tar archive, a Parquet file with a column of images, an http(s) URL,
    or `-` for standard input (one image, or an archive). A source that cannot be opened yields an
    item whose `read` raises the reason; with `offline`, so does every address. Video files, cameras
    and rtsp:// addresses yield a `Video`. `timeout`: seconds without a byte from a server. At the
    end a `SkippedFilesWarning` counts the skipped files. For one thread; `read` is thread-safe.
    """
    tally = SkipTally()
    walk = Walk(stdin=stdin, max_bytes=max_bytes, timeout=timeout, tally=tally, offline=offline)
    for source in sources:
        yield from walk.items(source)
    tally.report()


def is_absent(source: str) -> bool:
    """Tell whether a source is a local name of nothing: it will yield nothing but an error."""
    if source == STDIN or is_live(source) or _URL.match(source) or glob.has_magic(source):
        return False
    try:
        path = Path(os.path.expanduser(source))  # noqa: PTH111
        return not path.exists() and not any(folder.is_file() for folder in path.parents)
    except (OSError, ValueError):
        return False  # opening it says more


def is_empty(source: str) -> bool:
    """Tell whether a source is a folder or a pattern that gives no image."""
    if is_absent(source) or source == STDIN or is_live(source) or _URL.match(source):
        return False
    name, walk = os.path.expanduser(source), Walk()  # noqa: PTH111
    if os.path.isdir(name):  # noqa: PTH112  (a Path's raises without permission)
        return next(walk.below(name), None) is None
    is_pattern = not os.path.lexists(name) and glob.has_magic(name)
    return is_pattern and next(walk.matches(name), None) is None


def count_items(sources: Iterable[str | Path]) -> int | None:
    """Return how many items `iter_items` would yield; None if only reading them would tell."""
    walk = _Counting()
    try:
        return sum(1 for source in sources for _ in walk.items(source))
    except _UncountableError:
        return None


@dataclass(kw_only=True)
class Walk:
    """One walk over sources: `items` yields those of one; `tally` counts what is skipped."""

    stdin: BinaryIO | None = None
    max_bytes: int = MAX_BYTES
    timeout: float = 20.0
    tally: SkipTally | None = None
    offline: bool = False
    stdin_used: bool = False

    @cached_property
    def fetcher(self) -> "Fetcher":
        """Fetches what is at http(s) addresses."""
        from regnet.data.fetcher import Fetcher

        return Fetcher(max_bytes=self.max_bytes, timeout=self.timeout)

    def items(self, source: str | Path) -> Iterator[Item]:
        """Yield the items of one source."""
        name = str(source)
        if name == STDIN:
            return self._from_stdin()
        is_url = isinstance(source, str) and _URL.match(name)
        if self.offline and (is_stream(name) or (is_url and not is_local_address(name))):
            return iter([_failed(without_secrets(name), "not opened, because of --offline")])
        if is_live(name):
            return iter([_video(name)])
        if not name:
            return iter([_failed(name, "the name is empty: is a variable of the shell not set?")])
        if is_url:
            return self._url(name, name.partition(":")[0].lower())
        return self._local(name)

    def _url(self, url: str, scheme: str) -> Iterator[Item]:
        if scheme in ("http", "https"):
            yield Item(without_secrets(url), partial(self.fetcher.fetch, url))
        elif scheme == "file":
            yield _failed(url, "not an address: name the file by its path, without file://")
        else:
            yield _failed(
                without_secrets(url),
                f"{scheme}:// is read by `regnet classify --ray` alone (extra `cluster`); without "
                "it, only http:// and https:// are: copy the files here first",
            )

    def _local(self, name: str) -> Iterator[Item]:
        try:
            name = os.path.expanduser(name)  # noqa: PTH111  (leaves users alone that are none)
            path = Path(name)
            if path.is_dir():
                return _or_failed(self.below(name), name, "no images in this folder")
            if path.is_file():
                return self._file(name)
            if path.exists():  # a pipe or a device
                return iter([_video(name) if is_video(name) else self._item(name)])
        except (OSError, ValueError) as exc:
            return iter([_failed(name, f"cannot be opened: {reason_of(exc)}")])
        if glob.has_magic(name):
            return _or_failed(self.matches(name), name, "no image matches this pattern")
        return iter([_failed(name, "no such file or folder")])

    def _file(self, name: str) -> Iterator[Item]:
        if has_picture_suffix(name) or is_video(name):
            yield _video(name) if is_video(name) else self._item(name)
            return
        try:
            file = SharedFile(Path(name).open("rb"))  # noqa: SIM115
            head = file.read_at(0, HEAD)
        except (OSError, ValueError) as exc:
            yield _failed(name, f"cannot be opened: {reason_of(exc)}")
            return
        if suffix_of(name) == PARQUET or head.startswith(_PARQUET_MAGIC):
            yield from or_reason(self._rows(name), name)
        elif kind := archive_kind(head, name):
            yield from self._members(name, kind, file)
        else:
            yield self._item(name)

    def _item(self, name: str) -> Item:
        return file_item(name, self.max_bytes)

    def below(self, top: str) -> Iterator[Item]:
        """Yield the images below a folder, sorted, or, without any, those in Parquet files."""
        found, tally = False, SkipTally()
        for name, problem in image_files(top, None if self.tally is None else tally):
            found = True
            if problem is None:
                yield self._item(name)
            else:
                yield _failed(name, f"cannot be opened: {reason_of(problem)}")
        if not found:
            tally.drop((PARQUET,))
            for file in sorted(Path(top).rglob(f"*{PARQUET}")):
                yield from or_reason(self._rows(str(file)), str(file))
        if self.tally is not None:
            self.tally.add_all(tally)

    def matches(self, pattern: str) -> Iterator[Item]:
        """Yield the images that match a pattern, or any file if the pattern spells its suffix.

        A folder gives the images below it, unless `**` goes there by itself.
        """
        any_suffix = bool(re.search(r"\.\w+$", pattern))
        literal = set(Path(pattern).parts)
        try:
            names = sorted(glob.iglob(pattern, recursive=True))  # noqa: PTH207
        except (OSError, ValueError, RecursionError) as exc:
            yield _failed(pattern, f"cannot be looked for: {reason_of(exc)}")
            return
        for name in names:
            clutter = next((p for p in Path(name).parts if p not in literal and is_clutter(p)), "")
            file = Path(name).name
            if os.path.isdir(name):  # noqa: PTH112  (a Path's raises without permission)
                if "**" in pattern:
                    continue
                if not clutter:
                    yield from self.below(name)
                elif self.tally is not None:
                    self.tally.add_folder(pattern, clutter, count_files(name))
            elif not clutter and (any_suffix or is_picture_file(name)):
                yield from self._file(name)
            elif self.tally is not None:
                self.tally.add(pattern, str(Path(clutter, "" if clutter == file else file)))

    def _rows(self, name: str) -> Iterator[Item]:
        """Yield the images in a Parquet file. Raises `DatasetError`, `MissingExtraError`."""
        from regnet.data.parquet_images import image_rows, images_from

        column, _ = image_rows(name)
        for row, read in images_from(name, column, 0, self.max_bytes):
            yield Item(f"{name}#{row}", read)

    def _members(self, name: str, kind: ArchiveKind, file: Readable) -> Iterator[Item]:
        """Yield the images in an archive, those of a zip sorted."""
        from regnet.data.tars import tar_files
        from regnet.data.zip_stream import zip_files

        files = zip_files(file) if kind == "zip" else tar_files(file)
        try:
            photos: Iterable[ArchiveFile] = photos_in(files, name, self.tally)
            if kind == "zip":
                photos = sorted(photos, key=lambda photo: photo.name)
            items = (self._member(name, n, photo, file) for n, photo in enumerate(photos))
            yield from _or_failed(items, name, "no images in this archive")
        except (ImageError, OSError, ValueError) as exc:
            yield _failed(name, reason_of(exc))

    def _member(self, name: str, number: int, photo: ArchiveFile, file: Readable) -> Item:
        return Item(f"{name}/{photo.name}", reader(photo, self.max_bytes))

    def _from_stdin(self) -> Iterator[Item]:
        if self.stdin_used:
            yield _failed(STDIN, "standard input was read before: name it once")
            return
        self.stdin_used = True
        try:
            stream = self.stdin or sys.stdin.buffer
            head = read_bounded(stream, HEAD)
            if (kind := archive_kind(head)) is None:
                yield self._stdin_image(head, stream)
                return
            file = Spool().put(chain([head], iter(partial(stream.read, CHUNK), b"")))
        except (OSError, ValueError, AttributeError) as exc:  # there may be no sys.stdin at all
            yield _failed(STDIN, f"cannot be read: {reason_of(exc)}")
        except ImageError as exc:
            yield _failed(STDIN, str(exc))
        else:
            yield from self._members(STDIN, kind, file)

    def _stdin_image(self, head: bytes, stream: BinaryIO) -> Item:
        data = head + read_bounded(stream, self.max_bytes + 1)
        if len(data) > self.max_bytes:
            return _failed(STDIN, f"over the limit of {self.max_bytes:,} bytes for one image file")
        return Item(STDIN, lambda: data)


class _UncountableError(Exception):
    """Only reading would tell how many images there are."""


class _Counting(Walk):
    """A walk that only counts items; it gives up where it would have to read."""

    def items(self, source: str | Path) -> Iterator[Item]:
        for item in super().items(source):
            if isinstance(item, Video):
                raise _UncountableError
            yield item

    def _members(self, name: str, kind: ArchiveKind, file: Readable) -> Iterator[Item]:
        if kind == "tar":
            raise _UncountableError
        return super()._members(name, kind, file)

    def _rows(self, name: str) -> Iterator[Item]:
        from regnet.data.parquet_images import image_rows

        return (_failed(name, "counted") for _ in range(image_rows(name)[1]))

    def _from_stdin(self) -> Iterator[Item]:
        raise _UncountableError


def _video(name: str) -> Video:
    return Video(without_secrets(name), failing("videos are for `regnet classify` alone"), name)


def _failed(source: str, reason: str) -> Item:
    return Item(source, failing(reason))


def _or_failed(items: Iterable[Item], name: str, reason: str) -> Iterator[Item]:
    """Yield the items; if there are none, one that fails with the reason."""
    found = False
    for item in items:
        found = True
        yield item
    if not found:
        yield _failed(name, reason)


def or_reason(items: Iterator[Item], name: str) -> Iterator[Item]:
    """Yield the items; if they cannot be listed, one more with the reason."""
    try:
        yield from items
    except (DatasetError, OSError, ValueError) as exc:
        yield _failed(name, f"cannot be opened: {reason_of(exc)}")


def file_item(path: str, max_bytes: int = MAX_BYTES) -> Item:
    """Return the image in a file."""
    return Item(path, checked_read(path, partial(read_file, path, max_bytes)))
