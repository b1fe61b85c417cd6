"""Photos that may take long to decode: they are decoded in processes that can be ended."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final

from numpy.typing import NDArray

from regnet.pixels.decode_limits import TOO_LONG
from regnet.pixels.decoder import Decoder
from regnet.pixels.protocol import Preprocess
from regnet.serving.limits import Limits
from regnet.serving.refusals import too_late
from regnet.system.errors import ImageError
from regnet.system.in_flight import Room
from regnet.system.parallel import cores

_SHORT: Final = 40_000_000  # work of a photo that takes about a second, see `Cost`
_NICE: Final = (5, 10)  # of processes for short and for long work: small photos go first


class Decoders:
    """Processes for short work, one per core, and as many for long; for one asyncio loop.

    They start when they are needed. A photo waits for a process and then has
    `limits.decode_seconds`; then its process is killed, and a new one takes the next photo.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._free = tuple(asyncio.Queue[Decoder | None]() for _ in _NICE)
        self._running: set[Decoder] = set()
        self._threads = ThreadPoolExecutor(len(_NICE) * cores(), "decode")
        self._room = Room(cores() * limits.decode_memory)  # for one photo of each
        for free in cores() * self._free:
            free.put_nowait(None)

    async def pixels(
        self,
        photo: bytes,
        preprocess: Preprocess | None,
        max_pixels: int,
        *,
        work: int,
        deadline: float,
    ) -> NDArray[Any] | ImageError:
        """Return the crop by a protocol, or all pixels (H, W, 3) in RGB, or why there are none.

        `work` is that of its `Cost`. Raises `TooLate` at the `deadline` by the loop's clock.
        """
        limits = replace(self._limits.decoding, pixels=max_pixels)
        kind, answered, loop = int(work > _SHORT), False, asyncio.get_running_loop()
        decoder = await self._next(self._free[kind], deadline) or Decoder(_NICE[kind])
        self._running.add(decoder)
        try:
            latest = loop.time() + self._limits.decode_seconds
            async with asyncio.timeout_at(min(deadline, latest)):
                pixels = await loop.run_in_executor(
                    self._threads, decoder.pixels, photo, preprocess, limits, self._room
                )
            answered = decoder.alive
            return pixels
        except TimeoutError as exc:
            if loop.time() >= deadline:
                raise too_late(self._limits.seconds) from exc
            return ImageError(f"{TOO_LONG} {limits.seconds:g} s (--max-decode)")
        finally:  # also if the client has gone
            if not answered:
                self._running.discard(decoder)
                decoder.kill()
            self._free[kind].put_nowait(decoder if answered else None)

    async def close(self) -> None:
        """End all processes."""
        for decoder in self._running:
            decoder.end()
        self._running.clear()
        self._threads.shutdown(wait=False)

    async def _next(self, free: asyncio.Queue[Decoder | None], deadline: float) -> Decoder | None:
        """Return a free process, or None if one is to be started."""
        try:
            async with asyncio.timeout_at(deadline):
                return await free.get()
        except TimeoutError as exc:
            raise too_late(self._limits.seconds) from exc
