"""The loaded models of a server by name; they come, go and change while it serves."""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

from regnet.conversion.store import Library
from regnet.inference.predictors import parse_ir_choice
from regnet.ir.assumptions import warn_assumed
from regnet.ir.metadata import InferencePrecision
from regnet.serving.batching import Observer
from regnet.serving.decoders import Decoders
from regnet.serving.limits import Limits
from regnet.serving.refusals import NotFound, NotReady
from regnet.serving.served_model import ServedModel
from regnet.system.devices import CPU

VERSION = "1"
"""The only version of each model, in the Open Inference Protocol's sense."""

T = TypeVar("T")

State = Literal["READY", "LOADING", "UNAVAILABLE"]


class Models:
    """The models of a server. Everything async runs on one asyncio loop."""

    def __init__(
        self,
        library: Library,
        *,
        device: str | None = None,
        precision: InferencePrecision | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._library, self._device, self._precision = library, device, precision
        self.limits = limits or Limits()
        self._observer = observer
        self._decoders = Decoders(self.limits)
        self._models: dict[str, ServedModel] = {}
        self._sources: dict[str, str] = {}
        self.states: dict[str, State] = {}  # of all models that are or were loaded
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def load(self, name: str, source: str | None = None) -> ServedModel:
        """Load a model, or reload it from its (new) source without dropping requests.

        `source` is `MODEL[:precision]`; None is the one the model had. If it cannot be loaded, the
        old model goes on serving. Raises `NotFound` if there is no source, `NotReady` while the
        server stops, and the errors of `Library.ir` and `read_model`.
        """
        source = source or self._sources.get(name)
        if source is None:
            raise self._unknown(name)
        return await asyncio.shield(self._start(self._load(name, source)))

    async def unload(self, name: str) -> None:
        """Remove a model once it has finished what it accepted; raises `NotFound`."""
        if name not in self.states:
            raise self._unknown(name)
        await asyncio.shield(self._start(self._unload(name)))

    def get(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """Return a model that is ready to serve; None is the default model.

        Raises `NotFound`, or `NotReady` while it is loaded for the first time.
        """
        name = name if name is not None else self.default
        if name is None:
            raise NotReady("no model is loaded")
        if version not in (None, "", VERSION):
            raise NotFound(f"{name}: there is no version {version}; the only one is {VERSION}")
        if (model := self._models.get(name)) is not None:
            return model
        if self.states.get(name) == "LOADING":
            raise NotReady(f"{name}: it is being loaded")
        raise self._unknown(name)

    def require_room(self) -> None:
        """Raise `TooMany` if every model is full, whichever a request is for."""
        if self._models and all(model.full for model in self._models.values()):
            next(iter(self._models.values())).require_room()

    @property
    def names(self) -> tuple[str, ...]:
        """The models that are ready, the default first."""
        return tuple(self._models)

    @property
    def default(self) -> str | None:
        """The model that was loaded first, None if there is none."""
        return next(iter(self._models), None)

    @property
    def ready(self) -> bool:
        """Whether there is a model, and none is being loaded for the first time."""
        loading = "LOADING" in self.states.values()
        return bool(self._models) and not loading and not self._closed

    async def close(self) -> None:
        """Close all models; each finishes what it accepted."""
        self._closed = True
        await asyncio.gather(*self._tasks, return_exceptions=True)  # each tells its own caller
        await asyncio.gather(*(model.close() for model in self._models.values()))
        await self._decoders.close()

    async def _load(self, name: str, source: str) -> ServedModel:
        async with self._turns[name]:
            if self._closed:
                raise NotReady("the server stops")
            if name not in self._models:
                self.states[name] = "LOADING"
            try:
                model = await asyncio.to_thread(self._open, name, source)
            except BaseException:
                if name not in self._models:
                    self.states[name] = "UNAVAILABLE"
                raise
            old = self._models.get(name)
            self._sources[name], self._models[name], self.states[name] = source, model, "READY"
            if old is not None:  # it finishes in the background
                old.succeeded_by(model)
                self._start(old.close())
        return model

    async def _unload(self, name: str) -> None:
        async with self._turns[name]:
            model = self._models.pop(name, None)
            self.states[name] = "UNAVAILABLE"
            if model is not None:
                await model.close()

    def _open(self, name: str, source: str) -> ServedModel:
        """Return a model that is ready to serve: takes seconds, or minutes with a download."""
        choice = parse_ir_choice(source, "serve", device=self._device, precision=self._precision)
        model = ServedModel(
            self._library.ir(choice.model, precision=choice.precision),
            name=name,
            device=choice.device,
            precision=choice.precision,
            limits=self.limits,
            compiled_cache=self._library.compiled,
            observer=self._observer,
            decoders=self._decoders,
        )
        warn_assumed(choice.model, model.metadata)
        if choice.device != CPU:
            self._library.say(f"{name}: {model.agreement}")
        return model

    def _start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start work that is finished even if its client has gone."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _unknown(self, name: str) -> NotFound:
        known = ", ".join(self._models) or "none"
        return NotFound(f"there is no model {name[:100]!r}; there are: {known}")
