"""The photos below a folder of the file system."""

import os
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from regnet.data.clutter import is_clutter
from regnet.data.skipped import MAX_COUNTED, SkipTally, is_photo
from regnet.pixels.formats import HEAD

Found = tuple[str, bool]


def image_files(top: str, tally: SkipTally | None = None) -> Iterator[tuple[str, OSError | None]]:
    """Yield the photos below a folder, sorted; a folder reached twice by links counts once.

    A folder that cannot be looked into comes with the reason. Files of a picture's suffix are not
    opened; of other files the first bytes decide. What is skipped is added to `tally`.
    """
    seen: set[tuple[int, int]] = set()
    todo: list[Found] = [(top, True)]
    while todo:
        name, is_folder = todo.pop()
        if not is_folder:
            yield name, None
            continue
        try:
            status = Path(name).stat()
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                todo += sorted(_wanted(name, top, tally), reverse=True)
        except OSError as exc:
            yield name, exc


def is_picture_file(path: str) -> bool:
    """Tell whether a file is a picture by its suffix, else by its beginning: see `is_photo`."""
    return is_photo(path, partial(_head, path))


def _wanted(folder: str, top: str, tally: SkipTally | None) -> Iterator[Found]:
    """Yield the photos and folders (True) in a folder, in no order."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_clutter(entry.name):
                if tally is None:
                    continue
                if _is_folder(entry):
                    tally.add_folder(top, entry.name, count_files(entry.path))
                else:
                    tally.add(top, entry.name)
            elif _is_folder(entry):
                yield entry.path, True
            elif _is_regular(entry):
                if is_picture_file(entry.path):
                    yield entry.path, False
                elif tally is not None:
                    tally.add(top, entry.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, say
        return False


def _is_regular(entry: os.DirEntry[str]) -> bool:
    """Tell files, and links that lead nowhere (worth an error), from pipes and devices."""
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:
        return True


def _head(path: str) -> bytes | None:
    try:
        with Path(path).open("rb", buffering=0) as file:
            return file.read(HEAD) or b""
    except (OSError, ValueError):
        return None


def count_files(folder: str) -> int:
    """Return how many files are below a folder, at most `MAX_COUNTED`; links are not followed."""
    names = (name for _, _, files in os.walk(folder) for name in files)
    return sum(1 for _ in islice(names, MAX_COUNTED))
