"""What is wrong with single photos: unreadable, tiny, of one shade, or cut by the centre crop."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.doctor.findings import Finding, quoted, share_of, share_text
from regnet.doctor.photos import Glances
from regnet.pixels.protocol import Preprocess
from regnet.system.text import counted

UNREADABLE: Final = 0.1
"""From this share of unreadable photos on, something went wrong for all."""

OFTEN: Final = 0.1
"""From this share of photos on, what is a note of some is a warning."""

LEAST_KEPT: Final = 1 / 3
"""A crop that keeps less of a photo is named."""


def photo_findings(photos: Glances, preprocess: Preprocess) -> Iterator[Finding]:
    """Yield what is wrong with single photos, by the protocol that a training would use."""
    if photos.errors:
        yield _unreadable(photos)
    readable = photos.readable
    sizes = photos.sizes[readable]
    yield from _tiny(photos, _lowest(sizes.min(axis=1), preprocess.crop // 2), preprocess)
    kept = kept_shares(sizes, preprocess)
    yield from _cut(photos, _lowest(kept, LEAST_KEPT), kept)
    blank = readable[photos.blank[readable]]
    if len(blank):
        yield Finding(
            "blank",
            "error" if _often(photos, blank) else "warning",
            f"{_some(photos, blank)} {'is' if len(blank) == 1 else 'are'} one shade all over.",
            "Placeholders and failed exports look like this: delete them.",
            len(blank),
            tuple(photos.file(i, _size(photos, i)) for i in blank.tolist()),
        )


def kept_shares(sizes: NDArray[np.uint32], preprocess: Preprocess) -> NDArray[np.float64]:
    """Return which share of each photo's area the centre crop keeps, of (N, 2) sizes over 0."""
    short, long = sizes.min(axis=1).astype(np.float64), sizes.max(axis=1)
    resized = np.floor(preprocess.resize * long / short)
    return np.asarray(np.minimum(1.0, preprocess.crop**2 / (preprocess.resize * resized)))


def _lowest(values: NDArray[Any], limit: float) -> NDArray[np.int64]:
    """Return the positions of the values below a limit, the lowest first."""
    order = np.argsort(values, kind="stable")
    return order[values[order] < limit]


def _unreadable(photos: Glances) -> Finding:
    bad = len(photos.errors)
    every = Counter(photos.place(index) for index in range(len(photos)))
    torn = Counter(photos.place(index) for index in photos.errors)
    lost = sorted(str(p) for p, count in torn.items() if count == every[p] and p.label)
    return Finding(
        "unreadable",
        "error" if lost or bad >= UNREADABLE * len(photos) else "warning",
        f"{counted(bad, 'photo')} ({share_of(bad, len(photos))}) cannot be read"
        + (f", among them all of {quoted(lost)}." if lost else "."),
        "Fetch or convert them again, or delete them: a training leaves them out.",
        bad,
        tuple(photos.file(index, error) for index, error in photos.errors.items()),
    )


def _tiny(photos: Glances, rows: NDArray[np.int64], preprocess: Preprocess) -> Iterator[Finding]:
    if not len(rows):
        return
    yield Finding(
        "tiny",
        "warning" if _often(photos, rows) else "note",
        f"{_some(photos, rows)} {'has' if len(rows) == 1 else 'have'} a short side under "
        f"{preprocess.crop // 2} pixels, half of the crop of {preprocess.crop}: enlarged, they are "
        "blurred.",
        "Get them in full size, or train with a smaller crop (and look again with --crop).",
        len(rows),
        tuple(photos.file(i, _size(photos, i)) for i in photos.readable[rows].tolist()),
    )


def _cut(photos: Glances, rows: NDArray[np.int64], kept: NDArray[np.float64]) -> Iterator[Finding]:
    if not len(rows):
        return
    shares = zip(photos.readable[rows].tolist(), kept[rows].tolist(), strict=True)
    yield Finding(
        "cropped",
        "warning" if _often(photos, rows) else "note",
        f"Of {_some(photos, rows)} the centre crop keeps less than a third: what is at the ends "
        "is not seen.",
        "Look at the preview (--html FILE). If what matters is cut off, cut these photos to it, "
        "or pad them to squares.",
        len(rows),
        tuple(
            photos.file(i, f"keeps {share_text(share)} of {_size(photos, i)}")
            for i, share in shares
        ),
    )


def _size(photos: Glances, index: int) -> str:
    width, height = photos.sizes[index].tolist()
    return f"{width} x {height}"


def _some(photos: Glances, rows: NDArray[np.int64]) -> str:
    return f"{counted(len(rows), 'photo')} ({share_of(len(rows), len(photos))})"


def _often(photos: Glances, rows: NDArray[np.int64]) -> bool:
    return len(rows) >= OFTEN * len(photos)
