"""How regnet was installed, by its own record: from where, with which extras."""

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from regnet.system.version import TOOL_VERSION

NAME: Final = "regnet-vision"
CONSTRAINTS: Final = "constraints.txt"
"""The tested versions: a file of the checkout, and of the wheel inside the package."""

_CPU_INDEX: Final = ("--extra-index-url", "https://download.pytorch.org/whl/cpu")
_OWN_INDEX: Final = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX")
_NVIDIA: Final = Path("/proc/driver/nvidia")
_EXTRA: Final = re.compile(r"extra == ['\"]([\w-]+)['\"]")
_PACKAGE: Final = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Installation:
    """An installation: the `record` of where it came from (PEP 610; empty: an index).

    `extras` are the requirements of each extra, `install` is how the installer's command begins.
    `cpu_index` says that the usual index would bring torch for CUDA, which has no use here.
    """

    record: Mapping[str, Any] = field(default_factory=dict)
    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    install: str = "pip install"
    cpu_index: bool = False
    package: Path = _PACKAGE

    @property
    def folder(self) -> Path | None:
        """The folder with the source that it was installed from, if it is still there."""
        path = _local_path(self.record.get("url", ""))
        return path if "dir_info" in self.record and path and path.is_dir() else None

    @property
    def editable(self) -> bool:
        """Whether a change of the source folder is at once a change of the installation."""
        return bool(self.record.get("dir_info", {}).get("editable"))

    @property
    def origin(self) -> str:
        """Where it came from, in words."""
        url = self.record.get("url", "")
        where = str(_local_path(url) or url)
        if "dir_info" in self.record:
            return f"{'editable, from ' if self.editable else ''}the folder {where}"
        return where or "a package index"

    def command(self, extra: str) -> str:
        """Return the command that adds an extra."""
        needs = self.extras.get(extra, ())
        torch = any(name_of(need) == "torch" for need in needs)
        constraints = (self.folder or self.package) / CONSTRAINTS
        words = ["-c", str(constraints)] if (self.folder or torch) and constraints.exists() else []
        words += self._what(extra) or (self.record and needs) or [f"{NAME}[{extra}]"]
        return self._command(*words, *_CPU_INDEX[: 2 * (torch and self.cpu_index)])

    def again(self) -> str:
        """Return the command that installs it once more, and nothing else."""
        return self._command("--force-reinstall", "--no-deps", *(self._what() or [NAME]))

    def _command(self, *words: str) -> str:
        return f"{self.install} {' '.join(map(_quoted, words))}"

    def _what(self, extra: str = "") -> list[str]:
        """Return what to install from where it came from; empty for an index, or what is gone."""
        extras = f"[{extra}]" if extra else ""
        if self.folder:
            return [*(["-e"] if self.editable else []), f"{self.folder}{extras}"]
        url = str(self.record.get("url", ""))
        path = _local_path(url)
        if not url or "dir_info" in self.record or (path and not path.exists()):
            return []
        if vcs := self.record.get("vcs_info"):
            url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
        if part := self.record.get("subdirectory"):
            url += f"#subdirectory={part}"
        return [f"{NAME}{extras} @ {url}"]


def name_of(requirement: str) -> str:
    """Return the name of the package that a requirement is about."""
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def installed_version(name: str) -> str | None:
    """Return the version of an installed package; None where it is not installed."""
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


@cache
def this_installation() -> Installation:
    """Return the installation that runs; one from an index where it has no record at all."""
    try:
        found = distribution(NAME)
    except PackageNotFoundError:
        return Installation()
    return Installation(
        record=_record(found),
        extras=_extras(found),
        install=_installer(found),
        cpu_index=sys.platform == "linux"
        and find_spec("torch") is None
        and not _NVIDIA.exists()
        and not any(name in os.environ for name in _OWN_INDEX),
    )


def installation_key() -> str:
    """Return a short text that is another one for another version or place of the package."""
    import hashlib

    place = hashlib.sha256(str(_PACKAGE).encode()).hexdigest()[:8]
    return f"{TOOL_VERSION}-{place}"


def _record(found: Distribution) -> Mapping[str, Any]:
    try:
        record = json.loads(found.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _extras(found: Distribution) -> dict[str, tuple[str, ...]]:
    """Return what each extra needs on this system."""
    needs: dict[str, list[str]] = {}
    for line in found.requires or ():
        requirement, _, condition = line.partition(";")
        elsewhere = f"sys_platform != '{sys.platform}'" in condition
        if (extra := _EXTRA.search(condition)) and not elsewhere:
            needs.setdefault(extra[1], []).append(requirement.strip())
    return {extra: tuple(words) for extra, words in needs.items()}


def _installer(found: Distribution) -> str:
    """Return how the command of the installer begins, for this Python."""
    if (found.read_text("INSTALLER") or "").strip() == "uv":
        return f"uv pip install --python {_quoted(sys.executable)}"
    beside = which("pip")
    if beside and Path(beside).parent == Path(sys.executable).parent:
        return "pip install"
    return f"{_quoted(sys.executable)} -m pip install"


def _local_path(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def _quoted(word: str) -> str:
    """Return a word as a shell takes it: in the quotes that cmd.exe knows on Windows."""
    quoted = shlex.quote(word)
    return f'"{word}"' if sys.platform == "win32" and quoted != word else quoted
