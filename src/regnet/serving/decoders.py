"""Photos that may take long to decode, in processes that can be ended."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from regnet.errors import ImageError
from regnet.parallel import cores
from regnet.protocol import Preprocess
from regnet.serving.decode_process import LENGTHS
from regnet.serving.limits import Limits
from regnet.serving.refusals import TooLate

TOO_LONG: Final = "decoding took longer than the limit of"


class Decoders:
    """As many processes as cores, started with the first photo; for one asyncio loop.

    A photo waits for a process and then has `limits.decode_seconds`; then its process is ended, and
    a new one takes the next photo.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._free: asyncio.Queue[Process | None] = asyncio.Queue()
        self._running: set[Process] = set()
        for _ in range(cores()):
            self._free.put_nowait(None)

    async def pixels(
        self, photo: bytes, preprocess: Preprocess | None, max_pixels: int, *, deadline: float
    ) -> NDArray[Any] | ImageError:
        """Return the crop by a protocol, or all pixels (H, W, 3) in RGB, or why there are none.

        `deadline` is by the loop's clock. Raises `TooLate` at the deadline.
        """
        asked = {"preprocess": preprocess and preprocess.to_dict(), "max_pixels": max_pixels}
        process, answered = await self._next(deadline), False
        try:
            process = process or await self._started()
            async with asyncio.timeout_at(min(deadline, self._latest())):
                found = await _exchange(process, json.dumps(asked).encode(), photo)
            answered = True
            return found
        except TimeoutError as exc:
            if asyncio.get_running_loop().time() >= deadline:
                raise self._too_late() from exc
            return ImageError(f"{TOO_LONG} {self._limits.decode_seconds:g} s")
        except (asyncio.IncompleteReadError, OSError):
            return ImageError("its decoder ended without an answer")
        finally:  # also if whoever asked has gone
            if process is not None and not answered:
                self._end(process)
            self._free.put_nowait(process if answered else None)

    async def close(self) -> None:
        """End all processes."""
        for process in list(self._running):
            self._end(process)
            await process.wait()

    async def _next(self, deadline: float) -> Process | None:
        """Return a free process, None if it is to be started."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self._free.get()
        except TimeoutError as exc:
            raise self._too_late() from exc

    def _latest(self) -> float:
        return asyncio.get_running_loop().time() + self._limits.decode_seconds

    def _too_late(self) -> TooLate:
        seconds = self._limits.seconds
        return TooLate(f"not answered within the limit of {seconds:g} s", limit="seconds")

    async def _started(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "regnet.serving.decode_process"),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,  # libraries of some formats write there
        )
        self._running.add(process)
        return process

    def _end(self, process: Process) -> None:
        self._running.discard(process)
        if process.returncode is None:
            process.kill()


async def _exchange(process: Process, asked: bytes, photo: bytes) -> NDArray[Any] | ImageError:
    """Send a photo to a process and return its answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(LENGTHS.pack(len(asked), len(photo)) + asked)
    process.stdin.write(photo)
    await process.stdin.drain()
    head, size = LENGTHS.unpack(await process.stdout.readexactly(LENGTHS.size))
    answer = json.loads(await process.stdout.readexactly(head))
    data = await process.stdout.readexactly(size)
    if "error" in answer:
        return ImageError(answer["error"])
    return np.frombuffer(data, answer["dtype"]).reshape(answer["shape"])
