"""Photos decoded within limits: quick ones here, the others in processes that can be ended."""

import atexit
import json
import os
import signal
import struct
import sys
from contextlib import ExitStack, suppress
from dataclasses import asdict
from functools import cache
from io import BufferedReader
from queue import Empty, LifoQueue
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.pixels import kernel
from regnet.pixels.decode import Pixels, decode_pixels
from regnet.pixels.decode_limits import TOO_LONG, DecodeLimits
from regnet.pixels.photo_cost import QUICK_MEMORY, cost_of
from regnet.pixels.protocol import Channels, Preprocess
from regnet.system.errors import ImageError
from regnet.system.in_flight import Room
from regnet.system.notices import DarkPhotoWarning, give

LENGTHS: Final = struct.Struct("<2L")
"""Of a message to or from a process: the bytes of its JSON, and of what follows that."""

_START: Final = "import os; os.nice({}); from regnet.pixels.decode_process import main; main()"
_IN_FLIGHT: Final = 1_000_000_000  # bytes of memory of all processes together


class Decoder:
    """A process that decodes one photo at a time, `nice` to others. For one thread at a time."""

    def __init__(self, nice: int = 0) -> None:
        from subprocess import DEVNULL, PIPE, Popen

        kernel.note_slower()  # nobody would hear it from there
        self._process = Popen(
            [sys.executable, "-P", "-c", _START.format(nice)],
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,  # libraries of some formats write there
        )

    def pixels(
        self, photo: bytes, preprocess: Preprocess | None, limits: DecodeLimits, room: Room
    ) -> NDArray[Any] | ImageError:
        """Return the crop by a protocol, or all pixels (H, W, 3) in RGB, or why there are none."""
        asked = {"preprocess": preprocess and preprocess.to_dict(), "limits": asdict(limits)}
        text = json.dumps(asked).encode()
        try:
            self._write(LENGTHS.pack(len(text), len(photo)) + text, photo)
            return self._answer(room)
        except (OSError, EOFError, ValueError):  # ValueError: it was ended before it was asked
            self.end()
            if self._process.returncode == -getattr(signal, "SIGPROF", 0):
                return ImageError(f"{TOO_LONG} {limits.seconds:g} s (--max-decode)")
            return ImageError(f"decoding it ended the decoder (status {self._process.returncode})")

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Have a thread that waits for pixels get an error at once; for any thread."""
        self._process.kill()

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        with suppress(BrokenPipeError), self._process:
            pass  # closes its pipes, of which one may hold what was not read, and waits

    def _answer(self, room: Room) -> NDArray[Any] | ImageError:
        with ExitStack() as held:
            answer, data = self._message()
            while "memory" in answer:
                held.close()
                held.enter_context(room.taken(answer["memory"]))
                self._write(b"\1")
                answer, data = self._message()
        if "error" in answer:
            return ImageError(answer["error"])
        for text in answer["dark"]:
            give(DarkPhotoWarning, text)
        return np.frombuffer(data, answer["dtype"]).reshape(answer["shape"])

    def _write(self, *parts: bytes) -> None:
        assert self._process.stdin is not None
        for part in parts:
            self._process.stdin.write(part)
        self._process.stdin.flush()

    def _message(self) -> tuple[dict[str, Any], bytearray]:
        head, size = LENGTHS.unpack(self._read(LENGTHS.size))
        return json.loads(self._read(head)), self._read(size)

    def _read(self, length: int) -> bytearray:
        assert isinstance(self._process.stdout, BufferedReader)
        data = bytearray(length)
        if self._process.stdout.readinto(data) < length:
            raise EOFError
        return data


class _Decoders:
    """The processes of this one that wait for a photo, and the memory of all."""

    def __init__(self) -> None:
        self.idle, self.room = LifoQueue[Decoder](), Room(_IN_FLIGHT)
        self._owner = os.getpid()
        atexit.register(self._close)

    def take(self) -> Decoder:
        """Return a process that waits for a photo, a new one where all are busy."""
        try:
            while not (decoder := self.idle.get_nowait()).alive:
                decoder.end()
            return decoder
        except Empty:
            return Decoder()

    def _close(self) -> None:
        if self._owner == os.getpid():  # not that of a fork
            while not self.idle.empty():
                self.idle.get().end()


@cache
def _decoders(process: int) -> _Decoders:
    """Return those of a process: a fork has none of its parent's."""
    return _Decoders()


def decode_elsewhere(
    photo: bytes, preprocess: Preprocess | None, limits: DecodeLimits
) -> NDArray[Any]:
    """Return the crop by a protocol, or all pixels (H, W, 3) in RGB, from another process.

    It is ended after `limits.seconds`. Large photos wait for each other. Safe to call from many
    threads. Raises `ImageError` with the reason.
    """
    decoders = _decoders(os.getpid())
    decoder = decoders.take()
    try:
        found = decoder.pixels(photo, preprocess, limits, decoders.room)
    except BaseException:
        decoder.end()
        raise
    if decoder.alive:
        decoders.idle.put(decoder)
    if isinstance(found, ImageError):
        raise ImageError(*found.args)  # `found` would hold this frame, and so the photo
    return found


def decode_quick(data: bytes, channels: Channels, limits: DecodeLimits) -> Pixels | None:
    """Return all pixels (H, W, 3) of a photo that is decoded in a moment, None of another.

    Raises `ImageError` with the reason.
    """
    if not cost_of(data).quick:
        return None
    try:
        return decode_pixels(data, channels, limits=limits, taking=_require_little)
    except _NotQuickError:
        return None


def decode_within(data: bytes, channels: Channels, limits: DecodeLimits) -> Pixels:
    """Return what `decode_pixels` does, of bytes from anywhere, or raise `ImageError`."""
    if (pixels := decode_quick(data, channels, limits)) is not None:
        return pixels
    pixels = decode_elsewhere(data, None, limits)
    return pixels if channels == "RGB" else pixels[..., ::-1]


class _NotQuickError(Exception):
    """A photo is larger than its header seemed to say."""


def _require_little(memory: int) -> None:
    if memory > QUICK_MEMORY:
        raise _NotQuickError
