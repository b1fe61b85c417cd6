"""What the user names, to partitions of images: listed once, nothing decoded."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from regnet.cluster.entries import Entry, Kind, Partition, pack, squeeze
from regnet.data.archives import (
    MAX_BYTES,
    ArchiveKind,
    Readable,
    SharedFile,
    Span,
    archive_kind,
    failing,
    photos_in,
)
from regnet.data.parquet_images import image_rows
from regnet.data.photo_files import SkipTally, counts_as_photo, is_clutter, is_live, is_video
from regnet.data.remote import Fetcher, ObjectStore, file_size, open_file, reason_of
from regnet.data.sources import PARQUET, STDIN, Item, Walk, or_reason
from regnet.data.tars import tar_files
from regnet.data.zip_stream import entry_head, zip_entries
from regnet.pixels.formats import HEAD, has_picture_suffix, suffix_of
from regnet.system.addresses import without_secrets
from regnet.system.errors import ClusterError, ImageError

_GLOB: Final = "*?["


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
        batch = list(itertools.islice(entries, images))
        if not batch:
            return
        data = pack(batch)
        sha256 = hashlib.sha256(data + _sizes(batch)).hexdigest()
        yield Partition(number, len(batch), sha256, squeeze(data))


def local_places(sources: Iterable[str]) -> tuple[str, ...]:
    """Return the sources that are files or folders here, which every node must see too."""
    here = (str(Path(source).expanduser()) for source in sources if "://" not in source)
    return tuple(place for place in here if Path(place).exists())


def _entries(sources: Sequence[str], offline: bool) -> Iterator[Entry]:
    tally, fetcher = SkipTally(), Fetcher(max_bytes=MAX_BYTES)
    walk = _Listing(fetcher=fetcher, tally=tally, offline=offline)
    for source in sources:
        if source == STDIN or is_live(source) or is_video(source):
            raise ClusterError(f"{without_secrets(source)}: only one machine can read this")
        for item in walk.items(source):
            yield item.entry if isinstance(item, _Listed) else _failed(item)
    tally.report()


def _sizes(entries: Iterable[Entry]) -> bytes:
    """Return the sizes of the files that hold images: archives and Parquet."""
    places = {entry.place for entry in entries if entry.kind in ("zip", "tar", "packed", "row")}
    return repr([(place, file_size(place)) for place in sorted(places)]).encode()


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

    def _members(self, name: str, kind: ArchiveKind, file: Readable) -> Iterator[Item]:
        return self._zip(name, file) if kind == "zip" else self._tar(name, file)

    def _zip(self, name: str, file: Readable) -> Iterator[Item]:
        found = []
        try:
            for entry in zip_entries(file):
                if counts_as_photo(entry.name, partial(entry_head, file, entry)):
                    found.append(entry)
                elif self.tally is not None:
                    self.tally.add(name, entry.name)
        except (ImageError, OSError, ValueError) as exc:
            yield Item(name, failing(reason_of(exc)))
            return
        if not found:
            yield Item(name, failing("no images in this archive"))
        for entry in sorted(found, key=lambda entry: entry.name):
            yield _listed("zip", name, *astuple(entry))

    def _tar(self, name: str, file: Readable) -> Iterator[Item]:
        number = -1
        try:
            photos = photos_in(tar_files(file), name, self.tally)
            for number, photo in enumerate(photos):
                read = photo.keep(MAX_BYTES)
                if isinstance(read, Span) and read.lies_in(file):
                    yield _listed("tar", name, photo.name, read.offset, read.size)
                else:
                    yield _listed("packed", name, number)
        except ImageError as exc:
            yield Item(name, failing(str(exc)))
            return
        if number < 0:
            yield Item(name, failing("no images in this archive"))

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
        kind = archive_kind(file.read(HEAD), address)
        if kind == "tar":
            yield from self._tar(address, SharedFile(file))
        elif kind == "zip":
            yield from self._zip(address, SharedFile(file))
        else:
            file.close()
            yield _listed("object", address)
