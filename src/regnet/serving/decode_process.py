"""The process that decodes photos which may take long: bytes in, pixels out, until its input ends.

A request is two lengths (4 bytes each, little-endian), a JSON text and a photo; an answer is the
same with an array's bytes. `regnet.serving.decoders` starts it, and ends it when it takes too long.
"""

import json
import os
import resource
import signal
import struct
import sys
from typing import Any, Final

from numpy.typing import NDArray

from regnet.errors import ImageError
from regnet.preprocess import crop_pixels, rgb_pixels
from regnet.protocol import preprocess_from_dict

LENGTHS: Final = struct.Struct("<2L")
_MEMORY: Final = 4 << 30  # bytes of address space
_NICE: Final = 5  # other photos go first


def main() -> None:
    """Answer requests on standard input until it ends."""
    os.nice(_NICE)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    for number in (signal.SIGINT, signal.SIGTERM):  # the server says when it is over
        signal.signal(number, signal.SIG_IGN)
    stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
    while lengths := stdin.read(LENGTHS.size):
        text, photo = LENGTHS.unpack(lengths)
        answer, pixels = _answer(json.loads(stdin.read(text)), stdin.read(photo))
        head = json.dumps(answer).encode()
        stdout.write(LENGTHS.pack(len(head), len(pixels)) + head)
        stdout.write(pixels)
        stdout.flush()


def _answer(asked: dict[str, Any], photo: bytes) -> tuple[dict[str, Any], bytes | memoryview]:
    try:
        pixels = _decoded(asked, photo)
    except ImageError as exc:
        return {"error": str(exc)}, b""
    except MemoryError:
        return {"error": "not enough memory to decode it"}, b""
    return {"dtype": pixels.dtype.str, "shape": pixels.shape}, pixels.tobytes()


def _decoded(asked: dict[str, Any], photo: bytes) -> NDArray[Any]:
    """Return the crop by a protocol, or without one all pixels in RGB."""
    if asked["preprocess"] is None:
        return rgb_pixels(photo, max_pixels=asked["max_pixels"])
    preprocess = preprocess_from_dict(asked["preprocess"])
    return crop_pixels(photo, preprocess, max_pixels=asked["max_pixels"])


if __name__ == "__main__":
    main()
