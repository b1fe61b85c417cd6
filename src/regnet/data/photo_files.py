"""Which files are photos or videos, and counts of those that are skipped."""

import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Final, Literal

from regnet.pixels.formats import HEAD, has_picture_suffix, is_picture, suffix_of
from regnet.system.errors import MissingExtraError
from regnet.system.notices import SkippedFilesWarning

VIDEO_SUFFIXES: Final = frozenset(
    (".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".ivf", ".m2ts", ".m4v")
) | frozenset(
    (".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv")
) | {".ts", ".vob", ".webm", ".wmv", ".y4m"}  # fmt: skip

_CAMERA: Final = re.compile(r"camera:.|/dev/video\d+\Z", re.DOTALL)
_STREAM: Final = re.compile(r"rtsps?://.", re.IGNORECASE)

_MAX_COUNTED: Final = 10_000  # files in one clutter folder: snapshots may hold millions
_SHOWN: Final = 8  # suffixes or folders in a line
_COUNTED: Final = 1000  # different suffixes or folders that are counted one by one
_SUFFIX: Final = re.compile(r"\.\w{1,12}", re.ASCII)
_CLOUDS: Final = (".icloud", ".cloud", ".nextcloud", ".owncloud")
_ABSENT: Final = "not downloaded"

SORTED_LIST: Final = "sorted.jsonl"
"""The list that a sorting keeps in the folder of its photos."""

_CLUTTER: Final = frozenset(
    (
        *("@eadir", "@tmp", "#recycle", "#snapshot"),  # Synology
        *("@__thumb", "@recycle", "@recently-snapshot"),  # QNAP
        *("$recycle.bin", "system volume information", "thumbs.db", "desktop.ini"),  # Windows
        *("__macosx", "network trash folder", "temporary items", "icon\r"),  # macOS
        *("lost+found", "~snapshot", "__pycache__", SORTED_LIST),
    )
)
_RESCUED: Final = re.compile(r"found\.\d{3}")  # what Windows saves from a damaged disk


def is_video(source: str | Path) -> bool:
    """Tell whether a source is a video by its name: a file, a pattern, a camera or an address."""
    name = str(source)
    return is_live(name) or ("://" not in name and Path(name).suffix.lower() in VIDEO_SUFFIXES)


def is_live(name: str) -> bool:
    """Tell a camera (`camera:0`, `/dev/video0`) or the address of a stream from other names."""
    return is_stream(name) or bool(_CAMERA.match(name))


def is_stream(name: str) -> bool:
    """Tell whether a name is the address of a stream (rtsp, rtsps)."""
    return bool(_STREAM.match(name))


def require_extra() -> None:
    """Raise `MissingExtraError` if PyAV is not installed; imports nothing."""
    if find_spec("av") is None:
        raise MissingExtraError("classifying videos", "video")


def is_clutter(component: str) -> bool:
    """Tell whether a component of a path is hidden or made by a program, such as `@eaDir`.

    A plain `Trash` is not: data sets have classes of that name.
    """
    if component.startswith("."):
        return component not in (".", "..")
    name = component.lower()
    return name in _CLUTTER or _RESCUED.fullmatch(name) is not None


def first_clutter(path: str) -> str | None:
    """Return the first component of a path with `/` that is clutter, or None."""
    return next((part for part in path.split("/") if is_clutter(part)), None)


def is_photo(name: str, head: Callable[[], bytes | None]) -> bool:
    """Tell whether a file is a photo: by its suffix, else by its first bytes, from `head`.

    `head` returns None if the file cannot be opened: without a suffix, that is a photo lost.
    """
    if has_picture_suffix(name):
        return True
    start = head()
    return not suffix_of(name) if start is None else is_picture(start)


def counts_as_photo(path: str, head: Callable[[], bytes | None]) -> bool:
    """Tell whether a file is a photo and no clutter; `path` begins below the user's folder."""
    return first_clutter(path) is None and is_photo(path, head)


class SkipTally:
    """Counts skipped files by suffix, and those in clutter folders by folder.

    Files called as in `used` are not counted. Of single hidden files only pictures are counted, and
    the placeholders that iCloud and others leave for a picture.
    """

    def __init__(self, used: frozenset[str] = frozenset()) -> None:
        self._used = used
        self._places: dict[str, None] = {}
        self.suffixes: Counter[str] = Counter()
        self._folders: Counter[str] = Counter()

    def add(self, place: str, path: str, what: str = "") -> None:
        """Count a file at a path below `place`: by its suffix, or as `what`."""
        clutter, name = first_clutter(path), path.rpartition("/")[2]
        if name in self._used:
            return
        if clutter is not None and clutter != name:
            self.add_folder(place, clutter, 1)
        elif clutter is None or _ABSENT in _suffix(name):
            self._count(place, self.suffixes, what or _suffix(path), 1)
        elif has_picture_suffix(name) and not name.startswith("._"):
            self._count(place, self.suffixes, f"hidden {_suffix(name)}", 1)

    def add_folder(self, place: str, name: str, files: int) -> None:
        """Count the files in a clutter folder."""
        self._count(place, self._folders, name, files)

    def add_all(self, other: "SkipTally") -> None:
        """Add the counts of another tally."""
        for place in other._places:
            self._places[place] = None
        self.suffixes.update(other.suffixes)
        self._folders.update(other._folders)

    def drop(self, suffixes: Collection[str]) -> None:
        """Forget files of suffixes that were used after all."""
        for suffix in suffixes:
            self.suffixes.pop(suffix, None)

    def _count(self, place: str, counts: Counter[str], key: str, files: int) -> None:
        self._places[place] = None
        counts[key if key in counts or len(counts) < _COUNTED else "others"] += files

    def line(self) -> str:
        """Return one line for people, "" if nothing was skipped."""
        parts = []
        if self.suffixes:
            counts = _listed(f"{n:,} {name}" for name, n in _by_count(self.suffixes))
            parts.append(f"{_files(self.suffixes.total())}: {counts}")
        if self._folders:
            inside = _listed(
                f"{name} ({_files(n, most=_MAX_COUNTED)})" for name, n in _by_count(self._folders)
            )
            parts.append(f"folders that hold no photos: {inside}")
        places = [*self._places]
        where = places[0] if len(places) == 1 else f"{len(places)} sources"
        return f"{where}: skipped {'; and '.join(parts)}" if parts else ""

    def to_dict(self) -> dict[str, int]:
        """Return how many files of each suffix, and in each clutter folder (with a / behind)."""
        folders = {f"{name}/": count for name, count in _by_count(self._folders)}
        return dict(_by_count(self.suffixes)) | folders

    def report(self) -> None:
        """Warn of what was skipped, if anything was."""
        if line := self.line():
            warnings.warn(SkippedFilesWarning(line, self.to_dict()), stacklevel=2)


def _by_count(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _suffix(path: str) -> str:
    suffix = suffix_of(path)
    if suffix in _CLOUDS and has_picture_suffix(path[: -len(suffix)]):
        return f"{suffix} ({_ABSENT})"
    return suffix if _SUFFIX.fullmatch(suffix) else "without suffix"


def _files(count: int, most: float = math.inf) -> str:
    return f"{count:,}{'+' if count >= most else ''} file{'s' if count > 1 else ''}"


def _listed(texts: Iterable[str]) -> str:
    shown = list(texts)
    more = [f"{len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
    return ", ".join(shown[:_SHOWN] + more)


def image_files(top: str, tally: SkipTally | None = None) -> Iterator[tuple[str, OSError | None]]:
    """Yield the photos below a folder, sorted; a folder reached twice by links counts once.

    A folder that cannot be listed comes with the reason. Skipped files are added to `tally`.
    """
    seen: set[tuple[int, int]] = set()
    todo = [(top, True)]
    while todo:
        name, is_folder = todo.pop()
        if not is_folder:
            yield name, None
            continue
        try:
            status = Path(name).stat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                todo += sorted(_photos_and_folders(name, top, tally), reverse=True)
        except OSError as exc:
            yield name, exc


def is_picture_file(path: str) -> bool:
    """Tell whether a file is a picture by its suffix, else by its beginning: see `is_photo`."""
    return is_photo(path, partial(_head, path))


def _photos_and_folders(
    folder: str, top: str, tally: SkipTally | None
) -> Iterator[tuple[str, bool]]:
    """Yield the photos and folders (True) in a folder, in no order."""
    with os.scandir(folder) as entries:
        for entry in entries:
            clutter, kind = is_clutter(entry.name), _kind(entry)
            if kind == "folder" and not clutter:
                yield entry.path, True
            elif kind == "file" and not clutter and is_picture_file(entry.path):
                yield entry.path, False
            elif kind == "folder" and tally is not None:
                tally.add_folder(top, entry.name, count_files(entry.path))
            elif kind == "file" and tally is not None:
                tally.add(top, entry.name)


def _kind(entry: os.DirEntry[str]) -> Literal["folder", "file", "device"]:
    """Return what an entry is; links that lead nowhere are files, whose reading is an error."""
    try:
        if entry.is_dir():
            return "folder"
        is_file = entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
        return "file" if is_file else "device"
    except OSError:  # a link in a circle, say
        return "file"


def _head(path: str) -> bytes | None:
    try:
        with Path(path).open("rb", buffering=0) as file:
            return file.read(HEAD) or b""
    except (OSError, ValueError):
        return None


def count_files(folder: str) -> int:
    """Return how many files are below a folder, at most 10,000; links are not followed."""
    names = (name for _, _, files in os.walk(folder) for name in files)
    return sum(1 for _ in islice(names, _MAX_COUNTED))
