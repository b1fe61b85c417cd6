"""Images as values: where each one lies, small enough to travel to whoever reads it."""

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final, Literal

from regnet.data.archives import MAX_BYTES, SharedFile, Span, failing, photos_in, reader
from regnet.data.parquet_images import images_from
from regnet.data.remote import Fetcher, open_file, read_file, read_object
from regnet.data.tars import tar_files
from regnet.data.zip_stream import ZipEntry, read_entry
from regnet.pixels.formats import checked_read
from regnet.system.addresses import without_secrets
from regnet.system.errors import ClusterError, DatasetError, ImageError

Kind = Literal["file", "object", "url", "zip", "tar", "packed", "row", "failed"]
Read = Callable[[], bytes]
Job = tuple[str, Read]

# Kinds that lie many in one file.
_IN_FILES: Final = ("zip", "tar", "packed", "row")


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
    """Images that are classified together, as `packed` by `pack`; `number` counts from 0.

    `sha256` is that of the entries: equal where the same images are meant.
    """

    number: int
    images: int
    sha256: str
    packed: bytes


def pack(entries: Sequence[Entry]) -> bytes:
    """Return the entries in a few bytes each."""
    rows = [(entry.kind, entry.place, *entry.values) for entry in entries]
    return json.dumps(rows, separators=(",", ":")).encode()


def unpack(data: bytes) -> list[Entry]:
    """Return the entries that `pack` took."""
    return [Entry(kind, place, tuple(values)) for kind, place, *values in json.loads(data)]


def squeeze(data: bytes) -> bytes:
    """Return what `pack` gave in fewer bytes; `zlib.decompress` undoes it."""
    return zlib.compress(data, 1)


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
        read = partial(read_entry, file, member, MAX_BYTES)
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
