"""The process that decodes photos which may take long: bytes in, pixels out, until its input ends.

A request is two lengths (4 bytes each, little-endian), a JSON text and a photo; an answer is the
same with an array's bytes. Before it takes much memory it says how much, and waits for a byte that
allows it. `regnet.pixels.decoder` starts it. On systems that have such limits, it is ended when a
photo takes more seconds or memory than it may.
"""

import json
import signal
import struct
import sys
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.pixels.decode import decode_pixels
from regnet.pixels.decode_limits import DecodeLimits
from regnet.pixels.preprocess import crop_of
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import ImageError
from regnet.system.notices import DarkPhotoWarning

if sys.platform != "win32":
    import resource

LENGTHS: Final = struct.Struct("<2L")
ASKED_FOR: Final = 64_000_000  # bytes of memory that it asks for; less it takes at once
_SPARE: Final = 100_000_000  # bytes of memory beside what the header lets expect


def main() -> None:
    """Answer requests on standard input until it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever started it says when it is over
        signal.signal(number, signal.SIG_IGN)
    _prepare()
    stdin = sys.stdin.buffer
    while lengths := stdin.read(LENGTHS.size):
        text, photo = LENGTHS.unpack(lengths)
        answer, pixels = _answer(json.loads(stdin.read(text)), stdin.read(photo))
        _send(answer, pixels)


def _prepare() -> None:
    """Let memory and time be the limits, not Pillow's, and leave no dump of memory when ended."""
    from PIL import AvifImagePlugin, Image

    Image.MAX_IMAGE_PIXELS = None
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # each would take memory
    if sys.platform != "win32":
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        _lower(resource.RLIMIT_CORE, 0)


def _send(answer: dict[str, Any], pixels: NDArray[Any] | None = None) -> None:
    head, data = json.dumps(answer).encode(), memoryview(b"") if pixels is None else pixels.data
    sys.stdout.buffer.write(LENGTHS.pack(len(head), data.nbytes) + head)
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _answer(asked: dict[str, Any], photo: bytes) -> tuple[dict[str, Any], NDArray[Any] | None]:
    limits = DecodeLimits(**asked["limits"])
    _limit(limits.memory_of(len(photo)) + _SPARE, limits.seconds)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", DarkPhotoWarning)
        try:
            pixels = _decoded(asked["preprocess"], photo, limits)
        except ImageError as exc:
            return {"error": str(exc)}, None
        except MemoryError:
            return {"error": str(limits.out_of_memory(len(photo)))}, None
    dark = [str(one.message) for one in said if issubclass(one.category, DarkPhotoWarning)]
    return {"dtype": pixels.dtype.str, "shape": pixels.shape, "dark": dark}, pixels


def _decoded(protocol: Any, photo: bytes, limits: DecodeLimits) -> NDArray[Any]:
    """Return the crop by a protocol, or without one all pixels in RGB, C-contiguous."""
    preprocess = protocol and Preprocess.from_dict(protocol)
    channels = preprocess.channels if preprocess else "RGB"
    pixels = decode_pixels(photo, channels, limits=limits, taking=_ask)
    return np.ascontiguousarray(crop_of(pixels, preprocess) if preprocess else pixels)


def _ask(memory: int) -> None:
    """Wait until so many bytes of memory may be taken."""
    if memory > ASKED_FOR:
        _send({"memory": memory})
        sys.stdin.buffer.read(1)


def _limit(memory: int, seconds: float) -> None:
    """Let the system end this process after so many more seconds, and give it so many more bytes.

    What Linux counts is what could be written to: it may be more than what is in memory.
    """
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)  # of a processor: user's and system's
    if sys.platform == "linux":
        held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        _lower(resource.RLIMIT_DATA, held + memory)


def _lower(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    resource.setrlimit(limit, (value if hard < 0 else min(value, hard), hard))


if __name__ == "__main__":
    main()
