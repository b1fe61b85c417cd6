"""The images of folders and archives, listed as often as wanted in one order."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from regnet.data.archives import archive_kind, is_image_name, tar_files, tar_members
from regnet.data.sources import MAX_BYTES, Item, image_files, read_file
from regnet.data.spool import SharedFile
from regnet.data.zip_stream import read_entry, zip_entries
from regnet.errors import DatasetError, ImageError

_HEAD: Final = 512  # bytes that tell what a file is
_MAX_SIDE: Final = 64 << 20  # bytes of a file of labels


class Members(Protocol):
    """Images under one path; their names are relative to it. The order never changes.

    Everything raises `DatasetError` where the folder or archive cannot be read.
    """

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield each image's name and bytes without reading it."""

    def images(self) -> Iterator[tuple[str, Item]]:
        """Yield each image's name and the image, in the same order."""

    def beside(self, name: str) -> tuple[str, bytes] | None:
        """Return source and bytes of a file that is no image; None where there is none.

        Of an archive there are those that were asked for when it was opened, after `sizes`.
        """


def open_members(paths: Sequence[Path], *, side_names: frozenset[str]) -> Members:
    """Return the images of a folder or archive, or of several as if they were one."""
    opened = [_opened(path, side_names) for path in paths]
    return opened[0] if len(opened) == 1 else JoinedMembers(opened)


def _opened(path: Path, side_names: frozenset[str]) -> Members:
    try:
        if path.is_dir():
            return FolderMembers(path)
        file = SharedFile(path.open("rb"))
        kind = archive_kind(file.read_at(0, _HEAD), path.name)
    except (OSError, ValueError) as exc:
        raise DatasetError(f"cannot open {path}: {exc}") from exc
    if kind == "zip":
        return ZipMembers(path, file, side_names)
    if kind == "tar":
        return TarMembers(path, file, side_names)
    raise DatasetError(f"{path} is no data set: expected a folder, a zip or tar, or Parquet")


class FolderMembers:
    """The images below a folder, sorted folder by folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield each image's name and bytes."""
        for name, path in self._files():
            try:
                yield name, Path(path).stat().st_size
            except OSError:  # a broken link is an image that cannot be read
                yield name, -1

    def images(self) -> Iterator[tuple[str, Item]]:
        """Yield each image's name and the image."""
        for name, path in self._files():
            yield name, Item(path, partial(read_file, path, MAX_BYTES))

    def beside(self, name: str) -> tuple[str, bytes] | None:
        """Return a file's path and bytes."""
        path = self._path / name
        try:
            return (str(path), path.read_bytes()) if path.is_file() else None
        except OSError as exc:
            raise DatasetError(f"cannot read {path}: {exc.strerror or exc}") from exc

    def _files(self) -> Iterator[tuple[str, str]]:
        start = len(str(self._path / "_")) - 1
        for path, problem in image_files(str(self._path)):
            if problem is not None:
                raise DatasetError(f"cannot look into {path}: {problem.strerror or problem}")
            yield path[start:].replace(os.sep, "/"), path


class ZipMembers:
    """The images in a zip, in its own order."""

    def __init__(self, path: Path, file: SharedFile, side_names: frozenset[str]) -> None:
        self._path, self._file = path, file
        self._beside = _Beside(path, side_names)

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield each image's name and bytes."""
        try:
            for entry in zip_entries(self._file):
                if is_image_name(entry.name):
                    yield entry.name, entry.size
                else:
                    read = partial(read_entry, self._file, entry, _MAX_SIDE)
                    self._beside.note(entry.name, entry.size, read)
        except ImageError as exc:
            raise DatasetError(f"{self._path}: {exc}") from exc

    def images(self) -> Iterator[tuple[str, Item]]:
        """Yield each image's name and the image."""
        try:
            for entry in zip_entries(self._file):
                if is_image_name(entry.name):
                    read = partial(read_entry, self._file, entry, MAX_BYTES)
                    yield entry.name, Item(f"{self._path}/{entry.name}", read)
        except ImageError as exc:
            raise DatasetError(f"{self._path}: {exc}") from exc

    def beside(self, name: str) -> tuple[str, bytes] | None:
        """Return a member's source and bytes."""
        return self._beside.get(name)


class TarMembers:
    """The images in a tar, in its own order; a compressed one is read front to back each time."""

    def __init__(self, path: Path, file: SharedFile, side_names: frozenset[str]) -> None:
        self._path, self._file = path, file
        self._beside = _Beside(path, side_names)

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield each image's name and bytes."""
        try:
            for name, size, read in tar_files(self._file):
                if is_image_name(name):
                    yield name, size
                else:
                    self._beside.note(name, size, read)
        except ImageError as exc:
            raise DatasetError(f"{self._path}: {exc}") from exc

    def images(self) -> Iterator[tuple[str, Item]]:
        """Yield each image's name and the image."""
        try:
            for name, read in tar_members(self._file, max_bytes=MAX_BYTES):
                yield name, Item(f"{self._path}/{name}", read)
        except ImageError as exc:
            raise DatasetError(f"{self._path}: {exc}") from exc

    def beside(self, name: str) -> tuple[str, bytes] | None:
        """Return a member's source and bytes."""
        return self._beside.get(name)


class JoinedMembers:
    """Several folders or archives as one; names are those inside each."""

    def __init__(self, parts: Sequence[Members]) -> None:
        self._parts = parts

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield each image's name and bytes."""
        for part in self._parts:
            yield from part.sizes()

    def images(self) -> Iterator[tuple[str, Item]]:
        """Yield each image's name and the image."""
        for part in self._parts:
            yield from part.images()

    def beside(self, name: str) -> tuple[str, bytes] | None:
        """Return the first file of that name in a part."""
        return next((file for part in self._parts if (file := part.beside(name))), None)


class _Beside:
    """The files of labels in an archive, by their names in it."""

    def __init__(self, path: Path, wanted: frozenset[str]) -> None:
        self._path, self._wanted = path, wanted
        self._files: dict[str, tuple[str, bytes]] = {}

    def note(self, name: str, size: int, read: Callable[[], bytes]) -> None:
        path = PurePosixPath(name)
        if path.name in self._wanted:
            if size > _MAX_SIDE:
                raise ImageError(f"{name} is too large for a list of labels")
            self._files[str(path)] = f"{self._path}/{name}", read()

    def get(self, name: str) -> tuple[str, bytes] | None:
        return self._files.get(name)
