"""The labels in webdataset shards: tars where `000.jpg` has its class in `000.cls` beside it.

A sample's files have one name up to its first dot. Its class is what `.cls` says, else the
`.json`, else the `.txt`. One of its images is the photo, `000.jpg`, and others such as
`000.mask.png` are left out: https://github.com/webdataset/webdataset
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from regnet.data.archives import ArchiveFile, plain_path
from regnet.data.class_names import listed
from regnet.data.skipped import Skipped, sort_of
from regnet.data.spool import SharedFile
from regnet.data.tars import tar_files
from regnet.system.errors import DatasetError, ImageError

SUFFIXES: Final = (".cls", ".json", ".txt")
"""The files of a sample that say its class: the first that there is."""

_KEYS: Final = ("label", "cls", "class", "class_name", "label_name", "class_id", "target", "wnid")
_MAX_BYTES: Final = 1 << 20
_PHOTOS: Final = ("jpg", "jpeg", "jfif", "webp", "png")
"""Endings of a sample's photo: the first that there is; masks are PNG."""
_NAMED: Final = tuple(f"{word}.{end}" for word in ("image", "img", "rgb") for end in _PHOTOS)


def holds_samples(skipped: Skipped, images: int, *, folders: int) -> bool:
    """Tell whether files that were skipped beside so many images are their labels.

    `.cls` files are; `.json` and `.txt` only where the images lie in one folder, with a file each.
    """
    counts = dict(skipped.suffixes)
    beside = max(counts.get(".json", 0), counts.get(".txt", 0))
    return bool(counts.get(".cls")) or (folders == 1 and images > 0 and 3 * beside >= images)


class Labelled(NamedTuple):
    """An image of a shard and its class; `part` is its ending where it is no photo, but a mask."""

    name: str
    label: str | None
    part: str = ""


def sample_labels(paths: Sequence[Path]) -> Iterator[Labelled]:
    """Yield the images in tars, in their order; the class is None for one without.

    Raises `DatasetError` where a shard or a label cannot be read.
    """
    for path in paths:
        try:
            yield from _of_shard(path)
        except (OSError, ImageError, DatasetError) as exc:
            raise DatasetError(f"{path}: {exc}") from exc


def _of_shard(path: Path) -> Iterator[Labelled]:
    names: list[str] = []
    found = [_Labels() for _ in SUFFIXES]
    with path.open("rb") as opened:
        for file in tar_files(SharedFile(opened)):
            suffix = _label_suffix(file.name)
            if suffix is not None:
                if (label := _label(file, suffix)) is not None:
                    found[SUFFIXES.index(suffix)].add(file.name, label)
            elif file.error is not None or sort_of(file.name, file.head) == "photo":
                names.append(file.name)
    stems = {_stem(name) for name in names}
    for labels in found:
        labels.group(stems)
    found[0].refuse_unused({_key(name) for name in names})
    parts = _parts(name for name in names if not any(labels.alone(name) for labels in found))
    for name in names:
        label = next((label for labels in found if (label := labels.of(name))), None)
        yield Labelled(name, label, f".{_ending(name)}" if name in parts else "")


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
    """Return what comes after the key of a name's sample, in lower case."""
    return name.rpartition("/")[2].partition(".")[2].lower()


class _Labels:
    """The labels of one suffix in a shard: an image has that of its name, or of its sample.

    `a.b.jpg` has that of `a.b.cls` where there is one, else that of `a.cls`.
    """

    def __init__(self) -> None:
        self._by_stem: dict[str, str] = {}
        self._by_key: dict[str, set[str]] = defaultdict(set)

    def add(self, name: str, label: str) -> None:
        """Add a file's label; raises `DatasetError` where another file of its name has another."""
        if self._by_stem.setdefault(_stem(name), label) != label:
            raise DatasetError(f"two files are called {name}, and their labels differ")

    def group(self, images: Collection[str]) -> None:
        """Let labels that are not of one image's name be those of their samples."""
        for stem, label in self._by_stem.items():
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

    def refuse_unused(self, keys: Collection[str]) -> None:
        """Raise `DatasetError` for labels of samples without an image."""
        if unused := [stem for stem in self._by_stem if _key(stem) not in keys]:
            raise DatasetError(f"{len(unused)} labels have no image: {listed(unused)}")


def _stem(name: str) -> str:
    """Return a name without its suffix."""
    folder, slash, file = name.rpartition("/")
    return plain_path(f"{folder}{slash}{file.rpartition('.')[0] or file}")


def _label_suffix(name: str) -> str | None:
    return next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)


def _key(name: str) -> str:
    """Return what the names of a sample's files have in common."""
    folder, slash, file = name.rpartition("/")
    return plain_path(f"{folder}{slash}{file.partition('.')[0]}")


def _label(file: ArchiveFile, suffix: str) -> str | None:
    """Return the class that a file of a sample says; None of JSON without one."""
    try:
        text = file.keep(_MAX_BYTES)().decode("utf-8-sig").strip()
        if suffix == ".json":
            return _of_json(json.loads(text))
    except ValueError as exc:  # no UTF-8, or no JSON
        raise DatasetError(f"the label {file.name} cannot be read: {exc}") from exc
    return text or None


def _of_json(value: Any) -> str | None:
    """Return the class in a JSON value; of an object the first that is a name, else a number."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, Mapping):
        return None
    found = [value[key] for key in _KEYS if isinstance(value.get(key), str | int)]
    names = [label for label in found if isinstance(label, str) and label]
    return next((str(label) for label in names or found if label != ""), None)
