"""The classes and splits of a data set that no model knows yet, by the names of its folders."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from regnet.data.class_names import listed, normal
from regnet.data.clutter import is_clutter
from regnet.data.dataset import located
from regnet.data.folders import Layout, read_layout
from regnet.data.foreign import refuse_foreign
from regnet.data.image_labels import ImageLabels, image_labels
from regnet.data.listing import Listing
from regnet.data.members import all_folders, open_members
from regnet.data.parquet_dataset import parquet_class_names, parquet_files, parquet_splits
from regnet.data.split_names import Role, role_of, roles_of
from regnet.data.truth_files import SIDE_NAMES
from regnet.network.labels import Label, Labels, label_of
from regnet.system.errors import DatasetError

_WNID: Final = re.compile(r"(n\d{8})(?:[-_ ](.+))?")  # alone, or as in n02085620-Chihuahua
_NO_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # controls, undecoded bytes


@dataclass(frozen=True)
class Folders:
    """The folders of photos at `paths`, in archives at `inner`, and how they are laid out.

    `labels` are the photos' classes where they are not their folders. Of `parquet` files there are
    no folders.
    """

    paths: Sequence[Path]
    names: tuple[str, ...]
    layout: Layout
    labels: ImageLabels | None = None
    parquet: tuple[Path, ...] = ()
    inner: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, sorted."""
        if self.labels is not None:
            return self.labels.classes
        return tuple(sorted({self.layout.place(name)[1] for name in self.names} - {""}))


def folder_labels(path: str | Path, truth: Path | None = None) -> Labels:
    """Return the classes of a folder or archive of class folders, sorted by folder name.

    `truth` is a file of labels, whose classes they are instead.

    A folder named by a wnid of ImageNet has its name, too. Raises `DatasetError` where there are no
    class folders, or splits, or folders that look like splits.
    """
    folders = open_folders(path, truth)
    layout = folders.layout
    if folders.parquet:
        return tuple(map(_label, parquet_class_names(folders.parquet, str(path))))
    if truth is None and (len(layout.splits) > 1 or (layout.splits and layout.stray)):
        raise _with_splits(path, layout)
    if layout.doubt and folders.labels is None:
        raise DatasetError(f"{path}: {layout.doubt.text} {layout.doubt.remedy}")
    if not folders.classes:
        raise _without_folders(path, folders)
    _require_names(path, folders.classes)
    return tuple(_label(name) for name in folders.classes)


@dataclass(frozen=True)
class TrainingFolders:
    """The photos to train on and, None without a split for it, to validate with.

    `unused` are the other splits, and folders beside them; `empty` are class folders without a
    photo, `empty_splits` the roles of splits without one. Parquet files may list classes that have
    none (`listed`).
    """

    train: str
    val: str | None = None
    unused: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    empty_splits: tuple[str, ...] = ()
    listed: bool = False


def training_folders(path: str | Path) -> TrainingFolders:
    """Return the splits of a data set to train on: the whole path where there are none.

    Raises `DatasetError` where it cannot be looked into.
    """
    folders = open_folders(path)
    if folders.parquet:
        return _parquet_folders(folders.parquet, str(path))
    layout = folders.layout
    empty, empty_splits = _empty(folders)
    train, val = layout.split("train"), layout.split("val")
    if train is None or (len(layout.splits) == 1 and not layout.stray and not layout.beside):
        return TrainingFolders(str(path), empty=empty, empty_splits=empty_splits)
    if len(folders.paths) > 1:
        raise DatasetError(
            f"{path} has splits inside of each: name the photos of one split, and with --val those "
            "of another"
        )
    used = {split.top for split in (train, val) if split}
    others = [split.top.rpartition("/")[2] for split in layout.splits if split.top not in used]
    return TrainingFolders(
        str(Path(path, train.root)),
        str(Path(path, val.root)) if val else None,
        (*others, *layout.beside),
        empty,
        empty_splits,
    )


def _parquet_folders(files: Sequence[Path], path: str) -> TrainingFolders:
    """Return the splits of Parquet files; raises `DatasetError` where two have one role."""
    splits = parquet_splits(files)
    places: dict[str, str] = {}
    for split in splits:
        if split.role in ("train", "val") and split.role in places:
            raise DatasetError(
                f"{path}: {places[split.role]} and {split.place} could each be the "
                f"{'training' if split.role == 'train' else 'validation'} split: name the files to "
                "train on, and with --val those to validate with"
            )
        places[split.role] = split.place
    if len(splits) < 2 or "train" not in places:
        return TrainingFolders(path, listed=True)
    unused = tuple(split.name for split in splits if split.role not in ("train", "val"))
    return TrainingFolders(places["train"], places.get("val"), unused, listed=True)


def _empty(folders: Folders) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the class folders that have no photo in any split, and the splits that have none."""
    if folders.labels is not None:
        return (), ()
    known = class_folders(folders.paths, folders.inner, folders.layout)
    splits = tuple(role for role, name in known if not name)
    return tuple(sorted({name for _, name in known} - {*folders.classes, ""})), splits


def open_folders(path: str | Path, truth: Path | None = None) -> Folders:
    """Return the folders of a data set. Raises `DatasetError`."""
    paths, inner = located(path)
    if files := parquet_files(paths, str(path), truth):
        return Folders(paths, (), read_layout(()), parquet=tuple(files))
    listing = Listing(open_members(paths, side_names=SIDE_NAMES), inner)
    layout = read_layout(listing.directories)
    labels = image_labels(listing, layout, paths, truth)
    return Folders(paths, tuple(listing.directories), layout, labels, inner=inner)


def class_folders(paths: Sequence[Path], inner: str, layout: Layout) -> list[tuple[str, str]]:
    """Return role ("" without splits) and name of every class folder, with photos or without.

    Of a training or validation split without a photo the name is "". What a system makes beside
    photos is none. `inner` is the place in archives.
    """
    roots: list[tuple[str, str]] = [(split.role, split.root) for split in layout.splits]
    if layout.kind == "classes":
        roots = [("", layout.root)]
    found = [(role, name) for role, root in roots for name in _folders(paths, inner, root)]
    return found + [(role, "") for role in _empty_splits(paths, inner, layout)]


def _empty_splits(paths: Sequence[Path], inner: str, layout: Layout) -> Iterator[Role]:
    """Yield the training or validation splits without a photo, beside splits that have some."""
    root = PurePosixPath(layout.root)
    tops = [PurePosixPath(split.top) for split in layout.splits]
    tops = tops or [top for top in (root, *root.parents) if role_of(top.name)]
    for parent in dict.fromkeys(top.parent for top in tops):
        known = {top.name for top in tops if top.parent == parent}
        roles = roles_of({*_folders(paths, inner, str(parent)), *known})
        empty = {name: role for name, role in roles.items() if name not in known}
        yield from (role for role in empty.values() if role in ("train", "val"))


def _folders(paths: Sequence[Path], inner: str, root: str) -> list[str]:
    """Return the names of the folders in a folder that may hold photos, sorted."""
    names = {name for path in paths for name in _folders_of(path, inner, root)}
    return sorted(name for name in names if not is_clutter(name))


def _folders_of(path: Path, inner: str, root: str) -> Iterator[str]:
    if not path.is_dir():
        top = PurePosixPath(inner, root)
        places = map(PurePosixPath, all_folders(path))
        yield from (place.name for place in places if place.parent == top)
        return
    with contextlib.suppress(OSError):
        yield from (folder.name for folder in (path / root).iterdir() if folder.is_dir())


def _label(name: str) -> Label:
    found = _WNID.fullmatch(name)
    if found is None:
        return Label("", name)
    wnid, rest = found.groups()
    known = label_of((wnid, ""))
    return Label(wnid, rest) if rest and known.name == wnid else known


def _without_folders(path: str | Path, folders: Folders) -> DatasetError:
    how = "put the photos of each class in a folder of its name"
    if folders.layout.stray:
        return DatasetError(
            f"{path} has no class folders: {how}, or list them in a metadata.csv beside them "
            "(columns file_name and label) or in another file (--truth FILE), or give the classes "
            "with --labels FILE"
        )
    refuse_foreign(str(path), folders.paths)
    return DatasetError(
        f"{path} has no class folders: {how}; there is no image in it now (archives inside of it "
        "are not looked into: name them)"
    )


def _with_splits(path: str | Path, layout: Layout) -> DatasetError:
    tops = sorted(split.top for split in layout.splits)
    names = [top.rpartition("/")[2] for top in tops]
    named = " or ".join(str(Path(path, top)) for top in tops)
    return DatasetError(f"{path} holds the splits {listed(names)}: name one, {named}")


def _require_names(path: str | Path, names: Sequence[str]) -> None:
    """Refuse names that cannot be a class's, or be told apart."""
    if odd := names_without_text(names):
        raise DatasetError(f"{path}: these names of class folders are no text: {listed(odd)}")
    first: dict[str, str] = {}
    for name in names:
        if (other := first.setdefault(normal(name), name)) != name:
            raise DatasetError(
                f"{path}: the class folders {other!r} and {name!r} differ only in case, or in _ "
                "for a space, which tells no classes apart: rename one, or put them together"
            )


def names_without_text(names: Sequence[str]) -> list[str]:
    """Return the names, as Python writes them, that hold control characters or undecoded bytes."""
    return [repr(name) for name in names if _NO_TEXT.search(name)]
