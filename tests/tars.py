"""Tars made in tests: members, links and tars inside of tars."""

import io
import tarfile
from dataclasses import dataclass
from typing import Literal

Mode = Literal["w", "w:gz", "w:bz2", "w:xz"]


@dataclass(frozen=True)
class Link:
    """A link to `target`, symbolic or hard."""

    target: str
    hard: bool = False


Content = bytes | Link | None


def tar(members: dict[str, Content], mode: Mode = "w") -> bytes:
    """Return a tar of files, links and (None) folders in this order."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
                continue
            info.type = tarfile.DIRTYPE
            if content is not None:
                info.type = tarfile.LNKTYPE if content.hard else tarfile.SYMTYPE
                info.linkname = content.target
            archive.addfile(info)
    return file.getvalue()
