"""The images of a folder or archive, listed as often as wanted in one order."""

import os
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from regnet.archives import (
    Member,
    archive_kind,
    is_image_name,
    open_zip,
    tar_files,
    tar_members,
    zip_members,
)
from regnet.errors import DatasetError, ImageError
from regnet.sources import MAX_BYTES, image_files, read_file
from regnet.spool import SharedFile

_HEAD: Final = 512  # bytes that tell what a file is
_MAX_SIDE: Final = 64 << 20  # bytes of a file of labels


class Members(Protocol):
    """Images under one path. Names have `/` and are relative to it; the order never changes."""

    path: str

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield each image's name and bytes without reading it; raises `DatasetError`."""

    def images(self) -> Iterator[Member]:
        """Yield each image's name and thread-safe reader in the same order."""

    def source(self, name: str) -> str:
        """Return the name under which an image is reported."""

    def beside(self, name: str) -> bytes | None:
        """Return a small file that is no image, by its name; None where there is none.

        Of an archive only those whose last name part was asked for at first are there.
        """


def open_members(path: Path, *, side_names: frozenset[str]) -> Members:
    """Return the images of a folder or archive; raises `DatasetError` for anything else."""
    try:
        if path.is_dir():
            return FolderMembers(path)
        with path.open("rb") as file:
            kind = archive_kind(file.read(_HEAD), path.name)
        if kind == "zip":
            return ZipMembers(path)
        if kind == "tar":
            return TarMembers(path, side_names)
    except (OSError, ValueError) as exc:
        raise DatasetError(f"cannot open {path}: {exc}") from exc
    raise DatasetError(f"{path} is no data set: expected a folder, a zip or tar, or Parquet")


class FolderMembers:
    """The images below a folder, sorted folder by folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield each image's name and bytes."""
        for name, path in self._files():
            try:
                yield name, Path(path).stat().st_size
            except OSError:  # a broken link is an image that cannot be read
                yield name, -1

    def images(self) -> Iterator[Member]:
        """Yield each image's name and reader."""
        for name, path in self._files():
            yield name, partial(read_file, path, MAX_BYTES)

    def source(self, name: str) -> str:
        """Return the path of an image."""
        return str(Path(self.path, name))

    def beside(self, name: str) -> bytes | None:
        """Return a file's bytes."""
        path = Path(self.path, name)
        try:
            return path.read_bytes() if path.is_file() else None
        except OSError as exc:
            raise DatasetError(f"cannot read {path}: {exc.strerror or exc}") from exc

    def _files(self) -> Iterator[tuple[str, str]]:
        start = len(os.path.join(self.path, ""))  # noqa: PTH118  (with the separator at its end)
        for path, problem in image_files(self.path):
            if problem is not None:
                raise DatasetError(f"cannot look into {path}: {problem.strerror or problem}")
            yield path[start:].replace(os.sep, "/"), path


class ZipMembers:
    """The images in a zip, sorted by name."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        try:
            self._archive: zipfile.ZipFile = open_zip(path)
        except ImageError as exc:
            raise DatasetError(f"{path}: {exc}") from exc

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield each image's name and bytes."""
        for name, _ in self.images():
            yield name, self._archive.getinfo(name).file_size

    def images(self) -> Iterator[Member]:
        """Yield each image's name and reader."""
        return zip_members(self._archive, max_bytes=MAX_BYTES)

    def source(self, name: str) -> str:
        """Return the zip's path and the member's name."""
        return f"{self.path}/{name}"

    def beside(self, name: str) -> bytes | None:
        """Return a member's bytes."""
        try:
            info = self._archive.getinfo(name)
        except KeyError:
            return None
        if info.file_size > _MAX_SIDE:
            raise DatasetError(f"{self.source(name)} is too large for a list of labels")
        try:
            return self._archive.read(info)
        except Exception as exc:
            raise DatasetError(f"cannot read {self.source(name)}: {exc}") from exc


class TarMembers:
    """The images in a tar, also a compressed one, in its own order."""

    def __init__(self, path: Path, side_names: frozenset[str]) -> None:
        self.path = str(path)
        self._side_names = side_names
        self._beside: dict[str, bytes] = {}
        self._file = SharedFile(path.open("rb"))

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield each image's name and bytes; notes the files beside them."""
        try:
            for name, size, read in tar_files(self._file):
                if is_image_name(name):
                    yield name, size
                elif PurePosixPath(name).name in self._side_names and size <= _MAX_SIDE:
                    self._beside[str(PurePosixPath(name))] = read()
        except ImageError as exc:
            raise DatasetError(f"{self.path}: {exc}") from exc

    def images(self) -> Iterator[Member]:
        """Yield each image's name and reader; what is compressed is read front to back."""
        try:
            yield from tar_members(self._file, max_bytes=MAX_BYTES)
        except ImageError as exc:
            raise DatasetError(f"{self.path}: {exc}") from exc

    def source(self, name: str) -> str:
        """Return the tar's path and the member's name."""
        return f"{self.path}/{name}"

    def beside(self, name: str) -> bytes | None:
        """Return a member's bytes, known once `sizes` ran to its end."""
        return self._beside.get(name)
