"""The C library's memory, set up for training: large buffers are kept instead of handed back."""

import contextlib
import ctypes
import sys
from typing import Final

_SETTINGS: Final = {-1: 2**31 - 1, -2: 64 << 20, -4: 0}  # trim threshold, top pad, mmap max


def keep_freed_memory() -> None:
    """Let glibc keep what is freed; nothing where there is no glibc.

    Each step needs the same buffers again. Handing them back to the system, as glibc does with
    large ones, costs about as much as the step itself on a CPU.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            for option, value in _SETTINGS.items():
                ctypes.CDLL(None).mallopt(option, value)
