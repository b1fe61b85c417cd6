"""Folders and files that a system makes beside photos: thumbnails, trash, snapshots, metadata."""

import re
from typing import Final

_NAMES: Final = frozenset(
    (
        *("@eadir", "@tmp", "#recycle", "#snapshot"),  # Synology
        *("@__thumb", "@recycle", "@recently-snapshot"),  # QNAP
        *("$recycle.bin", "system volume information", "thumbs.db", "desktop.ini"),  # Windows
        *("__macosx", "network trash folder", "temporary items", "icon\r"),  # macOS
        *("lost+found", "~snapshot", "__pycache__"),
    )
)
_RESCUED: Final = re.compile(r"found\.\d{3}")  # what Windows saves from a damaged disk


def is_clutter(component: str) -> bool:
    """Tell whether one component of a path is hidden, or the work of a system and no photo of ours.

    `@eaDir`, `lost+found`, `$RECYCLE.BIN`, `.Trash-1000`, `__MACOSX` are; a plain `Trash` is not,
    for data sets have classes of that name.
    """
    if component.startswith("."):
        return component not in (".", "..")
    name = component.lower()
    return name in _NAMES or _RESCUED.fullmatch(name) is not None


def first_clutter(path: str) -> str | None:
    """Return the first component of a path with `/` that is clutter, None where there is none."""
    return next((part for part in path.split("/") if is_clutter(part)), None)
