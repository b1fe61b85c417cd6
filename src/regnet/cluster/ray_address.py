"""What names a Ray: little to load, as command lines are read with it."""

import re
from typing import Final

LOCAL: Final = "local"
AUTO: Final = "auto"
HOST: Final = re.compile(r"(ray://)?(\[[0-9a-fA-F:.]+\]|[\w.-]+):([1-9]\d{0,4})", re.ASCII)


def is_address(word: str) -> bool:
    """Tell whether a word names a Ray: local, auto, host:port or ray://host:port."""
    return word in (LOCAL, AUTO) or HOST.fullmatch(word) is not None
