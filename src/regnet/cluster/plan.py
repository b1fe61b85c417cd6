"""What the user names, as partitions of images: listed once here, read where they are needed."""

import hashlib
import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final, Literal, Self

from regnet.data.archives import (
    MAX_BYTES,
    ArchiveFile,
    Readable,
    SharedFile,
    Span,
    archive_kind,
    failing,
    photos_in,
    reader,
)
from regnet.data.fetcher import Fetcher
from regnet.data.parquet_images import image_rows, images_from
from regnet.data.photo_files import SkipTally, is_clutter, is_live, is_video
from regnet.data.remote import (
    ObjectStore,
    file_size,
    open_file,
    read_file,
    read_object,
)
from regnet.data.sources import PARQUET, STDIN, Item, Walk, or_reason
from regnet.data.tars import tar_files
from regnet.data.zip_stream import ZipEntry, ZipMember
from regnet.pixels.formats import HEAD, checked_read, has_picture_suffix, suffix_of
from regnet.system.addresses import without_secrets
from regnet.system.errors import ClusterError, DatasetError, ImageError

Kind = Literal["file", "object", "url", "zip", "tar", "packed", "row", "failed"]
Read = Callable[[], bytes]
Job = tuple[str, Read]

_IN_FILES: Final = ("zip", "tar", "packed", "row")  # kinds that lie many in one file
_GLOB: Final = "*?["


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one image is: a path or address, and for some kinds where in it.

    `zip`: the fields of its `ZipEntry`; `tar`: name, offset and bytes; `packed` (in a compressed
    tar): its number among the images; `row`: column and number; `failed`: the reason.
    """

    kind: Kind
    place: str
    values: tuple[str | int, ...] = ()


@dataclass(frozen=True, slots=True)
class Partition:
    """Images that are classified together; `number` counts from 0.

    `sha256` is that of the entries, and of the sizes of the archives and Parquet files that they
    are in: equal where the same images are meant. `packed` has the entries in a few bytes each.
    """

    number: int
    images: int
    sha256: str
    packed: bytes

    @classmethod
    def of(cls, number: int, entries: Sequence[Entry]) -> Self:
        """Return the partition of these images."""
        rows = [(entry.kind, entry.place, *entry.values) for entry in entries]
        data = json.dumps(rows, separators=(",", ":")).encode()
        files = sorted({entry.place for entry in entries if entry.kind in _IN_FILES})
        sizes = repr([(file, file_size(file)) for file in files])
        sha256 = hashlib.sha256(data + sizes.encode()).hexdigest()
        return cls(number, len(rows), sha256, zlib.compress(data, 1))


def unpack(packed: bytes) -> list[Entry]:
    """Return the entries of a partition from its `packed` bytes."""
    rows = json.loads(zlib.decompress(packed))
    return [Entry(kind, place, tuple(values)) for kind, place, *values in rows]


def jobs(entries: Sequence[Entry]) -> Iterator[Job]:
    """Yield name and reader of each image, in order; a reader raises `ImageError`. For one thread.

    Readers are thread-safe. Memory does not grow with the entries. Raises `ClusterError` where a
    file that holds images is not the one that was listed.
    """
    fetcher = Fetcher(max_bytes=MAX_BYTES)
    for (kind, place), run in groupby(entries, _together):
        if kind in _IN_FILES:
            yield from _in_file(kind, place, list(run))
        else:
            for entry in run:
                yield _single(entry, fetcher)


def _together(entry: Entry) -> tuple[Kind, str]:
    return entry.kind, entry.place if entry.kind in _IN_FILES else ""


def _single(entry: Entry, fetcher: Fetcher) -> Job:
    place = entry.place
    if entry.kind == "file":
        return place, checked_read(place, partial(read_file, place, MAX_BYTES))
    if entry.kind == "object":
        return without_secrets(place), checked_read(place, partial(read_object, place, MAX_BYTES))
    if entry.kind == "url":
        return without_secrets(place), partial(fetcher.fetch, place)
    return place, failing(str(entry.values[0]))


def _in_file(kind: Kind, place: str, entries: list[Entry]) -> Iterator[Job]:
    """Yield the images of one file; those behind a place where it breaks have the reason."""
    name = without_secrets(place)
    left = iter(entries)
    try:
        for job in _READERS[kind](place, name, entries):
            next(left)
            yield job
    except (ImageError, DatasetError, OSError, ValueError) as exc:
        raise ClusterError(f"{name}: cannot be read as it was listed: {exc}") from exc
    if next(left, None) is not None:
        raise ClusterError(f"{name}: has fewer images than were listed: it changed meanwhile")


def _zip_jobs(place: str, name: str, entries: list[Entry]) -> Iterator[Job]:
    file = SharedFile(open_file(place))
    for entry in entries:
        member = ZipEntry(*entry.values)  # type: ignore[arg-type]
        read = ZipMember(file, member, MAX_BYTES)
        yield f"{name}/{member.name}", checked_read(member.name, read)


def _tar_jobs(place: str, name: str, entries: list[Entry]) -> Iterator[Job]:
    file = SharedFile(open_file(place))
    for entry in entries:
        member, offset, size = str(entry.values[0]), int(entry.values[1]), int(entry.values[2])
        yield f"{name}/{member}", checked_read(member, Span(file, offset, size))


def _packed_jobs(place: str, name: str, entries: list[Entry]) -> Iterator[Job]:
    """Yield images of a compressed tar: it can only be unpacked from its beginning."""
    wanted = {entry.values[0] for entry in entries}
    last = int(entries[-1].values[0])
    photos = photos_in(tar_files(SharedFile(open_file(place))), place, None)
    for number, photo in enumerate(photos):
        if number in wanted:
            yield f"{name}/{photo.name}", reader(photo, MAX_BYTES)
        if number == last:
            return


def _row_jobs(place: str, name: str, entries: list[Entry]) -> Iterator[Job]:
    column, first = str(entries[0].values[0]), int(entries[0].values[1])
    for (row, read), _ in zip(images_from(place, column, first, MAX_BYTES), entries, strict=False):
        yield f"{name}#{row}", read


_READERS: Final[dict[str, Callable[[str, str, list[Entry]], Iterator[Job]]]] = {
    "zip": _zip_jobs,
    "tar": _tar_jobs,
    "packed": _packed_jobs,
    "row": _row_jobs,
}


def partitions(
    sources: Sequence[str], images: int, *, offline: bool = False
) -> Iterator[Partition]:
    """Yield the images of the sources in their order, so many in a partition, listed as they come.

    Sources are those of `regnet classify`, but for standard input and videos, and addresses of
    object stores. With `offline` addresses are entries that fail. Raises `ClusterError`,
    `MissingExtraError`.
    """
    entries = iter(_entries(sources, offline))
    for number in itertools.count():
        if not (batch := list(itertools.islice(entries, images))):
            return
        yield Partition.of(number, batch)


def local_places(sources: Iterable[str]) -> tuple[str, ...]:
    """Return the sources that are files or folders here, which every node must see too."""
    here = (str(Path(source).expanduser()) for source in sources if "://" not in source)
    return tuple(place for place in here if Path(place).exists())


def _entries(sources: Sequence[str], offline: bool) -> Iterator[Entry]:
    tally = SkipTally()
    walk = _Listing(tally=tally, offline=offline)
    for source in sources:
        if source == STDIN or is_live(source) or is_video(source):
            raise ClusterError(f"{without_secrets(source)}: only one machine can read this")
        for item in walk.items(source):
            yield item.entry if isinstance(item, _Listed) else _failed(item)
    tally.report()


@dataclass(frozen=True)
class _Listed(Item):
    """An image that was listed and is read elsewhere."""

    entry: Entry


def _listed(kind: Kind, place: str, *values: str | int) -> _Listed:
    return _Listed(place, failing("is read elsewhere"), Entry(kind, place, values))


def _failed(item: Item) -> Entry:
    """Return what has no image, with the reason."""
    try:
        item.read()
    except ImageError as exc:
        return Entry("failed", item.source, (str(exc),))
    raise ClusterError(f"{item.source}: cannot be read on another machine")


class _Listing(Walk):
    """A walk that says where images are, and knows Parquet and object stores."""

    def _item(self, name: str) -> Item:
        return _listed("file", name)

    def _url(self, url: str, scheme: str) -> Iterator[Item]:
        if scheme in ("http", "https"):
            yield _listed("url", url)
        else:
            yield from or_reason(self._objects(url), without_secrets(url))

    def _rows(self, name: str) -> Iterator[Item]:
        column, rows = image_rows(name)
        for row in range(rows):
            yield _listed("row", name, column, row)

    def _member(self, name: str, number: int, photo: ArchiveFile, file: Readable) -> Item:
        read = photo.keep(MAX_BYTES)
        if isinstance(read, ZipMember):
            return _listed("zip", name, *astuple(read.entry))
        if isinstance(read, Span) and read.lies_in(file):
            return _listed("tar", name, photo.name, read.offset, read.size)
        return _listed("packed", name, number)

    def _objects(self, address: str) -> Iterator[Item]:
        """Yield the images at an address: a file, those below a folder, or of a pattern."""
        store = ObjectStore(address)
        try:
            is_folder = store.is_folder()
        except FileNotFoundError:
            if not any(sign in store.path for sign in _GLOB):
                raise
            yield from self._object_matches(store, address)
            return
        if is_folder:
            yield from self._object_folder(store, store.path)
        else:
            yield from self._object(store.address_of(store.path))

    def _object_matches(self, store: ObjectStore, address: str) -> Iterator[Item]:
        any_suffix = bool(Path(store.path).suffix)
        paths = store.matches()
        literal = set(store.path.split("/"))
        for path in paths:
            if any(is_clutter(part) for part in path.split("/") if part not in literal):
                continue
            if store.info(path)["type"] == "directory":
                yield from () if "**" in store.path else self._object_folder(store, path)
            elif any_suffix or next(store.photos([path], address, self.tally), None):
                yield from self._object(store.address_of(path))
        if not paths:
            yield Item(without_secrets(address), failing("no image matches this pattern"))

    def _object_folder(self, store: ObjectStore, top: str) -> Iterator[Item]:
        """Yield the images below a folder or, where there are none, those in Parquet files."""
        found, tally = False, SkipTally()
        for path in store.photos(store.below(top), without_secrets(store.address_of(top)), tally):
            found = True
            yield _listed("object", store.address_of(path))
        files = [] if found else [p for p in store.below(top) if suffix_of(p) == PARQUET]
        tally.drop((PARQUET,) if files else ())
        for path in files:
            yield from or_reason(self._rows(store.address_of(path)), store.address_of(path))
        if self.tally is not None:
            self.tally.add_all(tally)
        if not found and not files:
            yield Item(store.address_of(top), failing("no images in this folder"))

    def _object(self, address: str) -> Iterator[Item]:
        """Yield the images of one object: itself, or those of an archive or a Parquet file."""
        if suffix_of(address) == PARQUET:
            yield from self._rows(address)
            return
        if has_picture_suffix(address):
            yield _listed("object", address)
            return
        file = open_file(address)
        if kind := archive_kind(file.read(HEAD), address):
            yield from self._members(address, kind, SharedFile(file))
        else:
            file.close()
            yield _listed("object", address)
