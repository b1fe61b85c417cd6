"""Work on much data, such as a large JSON text, in turns: the server goes on with all else."""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Final, TypeVar

from regnet.serving.refusals import TooLate

Result = TypeVar("Result")

_SMALL: Final = 256 << 10  # bytes that are worked on at once


class Turns:
    """Runs one function at a time in a thread, at most half of the time; for one asyncio loop.

    What Python does in a thread holds up all others, the more the longer its steps are.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def take(
        self, function: Callable[[], Result], *, size: int, seconds: float, deadline: float
    ) -> Result:
        """Return a function's result, at once where it works on less than 256 KiB of `size`.

        `deadline` is by the loop's clock. Raises `TooLate` where its turn has not come then:
        `seconds` is what the message names.
        """
        if size < _SMALL:
            return function()
        try:
            async with asyncio.timeout_at(deadline):
                await self._turn.acquire()
        except TimeoutError as exc:
            raise TooLate(
                f"not answered within the limit of {seconds:g} s", limit="seconds"
            ) from exc
        start = perf_counter()
        try:
            return await asyncio.to_thread(function)
        finally:
            loop = asyncio.get_running_loop()
            loop.call_later(perf_counter() - start, self._turn.release)
