"""What the handlers of a server share: its models, limits and figures, passed in at its start."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from regnet.serving.access_log import AccessLog
from regnet.serving.auth import Token
from regnet.serving.exchange import Exchange, Held
from regnet.serving.limits import Limits
from regnet.serving.metrics import ServerMetrics
from regnet.serving.models import Models
from regnet.serving.turns import Turns
from regnet.serving.visitors import Visitors

Result = TypeVar("Result")


@dataclass(kw_only=True)
class Service:
    """One server.

    `token` None asks for none: then `visitors` are looked at. `model_control` lets clients load and
    unload models, `draining` is set when it stops.
    """

    models: Models
    limits: Limits
    metrics: ServerMetrics
    log: AccessLog
    token: Token | None = None
    visitors: Visitors = field(default_factory=lambda: Visitors("127.0.0.1"))
    model_control: bool = False
    draining: bool = False
    turns: Turns = field(default_factory=Turns)
    held: Held = field(init=False)

    def __post_init__(self) -> None:
        limits = self.limits
        large = max(limits.body, limits.queue_bytes * 3 // 4)
        self.held = Held(limits.queue_bytes, large)

    async def in_turn(
        self, function: Callable[[], Result], *, size: int, exchange: Exchange
    ) -> Result:
        """Return the result of a function that works on so many bytes; raises `TooLate`."""
        return await self.turns.take(
            function, size=size, seconds=self.limits.seconds, deadline=exchange.deadline
        )

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.models.ready and not self.draining
