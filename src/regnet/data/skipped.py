"""What counts as a photo in folders and archives, and what was skipped there."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from regnet.data.clutter import first_clutter
from regnet.pixels.formats import has_picture_suffix, is_picture, suffix_of
from regnet.system.notices import SkippedFilesWarning

Sort = Literal["photo", "other", "clutter"]

MAX_COUNTED: Final = 10_000
"""Files that are counted in one clutter folder: snapshots may hold millions."""

_SHOWN: Final = 8  # suffixes or folders in a line
_KEPT: Final = 1000  # different suffixes or folders that are counted one by one
_SUFFIX: Final = re.compile(r"\.\w{1,12}", re.ASCII)
_NO_SUFFIX: Final = "without suffix"
_OTHERS: Final = "others"
_CLOUDS: Final = (".icloud", ".cloud", ".nextcloud", ".owncloud")
_ABSENT: Final = "not downloaded"


def sort_of(path: str, head: Callable[[], bytes | None]) -> Sort:
    """Return what a file at a path with `/`, below the place the user named, counts as.

    Anything hidden or made by a system is clutter; of the others `is_photo` decides. `head` may
    raise `ImageError`.
    """
    if first_clutter(path) is not None:
        return "clutter"
    return "photo" if is_photo(path, head) else "other"


def is_photo(name: str, head: Callable[[], bytes | None]) -> bool:
    """Tell whether a file is a photo: by its suffix, else by its first bytes, from `head`.

    `head` returns None where it cannot be opened: without a suffix that is a photo lost.
    """
    if has_picture_suffix(name):
        return True
    start = head()
    return not suffix_of(name) if start is None else is_picture(start)


@dataclass(frozen=True)
class Skipped:
    """What was skipped in some places: how many files of each suffix, and in clutter folders.

    Both are sorted by count. Of single files that are hidden or made by a system only pictures are
    counted, and what iCloud and others leave where a picture is not downloaded.
    """

    places: tuple[str, ...] = ()
    suffixes: tuple[tuple[str, int], ...] = ()
    folders: tuple[tuple[str, int], ...] = ()

    def without(self, used: Collection[str]) -> "Skipped":
        """Return the counts without files of suffixes that were used after all."""
        suffixes = tuple((name, count) for name, count in self.suffixes if name not in used)
        return replace(self, suffixes=suffixes)

    def line(self) -> str:
        """Return one line for people, "" if nothing was skipped."""
        files = sum(count for _, count in self.suffixes)
        plural = "files" if files > 1 else "file"
        by_suffix = f"{files:,} {plural}: {_listed(f'{n:,} {name}' for name, n in self.suffixes)}"
        inside = _listed(f"{name} ({_files(n)})" for name, n in self.folders)
        parts = [by_suffix] if files else []
        parts += [f"folders that hold no photos: {inside}"] if self.folders else []
        where = self.places[0] if len(self.places) == 1 else f"{len(self.places)} sources"
        return f"{where}: skipped {'; and '.join(parts)}" if parts else ""

    def to_dict(self) -> dict[str, int]:
        """Return how many files of each suffix, and in each clutter folder (with a / behind)."""
        return dict(self.suffixes) | {f"{name}/": count for name, count in self.folders}

    def report(self) -> None:
        """Warn of what was skipped, if anything was."""
        if line := self.line():
            warnings.warn(SkippedFilesWarning(line, self.to_dict()), stacklevel=2)


@dataclass
class SkipTally:
    """Counts what a walk skips, but for files of these names, which are used."""

    used: frozenset[str] = frozenset()
    _places: dict[str, None] = field(default_factory=dict)
    _suffixes: Counter[str] = field(default_factory=Counter)
    _folders: Counter[str] = field(default_factory=Counter)

    def add(self, place: str, path: str, what: str = "") -> None:
        """Count a file that is no photo, at a path with `/` below a place the user named.

        It is counted by its suffix unless `what` says what it is.
        """
        clutter, name = first_clutter(path), path.rpartition("/")[2]
        if name in self.used:
            return
        if clutter is not None and clutter != name:
            self.add_folder(place, clutter, 1)
        elif clutter is None or _ABSENT in _suffix(name):
            self._count(place, self._suffixes, what or _suffix(path), 1)
        elif has_picture_suffix(name) and not name.startswith("._"):
            self._count(place, self._suffixes, f"hidden {_suffix(name)}", 1)

    def add_folder(self, place: str, name: str, files: int) -> None:
        """Count the files in a clutter folder."""
        self._count(place, self._folders, name, files)

    def add_all(self, skipped: "Skipped", *, used: str = "") -> None:
        """Add what was counted elsewhere, but for files of a suffix that were used."""
        for place in skipped.places:
            for suffix, count in skipped.suffixes:
                if suffix != used:
                    self._count(place, self._suffixes, suffix, count)
            for name, count in skipped.folders:
                self._count(place, self._folders, name, count)

    def _count(self, place: str, counts: Counter[str], key: str, files: int) -> None:
        self._places[place] = None
        counts[key if key in counts or len(counts) < _KEPT else _OTHERS] += files

    def result(self) -> Skipped:
        """Return what was counted so far."""
        return Skipped(
            tuple(self._places),
            _by_count(self._suffixes),
            _by_count(self._folders),
        )


def joined(parts: Iterable[Skipped]) -> Skipped:
    """Return several counts as one."""
    parts = list(parts)
    suffixes: Counter[str] = Counter()
    folders: Counter[str] = Counter()
    for part in parts:
        suffixes.update(dict(part.suffixes))
        folders.update(dict(part.folders))
    places = dict.fromkeys(place for part in parts for place in part.places)
    return Skipped(tuple(places), _by_count(suffixes), _by_count(folders))


def _by_count(counts: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))


def _suffix(path: str) -> str:
    suffix = suffix_of(path)
    if suffix in _CLOUDS and has_picture_suffix(path[: -len(suffix)]):
        return f"{suffix} ({_ABSENT})"
    return suffix if _SUFFIX.fullmatch(suffix) else _NO_SUFFIX


def _files(count: int) -> str:
    more = "+" if count >= MAX_COUNTED else ""
    return f"{count:,}{more} file{'s' if count > 1 else ''}"


def _listed(texts: Iterable[str]) -> str:
    shown = list(texts)
    more = [f"{len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return ", ".join(shown[:_SHOWN] + more)
