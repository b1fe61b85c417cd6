"""What is in the cache: its size by kind, and what can be removed while other processes run.

The folder may be anyone's, even a home: only what is named as regnet names its files is touched.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from regnet.conversion.values import read_conversion
from regnet.system.files import is_scratch, remove_leftovers
from regnet.system.installation import installation_key, installed_version
from regnet.system.version import TOOL_VERSION

KINDS: Final = {
    "weights": "downloaded weights",
    "converted": "converted models",
    "compiled": "models compiled for this CPU",
    "devices": "what was measured of devices",
    "evaluations": "journals of unfinished evaluations",
    "embeddings": "embeddings of folders that were searched",
    "notices": "notices given before",
}
"""The folders in the cache, and what is in them."""

_NAMES: Final[Mapping[str, re.Pattern[str]]] = {
    "converted": re.compile(r".+-[0-9a-f]{16}"),
    "compiled": re.compile(r"\d+\.blob"),
    "devices": re.compile(r"[0-9a-f]{24}\.json"),
    "evaluations": re.compile(r"[0-9a-f]{24}\.journal"),
    "embeddings": re.compile(r"[0-9a-f]{24}\.npy(\.part)?(\.jsonl)?"),
    "notices": re.compile(r".+-\d[^-]*-[0-9a-f]{8}"),
}
_AFTER_A_DOWNLOAD: Final = re.compile(r"(\.part)?(\.json)?$")
_VERSION: Final = re.compile(rb'<regnet>.*?<version value="([^"]*)"', re.DOTALL)
_COMPILED_BY: Final = re.compile(rb'<compiled_blob ie_version="(\d[\d.]*)')


@dataclass(frozen=True)
class Kind:
    """The files of a kind in the cache, and their bytes."""

    name: str
    files: int
    bytes: int


@dataclass(frozen=True)
class Removed:
    """What was removed; `in_use` counts what was not, because another process has it."""

    files: int = 0
    bytes: int = 0
    in_use: int = 0

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(
            self.files + other.files, self.bytes + other.bytes, self.in_use + other.in_use
        )


@dataclass(frozen=True)
class CacheFolder:
    """The cache; nothing outside it is touched, nor through a link in it."""

    folder: Path

    def kinds(self) -> list[Kind]:
        """Return the files and bytes of each kind."""
        return [self._kind(name) for name in KINDS]

    def _kind(self, name: str) -> Kind:
        sizes = [_size(path) for path in self._entries(name)]
        return Kind(name, sum(files for files, _ in sizes), sum(bytes_ for _, bytes_ in sizes))

    def to_dict(self) -> dict[str, Any]:
        """Return folder and sizes as plain JSON values."""
        kinds = self.kinds()
        return {
            "folder": str(self.folder),
            "bytes": sum(kind.bytes for kind in kinds),
            "kinds": [vars(kind) for kind in kinds],
        }

    def clear(self) -> Removed:
        """Remove everything that regnet can make or download again."""
        return self._remove(dict.fromkeys(KINDS, lambda path: True))

    def prune(self) -> Removed:
        """Remove what this version of regnet and of OpenVINO cannot use any more."""
        return self._remove(_USELESS)

    def _remove(self, doomed: "Mapping[str, Callable[[Path], bool]]") -> Removed:
        return sum(
            (
                _remove_in(folder, name, is_doomed)
                for name, is_doomed in doomed.items()
                for folder in self._folders(name)
            ),
            Removed(),
        )

    def _entries(self, kind: str) -> Iterator[Path]:
        return (path for folder in self._folders(kind) for path in _entries(folder, kind))

    def _folders(self, kind: str) -> list[Path]:
        """Return the folders with a kind's entries: downloads have one for each card."""
        top = self.folder / kind
        within = [top] if kind != "weights" else top.glob("*") if not top.is_symlink() else []
        return [folder for folder in within if folder.is_dir() and not folder.is_symlink()]


def _remove_in(folder: Path, kind: str, is_doomed: Callable[[Path], bool]) -> Removed:
    """Remove entries of a folder but those whose lock another process holds."""
    removed = Removed()
    remove_leftovers(folder)
    with ExitStack() as held:
        busy = tuple(name for name in _locked(folder) if not _hold(folder / name, held))
        bases = tuple(name.removesuffix(".lock") for name in busy)
        for path in filter(is_doomed, _entries(folder, kind)):
            size = _size(path)
            if not path.name.startswith(bases) and _removed(path):
                removed += Removed(*size)
            else:
                removed += Removed(in_use=1)
    return removed


def _entries(folder: Path, kind: str) -> list[Path]:
    """Return regnet's entries in a folder: no lock, as others may wait for it, nor scratch."""
    return [p for p in sorted(folder.iterdir()) if _is_entry(p, kind) and not is_scratch(p)]


def _is_entry(path: Path, kind: str) -> bool:
    """Tell by its name; files of a download have the name of a lock, which stays beside them."""
    if kind == "weights":
        return path.with_name(_AFTER_A_DOWNLOAD.sub("", path.name) + ".lock").is_file()
    return _NAMES[kind].fullmatch(path.name) is not None


def _locked(folder: Path) -> Iterator[str]:
    return (path.name for path in folder.glob("*.lock"))


def _hold(lock: Path, held: ExitStack) -> bool:
    from filelock import FileLock, Timeout

    try:
        held.enter_context(FileLock(lock, blocking=False))
    except (Timeout, OSError):
        return False
    return True


def _removed(path: Path) -> bool:
    """Remove a file, link or folder; tell whether that could be done."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
        return True
    return False


def _size(path: Path) -> tuple[int, int]:
    """Return the number of files and their bytes; links are not followed."""
    every = [path] if not path.is_dir() else [] if path.is_symlink() else path.rglob("*")
    sizes: list[int] = []
    for file in every:
        with suppress(OSError):
            if file.suffix != ".lock" and (file.is_symlink() or file.is_file()):
                sizes.append(file.lstat().st_size)
    return len(sizes), sum(sizes)


def _is_old_conversion(folder: Path) -> bool:
    conversion = read_conversion(folder)
    if conversion is None:
        return True
    version = _VERSION.search(conversion.path.read_bytes())
    return version is None or version[1].decode() != TOOL_VERSION


def _is_old_blob(path: Path) -> bool:
    with path.open("rb") as file:
        version = _COMPILED_BY.search(file.read(200))
    return version is None or version[1].decode() != installed_version("openvino")


def _is_left_part(path: Path) -> bool:
    """Tell a partial download whose file came whole from elsewhere."""
    return path.suffix == ".part" and path.with_suffix("").exists()


def _is_old_notice(path: Path) -> bool:
    return not path.name.endswith(installation_key())


_USELESS: Final[Mapping[str, Callable[[Path], bool]]] = {
    "weights": _is_left_part,
    "converted": _is_old_conversion,
    "compiled": _is_old_blob,
    "notices": _is_old_notice,
}
