"""Files copied, linked or moved to free names: nothing is overwritten, nothing half there."""

import filecmp
import os
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Literal

from regnet.system.files import new_folder_beside

Action = Literal["copy", "link", "move"]


def absolute(source: str) -> Path:
    """Return where a file lies; a link stays one."""
    path = Path(os.path.expanduser(source))  # noqa: PTH111
    return path.parent.resolve() / path.name


def free_names(path: Path) -> Iterator[Path]:
    """Yield the path, then `name (2).jpg` and so on: those that are free."""
    for number in count(1):
        name = path if number == 1 else path.with_name(f"{path.stem} ({number}){path.suffix}")
        if not os.path.lexists(name):
            yield name


def put(source: Path, target: Path, action: Action, folder: Path) -> None:
    """Copy, link or move a file; raises `FileExistsError` if the target is there, `OSError`."""
    if action == "link":
        target.symlink_to(source)
        return
    if action == "move" and source.is_symlink():
        target.symlink_to(_link_from(source, target.parent))
        if not is_same(source, target):
            target.unlink()
            raise OSError("where this link leads cannot be told from its new place")
        _leave(source, target)
        return
    if action == "move" and _linked(source, target):
        _leave(source, target)
        return
    with new_folder_beside(folder / target.name) as scratch:
        copy = scratch / target.name
        shutil.copy2(source, copy)
        if not _linked(copy, target):
            os.rename(copy, target)  # noqa: PTH104  (no hard links here: the name was just free)
    if action == "move":
        _leave(source, target)


def _leave(source: Path, target: Path) -> None:
    """Remove a file that has a new place; if it cannot be removed, the new place is."""
    try:
        source.unlink()
    except OSError:
        target.unlink()
        raise


def _linked(source: Path, target: Path) -> bool:
    """Give a file a second name; False where that cannot be. Raises `FileExistsError`."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True


def _link_from(link: Path, folder: Path) -> str:
    """Return what a link in another folder says, so that it leads to the same file."""
    leads = link.readlink()
    return str(leads) if leads.is_absolute() else os.path.relpath(link.parent / leads, folder)


def is_moved(source: Path, target: Path) -> bool:
    """Tell whether a target is what moving the source makes, so that one of them can go."""
    if source.is_symlink() and target.is_symlink():
        return str(target.readlink()) == _link_from(source, target.parent)
    return source.is_symlink() == target.is_symlink() and is_same(source, target)


def is_same(one: Path, other: Path) -> bool:
    """Tell whether two names are of one file, or of files of the same content."""
    try:
        return one.samefile(other) or filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False
