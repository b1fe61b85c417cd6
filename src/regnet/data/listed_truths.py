"""Files of labels matched to the images that they are about, line by line."""

from array import array
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from regnet.data.class_names import ClassNames, listed
from regnet.data.folders import Layout, read_layout
from regnet.data.listing import Listing, below
from regnet.data.split_names import role_of
from regnet.data.truth_files import METADATA_NAMES, TRUTH_NAMES, TruthFile, key_of, read_truth
from regnet.network.labels import imagenet_labels
from regnet.system.errors import DatasetError


def found_above(listing: Listing, layout: Layout, top: str = "") -> TruthFile | None:
    """Return the file of labels beside the images, or in the folders that they are all below.

    With `top` of the images in that folder.
    """
    if top:
        layout = read_layout(
            rest for name in listing.directories if (rest := below(name, top)) is not None
        )
    if len(layout.children) > 1 or (layout.children and layout.stray):
        return None
    deepest = PurePosixPath(*filter(None, (layout.root, *layout.children)))
    for folder in (*reversed(deepest.parents), deepest):
        if (file := found_in(listing, str(PurePosixPath(top, folder)))) is not None:
            return file
    return None


def given_truth(truth: Path) -> TruthFile:
    """Return what a file of labels says that the user named. Raises `DatasetError`."""

    def beside(name: str) -> bytes | None:
        path = truth.with_name(name)
        return path.read_bytes() if path.is_file() else None

    try:
        return read_truth(truth.read_bytes(), str(truth), beside=beside)
    except OSError as exc:
        raise DatasetError(f"cannot read the labels {truth}: {exc.strerror or exc}") from exc


def found_in(listing: Listing, root: str, names: Sequence[str] = TRUTH_NAMES) -> TruthFile | None:
    """Return the file of labels of a known name in a folder of the images."""

    def look(name: str) -> tuple[str, bytes] | None:
        return listing.members.beside(str(PurePosixPath(listing.inner, root, name)))

    def beside(name: str) -> bytes | None:
        return file[1] if (file := look(name)) else None

    if all(look(name) for name in METADATA_NAMES):
        raise DatasetError(
            f"{str(PurePosixPath(root, METADATA_NAMES[0]))!r} lies beside {METADATA_NAMES[1]}: "
            "remove one of them"
        )
    for name in names:
        if found := look(name):
            return read_truth(found[1], found[0], beside=beside)
    return None


def truths_by_file(
    listing: Listing, file: TruthFile, names: ClassNames, *, subset: bool, folder: str = ""
) -> "array[int]":
    """Return the class of each image from a file of labels; its lines and the images must fit.

    `folder` is the name of the images' folder, which paths in the file may begin with.
    """
    file = _of_one_split(file, list(listing.paths()) if file.splits else [], folder)
    classes = _classes(file, names)
    rows, key = _rows_by_key(file, next(listing.paths()), folder)
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


def refuse_lines_without_image(file: TruthFile, paths: Sequence[str]) -> None:
    """Raise `DatasetError` where a file of labels has lines of other images than these."""
    file = _of_one_split(file, paths)
    rows, key = _rows_by_key(file, paths[0])
    left = rows.keys() - set(map(key, paths))
    _refuse_misfit(file, unlisted=[], twice=[], left=[file.rows[rows[k]][0] for k in sorted(left)])


def rows_of_images(file: TruthFile, paths: Sequence[str]) -> dict[str, str]:
    """Return the class that a file of labels says of each image, by its path."""
    file = _of_one_split(file, paths)
    rows, key = _rows_by_key(file, paths[0])
    return {path: file.rows[rows[key(path)]][1] for path in paths if key(path) in rows}


def _of_one_split(file: TruthFile, paths: Sequence[str], folder: str = "") -> TruthFile:
    """Return the rows of the one split that the images are of; raises `DatasetError` if several."""
    if len(set(file.splits)) < 2:
        return file
    if len(dict(file.rows)) < len(file.rows):  # splits have names in common: the folder says which
        role = role_of(folder)
        words = {word for word in file.splits if role and role_of(word) == role}
        file = file.of_split(*words) if len(words) == 1 else file
    if not file.splits:
        return file
    rows, key = _rows_by_key(file, paths[0], folder)
    splits = {file.splits[rows[key(path)]] for path in paths if key(path) in rows}
    if len(splits) == 1:
        return file.of_split(*splits)
    raise DatasetError(
        f"{file.source} lists these images in several splits: {listed(sorted(splits))}. Put the "
        "images of each split into a folder of its own, or keep the lines of one split"
    )


def _rows_by_key(
    file: TruthFile, path: str, folder: str = ""
) -> tuple[dict[str, int], Callable[[str], str]]:
    """Return each line's row by the key of its image, and the key of an image's path.

    Keys are paths where the file has them so for the given one, with other folders before them or
    without some, else names without the suffix. `folder` is the name of the images' own.
    """
    by_path = {str(PurePosixPath(name)): row for row, (name, _) in enumerate(file.rows)}
    parts = path.split("/")
    for skipped in range(len(parts)):
        if "/".join(parts[skipped:]) in by_path:
            return _each_once(file, by_path), partial(_inner, skipped=skipped)
    prefixes = [name[: -len(path)] for name in by_path if name.endswith(f"/{path}")]
    own = [prefix for prefix in prefixes if PurePosixPath(prefix).name == folder]
    if len(prefixes) == 1 or len(own) == 1:
        prefix = (own or prefixes)[0]
        return _each_once(file, _without(prefix, by_path), among=prefix), str
    by_name = {key_of(name): row for row, (name, _) in enumerate(file.rows)}
    return _each_once(file, by_name), key_of


def _without(prefix: str, rows: dict[str, int]) -> dict[str, int]:
    """Return rows by their paths without a prefix; those of other splits' folders are left out."""
    splits = role_of(PurePosixPath(prefix).name) is not None
    return {
        name.removeprefix(prefix): row
        for name, row in rows.items()
        if name.startswith(prefix) or not splits
    }


def _inner(path: str, *, skipped: int) -> str:
    """Return a path without its first folders."""
    return "/".join(path.split("/")[skipped:])


def _each_once(file: TruthFile, rows: dict[str, int], among: str = "") -> dict[str, int]:
    """Return the rows; raises `DatasetError` where an image `among` these paths has several."""
    kept = set(rows.values())
    twice = [
        name
        for row, (name, _) in enumerate(file.rows)
        if row not in kept and name.startswith(among)
    ]
    if twice:
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
    if file.flag and names.candidates(file.flag):
        raise DatasetError(
            f"{file.source} has only 0 and 1 in the column {file.flag}, which is a class of the "
            "model: write the name of each image's class in a column called label"
        )
    imagenet = all(key_of(name).startswith("ILSVRC2012_val_") for name, _ in file.rows)
    if names.are_indices(tokens):
        _refuse_out_of_range(file, len(imagenet_labels() if imagenet else names.labels))
        if imagenet:
            return _by_imagenet_index(file, names)
    classes = names.match_labels(tokens, what=f"classes in {file.source}")
    return [classes[token] for _, token in file.rows]


def _refuse_out_of_range(file: TruthFile, classes: int) -> None:
    if wrong := [f"{name} {token}" for name, token in file.rows if int(token) >= classes]:
        raise DatasetError(
            f"{file.source}: classes are 0 to {classes - 1}, so these are out of range: "
            f"{listed(wrong)}"
        )


def _by_imagenet_index(file: TruthFile, names: ClassNames) -> list[int]:
    """Return the classes of ImageNet's indices, by their wnids: the model may lack some."""
    known = imagenet_labels()
    if known == names.labels:
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
