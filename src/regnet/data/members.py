"""The images of folders and archives, listed as often as wanted in one order."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from regnet.data.archives import (
    MAX_BYTES,
    ArchiveFile,
    archive_kind,
    photos_in,
    plain_path,
    reader,
)
from regnet.data.foreign import refuse_foreign
from regnet.data.photo_files import image_files
from regnet.data.skipped import Skipped, SkipTally, joined
from regnet.data.sources import Item, file_item
from regnet.data.spool import SharedFile
from regnet.data.tars import tar_files, tar_folders
from regnet.data.zip_stream import zip_files, zip_folders
from regnet.pixels.formats import HEAD
from regnet.system.errors import DatasetError, ImageError

_MAX_SIDE: Final = 64 << 20  # bytes of a file of labels


class Members(Protocol):
    """Images under one path; their names are relative to it. The order never changes.

    `skipped` counts the other files, once `sizes` was read to its end. Everything raises
    `DatasetError` where the folder or archive cannot be read.
    """

    @property
    def skipped(self) -> Skipped:
        """What was skipped beside the images."""

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
            return FolderMembers(path, side_names)
        file = SharedFile(path.open("rb"))
        kind = archive_kind(file.read_at(0, HEAD), path.name)
    except (OSError, ValueError) as exc:
        raise DatasetError(f"cannot open {path}: {exc}") from exc
    if kind == "zip":
        return ArchiveMembers(path, partial(zip_files, file), side_names)
    if kind == "tar":
        return ArchiveMembers(path, partial(tar_files, file), side_names)
    refuse_foreign(str(path), [path])
    raise DatasetError(f"{path} is no data set: expected a folder, a zip or tar, or Parquet")


def all_folders(path: Path) -> set[str]:
    """Return the folders in a zip or tar, with images or without. Raises `DatasetError`."""
    try:
        file = SharedFile(path.open("rb"))
        is_zip = archive_kind(file.read_at(0, HEAD), path.name) == "zip"
        found = set(zip_folders(file) if is_zip else tar_folders(file))
    except (OSError, ImageError) as exc:
        raise DatasetError(f"cannot open {path}: {exc}") from exc
    paths = [PurePosixPath(plain_path(f"{name}/")) for name in found]
    return {str(folder) for path in paths for folder in (path, *path.parents)} - {"."}


class FolderMembers:
    """The images below a folder, sorted folder by folder."""

    def __init__(self, path: Path, side_names: frozenset[str]) -> None:
        self._path = path
        self._tally: SkipTally | None = SkipTally(side_names)
        self.skipped = Skipped()

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield each image's name and bytes."""
        for name, path in self._files(self._tally):
            try:
                yield name, os.stat(path).st_size  # noqa: PTH116  (a Path would intern each name)
            except OSError:  # a broken link is an image that cannot be read
                yield name, -1
        if self._tally is not None:
            self.skipped, self._tally = self._tally.result(), None

    def images(self) -> Iterator[tuple[str, Item]]:
        """Yield each image's name and the image."""
        for name, path in self._files(None):
            yield name, file_item(path)

    def beside(self, name: str) -> tuple[str, bytes] | None:
        """Return a file's path and bytes."""
        path = self._path / name
        try:
            return (str(path), path.read_bytes()) if path.is_file() else None
        except OSError as exc:
            raise DatasetError(f"cannot read {path}: {exc.strerror or exc}") from exc

    def _files(self, tally: SkipTally | None) -> Iterator[tuple[str, str]]:
        start = len(str(self._path / "_")) - 1
        for path, problem in image_files(str(self._path), tally):
            if problem is not None:
                raise DatasetError(f"cannot look into {path}: {problem.strerror or problem}")
            yield path[start:].replace(os.sep, "/"), path


class ArchiveMembers:
    """The images in a zip or tar, in its own order.

    A compressed tar is read front to back each time.
    """

    def __init__(
        self,
        path: Path,
        files: Callable[[], Iterator[ArchiveFile]],
        side_names: frozenset[str],
    ) -> None:
        self._path, self._files = path, files
        self._beside = _Beside(path, side_names)
        self._tally: SkipTally | None = SkipTally()
        self.skipped = Skipped()

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield each image's name and bytes."""
        for file in self._photos(self._tally, self._beside.note):
            yield file.name, file.size
        if self._tally is not None:
            self.skipped, self._tally = self._tally.result(), None

    def images(self) -> Iterator[tuple[str, Item]]:
        """Yield each image's name and the image."""
        for file in self._photos(None, lambda file: False):
            try:
                read = reader(file, MAX_BYTES)
            except ImageError as exc:
                raise DatasetError(f"{self._path}: {exc}") from exc
            yield file.name, Item(f"{self._path}/{file.name}", read)

    def beside(self, name: str) -> tuple[str, bytes] | None:
        """Return a member's source and bytes."""
        return self._beside.get(name)

    def _photos(
        self, tally: SkipTally | None, other: Callable[[ArchiveFile], bool]
    ) -> Iterator[ArchiveFile]:
        try:
            for file in photos_in(self._files(), str(self._path), tally, other):
                if file.error is not None:
                    raise DatasetError(f"{self._path}/{file.name}: {file.error}")
                yield file
        except ImageError as exc:
            raise DatasetError(f"{self._path}: {exc}") from exc


class JoinedMembers:
    """Several folders or archives as one; names are those inside each."""

    def __init__(self, parts: Sequence[Members]) -> None:
        self._parts = parts

    @property
    def skipped(self) -> Skipped:
        """What was skipped in all parts."""
        return joined(part.skipped for part in self._parts)

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

    def note(self, file: ArchiveFile) -> bool:
        """Keep a file if it is one of labels, and return whether it is."""
        path = plain_path(file.name)
        if path.rpartition("/")[2] not in self._wanted:
            return False
        if file.size > _MAX_SIDE:
            raise ImageError(f"{file.name} is too large for a list of labels")
        self._files[path] = f"{self._path}/{file.name}", file.keep(_MAX_SIDE)()
        return True

    def get(self, name: str) -> tuple[str, bytes] | None:
        return self._files.get(name)
