"""The labels in webdataset shards: tars that hold the class of `000.jpg` in `000.cls` beside it.

A sample's files have one name up to its first dot. Its class is in its `.cls`, else in the `.json`,
else in the `.txt`. One of its images is the photo, `000.jpg`, and others such as `000.mask.png` are
left out: https://github.com/webdataset/webdataset
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from regnet.data.archives import ArchiveFile, SharedFile, plain_path
from regnet.data.class_names import listed
from regnet.data.photo_files import counts_as_photo
from regnet.data.tars import tar_files
from regnet.system.errors import DatasetError, ImageError

SUFFIXES: Final = (".cls", ".json", ".txt")
"""The files of a sample that say its class: the first that there is."""

_KEYS: Final = ("label", "cls", "class", "class_name", "label_name", "class_id", "target", "wnid")
_MAX_BYTES: Final = 1 << 20
_PHOTOS: Final = ("jpg", "jpeg", "jfif", "webp", "png")
"""Endings of a sample's photo: the first that there is; masks are PNG."""
_NAMED: Final = tuple(f"{word}.{end}" for word in ("image", "img", "rgb") for end in _PHOTOS)


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
