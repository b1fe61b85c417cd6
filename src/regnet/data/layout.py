"""How labelled images are laid out: a folder a class, or flat with their classes elsewhere."""

import hashlib
import re
import zlib
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final

from regnet.data.class_names import ClassNames, listed
from regnet.data.folders import Layout, read_layout
from regnet.data.members import Members
from regnet.data.truth_files import TRUTH_NAMES, TruthFile, key_of, read_truth
from regnet.errors import DatasetError
from regnet.labels import imagenet_labels

_WNID_IN_NAME: Final = re.compile(r"(?:^|.*_)(n\d{8})(?:_.*|$)")


class Listing:
    """The images below a folder of members: which directory each is in, 8 bytes an image."""

    def __init__(self, members: Members, inner: str) -> None:
        self.members, self.inner = members, inner
        self.directories: dict[str, int] = {}
        self.marks = array("I")
        self._places = array("I")
        self._hash = hashlib.sha256()
        for name, size in members.sizes():
            if (path := below(name, inner)) is not None:
                self._add(name, path, size)

    def _add(self, name: str, path: str, size: int) -> None:
        directory = path.rpartition("/")[0]
        self._places.append(self.directories.setdefault(directory, len(self.directories)))
        self.marks.append(mark(name))
        self._hash.update(f"{path}\0{size}\n".encode("utf-8", "surrogateescape"))

    def __len__(self) -> int:
        return len(self.marks)

    def paths(self) -> Iterator[str]:
        """Yield each image's path below the folder, again."""
        for name, _ in self.members.sizes():
            if (path := below(name, self.inner)) is not None:
                yield path

    def by_directory(self, class_of: Callable[[str], int]) -> "array[int]":
        """Return the class of each image from that of its directory."""
        classes = [class_of(directory) for directory in self.directories]
        return array("i", (classes[place] for place in self._places))

    def fingerprint(self, truths: "array[int]") -> str:
        """Return a hash of the images' paths, sizes and classes."""
        whole = self._hash.copy()
        whole.update(truths.tobytes())
        return whole.hexdigest()


def below(name: str, folder: str) -> str | None:
    """Return a member's path below a folder, None for one elsewhere; "" is the folder of all."""
    path = str(PurePosixPath(name)) if "./" in name or "//" in name else name
    if not folder:
        return path
    return path[len(folder) + 1 :] if path.startswith(f"{folder}/") else None


def mark(name: str) -> int:
    """Return 32 bits that tell a name from the others at its place."""
    return zlib.crc32(name.encode("utf-8", "surrogateescape"))


def truths_of(
    listing: Listing, names: ClassNames, *, path: str, truth: Path | None, subset: bool
) -> "array[int]":
    """Return the class of each image, by its folder, its name or a file of labels.

    Folders that hold but one folder are looked into, unless that is a class. Raises `DatasetError`
    with a list of what does not fit; `subset` allows lines of the file without an image.
    """
    if truth is not None:
        return _by_file(listing, _given(truth), names, subset=subset)
    layout = read_layout(listing.directories, is_class=lambda name: bool(names.candidates(name)))
    place = str(PurePosixPath(path, layout.root))
    known = {child for child in layout.children if names.candidates(child)}
    if not known and (file := _found_above(listing, layout)) is not None:
        return _by_file(listing, file, names, subset=subset)
    if layout.kind == "flat" or (not known and _is_flat(listing, layout)):
        return _by_name(listing, names, path=path)
    _refuse_splits(layout, known, path)
    if layout.stray:
        raise _stray(listing, layout.root, path)
    folders = {directory: layout.place(directory)[1] for directory in listing.directories}
    classes = names.match(sorted(set(folders.values())), what=f"class folders in {place}")
    return listing.by_directory(lambda folder: classes[folders[folder]])


def _is_flat(listing: Listing, layout: Layout) -> bool:
    """Tell whether all images lie in one folder, however deep it is."""
    return len(listing.directories) == 1 and layout.kind == "classes"


def _found_above(listing: Listing, layout: Layout) -> TruthFile | None:
    """Return the file of labels beside the images, or in the folders that they are all below."""
    if len(layout.children) > 1 or (layout.children and layout.stray):
        return None
    deepest = "/".join(filter(None, (layout.root, *layout.children)))
    for folder in (*reversed(PurePosixPath(deepest).parents), PurePosixPath(deepest)):
        if (file := _found(listing, str(folder))) is not None:
            return file
    return None


def _refuse_splits(layout: Layout, known: set[str], path: str) -> None:
    """Refuse splits, which are no classes, and folders that look like them."""
    if len(layout.splits) > 1 or (layout.splits and layout.stray):
        tops = sorted(split.top for split in layout.splits)
        places = " or ".join(str(PurePosixPath(path, top)) for top in tops)
        found = listed([PurePosixPath(top).name for top in tops])
        raise DatasetError(f"{path} holds the splits {found}: name one, {places}")
    if layout.doubt and not known:
        places = listed([str(PurePosixPath(path, layout.root, n)) for n in layout.doubt.names])
        raise DatasetError(f"{path}: {layout.doubt.text} Name one: {places}")


def _stray(listing: Listing, root: str, path: str) -> DatasetError:
    stray = [p for p in listing.paths() if p.rpartition("/")[0] == root]
    return DatasetError(f"images outside the class folders of {path}: {listed(stray)}")


def _by_name(listing: Listing, names: ClassNames, *, path: str) -> "array[int]":
    """Return the class of each image of a flat folder from the wnid in its name."""
    wnids = [_WNID_IN_NAME.match(PurePosixPath(p).stem) for p in listing.paths()]
    if None in wnids:
        raise DatasetError(
            f"{path} has images but neither class folders nor a file of labels: give one with "
            f"--truth FILE, or put one of {', '.join(TRUTH_NAMES)} beside them"
        )
    found = [wnid[1] for wnid in wnids if wnid]
    classes = names.match(sorted(set(found)), what=f"wnids in the names of the images of {path}")
    return array("i", (classes[wnid] for wnid in found))


def _given(truth: Path) -> TruthFile:
    def beside(name: str) -> bytes | None:
        path = truth.with_name(name)
        return path.read_bytes() if path.is_file() else None

    try:
        return read_truth(truth.read_bytes(), str(truth), beside=beside)
    except OSError as exc:
        raise DatasetError(f"cannot read the labels {truth}: {exc.strerror or exc}") from exc


def _found(listing: Listing, root: str) -> TruthFile | None:
    """Return the file of labels of a known name in a folder of the images."""

    def look(name: str) -> tuple[str, bytes] | None:
        return listing.members.beside(str(PurePosixPath(listing.inner, root, name)))

    def beside(name: str) -> bytes | None:
        return file[1] if (file := look(name)) else None

    for name in TRUTH_NAMES:
        if found := look(name):
            return read_truth(found[1], found[0], beside=beside)
    return None


def _by_file(listing: Listing, file: TruthFile, names: ClassNames, *, subset: bool) -> "array[int]":
    """Return the class of each image from a file of labels; its lines and the images must fit."""
    file = _of_one_split(file, listing)
    classes = _classes(file, names)
    rows, key = _rows_by_key(file, next(listing.paths()))
    truths, unlisted, twice = array("i"), [], []
    for path in listing.paths():
        row = rows.get(key(path))
        if row is None:
            unlisted.append(path)
        elif row < 0:
            twice.append(path)
        else:
            truths.append(classes[row])
            rows[key(path)] = -1
    left = [file.rows[row][0] for row in rows.values() if row >= 0]
    _refuse_misfit(file, unlisted=unlisted, twice=twice, left=[] if subset else left)
    return truths


def _of_one_split(file: TruthFile, listing: Listing) -> TruthFile:
    """Return the rows of the one split that the images are of; raises `DatasetError` if several."""
    if len(set(file.splits)) < 2:
        return file
    rows, key = _rows_by_key(file, next(listing.paths()))
    splits = {file.splits[rows[key(path)]] for path in listing.paths() if key(path) in rows}
    if len(splits) == 1:
        return file.of_split(*splits)
    raise DatasetError(
        f"{file.source} lists these images in several splits: {listed(sorted(splits))}. Put the "
        "images of each split into a folder of its own, or keep the lines of one split"
    )


def _rows_by_key(file: TruthFile, path: str) -> tuple[dict[str, int], Callable[[str], str]]:
    """Return each line's row by the key of its image, and the key of an image's path.

    Keys are paths where the file has them so for the given one, else names without the suffix.
    """
    by_path = {str(PurePosixPath(name)): row for row, (name, _) in enumerate(file.rows)}
    parts = path.split("/")
    for skipped in range(len(parts)):
        if "/".join(parts[skipped:]) in by_path:
            return _each_once(file, by_path), partial(_inner, skipped=skipped)
    prefix = next((name[: -len(path)] for name in by_path if name.endswith(f"/{path}")), None)
    if prefix:
        return _each_once(file, {n.removeprefix(prefix): r for n, r in by_path.items()}), str
    by_name = {key_of(name): row for row, (name, _) in enumerate(file.rows)}
    return _each_once(file, by_name), key_of


def _inner(path: str, *, skipped: int) -> str:
    """Return a path without its first folders."""
    return "/".join(path.split("/")[skipped:])


def _each_once(file: TruthFile, rows: dict[str, int]) -> dict[str, int]:
    if len(rows) < len(file.rows):
        kept = set(rows.values())
        twice = [name for row, (name, _) in enumerate(file.rows) if row not in kept]
        raise DatasetError(f"{file.source} names images more than once: {listed(twice)}")
    return rows


def _classes(file: TruthFile, names: ClassNames) -> list[int]:
    """Return the class of each line, by name or index."""
    if file.one_hot and file.one_hot != len(names.labels):
        raise DatasetError(
            f"{file.source} has {file.one_hot} columns of 0 and 1 without names, but the model has "
            f"{len(names.labels)} classes: write a first line with the classes' names"
        )
    tokens = sorted({token for _, token in file.rows})
    if all(token.isdecimal() for token in tokens) and not all(map(names.candidates, tokens)):
        return _by_index(file, names)
    classes = names.match(tokens, what=f"classes in {file.source}")
    return [classes[token] for _, token in file.rows]


def _by_index(file: TruthFile, names: ClassNames) -> list[int]:
    """Return 0-based indices as they are, and ImageNet's by wnid: the model may lack some."""
    labels = names.labels
    imagenet = all(key_of(name).startswith("ILSVRC2012_val_") for name, _ in file.rows)
    known = imagenet_labels() if imagenet else labels
    wrong = [f"{name} {token}" for name, token in file.rows if int(token) >= len(known)]
    if wrong:
        raise DatasetError(
            f"{file.source}: classes are 0 to {len(known) - 1}, so these are out of range: "
            f"{listed(wrong)}"
        )
    if known == labels:
        return [int(token) for _, token in file.rows]
    wnids = [known[int(token)].wnid for _, token in file.rows]
    classes = names.match(sorted(set(wnids)), what=f"ImageNet classes in {file.source}")
    return [classes[wnid] for wnid in wnids]


def _refuse_misfit(
    file: TruthFile, *, unlisted: list[str], twice: list[str], left: list[str]
) -> None:
    problems = []
    if unlisted:
        problems.append(f"{len(unlisted)} images have no line: {listed(unlisted)}")
    if twice:
        problems.append(f"{len(twice)} images share the line of another: {listed(twice)}")
    if left:
        problems.append(f"{len(left)} lines have no image: {listed(left)}")
    if problems:
        raise DatasetError(f"{file.source} does not fit the images: {'; '.join(problems)}")
