"""The classes of images by the data set's own words: webdataset's labels, or a file of labels.

Class folders are read elsewhere; this is for images that lie in none.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from regnet.data.archives import archive_kind
from regnet.data.class_names import ClassNames, listed
from regnet.data.folders import Layout
from regnet.data.listed_truths import (
    found_above,
    found_in,
    given_truth,
    refuse_lines_without_image,
    rows_of_images,
)
from regnet.data.listing import Listing, below
from regnet.data.skipped import Skipped, SkipTally, joined
from regnet.data.truth_files import METADATA_NAMES, TruthFile
from regnet.data.webdataset import SUFFIXES, holds_samples, sample_labels
from regnet.pixels.formats import HEAD
from regnet.system.errors import DatasetError

_CAPTIONS: Final = 20  # from so many images on, texts that mostly differ are captions


@dataclass(frozen=True)
class ImageLabels:
    """The class of each image of a listing: `codes` are indices into the `names`.

    Files of these `suffixes` say them, beside each image. `parts` are the images that are no
    photos, but masks of them.
    """

    source: str
    names: tuple[str, ...]
    codes: "array[int]"
    suffixes: tuple[str, ...] = ()
    parts: Skipped = field(default_factory=Skipped)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names sorted, as numbers where all are. Raises `DatasetError` for captions."""
        if len(self.codes) >= _CAPTIONS and 2 * len(self.names) > len(self.codes):
            raise DatasetError(
                f"{self.source}: {len(self.names)} different labels for {len(self.codes)} images, "
                f"such as {self.names[0][:40]!r}: these are captions, not classes"
            )
        numbers = all(name.isdecimal() for name in self.names)
        return tuple(sorted(self.names, key=lambda name: (int(name) if numbers else 0, name)))

    def truths(self, names: ClassNames) -> "array[int]":
        """Return the model's class of each image; raises `DatasetError` for unknown names."""
        classes = names.match_labels(self.names, what=f"labels in {self.source}")
        return array("i", (classes[self.names[code]] for code in self.codes))


def image_labels(
    listing: Listing, layout: Layout, paths: Sequence[Path], truth: Path | None = None
) -> ImageLabels | None:
    """Return the classes of images that are not in class folders; None where nothing says them.

    `truth` is a file of labels that the user named; it goes before all that lies beside.
    Raises `DatasetError` where some images have a class and others none.
    """
    if truth is not None:
        return _by_file(listing, given_truth(truth))
    if (labels := webdataset_labels(listing, paths)) is not None or not len(listing):
        return labels
    if layout.kind == "splits" or (len(layout.children) > 1 and not layout.splits):
        _refuse_other_classes(listing, layout)
        return None
    tops = [split.top for split in layout.splits] or [""]
    found = [found_above(listing, layout, top) for top in tops]
    if not any(found):
        return None
    texts: dict[str, str] = {}
    for top, file in zip(tops, found, strict=True):
        if file is not None:
            images = [path for path in listing.paths() if below(path, top) is not None]
            texts |= rows_of_images(file, images)
            refuse_lines_without_image(file, images)
    source = next(file.source for file in found if file is not None)
    return _coded(source, ((path, texts.get(path)) for path in listing.paths()))


def _by_file(listing: Listing, file: TruthFile) -> ImageLabels:
    """Return the classes that a file says; raises `DatasetError` where lines and images differ."""
    images = list(listing.paths())
    texts = rows_of_images(file, images)
    refuse_lines_without_image(file, images)
    return _coded(file.source, ((path, texts.get(path)) for path in images))


def _refuse_other_classes(listing: Listing, layout: Layout) -> None:
    """Raise `DatasetError` where metadata beside class folders says other classes than they do."""
    try:
        file = found_in(listing, layout.root, METADATA_NAMES)
        texts = rows_of_images(file, list(listing.paths())) if file is not None else {}
    except DatasetError:  # of other columns, such as captions, or of other images
        return
    pairs = {(layout.place(path.rpartition("/")[0])[1], text) for path, text in texts.items()}
    folders, classes = {folder for folder, _ in pairs}, {text for _, text in pairs}
    if file is not None and not len(pairs) == len(folders) == len(classes):
        raise DatasetError(
            f"{file.source} says other classes than the folders do: {listed(sorted(classes))}, not "
            f"{listed(sorted(folders))}. Move the file away, or the images into one folder"
        )


def webdataset_labels(listing: Listing, paths: Sequence[Path]) -> ImageLabels | None:
    """Return the classes that webdataset shards say; None where the paths are none.

    Images that are no photos are left out of the listing.
    """
    folders = len(listing.directories)
    if not holds_samples(listing.members.skipped, len(listing), folders=folders):
        return None
    if not all(map(_is_tar, paths)):
        return None
    samples = [
        found._replace(name=path)
        for found in sample_labels(paths)
        if (path := below(found.name, listing.inner)) is not None
    ]
    if all(found.label is None for found in samples):
        return None  # text beside the images that says no class
    if len(samples) != len(listing):
        raise DatasetError(f"{paths[0]} changed while it was read: start again")
    tally = SkipTally()
    for found in filter(lambda found: found.part, samples):
        tally.add(str(paths[0]), found.name, found.part)
    listing.leave_out(frozenset(n for n, found in enumerate(samples) if found.part))
    labels = _coded(str(paths[0]), ((f.name, f.label) for f in samples if not f.part))
    return replace(labels, suffixes=SUFFIXES, parts=tally.result())


def report_skipped(listing: Listing, labels: ImageLabels | None) -> None:
    """Warn of the files that were skipped beside the images and their labels."""
    skipped = listing.members.skipped
    if labels is not None:
        skipped = joined((skipped.without(labels.suffixes), labels.parts))
    skipped.report()


def _is_tar(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return archive_kind(file.read(HEAD), path.name) == "tar"
    except OSError:
        return False


def _coded(source: str, labels: Iterable[tuple[str, str | None]]) -> ImageLabels:
    names: dict[str, int] = {}
    codes, without = array("i"), []
    for path, label in labels:
        if label is None:
            without.append(path)
        else:
            codes.append(names.setdefault(label, len(names)))
    if without:
        raise DatasetError(f"{source}: {len(without)} images have no label: {listed(without)}")
    return ImageLabels(source, tuple(names), codes)
