"""What is wrong with photos: unreadable, tiny, of one shade, cut by the centre crop, or copies.

Copies are the same file, or nearly the same picture.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.doctor.findings import File, Finding, quoted, share_of, worst_first
from regnet.doctor.near_copies import Links, near_pairs
from regnet.doctor.photos import Glances
from regnet.pixels.protocol import Preprocess
from regnet.system.text import counted, percent

UNREADABLE: Final = 0.1  # from this share of unreadable photos on, something went wrong for all
OFTEN: Final = 0.1  # from this share of photos on, what is a note of some is a warning
LEAST_KEPT: Final = 1 / 3  # a crop that keeps less of a photo is named

Group = tuple[int, ...]

LEAK: Final = 0.05
"""From this share of a split's photos that training has too on, its accuracy says nothing."""

CONFLICT: Final = 0.01
"""From this share of photos with two classes on, training learns a contradiction."""

DARK: Final = 25
BRIGHT: Final = 235
"""Mean grey levels below and above which a photo is too dark or too bright."""

BLURRED: Final = 0.2
"""Below this sharpness a photo is blurred (`photos.sharpness_of`)."""

MANY: Final = 0.01  # from this share of superfluous photos on, copies are a warning and not a note


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


def exposure_findings(photos: Glances) -> Iterator[Finding]:
    """Yield the photos that are too dark or too bright, by the mean grey level, or blurred."""
    readable = photos.readable[~photos.blank[photos.readable]]
    means = photos.greys[readable].mean(axis=(1, 2))
    for code, values, limit in (("dark", means, DARK), ("bright", 255 - means, 255 - BRIGHT)):
        rows = readable[_lowest(values, limit)]
        bound = f"under {DARK}" if code == "dark" else f"over {BRIGHT}"
        fault = f"too {code}: the mean level is {bound} of 255."
        yield from _doubtful(
            photos, code, rows, fault, lambda i: f"mean {photos.greys[i].mean():.0f}"
        )
    rows = readable[_lowest(photos.sharpness[readable], BLURRED)]
    fault = f"blurred: the sharpness is under {BLURRED:g}."
    yield from _doubtful(
        photos, "blurred", rows, fault, lambda i: f"sharpness {photos.sharpness[i]:.2f}"
    )


def _doubtful(
    photos: Glances, code: str, rows: NDArray[Any], fault: str, note: Callable[[int], str]
) -> Iterator[Finding]:
    """Yield the finding about photos in which the class may not be seen, if there are some."""
    if len(rows):
        yield Finding(
            code,
            "warning" if _often(photos, rows) else "note",
            f"{_some(photos, rows)} {'is' if len(rows) == 1 else 'are'} {fault}",
            "Look whether the class can be seen; else delete them.",
            len(rows),
            tuple(photos.file(i, note(i)) for i in rows.tolist()),
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
            photos.file(i, f"keeps {percent(share, 0)} of {_size(photos, i)}")
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


def exact_groups(photos: Glances) -> list[Group]:
    """Return the photos that are the same file byte by byte, by index."""
    by_digest: dict[bytes, list[int]] = defaultdict(list)
    for index in photos.readable.tolist():
        by_digest[photos.digest(index)].append(index)
    return [tuple(group) for group in by_digest.values() if len(group) > 1]


def near_groups(
    photos: Glances,
    exact: Sequence[Group],
    *,
    advance: Callable[[float], None] = lambda share: None,
) -> list[Group]:
    """Return the photos that are nearly the same picture; of the same files only the first is in.

    Those that show one shade only are left out: they are all alike. `advance` is called with the
    share of the work that was done.
    """
    copies = {index for group in exact for index in group[1:]}
    indices = np.array([i for i in photos.readable.tolist() if i not in copies], np.int64)
    indices = indices[~photos.blank[indices]]
    links = Links(len(indices))
    links.join(pairs := near_pairs(photos.greys[indices], advance=advance))
    groups: dict[int, list[int]] = defaultdict(list)
    for place in np.unique(pairs).tolist():
        groups[links.root(place)].append(int(indices[place]))
    return list(map(tuple, groups.values()))


def copy_findings(photos: Glances, exact: Sequence[Group], near: Sequence[Group]) -> list[Finding]:
    """Return what copies harm: the labels, the accuracy that validation gives, or only the time."""
    same = _Copies(photos, exact, "duplicates", "the same file", certain=True)
    alike = _Copies(photos, near, "near-duplicates", "nearly the same picture", certain=False)
    return list(worst_first([*same.findings(), *alike.findings()]))


@dataclass(frozen=True, eq=False)
class _Copies:
    """Groups of copies of a kind: the start of their codes, and what they are."""

    photos: Glances
    groups: Sequence[Group]
    code: str
    what: str
    certain: bool

    def findings(self) -> Iterator[Finding]:
        torn = [g for g in self.groups if len({self.photos.place(i).label for i in g} - {""}) > 1]
        if torn:
            yield self._conflict(torn)
        shared = [g for g in self.groups if len({self.photos.place(i).split for i in g} - {""}) > 1]
        if shared:
            yield self._leak(shared)
        repeated: list[Group] = []
        for group in self.groups:
            by_place = defaultdict(list)
            for index in group:
                by_place[self.photos.place(index)].append(index)
            repeated += [tuple(same) for same in by_place.values() if len(same) > 1]
        if repeated:
            yield self._repeat(repeated)

    def _conflict(self, groups: Sequence[Group]) -> Finding:
        """Return the finding of pictures that lie in several classes."""
        count = sum(map(len, groups))
        severe = self.certain and count >= CONFLICT * len(self.photos)
        return Finding(
            f"{self.code}-across-classes",
            "error" if severe else "warning",
            f"{counted(len(groups), 'picture lies', 'pictures lie')} in more than one class, as "
            f"{self.what}: {counted(count, 'photo')}.",
            "Decide on one class for each, and remove it from the others."
            + ("" if self.certain else " Where they show different things, leave them."),
            count,
            self._files(groups),
        )

    def _leak(self, groups: Sequence[Group]) -> Finding:
        """Return the finding of pictures that lie in several splits."""
        sizes = self.photos.split_sizes
        known: Counter[str] = Counter()
        for group in groups:
            splits = Counter(self.photos.place(i).split for i in group)
            # A photo of test is worth less if any other split has it, one of val if training has.
            for split in splits.keys() - {"train", ""}:
                if "train" in splits or split == "test":
                    known[split] += splits[split]
        worst = max(count / sizes[split] for split, count in known.items())
        shares = [f"{share_of(count, sizes[s])} of {s}" for s, count in sorted(known.items())]
        return Finding(
            f"{self.code}-across-splits",
            "error" if worst >= LEAK else "warning",
            f"{counted(len(groups), 'picture is', 'pictures are')} in more than one split, as "
            f"{self.what}. Known from another split: {' and '.join(shares)}.",
            "Remove them from train: the accuracy on them is that of what was learnt by heart.",
            sum(map(len, groups)),
            self._files(groups),
        )

    def _repeat(self, groups: Sequence[Group]) -> Finding:
        """Return the finding of pictures that one class of one split has several times."""
        extra = sum(map(len, groups)) - len(groups)
        return Finding(
            self.code,
            "warning" if self.certain and extra >= MANY * len(self.photos) else "note",
            f"{counted(extra, 'photo repeats', 'photos repeat')} another of the same class, as "
            f"{self.what}: {share_of(extra, len(self.photos))} of all.",
            "Keep one of each: what is there twice counts twice."
            if self.certain
            else "Bursts and frames of a film teach little each. Keep a few of each group, and "
            "keep a group within one split.",
            extra,
            self._files(groups),
        )

    def _files(self, groups: Sequence[Group]) -> tuple[File, ...]:
        numbered = enumerate(groups, 1)
        return tuple(self.photos.file(i, group=number) for number, group in numbered for i in group)
