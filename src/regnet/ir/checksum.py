"""The checksum of an IR's weights: recorded in its .xml, checked whenever the model is read.

SHA-256, as `sha256sum` prints it: 61 MB take 0.1 s or less, a small part of compiling a model.
"""

import hashlib
import re
from pathlib import Path
from typing import Final

from regnet.system.errors import ModelError

CONVERSION_FILE = "conversion.json"


KEY: Final = "bin_sha256"
UNKNOWN: Final = "0" * 64
"""Stands for the checksum while the .xml is written, before there is a .bin."""

_ENTRY: Final = re.compile(rb'<bin_sha256 value="([0-9a-f]{64})"')


def record_checksum(path: Path) -> None:
    """Put the checksum of the .bin into the .xml at `path`, in place of `UNKNOWN`."""
    xml = path.read_bytes()
    entry = b'<bin_sha256 value="%s"'
    known = xml.replace(entry % UNKNOWN.encode(), entry % _checksum(path).encode(), 1)
    path.write_bytes(known)


def require_intact(path: Path) -> bool:
    """Raise `ModelError` if the .bin is not the one recorded in the .xml at `path`.

    Return False if nothing is recorded, as in IRs of earlier versions.
    """
    recorded = _ENTRY.search(path.read_bytes())
    if recorded is None or recorded[1].decode() == _checksum(path):
        return recorded is not None
    converted_by_regnet = (path.parent / CONVERSION_FILE).is_file()
    remedy = f"remove {path.parent} and " if converted_by_regnet else ""
    raise ModelError(
        f"{path.with_suffix('.bin')} is damaged (its checksum differs from the one recorded in "
        f"{path.name}); {remedy}convert it again"
    )


def _checksum(path: Path) -> str:
    with path.with_suffix(".bin").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
