"""What the handlers of a server share: its models, limits and metrics, passed in at its start."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, TypeVar

from regnet.serving.access import Token, Visitors
from regnet.serving.access_log import AccessLog
from regnet.serving.exchange import Exchange
from regnet.serving.held_memory import Held
from regnet.serving.limits import Limits
from regnet.serving.metrics import ServerMetrics
from regnet.serving.models import Models
from regnet.serving.refusals import too_late

Result = TypeVar("Result")

_SMALL: Final = 256 << 10  # bytes that are worked on at once


@dataclass(kw_only=True)
class Service:
    """One server.

    Without a `token`, `visitors` decides who is answered. `model_control` lets clients load and
    unload models; `draining` is set when the server stops.
    """

    models: Models
    limits: Limits
    metrics: ServerMetrics
    log: AccessLog
    token: Token | None = None
    visitors: Visitors = field(default_factory=lambda: Visitors("127.0.0.1"))
    model_control: bool = False
    draining: bool = False
    held: Held = field(init=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    def __post_init__(self) -> None:
        limits = self.limits
        large = max(limits.body, limits.queue_bytes * 3 // 4)
        self.held = Held(limits.queue_bytes, large)

    async def in_turn(
        self, function: Callable[[], Result], *, size: int, exchange: Exchange
    ) -> Result:
        """Return the result of a function that works on `size` bytes, such as a large JSON text.

        Large work goes in a thread, one at a time and at most half of the time: Python in a thread
        holds up all others. Raises `TooLate` if its turn has not come at the deadline.
        """
        if size < _SMALL:
            return function()
        try:
            async with asyncio.timeout_at(exchange.deadline):
                await self._turn.acquire()
        except TimeoutError as exc:
            raise too_late(self.limits.seconds) from exc
        start = perf_counter()
        try:
            return await asyncio.to_thread(function)
        finally:
            loop = asyncio.get_running_loop()
            loop.call_later(perf_counter() - start, self._turn.release)

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.models.ready and not self.draining
