"""Copies of one picture in a data set: the same file, and nearly the same picture."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from regnet.doctor.findings import Finding, Severity, counted, percent, worst_first
from regnet.doctor.near_copies import Links, near_pairs
from regnet.doctor.photos import Glances

Group = tuple[int, ...]

LEAK: Final = 0.05
"""From this share of a split's photos that training has too on, its accuracy says nothing."""

CONFLICT: Final = 0.01
"""From this share of photos with two classes on, training learns a contradiction."""

MANY: Final = 0.01
"""From this share of superfluous photos on, copies are a warning and not a note."""


@dataclass(frozen=True)
class _Kind:
    """How copies of a kind are called: the start of their codes, and what they are."""

    code: str
    what: str
    certain: bool


_SAME: Final = _Kind("duplicates", "the same file", certain=True)
_NEAR: Final = _Kind("near-duplicates", "nearly the same picture", certain=False)


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

    Those that show one shade only are left out: they are all alike. `advance` hears which share of
    the work is done.
    """
    copies = {index for group in exact for index in group[1:]}
    own = np.array([i for i in photos.readable.tolist() if i not in copies], np.int64)
    own = own[~photos.blank[own]]
    links = Links(len(own))
    links.join(pairs := near_pairs(photos.greys[own], advance=advance))
    groups: dict[int, list[int]] = defaultdict(list)
    for place in np.unique(pairs).tolist():
        groups[links.root(place)].append(int(own[place]))
    return list(map(tuple, groups.values()))


def copy_findings(photos: Glances, exact: Sequence[Group], near: Sequence[Group]) -> list[Finding]:
    """Return what copies harm: the labels, the accuracy that validation gives, or only the time."""
    found: list[Finding] = []
    for groups, kind in ((exact, _SAME), (near, _NEAR)):
        found += _conflicts(photos, groups, kind)
        found += _leaks(photos, groups, kind)
        found += _repeats(photos, groups, kind)
    return list(worst_first(found))


def _conflicts(photos: Glances, groups: Sequence[Group], kind: _Kind) -> Iterator[Finding]:
    """Yield the pictures that lie in several classes."""
    torn = [g for g in groups if len({photos.place(i).label for i in g} - {""}) > 1]
    count = sum(map(len, torn))
    if not torn:
        return
    severe = kind.certain and count >= CONFLICT * len(photos)
    yield _finding(
        photos,
        torn,
        f"{kind.code}-across-classes",
        "error" if severe else "warning",
        f"{counted(len(torn), 'picture lies', 'pictures lie')} in more than one class, as "
        f"{kind.what}: {counted(count, 'photo')}.",
        "Decide on one class for each, and remove it from the others."
        + ("" if kind.certain else " Where they show different things, leave them."),
        count,
    )


def _leaks(photos: Glances, groups: Sequence[Group], kind: _Kind) -> Iterator[Finding]:
    """Yield the pictures that lie in several splits."""
    shared = [g for g in groups if len({photos.place(i).split for i in g} - {""}) > 1]
    if not shared:
        return
    sizes = photos.split_sizes
    ours: dict[str, int] = defaultdict(int)
    for group in shared:
        places = [photos.place(i).split for i in group]
        # A photo of test is worth less if any other split has it, one of val if training has it.
        for split in set(places) - {"train", ""}:
            if "train" in places or split == "test":
                ours[split] += places.count(split)
    shares = {split: count / sizes[split] for split, count in ours.items()}
    told = [f"{percent(count, sizes[split])} of {split}" for split, count in sorted(ours.items())]
    yield _finding(
        photos,
        shared,
        f"{kind.code}-across-splits",
        "error" if max(shares.values()) >= LEAK else "warning",
        f"{counted(len(shared), 'picture is', 'pictures are')} in more than one split, as "
        f"{kind.what}. Known from another split: {' and '.join(told)}.",
        "Remove them from train: the accuracy on them is that of what was learnt by heart.",
        sum(map(len, shared)),
    )


def _repeats(photos: Glances, groups: Sequence[Group], kind: _Kind) -> Iterator[Finding]:
    """Yield the pictures that one class of one split has several times."""
    repeated: list[Group] = []
    for group in groups:
        by_place = defaultdict(list)
        for index in group:
            by_place[photos.place(index)].append(index)
        repeated += [tuple(same) for same in by_place.values() if len(same) > 1]
    extra = sum(map(len, repeated)) - len(repeated)
    if not repeated:
        return
    yield _finding(
        photos,
        repeated,
        kind.code,
        "warning" if kind.certain and extra >= MANY * len(photos) else "note",
        f"{counted(extra, 'photo repeats', 'photos repeat')} another of the same class, as "
        f"{kind.what}: {percent(extra, len(photos))} of all.",
        "Keep one of each: what is there twice counts twice."
        if kind.certain
        else "Bursts and frames of a film teach little each. Keep a few of each group, and keep a "
        "group within one split.",
        extra,
    )


def _finding(
    photos: Glances,
    groups: Sequence[Group],
    code: str,
    severity: Severity,
    text: str,
    remedy: str,
    count: int,
) -> Finding:
    files = (
        photos.file(index, group=number)
        for number, group in enumerate(groups, 1)
        for index in group
    )
    return Finding(code, severity, text, remedy, count, tuple(files))
