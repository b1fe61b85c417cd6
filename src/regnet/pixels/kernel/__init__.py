"""The exact resize in C (resize.c), where it was compiled when regnet was installed.

Nothing depends on it but time: where it is absent or declines, Pillow gives the same pixels. The
environment variable REGNET_KERNEL=off leaves it unused.
"""

import os
import warnings
from collections.abc import Callable
from ctypes import CDLL, c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from regnet.system.notices import RegNetWarning, first_time

LIBRARY: Final = Path(__file__).parent / "resize.so"
VERSION: Final = 1  # of regnet_kernel_version in resize.c
SWITCH: Final = "REGNET_KERNEL"

REMEDY: Final = (
    "install regnet's wheel for this system, or a C compiler (gcc or clang) and regnet again; "
    "`regnet doctor --self` names the command"
)

MAX_SOURCE: Final = 1 << 24  # longer sides are rounded in Pillow's float32
MAX_TARGET: Final = 1 << 50  # coordinates up to here are exact in double
MAX_COUNT: Final = 1 << 16
_PIXEL_STEPS: Final = (3, 4)  # bytes from one pixel to the next in memory

Axis = tuple[int, int, int, int]
"""(source, target, start, count): of `target` pixels made of `source`, `count` from `start` on."""


class SlowerWarning(RegNetWarning):
    """Photos are resized without compiled code; given once per installation."""


def available() -> bool:
    """Tell whether the compiled resize is there, fits this version and is not switched off."""
    return os.environ.get(SWITCH) != "off" and _function() is not None


def resize(
    pixels: NDArray[np.uint8],
    *,
    across: Axis,
    down: Axis,
    bicubic: bool,
    out: NDArray[np.uint8],
) -> bool:
    """Write a part of resized pixels (H, W, 3) to `out`, and tell whether it was done.

    `pixels` may be any view: turned, mirrored, its channels reversed. `out` is contiguous, (down's
    count, across's count, 3). Other threads run on meanwhile. Raises `MemoryError`.
    """
    if not available():
        note_slower()
        return False
    if not _fits(pixels, across, down, out):
        return False
    if abs(pixels.strides[2]) != 1 or min(map(abs, pixels.strides[:2])) not in _PIXEL_STEPS:
        pixels = np.ascontiguousarray(pixels)
    swapped = pixels.strides[2] < 0
    if swapped:
        pixels = pixels[..., ::-1]
    function = _function()
    assert function is not None
    reach = sum(
        max((n - 1) * step, 0) for n, step in zip(pixels.shape, pixels.strides, strict=True)
    )
    failed = function(
        pixels.ctypes.data,
        pixels.ctypes.data + reach + 1,
        (c_int64 * 2)(pixels.strides[1], pixels.strides[0]),
        (c_int64 * 4)(*across),
        (c_int64 * 4)(*down),
        bicubic,
        swapped,
        out.ctypes.data,
    )
    if failed:
        raise MemoryError("not enough memory to resize an image")
    return True


def _fits(pixels: NDArray[np.uint8], across: Axis, down: Axis, out: NDArray[np.uint8]) -> bool:
    """Return whether the arrays are what the lengths say, and the lengths are in bounds."""
    return (
        pixels.dtype == out.dtype == np.uint8
        and pixels.shape == (down[0], across[0], 3)
        and out.shape == (down[3], across[3], 3)
        and out.flags.c_contiguous
        and out.flags.writeable
        and all(
            1 <= source <= MAX_SOURCE
            and 1 <= count <= MAX_COUNT
            and 0 <= start <= target - count
            and target <= MAX_TARGET
            for source, target, start, count in (across, down)
        )
    )


@cache
def note_slower() -> None:
    """Warn, once per installation, if it has no compiled resize."""
    if os.environ.get(SWITCH) != "off" and _function() is None and first_time("no-kernel"):
        text = f"photos are resized without compiled code, so slower: {REMEDY}"
        warnings.warn(text, SlowerWarning, stacklevel=2)


@cache
def _function() -> Callable[..., int] | None:
    """Return the compiled function; None where there is none of this version and machine."""
    try:
        library = CDLL(str(LIBRARY))
        if library.regnet_kernel_version() != VERSION:
            return None
        function = library.regnet_resize
    except (OSError, AttributeError):
        return None
    function.argtypes = [c_void_p] * 5 + [c_int32, c_int32, c_void_p]
    function.restype = c_int32
    return function
