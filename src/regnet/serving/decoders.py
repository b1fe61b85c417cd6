"""Photos that may take long to decode, in processes that can be ended."""

import asyncio
from dataclasses import replace
from typing import Any, Final

from numpy.typing import NDArray

from regnet.decode_limits import TOO_LONG
from regnet.decoder import Decoder, Room
from regnet.errors import ImageError
from regnet.parallel import cores
from regnet.protocol import Preprocess
from regnet.serving.limits import Limits
from regnet.serving.refusals import TooLate

_NICE: Final = 5  # other photos go first


class Decoders:
    """As many processes as cores, started with the first photo; for one asyncio loop.

    A photo waits for a process and then has `limits.decode_seconds`; then its process is ended, and
    a new one takes the next photo.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._free: asyncio.Queue[Decoder | None] = asyncio.Queue()
        self._running: set[Decoder] = set()
        self._room = Room(cores() * limits.decode_memory)  # for one photo of each
        for _ in range(cores()):
            self._free.put_nowait(None)

    async def pixels(
        self, photo: bytes, preprocess: Preprocess | None, max_pixels: int, *, deadline: float
    ) -> NDArray[Any] | ImageError:
        """Return the crop by a protocol, or all pixels (H, W, 3) in RGB, or why there are none.

        `deadline` is by the loop's clock. Raises `TooLate` at the deadline.
        """
        limits = replace(self._limits.decoding, pixels=max_pixels)
        decoder = await self._next(deadline) or self._started()
        answered = False
        try:
            async with asyncio.timeout_at(min(deadline, self._latest())):
                found = await asyncio.to_thread(
                    decoder.pixels, photo, preprocess, limits, self._room
                )
            answered = decoder.alive
            return found
        except TimeoutError as exc:
            if asyncio.get_running_loop().time() >= deadline:
                raise self._too_late() from exc
            return ImageError(f"{TOO_LONG} {limits.seconds:g} s (--max-decode)")
        finally:  # also if whoever asked has gone
            if not answered:
                self._running.discard(decoder)
                decoder.kill()
            self._free.put_nowait(decoder if answered else None)

    async def close(self) -> None:
        """End all processes."""
        for decoder in self._running:
            decoder.end()
        self._running.clear()

    async def _next(self, deadline: float) -> Decoder | None:
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

    def _started(self) -> Decoder:
        decoder = Decoder(nice=_NICE)
        self._running.add(decoder)
        return decoder
