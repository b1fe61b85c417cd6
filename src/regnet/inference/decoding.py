"""Photos read, decoded and cropped by processes, for a device that one interpreter cannot feed.

Each process has a thread of this one that asks it, and shares memory with it for the crops of a
chunk: nothing but names goes through pipes. A photo that may take long, or much memory, comes back
and is decoded within this process's limits, as on a CPU.
"""

import math
import os
import pickle
import queue
import signal
import struct
import sys
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.pixels.decode_limits import DecodeLimits
from regnet.pixels.preprocess import ImageLike, quick_crop
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import ImageError
from regnet.system.notices import about
from regnet.system.parallel import cores, in_order

if TYPE_CHECKING:
    from regnet.inference.predictors import Predictor

Job = tuple[str, Callable[[], ImageLike]]
Pixels = NDArray[Any] | str
"""What a network takes of an image, or why there is none."""

CHUNK: Final = 16
"""Photos that a process decodes at a time."""

MANY: Final = 64
"""Photos from which starting processes pays."""

_SLOW: Final = "slow"
_LENGTH: Final = struct.Struct("<Q")
_START: Final = "from regnet.inference.decoding import main; main()"


class DecodeProcess:
    """A process that makes the crops of a chunk of photos; for one thread at a time."""

    def __init__(self, preprocess: Preprocess, limits: DecodeLimits) -> None:
        from subprocess import PIPE, Popen

        descriptor = os.memfd_create("regnet-crops")  # gone with the processes that have it open
        try:
            self._crops = _shared(descriptor, preprocess)
            self._process = Popen(
                [sys.executable, "-P", "-c", _START],
                stdin=PIPE,
                stdout=PIPE,
                pass_fds=[descriptor],
            )
        finally:
            os.close(descriptor)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout
        _send(self._input, pickle.dumps((descriptor, preprocess, limits)))

    def crops(self, jobs: Sequence[Job]) -> list[Pixels | None]:
        """Return the crop of each photo, why there is none, or None if it may take long.

        Raises `OSError` or `EOFError` if the process has ended.
        """
        _send(self._input, _pickled(jobs))
        answers = pickle.loads(_receive(self._output))
        crops = self._crops[: len(jobs)].copy()
        return [
            crop if answer == "" else None if answer == _SLOW else answer
            for answer, crop in zip(answers, crops, strict=True)
        ]

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        with suppress(BrokenPipeError), self._process:
            pass  # closes its pipes, and waits


class DecodePool:
    """Processes that decode, one for each core but one, started when they are first needed.

    They make the crops for `predictor`, which decodes in this process what may take long. `close`
    ends them; so does the end of this process.
    """

    def __init__(self, predictor: "Predictor") -> None:
        self.size = max(1, cores() - 1)
        self._pixels = predictor.pixels
        self._start = partial(DecodeProcess, predictor.metadata.preprocess, predictor.limits)
        self._idle: queue.SimpleQueue[DecodeProcess] = queue.SimpleQueue()
        self._every: list[DecodeProcess] = []
        self.close = weakref.finalize(self, _end, self._every)

    def ahead(self, jobs: Iterable[Job]) -> Iterator[tuple[str, Pixels]]:
        """Yield what `decode` does, in order, of photos that are decoded before they are needed."""
        return in_order(jobs, self.decode, workers=self.size, batch_size=CHUNK)

    def decode(self, jobs: Sequence[Job]) -> list[tuple[str, Pixels]]:
        """Return the name of each photo with its crop, or why there is none. Thread-safe."""
        try:
            process = self._idle.get_nowait()
        except queue.Empty:
            process = self._start()
            self._every.append(process)
        try:
            crops = process.crops(jobs)
        except (OSError, EOFError):
            if not self.close.alive:
                return []
            process.end()
            if len(jobs) == 1:  # it is this photo that ends them
                return [(jobs[0][0], "decoding it ended the decoder")]
            return [row for job in jobs for row in self.decode([job])]
        self._idle.put(process)
        return [
            (job[0], self._decoded(job) if crop is None else crop)
            for job, crop in zip(jobs, crops, strict=True)
        ]

    def _decoded(self, job: Job) -> Pixels:
        return decoded(self._pixels, job)


def _end(processes: Iterable[DecodeProcess]) -> None:
    for process in processes:
        process.end()


def decoded(pixels: Callable[[ImageLike], NDArray[Any]], job: Job) -> Pixels:
    """Return `pixels` of an image, or why there are none; warnings name the image."""
    source, read = job
    try:
        with about(source):
            return pixels(read())
    except ImageError as exc:
        return str(exc)


def _pickled(jobs: Sequence[Job]) -> bytes:
    """Return jobs for another process; what cannot be read there, such as an archive's, is here."""
    try:
        return pickle.dumps(jobs)
    except (pickle.PicklingError, AttributeError, TypeError):
        return pickle.dumps(
            [(source, partial(_given, _read(source, read))) for source, read in jobs]
        )


def _read(source: str, read: Callable[[], ImageLike]) -> ImageLike | ImageError:
    try:
        with about(source):
            return read()
    except ImageError as exc:
        return ImageError(str(exc))


def _given(image: ImageLike | ImageError) -> ImageLike:
    if isinstance(image, ImageError):
        raise image
    return image


def main() -> None:
    """Make crops, in a process of its own, until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    source, target = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    descriptor, preprocess, limits = pickle.loads(_receive(source))
    crops = _shared(descriptor, preprocess)
    with suppress(EOFError, BrokenPipeError):
        while True:
            jobs = pickle.loads(_receive(source))
            answers = [
                _crop_into(crop, job, preprocess, limits)
                for crop, job in zip(crops, jobs, strict=False)
            ]
            _send(target, pickle.dumps(answers))


def _crop_into(crop: NDArray[Any], job: Job, preprocess: Preprocess, limits: DecodeLimits) -> str:
    """Make a photo's crop in shared memory; return "", why there is none, or that it is slow.

    One that there is something to say of is left to the other process, too, which says it.
    """

    def quick(image: ImageLike) -> NDArray[Any]:
        made = quick_crop(image, preprocess, limits=limits)
        return np.empty(0) if made is None else made

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = decoded(quick, job)
    if isinstance(made, str):
        return made
    if said or made.size == 0:
        return _SLOW
    crop[...] = made
    return ""


def _shared(descriptor: int, preprocess: Preprocess) -> NDArray[Any]:
    """Return the crops (chunk, crop, crop, 3) in an open file that processes share."""
    import mmap

    dtype = np.dtype("f4" if preprocess.interpolation == "opencv-linear" else "u1")
    shape = (CHUNK, preprocess.crop, preprocess.crop, 3)
    size = math.prod(shape) * dtype.itemsize
    os.ftruncate(descriptor, size)
    return np.frombuffer(mmap.mmap(descriptor, size), dtype).reshape(shape)


def _send(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(_LENGTH.pack(len(message)) + message)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    """Return the next message; raises `EOFError` at the end."""
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    if len(message := pipe.read(length)) < length:
        raise EOFError
    return message
