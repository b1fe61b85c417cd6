"""The images of a data set's folders and archives, listed again in the same order at any time."""

import hashlib
import os
import re
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Final

from regnet.data.archives import (
    MAX_BYTES,
    ArchiveFile,
    SharedFile,
    archive_kind,
    photos_in,
    plain_path,
    reader,
)
from regnet.data.photo_files import SkipTally, image_files, is_clutter
from regnet.data.sources import Item, file_item
from regnet.data.tars import tar_files, tar_folders
from regnet.data.zip_stream import zip_files, zip_folders
from regnet.pixels.formats import HEAD
from regnet.system.errors import DatasetError, ImageError, reason_of

_MAX_SIDE: Final = 64 << 20  # bytes of a file of labels
_LOOKED_AT: Final = 10_000  # names of files

_EXPORT: Final = (
    "write its images into a folder per class, into webdataset shards (.tar), or as Parquet"
)
_UNPACK: Final = "unpack it, or pack its images as zip or tar"
_FOREIGN: Final = (
    (r"data\.mdb|lock\.mdb|.+\.lmdb", "LMDB", _EXPORT),
    (r".+\.tfrecords?(?:[-_.].*)?|.+\.tfrec|.+-\d{5}-of-\d{5}", "TFRecord", _EXPORT),
    (
        r".+\.arrow|dataset_dict\.json|state\.json",
        "a data set of Hugging Face's save_to_disk (Arrow)",
        'write it as Parquet: datasets.load_from_disk(FOLDER)["train"].to_parquet("train.parquet")',
    ),
    (r".+\.(?:h5|hdf5)", "HDF5", _EXPORT),
    (r".+\.(?:npz|npy)", "NumPy arrays", _EXPORT),
    (r".+\.rec", "RecordIO", _EXPORT),
    (r".+\.beton", "FFCV", _EXPORT),
    (r".+\.(?:pkl|pickle)|data_batch_\d", "a pickle", _EXPORT),
    (r".+-idx\d-ubyte", "IDX (MNIST)", _EXPORT),
    (r".+\.(?:7z|rar)", "an archive", _UNPACK),
)


class Listing:
    """The images at some paths as one data set: folder and bytes of each, in 16 bytes an image.

    Images lie below the folder `inner` of each path, and are named relative to it. `directories`
    numbers their folders; `tally` counts the other files, except those called as in `side_names`,
    which `beside` returns. Raises `DatasetError` if a path cannot be read.
    """

    def __init__(
        self, paths: Sequence[Path], inner: str = "", *, side_names: frozenset[str] = frozenset()
    ) -> None:
        self._inner = inner
        self._parts = [_opened(path, side_names) for path in paths]
        self.of_tars = all(isinstance(part, _Archive) and not part.is_zip for part in self._parts)
        self._left_out: frozenset[int] = frozenset()
        self.directories: dict[str, int] = {}
        self.sizes, self._marks, self._places = array("q"), array("I"), array("I")
        self._hash = hashlib.sha256()
        self.tally = SkipTally(side_names)
        for name, path, part, photo in self._photos(self.tally):
            size, directory = part.size(photo), path.rpartition("/")[0]
            self.sizes.append(size)
            self._marks.append(_mark(name))
            self._places.append(self.directories.setdefault(directory, len(self.directories)))
            self._hash.update(f"{path}\0{size}\n".encode("utf-8", "surrogateescape"))

    def __len__(self) -> int:
        return len(self._marks)

    def _photos(self, tally: SkipTally | None = None) -> Iterator[tuple[str, str, "_Part", Any]]:
        """Yield the name of each image, its path below the folder, and where it comes from."""
        position = -1
        for part in self._parts:
            for name, photo in part.photos(tally):
                if (path := below(name, self._inner)) is not None:
                    position += 1
                    if position not in self._left_out:
                        yield name, path, part, photo

    def below(self, name: str) -> str | None:
        """Return a file's path below the folder of the images, None for one elsewhere."""
        return below(name, self._inner)

    def leave_out(self, positions: frozenset[int]) -> None:
        """Forget the images at these positions."""
        for values in (self.sizes, self._marks, self._places):
            values[:] = array(
                values.typecode, (v for n, v in enumerate(values) if n not in positions)
            )
        self._left_out = positions

    def paths(self) -> Iterator[str]:
        """Yield each image's path."""
        return (path for _, path, _, _ in self._photos())

    def images(self, place: str) -> Iterator[Item]:
        """Yield the images; raises `DatasetError` if the files at `place` changed."""
        marks = iter(self._marks)
        for name, _, part, photo in self._photos():
            if next(marks, None) != _mark(name):
                break
            yield part.item(photo)
        else:
            if next(marks, None) is None:
                return
        raise DatasetError(f"{place} changed while it was in use: start again")

    def by_directory(self, class_of: Callable[[str], int]) -> "array[int]":
        """Return the class of each image from that of its directory."""
        classes = [class_of(directory) for directory in self.directories]
        return array("i", (classes[place] for place in self._places))

    def fingerprint(self, truths: "array[int]") -> str:
        """Return a hash of the images' paths, sizes and classes."""
        whole = self._hash.copy()
        whole.update(truths.tobytes())
        return whole.hexdigest()

    def beside(self, name: str) -> tuple[str, bytes] | None:
        """Return source and bytes of another file (in archives: of `side_names`), or None."""
        path = str(PurePosixPath(self._inner, name))
        return next((file for part in self._parts if (file := part.beside(path))), None)

    def folders(self, root: str) -> list[str]:
        """Return the names of the folders in a folder, with images or without, sorted."""
        path = str(PurePosixPath(self._inner, root))
        names = {name for part in self._parts for name in part.folders(path)}
        return sorted(name for name in names if not is_clutter(name))


def _opened(path: Path, side_names: frozenset[str]) -> "_Part":
    try:
        if path.is_dir():
            return _Folder(path)
        file = SharedFile(path.open("rb"))
        kind = archive_kind(file.read_at(0, HEAD), path.name)
    except (OSError, ValueError) as exc:
        raise DatasetError(f"cannot open {path}: {reason_of(exc)}") from exc
    if kind is None:
        refuse_foreign(str(path), [path])
        raise DatasetError(f"{path} is not a data set: expected a folder, a zip or tar, or Parquet")
    return _Archive(path, file, kind == "zip", side_names)


class _Folder:
    """The images below a folder of the file system, sorted folder by folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def photos(self, tally: SkipTally | None) -> Iterator[tuple[str, str]]:
        """Yield name and path of each image."""
        start = len(str(self._path / "_")) - 1
        for path, problem in image_files(str(self._path), tally):
            if problem is not None:
                raise DatasetError(f"cannot look into {path}: {reason_of(problem)}")
            yield path[start:].replace(os.sep, "/"), path

    def size(self, path: str) -> int:
        """Return the bytes of an image; -1 for a broken link, which cannot be read."""
        try:
            return os.stat(path).st_size  # noqa: PTH116  (a Path would intern each name)
        except OSError:
            return -1

    def item(self, path: str) -> Item:
        """Return an image."""
        return file_item(path)

    def beside(self, name: str) -> tuple[str, bytes] | None:
        """Return path and bytes of a file."""
        path = self._path / name
        try:
            return (str(path), path.read_bytes()) if path.is_file() else None
        except OSError as exc:
            raise DatasetError(f"cannot read {path}: {reason_of(exc)}") from exc

    def folders(self, root: str) -> Iterator[str]:
        """Yield the names of the folders in a folder."""
        try:
            yield from (folder.name for folder in (self._path / root).iterdir() if folder.is_dir())
        except OSError:
            return


class _Archive:
    """The images in a zip or tar, in its own order. A compressed tar is read again each time."""

    def __init__(self, path: Path, file: SharedFile, is_zip: bool, side: frozenset[str]) -> None:
        self._path, self.is_zip, self._side_names = path, is_zip, side
        self._files = partial(zip_files if is_zip else tar_files, file)
        self._all_folders = partial(zip_folders if is_zip else tar_folders, file)
        self._side: dict[str, tuple[str, bytes]] = {}

    def photos(self, tally: SkipTally | None) -> Iterator[tuple[str, ArchiveFile]]:
        """Yield name and file of each image; those counted are searched for files of labels."""
        files = self._files() if tally is None else self._noted()
        try:
            for file in photos_in(files, str(self._path), tally):
                if file.error is not None:
                    raise DatasetError(f"{self._path}/{file.name}: {file.error}")
                yield file.name, file
        except ImageError as exc:
            raise DatasetError(f"{self._path}: {exc}") from exc

    def _noted(self) -> Iterator[ArchiveFile]:
        """Yield the files, and keep those of labels."""
        for file in self._files():
            path = plain_path(file.name)
            if path.rpartition("/")[2] in self._side_names:
                if file.size > _MAX_SIDE:
                    raise ImageError(f"{file.name} is too large for a list of labels")
                self._side[path] = f"{self._path}/{file.name}", file.keep(_MAX_SIDE)()
            yield file

    def size(self, file: ArchiveFile) -> int:
        """Return the bytes of an image."""
        return file.size

    def item(self, file: ArchiveFile) -> Item:
        """Return an image."""
        try:
            return Item(f"{self._path}/{file.name}", reader(file, MAX_BYTES))
        except ImageError as exc:
            raise DatasetError(f"{self._path}: {exc}") from exc

    def beside(self, name: str) -> tuple[str, bytes] | None:
        """Return source and bytes of a file of labels."""
        return self._side.get(name)

    def folders(self, root: str) -> Iterator[str]:
        """Yield the names of the folders in a folder."""
        top = PurePosixPath(root)
        return (place.name for place in self._places if place.parent == top)

    @cached_property
    def _places(self) -> set[PurePosixPath]:
        try:
            paths = [PurePosixPath(plain_path(f"{name}/")) for name in set(self._all_folders())]
        except (OSError, ImageError) as exc:
            raise DatasetError(f"cannot open {self._path}: {reason_of(exc)}") from exc
        return {folder for path in paths for folder in (path, *path.parents) if folder.name}


_Part = _Folder | _Archive


def below(name: str, folder: str) -> str | None:
    """Return a file's path below a folder, None for one elsewhere; "" is the folder of all."""
    path = plain_path(name)
    if not folder:
        return path
    return path[len(folder) + 1 :] if path.startswith(f"{folder}/") else None


def _mark(name: str) -> int:
    """Return 32 bits that tell a name from the others at its place."""
    return zlib.crc32(name.encode("utf-8", "surrogateescape"))


def refuse_foreign(path: str, paths: Sequence[Path]) -> None:
    """Raise `DatasetError` with what to do if there is a data set of another tool at the paths."""
    folders = (files for path in paths for _, _, files in os.walk(path))
    names = [path.name for path in paths if not path.is_dir()]
    names += islice((name for files in folders for name in files), _LOOKED_AT)
    for name in names:
        for pattern, what, how in _FOREIGN:
            if re.fullmatch(pattern, name, re.IGNORECASE):
                raise DatasetError(f"{path} is {what}, which is not read: {how}")
