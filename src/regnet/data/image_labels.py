"""The classes of images that lie in no class folders: by a file of labels, or webdataset's.

Webdataset's shards are tars that hold the class of `000.jpg` in `000.cls` beside it. A sample's
files have one name up to its first dot. Its class is in its `.cls`, else in the `.json`, else in
the `.txt`. One of its images is the photo, `000.jpg`, and others such as `000.mask.png` are left
out: https://github.com/webdataset/webdataset
"""

import json
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

from regnet.data.archives import ArchiveFile, SharedFile, plain_path
from regnet.data.class_names import ClassNames, listed
from regnet.data.folders import Layout, read_layout
from regnet.data.listing import Listing, below
from regnet.data.photo_files import counts_as_photo
from regnet.data.tars import tar_files
from regnet.data.truth_files import METADATA_NAMES, TRUTH_NAMES, key_of, match_images, read_truth
from regnet.data.truth_table import LabelTable
from regnet.network.labels import imagenet_labels
from regnet.system.errors import DatasetError, ImageError, reason_of

_CAPTIONS: Final = 20  # from so many images on, texts that mostly differ are captions

SUFFIXES: Final = (".cls", ".json", ".txt")
"""The files of a sample that say its class: the first that there is."""

_KEYS: Final = ("label", "cls", "class", "class_name", "label_name", "class_id", "target", "wnid")
_MAX_BYTES: Final = 1 << 20
_PHOTOS: Final = ("jpg", "jpeg", "jfif", "webp", "png")
"""Endings of a sample's photo: the first that there is; masks are PNG."""
_NAMED: Final = tuple(f"{word}.{end}" for word in ("image", "img", "rgb") for end in _PHOTOS)


@dataclass(frozen=True)
class ImageLabels:
    """The class of each image of a listing: `codes` are indices into the `names`.

    `table` is the file of labels they come from, if any.
    """

    source: str
    names: tuple[str, ...]
    codes: "array[int]"
    table: LabelTable | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The names sorted, as numbers if all are. Raises `DatasetError` for captions."""
        if len(self.codes) >= _CAPTIONS and 2 * len(self.names) > len(self.codes):
            raise DatasetError(
                f"{self.source}: {len(self.names)} different labels for {len(self.codes)} images, "
                f"such as {self.names[0][:40]!r}: these are captions, not classes"
            )
        numbers = all(name.isdecimal() for name in self.names)
        return tuple(sorted(self.names, key=lambda name: (int(name) if numbers else 0, name)))

    def truths(self, model: ClassNames) -> "array[int]":
        """Return the model's class of each image; raises `DatasetError` for unknown names."""
        if self.table is not None:
            _refuse_unnamed(self.table, model)
        what = f"classes in {self.source}"
        if self._of_imagenet() and model.are_indices(self.names):
            known = imagenet_labels()
            indices = ClassNames(known).match_labels(self.names, what=what)
            wnids = {name: known[index].wnid for name, index in indices.items()}
            by_wnid = model.match(sorted({*wnids.values()}), what=f"ImageNet {what}")
            classes = {name: by_wnid[wnid] for name, wnid in wnids.items()}
        else:
            classes = model.match_labels(self.names, what=what)
        return array("i", (classes[self.names[code]] for code in self.codes))

    def _of_imagenet(self) -> bool:
        rows = self.table.rows if self.table is not None else ()
        return bool(rows) and all(key_of(name).startswith("ILSVRC2012_val_") for name, _ in rows)


def _refuse_unnamed(table: LabelTable, model: ClassNames) -> None:
    """Raise `DatasetError` for columns of 0 and 1 that are not clearly the model's classes."""
    if table.one_hot and table.one_hot != len(model.labels):
        raise DatasetError(
            f"{table.source} has {table.one_hot} columns of 0 and 1 without names, but the model "
            f"has {len(model.labels)} classes: write a first line with the classes' names"
        )
    if table.flag and model.candidates(table.flag):
        raise DatasetError(
            f"{table.source} has only 0 and 1 in the column {table.flag}, which is a class of the "
            "model: write the name of each image's class in a column called label"
        )


def labels_in_file(
    listing: Listing, truth: Path, folder: str, *, subset: bool = False
) -> ImageLabels:
    """Return the classes in a file of labels; paths in it may begin with the name `folder`."""

    def beside(name: str) -> bytes | None:
        path = truth.with_name(name)
        return path.read_bytes() if path.is_file() else None

    try:
        table = read_truth(truth.read_bytes(), str(truth), beside=beside)
    except OSError as exc:
        raise DatasetError(f"cannot read the labels {truth}: {reason_of(exc)}") from exc
    paths = list(listing.paths())
    classes = match_images(table, paths, folder=folder, subset=subset) if paths else []
    return _coded(table.source, zip(paths, classes, strict=True), table)


def labels_beside(listing: Listing, layout: Layout, *, subset: bool = False) -> ImageLabels | None:
    """Return the classes in files of labels of a known name beside the images, or None.

    Class folders go first; raises `DatasetError` if a file beside them names other classes.
    """
    if layout.kind == "splits" or (len(layout.children) > 1 and not layout.splits):
        _refuse_other_classes(listing, layout)
        return None
    tops = [split.top for split in layout.splits] if len(layout.children) > 1 else [""]
    tables = {top: table for top in tops if (table := _found_above(listing, layout, top))}
    if not tables:
        return None
    classes: dict[str, str] = {}
    for top, table in tables.items():
        paths = [path for path in listing.paths() if below(path, top) is not None]
        classes |= zip(paths, match_images(table, paths, subset=subset), strict=True)
    table = next(iter(tables.values()))
    return _coded(table.source, ((path, classes.get(path)) for path in listing.paths()), table)


def _found_above(listing: Listing, layout: Layout, top: str) -> LabelTable | None:
    """Return the file of labels beside the images in `top`, or in the folders above them all."""
    if top:
        inside = (below(name, top) for name in listing.directories)
        layout = read_layout(name for name in inside if name is not None)
    if len(layout.children) > 1 or (layout.children and layout.stray):
        return None
    deepest = PurePosixPath(*filter(None, (layout.root, *layout.children)))
    for folder in (*reversed(deepest.parents), deepest):
        if (table := _found_in(listing, str(PurePosixPath(top, folder)))) is not None:
            return table
    return None


def _found_in(listing: Listing, root: str, names: Sequence[str] = TRUTH_NAMES) -> LabelTable | None:
    """Return the file of labels of a known name in a folder of the images."""

    def look(name: str) -> tuple[str, bytes] | None:
        return listing.beside(str(PurePosixPath(root, name)))

    if all(look(name) for name in METADATA_NAMES):
        raise DatasetError(
            f"{str(PurePosixPath(root, METADATA_NAMES[0]))!r} lies beside {METADATA_NAMES[1]}: "
            "remove one of them"
        )
    for name in names:
        if file := look(name):
            source, data = file
            return read_truth(data, source, beside=lambda name: (look(name) or ("", None))[1])
    return None


def _refuse_other_classes(listing: Listing, layout: Layout) -> None:
    """Raise `DatasetError` if metadata beside class folders names other classes than they do."""
    paths = list(listing.paths())
    try:
        table = _found_in(listing, layout.root, METADATA_NAMES)
        classes = match_images(table, paths, subset=True) if table is not None else []
    except DatasetError:  # of other columns, such as captions, or of other images
        return
    folders = [layout.place(path.rpartition("/")[0])[1] for path in paths]
    pairs = set(zip(folders, classes, strict=False))
    if table is not None and not len(pairs) == len(set(folders)) == len(set(classes)):
        raise DatasetError(
            f"{table.source} says other classes than the folders do: {listed(sorted(set(classes)))}"
            f", not {listed(sorted(set(folders)))}. Move the file away, or the images into one "
            "folder"
        )


def webdataset_labels(listing: Listing, paths: Sequence[Path]) -> ImageLabels | None:
    """Return the classes in webdataset shards, or None; leave masks out of the listing."""
    counts, folders = listing.tally.suffixes, len(listing.directories)
    if not listing.of_tars or not holds_samples(counts, len(listing), folders=folders):
        return None
    samples = [
        sample._replace(name=path)
        for sample in sample_labels(paths)
        if (path := listing.below(sample.name)) is not None
    ]
    if all(sample.label is None for sample in samples):
        return None  # text beside the images that says no class
    if len(samples) != len(listing):
        raise DatasetError(f"{paths[0]} changed while it was read: start again")
    listing.tally.drop(SUFFIXES)
    for sample in samples:
        if sample.part:
            listing.tally.add(str(paths[0]), sample.name, sample.part)
    listing.leave_out(frozenset(n for n, sample in enumerate(samples) if sample.part))
    return _coded(str(paths[0]), ((s.name, s.label) for s in samples if not s.part))


def _coded(
    source: str, labels: Iterable[tuple[str, str | None]], table: LabelTable | None = None
) -> ImageLabels:
    names: dict[str, int] = {}
    codes, without = array("i"), []
    for path, label in labels:
        if label is None:
            without.append(path)
        else:
            codes.append(names.setdefault(label, len(names)))
    if without:
        images = f"{len(without)} image{'s' if len(without) > 1 else ''}"
        raise DatasetError(f"{source}: no label for {images}: {listed(without)}")
    return ImageLabels(source, tuple(names), codes, table)


def holds_samples(skipped: Mapping[str, int], images: int, *, folders: int) -> bool:
    """Tell whether files that were skipped beside so many images are their labels, by suffix.

    `.cls` files are; `.json` and `.txt` only if the images lie in one folder, with a file each.
    """
    beside = max(skipped.get(".json", 0), skipped.get(".txt", 0))
    return bool(skipped.get(".cls")) or (folders == 1 and images > 0 and 3 * beside >= images)


class Labelled(NamedTuple):
    """An image of a shard and its class; `part` is the ending of a mask, "" for a photo."""

    name: str
    label: str | None
    part: str = ""


def sample_labels(paths: Sequence[Path]) -> Iterator[Labelled]:
    """Yield the images in tars, in their order; the class is None without a label."""
    for path in paths:
        try:
            with path.open("rb") as opened:
                yield from _of_shard(tar_files(SharedFile(opened)))
        except (OSError, ImageError, DatasetError) as exc:
            raise DatasetError(f"{path}: {exc}") from exc


def _of_shard(files: Iterable[ArchiveFile]) -> Iterator[Labelled]:
    names: list[str] = []
    by_suffix: dict[str, dict[str, str]] = {suffix: {} for suffix in SUFFIXES}
    for file in files:
        suffix = next((suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix)), None)
        if suffix is None:
            if file.error is not None or counts_as_photo(file.name, file.head):
                names.append(file.name)
            continue
        label = _label(file, suffix)
        if label and by_suffix[suffix].setdefault(_stem(file.name), label) != label:
            raise DatasetError(f"two files are called {file.name}, and their labels differ")
    keys = {_key(name) for name in names}
    if unused := [stem for stem in by_suffix[".cls"] if _key(stem) not in keys]:
        raise DatasetError(f"{len(unused)} labels have no image: {listed(unused)}")
    labels = [_Labels(by_stem, {*map(_stem, names)}) for by_stem in by_suffix.values()]
    parts = _parts(name for name in names if not any(label.alone(name) for label in labels))
    for name in names:
        label = next((label for one in labels if (label := one.of(name))), None)
        yield Labelled(name, label, f".{_ending(name)}" if name in parts else "")


class _Labels:
    """The labels of one suffix in a shard: an image has that of its name, or of its sample.

    `a.b.jpg` has that of `a.b.cls` if there is one, else that of `a.cls`.
    """

    def __init__(self, by_stem: Mapping[str, str], images: Collection[str]) -> None:
        self._by_stem = by_stem
        self._by_key: dict[str, set[str]] = defaultdict(set)
        for stem, label in by_stem.items():
            if stem not in images or stem == _key(stem):
                self._by_key[_key(stem)].add(label)

    def alone(self, image: str) -> bool:
        """Tell whether an image is a sample of its own: a label has its whole name, with dots."""
        stem = _stem(image)
        return stem != _key(image) and stem in self._by_stem

    def of(self, image: str) -> str | None:
        """Return the label of an image, None without one. Raises `DatasetError` for several."""
        if (label := self._by_stem.get(_stem(image))) is not None:
            return label
        labels = sorted(self._by_key.get(_key(image), ()))
        if len(labels) > 1:
            raise DatasetError(f"the sample of {image} has several labels: {listed(labels)}")
        return labels[0] if labels else None


def _parts(names: Iterable[str]) -> set[str]:
    """Return the images that are no photos, as another of their sample is; views of it may be."""
    samples: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        samples[_key(name)][_ending(name)] = name
    parts: set[str] = set()
    for images in samples.values():
        if photo := next((end for end in (*_PHOTOS, *_NAMED) if end in images), None):
            parts |= {name for end, name in images.items() if end != photo}
    return parts


def _ending(name: str) -> str:
    """Return the end of a name after the key of its sample, in lower case."""
    return name.rpartition("/")[2].partition(".")[2].lower()


def _stem(name: str) -> str:
    """Return a name without its suffix."""
    folder, slash, file = name.rpartition("/")
    return plain_path(f"{folder}{slash}{file.rpartition('.')[0] or file}")


def _key(name: str) -> str:
    """Return the part that the names of a sample's files share."""
    folder, slash, file = name.rpartition("/")
    return plain_path(f"{folder}{slash}{file.partition('.')[0]}")


def _label(file: ArchiveFile, suffix: str) -> str | None:
    """Return the class in a file of a sample; None for JSON without one."""
    try:
        text = file.keep(_MAX_BYTES)().decode("utf-8-sig").strip()
        return _of_json(json.loads(text)) if suffix == ".json" else text or None
    except ValueError as exc:  # no UTF-8, or no JSON
        raise DatasetError(f"the label {file.name} cannot be read: {exc}") from exc


def _of_json(value: Any) -> str | None:
    """Return the class in a JSON value; of an object the first that is a name, else a number."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, Mapping):
        return None
    values = [value[key] for key in _KEYS if isinstance(value.get(key), str | int)]
    names = [label for label in values if isinstance(label, str) and label]
    return next((str(label) for label in names or values if label != ""), None)
