"""`regnet.teach`: a classifier of one's own classes, as a head in closed form on frozen features.

The model's features are computed once per photo, and linear discriminant analysis makes the head:
no training, no GPU. Leave-one-out says how good it is; where photos suffice it also calibrates.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.calibration.calibrate import learn
from regnet.conversion.store import Library
from regnet.data.class_folders import folder_labels, open_folders
from regnet.data.dataset import open_dataset
from regnet.data.labelled import Unreadable
from regnet.data.sources import Item, iter_items
from regnet.features.taught_model import read_moments, require_output, taught_record, write_taught
from regnet.inference.classify import Classifier
from regnet.inference.result import readable_rows
from regnet.ir.assumptions import without
from regnet.ir.metadata import ModelMetadata
from regnet.ir.records import Calibration, Taught
from regnet.network.labels import Label, Labels
from regnet.statistics.conformal import Fit, softmax
from regnet.statistics.discriminant import Fitted, fit, head, left_out_logits, rooted, share_changed
from regnet.statistics.metrics import Share
from regnet.system.cache import cache_dir as default_cache_dir
from regnet.system.errors import DatasetError
from regnet.system.text import counted
from regnet.system.version import TOOL_VERSION

Show = Callable[[Iterator[Any]], Iterator[Any]]
Vectors = NDArray[np.float32]

CALIBRATION: Final = 200
"""Photos that can be left out, needed to calibrate: a quarter of them sets the temperature."""


@dataclass(frozen=True)
class TaughtClass:
    """A class: how many `photos` made it, and of how many left out it was found, `correct`."""

    label: Label
    photos: int
    accuracy: Share

    def to_dict(self) -> dict[str, Any]:
        """Return the class as plain JSON values."""
        return {
            "wnid": self.label.wnid,
            "label": self.label.name,
            "photos": self.photos,
            "accuracy": asdict(self.accuracy),
        }


@dataclass(frozen=True)
class Added:
    """A class that was added to a taught model.

    Of the old classes' photos at most the share `changes`, an estimate, become the new class.
    """

    label: Label
    changes: float


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """A taught model: where it is, and how good by leave-one-out.

    `accuracy` is over the photos of classes with at least two; None if none was left out, as after
    a class was added. `classes` are all, but without photos of a model that a class was `added` to.
    """

    path: Path
    files: tuple[str, ...]
    model: str
    dataset: str
    classes: tuple[TaughtClass, ...]
    photos: int
    failures: tuple[Unreadable, ...]
    accuracy: Share | None
    taught: Taught
    calibration: Calibration | None
    remarks: tuple[str, ...]
    assumed: tuple[str, ...]
    seconds: float
    added: Added | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain JSON values, as docs/teach.md lists them."""
        added = self.added
        return {
            "path": str(self.path),
            "files": [str(self.path.parent / name) for name in self.files],
            "model": self.model,
            "assumed": list(self.assumed),
            "dataset": self.dataset,
            "photos": self.photos,
            "unreadable": len(self.failures),
            "unreadable_images": readable_rows(self.failures),
            "classes": [one.to_dict() for one in self.classes],
            "accuracy": self.accuracy and asdict(self.accuracy),
            "head": self.taught.summary(),
            "calibration": self.calibration and self.calibration.to_dict(),
            "added": added and {"label": added.label.name, "changes": added.changes},
            "remarks": list(self.remarks),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, eq=False)
class Photos:
    """The features (N, width) of the readable photos, their numbers (N,), and the others."""

    vectors: Vectors
    numbers: NDArray[np.int64]
    failures: tuple[Unreadable, ...]


def embed_photos(classifier: Classifier, items: Iterable[Item], show: Show) -> Photos:
    """Return the features of photos; `show` gets them one by one, for progress."""
    vectors, numbers, failures = [], [], []
    for number, found in enumerate(show(classifier.embed_items(items))):
        if found.vector is None:
            failures.append(Unreadable(found.source, found.error or ""))
        else:
            vectors.append(found.vector)
            numbers.append(number)
    rows = np.array(vectors, np.float32).reshape(-1, classifier.width)
    return Photos(rows, np.array(numbers, np.int64), tuple(failures))


def teach(
    dataset: str | Path,
    output: str | Path,
    *,
    model: str | Path = "bundled",
    add: str | Path | None = None,
    truth: str | Path | None = None,
    force: bool = False,
    entry: str | None = None,
    cache_dir: str | Path | None = None,
    offline: bool = False,
    library: Library | None = None,
    show: Show = lambda found: found,
) -> Teaching:
    """Write a classifier of the classes of a few photos to `output` (.xml), as `regnet teach` does.

    `dataset` has one folder per class, from one photo each, or a label file `truth`. `model` is a
    card's name, `bundled`, an IR or a checkpoint whose features are used as they are. With `add`,
    an .xml from this function, `dataset` is a folder of photos of one more class, which gets the
    folder's name. `show` gets the photos one by one, for progress. Raises `DatasetError` for
    fewer than two classes or one without a readable photo, `ModelError` for a model without
    features, `OutputError` if `output` exists, unless `force`; `UnknownModelError`,
    `DownloadError`. Nothing is written then.
    """
    start, output = time.perf_counter(), Path(output)
    require_output(output, force=force)
    library = library or Library(folder=default_cache_dir(cache_dir), offline=offline, entry=entry)
    name = str(model if add is None else add)
    labels = () if add is not None else _labels(dataset, truth)
    path = library.ir(name)
    classifier = Classifier(path, compiled_cache=library.compiled, name=name)
    _ = classifier.width  # before photos are read, if it has no features
    if add is None:
        done = _teach(classifier, path, dataset, labels, truth, output, show)
    else:
        done = _add(classifier, path, dataset, output, show)
    return replace(done, model=name, seconds=time.perf_counter() - start)


def _labels(dataset: str | Path, truth: str | Path | None) -> Labels:
    labels = folder_labels(dataset, None if truth is None else Path(truth), remedy="")
    if len(labels) < 2:
        raise DatasetError(
            f"{dataset} has a single class, {labels[0].name or labels[0].wnid}: a classifier needs "
            "two or more"
        )
    return labels


def _teach(
    classifier: Classifier,
    source: Path,
    dataset: str | Path,
    labels: Labels,
    truth: str | Path | None,
    output: Path,
    show: Show,
) -> Teaching:
    """Return what was made of a data set."""
    images = open_dataset(dataset, labels, truth=truth)
    photos = embed_photos(classifier, (Item(i.source, i.read) for i in images.items()), show)
    truths = np.array(images.truths, np.int64)[photos.numbers]
    _require_photos(truths, labels, photos.failures, dataset)
    fitted = fit(photos.vectors, truths, len(labels))
    correct = fitted.logits.argmax(axis=1) == truths[fitted.rows]
    left_out = np.bincount(truths[fitted.rows], minlength=len(labels))
    hits = np.bincount(truths[fitted.rows][correct], minlength=len(labels))
    calibration, remarks = _calibrated(fitted, truths[fitted.rows])
    taught = taught_record(
        fitted.moments, fitted.tuning, measured=len(correct), correct=int(correct.sum())
    )
    metadata = _metadata(classifier.metadata, output, labels, taught, calibration)
    files = write_taught(output, source, classifier, metadata, head(fitted.moments, fitted.tuning))
    counts = fitted.moments.counts.tolist()
    figures = zip(labels, counts, hits.tolist(), left_out.tolist(), strict=True)
    return Teaching(
        path=output,
        files=files,
        model="",
        dataset=str(dataset),
        classes=tuple(TaughtClass(la, n, Share.of(hit, out)) for la, n, hit, out in figures),
        photos=images.count,
        failures=photos.failures,
        accuracy=Share.of(taught.correct, taught.measured) if taught.measured else None,
        taught=taught,
        calibration=calibration,
        remarks=(*_singles(fitted, counts), *remarks),
        assumed=metadata.assumed,
        seconds=0.0,
    )


def _require_photos(
    truths: NDArray[np.int64], labels: Labels, failures: tuple[Unreadable, ...], path: str | Path
) -> None:
    """Raise `DatasetError` for classes without a readable photo."""
    counts = np.bincount(truths, minlength=len(labels))
    if missing := [labels[number].name for number in np.flatnonzero(counts == 0)]:
        first = failures[0]
        raise DatasetError(
            f"{path}: no photo of {', '.join(missing[:5])} can be read ({first.source}: "
            f"{first.error}); add readable ones, or remove the folder"
        )


def _singles(fitted: Fitted, counts: list[int]) -> Iterator[str]:
    """Yield what leave-one-out could not measure."""
    single = counts.count(1)
    if fitted.assumed:
        yield (
            "No photo could be left out to measure the accuracy, and the probabilities are a "
            "guess: add photos, two or more per class"
        )
    elif single:
        yield (
            f"{counted(single, 'class has', 'classes have')} a single photo, which cannot be left "
            "out: the accuracy is that of the others"
        )


def _calibrated(
    fitted: Fitted, truths: NDArray[np.int64]
) -> tuple[Calibration | None, tuple[str, ...]]:
    """Return a calibration by the left-out photos, or a remark why there is none."""
    if len(truths) < CALIBRATION:
        return None, (
            f"Prediction sets need {CALIBRATION} photos that can be left out, here are "
            f"{len(truths)}: --sets and --unknown are not available",
        )
    return learn(softmax(fitted.logits), truths, Fit(), temperature=1.0).calibration, ()


def _metadata(
    source: ModelMetadata,
    output: Path,
    labels: Labels,
    taught: Taught,
    calibration: Calibration | None,
) -> ModelMetadata:
    return replace(
        source,
        name=output.stem,
        card="",
        spec=None,  # its head takes roots
        origin=source.origin if source.taught else f"{source.name} by `regnet teach`",
        labels=labels,
        version=TOOL_VERSION,
        certificate=None,
        calibration=calibration,
        assumed=without(source.assumed, "names"),
        taught=taught,
    )


def _add(
    classifier: Classifier, source: Path, dataset: str | Path, output: Path, show: Show
) -> Teaching:
    """Return the model at `source` with the class of a folder added."""
    moments, tuning = read_moments(classifier.metadata, classifier.width, source=source)
    label = _new_label(dataset, classifier.labels, source)
    photos = embed_photos(classifier, iter_items([dataset]), show)
    if not len(photos.vectors):
        reason = f" ({photos.failures[0].error})" if photos.failures else ""
        raise DatasetError(f"{dataset}: has no readable photo{reason}")
    values = rooted(photos.vectors, tuning.root)
    more, count = moments.adding(values), len(values)
    wider = head(more, tuning)
    accuracy = Share.of(0, 0)
    if count > 1:
        own = left_out_logits(moments, tuning, values)
        others = wider.logits(values)[:, :-1].max(axis=1)
        accuracy = Share.of(int((own > others).sum()), count)
    changes = share_changed(more, tuning)
    labels, taught = (*classifier.labels, label), taught_record(more, tuning)
    metadata = _metadata(classifier.metadata, output, labels, taught, None)
    files = write_taught(output, source, classifier, metadata, wider)
    remarks = ["The accuracy of all classes is not known without the old photos"]
    if classifier.metadata.calibration is not None:
        remarks.append("Prediction sets are not available: they were those of the old classes")
    return Teaching(
        path=output,
        files=files,
        model="",
        dataset=str(dataset),
        classes=(TaughtClass(label, count, accuracy),),
        photos=count + len(photos.failures),
        failures=photos.failures,
        accuracy=None,
        taught=taught,
        calibration=None,
        remarks=tuple(remarks),
        assumed=metadata.assumed,
        seconds=0.0,
        added=Added(label, changes),
    )


def _new_label(dataset: str | Path, known: Labels, source: Path) -> Label:
    """Return the label of a class to add; raises `DatasetError`."""
    folders = open_folders(dataset)
    if folders.layout.kind == "classes" and folders.classes:
        first = f"{dataset}/{folders.classes[0]}"
        raise DatasetError(f"{dataset} has class folders: add one class at a time, such as {first}")
    place = Path(dataset).resolve()
    label = Label("", place.stem if place.is_file() else place.name)
    if any(label.name in (one.name, one.wnid) for one in known):
        raise DatasetError(f"{source} has a class {label.name} already: rename the folder")
    return label
