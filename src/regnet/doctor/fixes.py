"""A reviewed list of wrong labels, applied: photos are moved, or a new label file is written.

Moves are those of a sorting: nothing is overwritten, a run that was killed is completed by the
next one, and all is undone from the list that lies in the data set.
"""

import csv
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regnet.data.class_folders import Folders, open_folders
from regnet.data.class_names import listed, normal
from regnet.inference.result import readable
from regnet.inference.sorting import Sorter, sorting_lock
from regnet.system.errors import DatasetError, OutputError, reason_of
from regnet.system.files import write_whole
from regnet.system.json_text import ToDict
from regnet.system.output_file import naming
from regnet.system.placing import absolute
from regnet.system.text import counted, separated, text_of

_COLUMNS: Final = ("file", "suggested")


@dataclass(frozen=True)
class Fix:
    """A line of a list: a photo and the class that it should have, "" to leave it."""

    line: int
    file: str
    suggested: str


@dataclass(frozen=True)
class FailedFix(ToDict):
    """A line that could not be applied, and why."""

    line: int
    file: str
    error: str


@dataclass(frozen=True)
class AppliedFixes(ToDict):
    """What a list changed in a data set.

    So many photos `changed` their class, `before` had the new one already, and `left` have no
    suggestion. `corrected` is the new label file, "" for class folders.
    """

    dataset: str
    fix_list: str
    changed: int
    before: int
    left: int
    failed: tuple[FailedFix, ...]
    corrected: str = ""

    def summary(self) -> str:
        """Return what was done, in a line."""
        text = f"{self.dataset}: {counted(self.changed, 'photo')} relabelled"
        text += f"; {self.before:,} had the new class already" * bool(self.before)
        text += f"; {self.left:,} left without a suggestion" * bool(self.left)
        text += f"; {counted(len(self.failed), 'line')} failed" * bool(self.failed)
        if self.corrected:
            return f"{text}; the labels are in {self.corrected}"
        return f"{text}; undo with --undo" * bool(self.changed) or text


def read_fix_list(path: Path) -> list[Fix]:
    """Return the lines of a list that `--fix-list` wrote. Raises `DatasetError`."""
    try:
        named, text = separated(text_of(path.read_bytes()))
        delimiter = named or (";" if ";" in text.partition("\n")[0] else ",")  # of spreadsheets
        rows = csv.DictReader(io.StringIO(text), delimiter=delimiter)
        if missing := [name for name in _COLUMNS if name not in (rows.fieldnames or ())]:
            raise DatasetError(f"{path}: has no column {missing[0]}; write it with --fix-list")
        return [
            Fix(rows.line_num + bool(named), row["file"] or "", (row["suggested"] or "").strip())
            for row in rows
            if row["file"] or row["suggested"]  # else a row that a spreadsheet left empty
        ]
    except OSError as exc:
        raise DatasetError(f"cannot read {path}: {reason_of(exc)}") from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise DatasetError(f"{path}: is not a CSV file in UTF-8: {exc}") from exc


def apply_fixes(
    dataset: str | Path, fix_list: Path, *, truth: str | Path | None = None
) -> AppliedFixes:
    """Give the photos of a list the classes that it suggests; a bad line does not stop the others.

    Photos in class folders are moved to the folder of their new class. If a label file says the
    classes, `truth` or one beside the photos, a corrected one is written beside it. Raises
    `DatasetError` for a data set that is no folder and for a list that cannot be read,
    `OutputError`.
    """
    folder = Path(dataset).expanduser()
    if not folder.is_dir():
        what = "is not a folder; unpack it" if folder.exists() else "no such folder"
        raise DatasetError(f"{dataset}: {what}")
    fixes = read_fix_list(fix_list)
    folders = open_folders(folder, truth)
    if folders.parquet or (folders.labels is not None and folders.labels.table is None):
        raise DatasetError(f"{dataset}: labels inside of Parquet files and shards are not changed")
    corrected = ""
    if folders.labels is not None:
        labels = _Relabelled(folders, folder)
        counts, failed = labels.apply_all(fixes)
        if counts[0]:
            labels.write()
            corrected = str(labels.file)
    else:
        with sorting_lock(folder):
            counts, failed = _Moves(folders, folder).apply_all(fixes)
    return AppliedFixes(
        readable(str(dataset)), readable(str(fix_list)), *counts, failed, readable(corrected)
    )


class _Photos(ABC):
    """The photos of a folder, each by the name that the doctor gives it."""

    def __init__(self, folders: Folders, folder: Path) -> None:
        self.folders, self.folder = folders, folder
        self.paths = {readable(path): path for path in folders.listing.paths()}

    @abstractmethod
    def apply(self, fix: Fix) -> bool:
        """Give a photo another class; False if it has that already. Raises `DatasetError`."""

    def apply_all(self, fixes: Sequence[Fix]) -> tuple[tuple[int, int, int], tuple[FailedFix, ...]]:
        """Return how many photos changed, had their class before, and were left; what failed."""
        changed = before = left = 0
        failed, lines = [], dict[str, int]()
        for fix in fixes:
            try:
                first = lines.setdefault(self.inner(fix.file), fix.line)
                if first != fix.line:
                    raise DatasetError(f"is in line {first}, too")
                if not fix.suggested:
                    left += 1
                elif self.apply(fix):
                    changed += 1
                else:
                    before += 1
            except (DatasetError, OSError, ValueError) as exc:  # the latter for an impossible path
                failed.append(FailedFix(fix.line, fix.file, reason_of(exc)))
        return (changed, before, left), tuple(failed)

    def inner(self, file: str) -> str:
        """Return the path of a photo below the folder, whether it is there or not."""
        inner = os.path.relpath(os.path.expanduser(file), self.folder)  # noqa: PTH111
        return self.paths.get(inner.replace(os.sep, "/"), inner)

    def require(self, inner: str) -> None:
        """Raise `DatasetError` if there is no such photo."""
        if readable(inner) not in self.paths:
            raise DatasetError(f"is not a photo of {self.folder} now")


class _Moves(_Photos):
    """Moves photos to the folders of other classes."""

    def __init__(self, folders: Folders, folder: Path) -> None:
        super().__init__(folders, folder)
        self._sorter = Sorter(folder, "move", ())
        self._classes = folders.class_folders()

    def apply(self, fix: Fix) -> bool:
        """Move a photo; False if it lies there already. Raises `DatasetError`, `OSError`."""
        inner = self.inner(fix.file)
        path = absolute(str(self.folder / inner))
        if self._sorter.completes(path):
            if (placed := self._sorter.placed[str(path)]).label != fix.suggested:
                raise DatasetError(f"was moved to {placed.target} before")
            return False
        self.require(inner)
        top, split, label = self._class_folder(inner)
        name = self._spelled(fix.suggested, split)
        if name == label:
            return False
        self._sorter.put(path, f"{top}{name}", label=fix.suggested, probability=None)
        return True

    def _class_folder(self, inner: str) -> tuple[str, str, str]:
        """Return where a photo's class folder lies ("train/"), its split and its name."""
        top = ""
        for part in inner.split("/")[:-1]:
            split, label = self.folders.layout.place(f"{top}{part}")
            if label:
                return top, split, label
            top += f"{part}/"
        raise DatasetError("lies in no class folder")

    def _spelled(self, name: str, split: str) -> str:
        """Return the name of a class's folder in a split, as it is spelled there."""
        here = {known for role, known in self._classes if role == split and known}
        same = [known for known in here if normal(known) == normal(name)]
        if name in here or len(same) != 1:
            if name not in {known for _, known in self._classes}:
                raise DatasetError(
                    f"there is no class folder {name!r}: make it, or name one of these: "
                    f"{listed(sorted(here))}"
                )
            return name
        return same[0]


class _Relabelled(_Photos):
    """The labels of a label file, corrected."""

    def __init__(self, folders: Folders, folder: Path) -> None:
        super().__init__(folders, folder)
        labels = folders.labels
        assert labels is not None
        self.file = Path(labels.source).with_name(f"{Path(labels.source).stem}-corrected.csv")
        if self.file.exists():
            raise OutputError(f"{self.file} exists: move it away, or name it with --truth")
        self._classes = labels.classes
        names = (labels.names[code] for code in labels.codes)
        self._labels = dict(zip(self.paths.values(), names, strict=True))

    def apply(self, fix: Fix) -> bool:
        """Relabel a photo; False if it has the label already. Raises `DatasetError`."""
        inner = self.inner(fix.file)
        self.require(inner)
        if fix.suggested not in self._classes:
            raise DatasetError(
                f"there is no class {fix.suggested!r}; there are {listed(self._classes)}"
            )
        before, self._labels[inner] = self._labels[inner], fix.suggested
        return before != fix.suggested

    def write(self) -> None:
        """Write the label of every photo. Raises `OutputError`."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerows([("file_name", "label"), *self._labels.items()])
        with naming(self.file):
            write_whole(self.file, text.getvalue().encode("utf-8", "surrogateescape"))
