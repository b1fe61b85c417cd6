"""A data set on disk, opened in one way for a training, an evaluation and the doctor."""

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Final

from regnet.data.class_names import ClassNames, listed, normal
from regnet.data.folders import Layout, Role, read_layout, role_of, roles_of
from regnet.data.image_labels import (
    ImageLabels,
    labels_beside,
    labels_in_file,
    webdataset_labels,
)
from regnet.data.listing import Listing, refuse_foreign
from regnet.data.parquet_dataset import parquet_class_names, parquet_files, parquet_splits
from regnet.data.truth_files import SIDE_NAMES
from regnet.network.labels import Label, Labels, label_of, unfit_label
from regnet.system.addresses import without_secrets
from regnet.system.errors import DatasetError, reason_of

_WNID: Final = re.compile(r"(n\d{8})(?:[-_ ](.+))?")  # alone, or as in n02085620-Chihuahua
_NO_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # controls, undecoded bytes
_BRACES: Final = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{},]+(?:,[^{},]+)+))\}")
_MOST_SHARDS: Final = 1_000_000
_LABELS_REMEDY: Final = ", or give the classes with --labels FILE"


@dataclass(frozen=True)
class Folders:
    """The photos at a path and the layout of their folders.

    `labels` are the photos' classes if those are not their folders. A data set of `parquet` files
    has no folders.
    """

    path: str
    paths: Sequence[Path]
    listing: Listing
    layout: Layout
    labels: ImageLabels | None = None
    parquet: tuple[Path, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, sorted."""
        if self.labels is not None:
            return self.labels.classes
        names = {self.layout.place(folder)[1] for folder in self.listing.directories}
        return tuple(sorted(names - {""}))

    def class_folders(self) -> list[tuple[str, str]]:
        """Return role and name of every class folder; the name is "" for a split without photos."""
        roots: list[tuple[str, str]] = [(split.role, split.root) for split in self.layout.splits]
        if self.layout.kind == "classes":
            roots = [("", self.layout.root)]
        folders = [(role, name) for role, root in roots for name in self.listing.folders(root)]
        return folders + [(role, "") for role in self._empty_splits()]

    def _empty_splits(self) -> Iterator[Role]:
        """Yield the training or validation splits without a photo, beside splits with some."""
        root = PurePosixPath(self.layout.root)
        tops = [PurePosixPath(split.top) for split in self.layout.splits]
        tops = tops or [top for top in (root, *root.parents) if role_of(top.name)]
        for parent in dict.fromkeys(top.parent for top in tops):
            known = {top.name for top in tops if top.parent == parent}
            roles = roles_of({*self.listing.folders(str(parent)), *known})
            empty = (role for name, role in roles.items() if name not in known)
            yield from (role for role in empty if role in ("train", "val"))


def open_folders(
    path: str | Path,
    truth: str | Path | None = None,
    *,
    model: ClassNames | None = None,
    one_split: bool = False,
    subset: bool = False,
) -> Folders:
    """Return the photos at a path: a folder, zip or tar, a folder in one, a pattern, Parquet files.

    `truth` is a file of their labels; with `subset` it may have others. Folders called as a class
    of the `model` are classes whatever lies beside them. Raises `DatasetError`, with `one_split`
    also for several splits.
    """
    truth = None if truth is None else Path(truth).expanduser()
    paths, inner = located(path)
    if files := parquet_files(paths, str(path), truth):
        return Folders(str(path), paths, Listing(()), read_layout(()), parquet=tuple(files))
    listing = Listing(paths, inner, side_names=SIDE_NAMES)
    if not len(listing):
        refuse_foreign(str(path), paths)
    layout = read_layout(
        listing.directories,
        is_class=lambda name: model is not None and bool(model.candidates(name)),
    )
    labels: ImageLabels | None
    if truth is not None:
        labels = labels_in_file(listing, truth, PurePath(path).name, subset=subset)
    else:
        labels = webdataset_labels(listing, paths)
        if labels is None and one_split:
            _refuse_splits(path, layout)
        if labels is None and len(listing) and not is_known(layout, model):
            labels = labels_beside(listing, layout, subset=subset)
    return Folders(str(path), paths, listing, layout, labels)


def is_known(layout: Layout, model: ClassNames | None) -> bool:
    """Tell whether a folder at the root is called as a class of the model."""
    return model is not None and any(map(model.candidates, layout.children))


def located(path: str | Path) -> tuple[Sequence[Path], str]:
    """Return the folders or files at a path, and for a place inside an archive the rest of it."""
    if "://" in str(path):
        raise DatasetError(
            f"{without_secrets(str(path))}: data sets are read from disk, not from addresses; copy "
            "the files here first"
        )
    place = Path(path).expanduser()
    try:
        if place.exists():
            return [place], ""
        for top in place.parents:
            if top.is_file():
                return [top], place.relative_to(top).as_posix()
        matches: list[Path] = []
        for pattern in _expanded(str(place)):
            names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
            if not names:
                raise DatasetError(f"no such file or folder: {pattern}")
            matches += map(Path, names)
        return matches, ""
    except (OSError, ValueError) as exc:
        raise DatasetError(f"cannot open {path}: {reason_of(exc)}") from exc


def _expanded(pattern: str) -> list[str]:
    """Return the patterns that webdataset's braces stand for: `{000..012}` or `{train,val}`."""
    match = _BRACES.search(pattern)
    if match is None:
        return [pattern]
    first, last, names = match.groups()
    if names is None and int(last) - int(first) >= _MOST_SHARDS:
        raise DatasetError(f"{pattern} names more than {_MOST_SHARDS:,} files")
    numbers = () if names is not None else range(int(first), int(last) + 1)
    choices = names.split(",") if names else [f"{n:0{len(first)}}" for n in numbers]
    head, tails = pattern[: match.start()], _expanded(pattern[match.end() :])
    return [f"{head}{choice}{tail}" for choice in choices for tail in tails]


def _refuse_splits(path: str | Path, layout: Layout) -> None:
    """Raise `DatasetError` for several splits, or photos beside one."""
    if len(layout.splits) > 1 or (layout.splits and layout.stray):
        tops = sorted(split.top for split in layout.splits)
        names = listed([top.rpartition("/")[2] for top in tops])
        places = " or ".join(str(Path(path, top)) for top in tops)
        raise DatasetError(f"{path} holds the splits {names}: name one, {places}")


def folder_labels(
    path: str | Path, truth: Path | None = None, *, remedy: str = _LABELS_REMEDY
) -> Labels:
    """Return the classes of a data set, sorted: its class folders, or those in a file of labels.

    A folder called by a wnid of ImageNet also gets its name. `remedy` is what else the caller takes
    instead of class folders. Raises `DatasetError` without class
    folders, and for splits or folders that look like some.
    """
    folders = open_folders(path, truth, one_split=True)
    if folders.parquet:
        return tuple(map(_label, parquet_class_names(folders.parquet, str(path))))
    if (doubt := folders.layout.doubt) and folders.labels is None:
        raise DatasetError(f"{path}: {doubt.text} {doubt.remedy}")
    if not folders.classes:
        raise _without_folders(folders, remedy)
    _require_names(path, folders.classes)
    return tuple(map(_label, folders.classes))


def _label(name: str) -> Label:
    match = _WNID.fullmatch(name)
    if match is None:
        return Label("", name)
    wnid, rest = match.groups()
    known = label_of((wnid, ""))
    return Label(wnid, rest) if rest and known.name == wnid else known


def _without_folders(folders: Folders, remedy: str) -> DatasetError:
    what = f"{folders.path} has no class folders"
    how = f"{what}: put the photos of each class in a folder of its name"
    if folders.layout.stray:
        return DatasetError(
            f"{how}, or list them in a metadata.csv beside them (columns file_name and label) or "
            f"in another file (--truth FILE){remedy}"
        )
    return DatasetError(
        f"{how}; there is no image in it now (archives inside of it are not looked into: name them)"
    )


def _require_names(path: str | Path, names: Sequence[str]) -> None:
    """Raise `DatasetError` for names that are no text, or that cannot be told apart."""
    if odd := names_without_text(names):
        raise DatasetError(f"{path}: these names of class folders are not text: {listed(odd)}")
    if reason := unfit_label(tuple(map(_label, names))):
        raise DatasetError(f"{path}: {reason}")
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


@dataclass(frozen=True)
class TrainingFolders:
    """The photos to train on and, None without such a split, to validate with.

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
    """Return the splits of a data set to train on, or the whole path without splits."""
    folders = open_folders(path)
    if folders.parquet:
        return _parquet_folders(folders.parquet, str(path))
    layout = folders.layout
    known = folders.class_folders() if folders.labels is None else []
    names = {name for _, name in known if name}
    empty = tuple(sorted(names.difference(folders.classes))) if names else ()
    empty_splits = tuple(role for role, name in known if not name)
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
    """Return the splits of Parquet files; raises `DatasetError` if two have one role."""
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
