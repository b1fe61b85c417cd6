"""The loaded models of a server by name; they come, go and change while it serves."""

from dataclasses import dataclass
from typing import Literal

from regnet.conversion import InferencePrecision
from regnet.library import Library
from regnet.serving.limits import Limits
from regnet.serving.served_model import Observer, ServedModel

VERSION = "1"
"""The only version there is of each model, in the Open Inference Protocol's sense."""

State = Literal["READY", "LOADING", "UNAVAILABLE"]


@dataclass(frozen=True)
class ModelState:
    """A model that is or was loaded; `reason` says why it is not ready, "" where it is."""

    name: str
    state: State
    reason: str


class Models:
    """The models of a server, the first one loaded is the default.

    Everything async runs on one asyncio loop. `source` of a model is what `Library.ir` takes.
    """

    def __init__(
        self,
        library: Library,
        *,
        precision: InferencePrecision = "f32",
        limits: Limits | None = None,
        observer: Observer | None = None,
    ) -> None:
        raise NotImplementedError

    async def load(self, name: str, source: str | None = None) -> ServedModel:
        """Load a model, or load it again from its (new) source; no request is dropped by that.

        Without `source` it is the one it had. Where it cannot be loaded, the old one goes on
        serving. Raises `NotFound` where there is no source, and the errors of `Library.ir`.
        """
        raise NotImplementedError

    async def unload(self, name: str) -> None:
        """Take a model away once it has finished what it accepted; raises `NotFound`."""
        raise NotImplementedError

    def get(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """Return a model ready to serve, the default where none is named.

        Raises `NotFound` (404), `NotReady` (503) while it is loaded for the first time.
        """
        raise NotImplementedError

    @property
    def names(self) -> tuple[str, ...]:
        """The models that are ready, the default first."""
        raise NotImplementedError

    @property
    def default(self) -> str | None:
        """The first model that was loaded and is still there."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Whether all models that were asked for are ready."""
        raise NotImplementedError

    def index(self) -> list[ModelState]:
        """Return all models that are, were or are being loaded."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close all models; each finishes what it accepted."""
        raise NotImplementedError
