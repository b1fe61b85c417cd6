"""Copies of one picture in a data set: the same file, and nearly the same picture."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from regnet.doctor.findings import Finding, Severity, share_of, worst_first
from regnet.doctor.near_copies import Links, near_pairs
from regnet.doctor.photos import Glances
from regnet.system.text import counted

Group = tuple[int, ...]

LEAK: Final = 0.05
"""From this share of a split's photos that training has too on, its accuracy says nothing."""

CONFLICT: Final = 0.01
"""From this share of photos with two classes on, training learns a contradiction."""

MANY: Final = 0.01
"""From this share of superfluous photos on, copies are a warning and not a note."""


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
        return self._finding(
            groups,
            "-across-classes",
            "error" if severe else "warning",
            f"{counted(len(groups), 'picture lies', 'pictures lie')} in more than one class, as "
            f"{self.what}: {counted(count, 'photo')}.",
            "Decide on one class for each, and remove it from the others."
            + ("" if self.certain else " Where they show different things, leave them."),
            count,
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
        return self._finding(
            groups,
            "-across-splits",
            "error" if worst >= LEAK else "warning",
            f"{counted(len(groups), 'picture is', 'pictures are')} in more than one split, as "
            f"{self.what}. Known from another split: {' and '.join(shares)}.",
            "Remove them from train: the accuracy on them is that of what was learnt by heart.",
            sum(map(len, groups)),
        )

    def _repeat(self, groups: Sequence[Group]) -> Finding:
        """Return the finding of pictures that one class of one split has several times."""
        extra = sum(map(len, groups)) - len(groups)
        return self._finding(
            groups,
            "",
            "warning" if self.certain and extra >= MANY * len(self.photos) else "note",
            f"{counted(extra, 'photo repeats', 'photos repeat')} another of the same class, as "
            f"{self.what}: {share_of(extra, len(self.photos))} of all.",
            "Keep one of each: what is there twice counts twice."
            if self.certain
            else "Bursts and frames of a film teach little each. Keep a few of each group, and "
            "keep a group within one split.",
            extra,
        )

    def _finding(
        self,
        groups: Sequence[Group],
        code: str,
        severity: Severity,
        text: str,
        remedy: str,
        count: int,
    ) -> Finding:
        numbered = enumerate(groups, 1)
        files = (self.photos.file(i, group=number) for number, group in numbered for i in group)
        return Finding(self.code + code, severity, text, remedy, count, tuple(files))
