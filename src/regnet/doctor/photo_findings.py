"""What is wrong with single photos: unreadable, tiny, of one shade, or cut by the centre crop."""

from collections import Counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from regnet.doctor.findings import Finding, Severity, counted, percent, quoted, share_text
from regnet.doctor.photos import Glances
from regnet.pixels.protocol import Preprocess

UNREADABLE: Final = 0.1
"""From this share of unreadable photos on, something went wrong for all."""

OFTEN: Final = 0.1
"""From this share of photos on, what is a note of some is a warning."""

LEAST_KEPT: Final = 1 / 3
"""A crop that keeps less of a photo is named."""


def photo_findings(photos: Glances, preprocess: Preprocess) -> list[Finding]:
    """Return what is wrong with single photos, by the protocol that a training would use."""
    found = [
        _unreadable(photos),
        _tiny(photos, preprocess),
        _cut(photos, preprocess),
        _blank(photos),
    ]
    return [finding for finding in found if finding is not None]


def kept_shares(sizes: NDArray[np.uint32], preprocess: Preprocess) -> NDArray[np.float64]:
    """Return which share of each photo's area the centre crop keeps, of (N, 2) sizes over 0."""
    short, long = sizes.min(axis=1).astype(np.float64), sizes.max(axis=1)
    resized = np.floor(preprocess.resize * long / short)
    return np.asarray(np.minimum(1.0, preprocess.crop**2 / (preprocess.resize * resized)))


def _unreadable(photos: Glances) -> Finding | None:
    if not photos.errors:
        return None
    bad = len(photos.errors)
    lost = _lost_classes(photos)
    files = tuple(photos.file(index, error) for index, error in photos.errors.items())
    text = f"{counted(bad, 'photo')} ({percent(bad, len(photos))}) cannot be read."
    if lost:
        text = f"{text[:-1]}, among them all of {quoted(lost)}."
    return Finding(
        "unreadable",
        "error" if lost or bad >= UNREADABLE * len(photos) else "warning",
        text,
        "Fetch or convert them again, or delete them: a training leaves them out.",
        bad,
        files,
    )


def _lost_classes(photos: Glances) -> list[str]:
    """Return the classes of which no photo of a split can be read."""
    all_of = Counter(photos.place(index) for index in range(len(photos)))
    bad = Counter(photos.place(index) for index in photos.errors)
    return sorted(
        "/".join(filter(None, (place.split, place.label)))
        for place, count in bad.items()
        if count == all_of[place] and place.label
    )


def _tiny(photos: Glances, preprocess: Preprocess) -> Finding | None:
    least = preprocess.crop // 2
    readable = photos.readable
    sides = photos.sizes[readable].min(axis=1)
    order = np.argsort(sides, kind="stable")
    tiny = readable[order][sides[order] < least]
    if not len(tiny):
        return None
    return Finding(
        "tiny",
        _severity(photos, tiny),
        f"{_some(photos, tiny)} {'has' if len(tiny) == 1 else 'have'} a short side under {least} "
        f"pixels, half of the crop of {preprocess.crop}: enlarged, they are blurred.",
        "Get them in full size, or train with a smaller crop (and look again with --crop).",
        len(tiny),
        tuple(photos.file(i, _size(photos, i)) for i in tiny.tolist()),
    )


def _cut(photos: Glances, preprocess: Preprocess) -> Finding | None:
    readable = photos.readable
    kept = kept_shares(photos.sizes[readable], preprocess)
    order = np.argsort(kept, kind="stable")
    worst = order[kept[order] < LEAST_KEPT]
    if not len(worst):
        return None
    shares = zip(readable[worst].tolist(), kept[worst].tolist(), strict=True)
    return Finding(
        "cropped",
        _severity(photos, worst),
        f"Of {_some(photos, worst)} the centre crop keeps less than a third: what is at the ends "
        "is not seen.",
        "Look at the preview (--html FILE). If what matters is cut off, cut these photos to it, "
        "or pad them to squares.",
        len(worst),
        tuple(
            photos.file(i, f"keeps {share_text(share)} of {_size(photos, i)}")
            for i, share in shares
        ),
    )


def _blank(photos: Glances) -> Finding | None:
    readable = photos.readable
    blank = readable[photos.blank[readable]]
    if not len(blank):
        return None
    return Finding(
        "blank",
        _severity(photos, blank, few="warning", many="error"),
        f"{_some(photos, blank)} {'is' if len(blank) == 1 else 'are'} one shade all over.",
        "Placeholders and failed exports look like this: delete them.",
        len(blank),
        tuple(photos.file(i, _size(photos, i)) for i in blank.tolist()),
    )


def _size(photos: Glances, index: int) -> str:
    width, height = photos.sizes[index].tolist()
    return f"{width} x {height}"


def _some(photos: Glances, indices: NDArray[np.int64]) -> str:
    return f"{counted(len(indices), 'photo')} ({percent(len(indices), len(photos))})"


def _severity(
    photos: Glances,
    indices: NDArray[np.int64],
    *,
    few: Severity = "note",
    many: Severity = "warning",
) -> Severity:
    return many if len(indices) >= OFTEN * len(photos) else few
