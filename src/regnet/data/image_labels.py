"""The classes of images that lie in no class folders: by a file of labels, or webdataset's."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from regnet.data.class_names import ClassNames, listed
from regnet.data.folders import Layout, read_layout
from regnet.data.listing import Listing, below
from regnet.data.truth_files import METADATA_NAMES, TRUTH_NAMES, key_of, match_images, read_truth
from regnet.data.truth_table import LabelTable
from regnet.data.webdataset import SUFFIXES, holds_samples, sample_labels
from regnet.network.labels import imagenet_labels
from regnet.system.errors import DatasetError

_CAPTIONS: Final = 20  # from so many images on, texts that mostly differ are captions


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
        raise DatasetError(f"cannot read the labels {truth}: {exc.strerror or exc}") from exc
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
