"""What each call of the Open Inference Protocol over gRPC answers."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from regnet.serving.answers import Forbidden
from regnet.serving.exchange import Exchange
from regnet.serving.grpc_tensors import (
    Fields,
    description,
    infer_answer,
    infer_inputs,
    wanted_names,
)
from regnet.serving.model_config import config_fields, model_config
from regnet.serving.models import VERSION, statistics
from regnet.serving.refusals import BadRequest, NotFound, NotReady, Refused
from regnet.serving.service import Service
from regnet.system.errors import RegNetError
from regnet.system.version import TOOL_VERSION

Call = Callable[[dict[str, Any], Exchange], Awaitable[Fields]]
"""The fields of a request to those of its answer; raises `Refused`."""


def calls(service: Service) -> Mapping[str, Call]:
    """Return all calls by their names."""
    found = _Calls(service)
    return {
        "ServerLive": found.live,
        "ServerReady": found.ready,
        "ModelReady": found.model_ready,
        "ServerMetadata": found.server,
        "ModelMetadata": found.model,
        "ModelConfig": found.config,
        "ModelStatistics": found.statistics,
        "ModelInfer": found.infer,
        "RepositoryIndex": found.index,
        "RepositoryModelLoad": found.load,
        "RepositoryModelUnload": found.unload,
    }


class _Calls:
    """The calls to one server."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._models = service.models

    async def live(self, request: dict[str, Any], exchange: Exchange) -> Fields:
        return {"live": True}

    async def ready(self, request: dict[str, Any], exchange: Exchange) -> Fields:
        return {"ready": self._service.ready}

    async def model_ready(self, request: dict[str, Any], exchange: Exchange) -> Fields:
        ready = False
        with suppress(NotFound, NotReady):
            self._models.get(request["name"], request["version"])
            ready = True
        return {"ready": ready}

    async def server(self, request: dict[str, Any], exchange: Exchange) -> Fields:
        extensions = ["classification", "model_configuration", "statistics"]
        if self._service.model_control:
            extensions.append("model_repository")
        return {"name": "regnet", "version": TOOL_VERSION, "extensions": extensions}

    async def model(self, request: dict[str, Any], exchange: Exchange) -> Fields:
        served = self._models.get(request["name"], request["version"])
        return description(served.metadata, model=served.name, version=VERSION)

    async def config(self, request: dict[str, Any], exchange: Exchange) -> Fields:
        served = self._models.get(request["name"], request["version"])
        return {"config": config_fields(model_config(served))}

    async def statistics(self, request: dict[str, Any], exchange: Exchange) -> Fields:
        names = [request["name"]] if request["name"] else self._models.names
        return statistics([self._models.get(name, request["version"]) for name in names])

    async def infer(self, request: dict[str, Any], exchange: Exchange) -> Fields:
        served = self._models.get(request["model_name"], request["model_version"])
        exchange.model = served.name
        served.require_room()
        classes, request_id = wanted_names(request), request["id"]
        inputs = infer_inputs(request, served.metadata, self._service.limits)
        request.clear()  # its bytes are not needed any more
        exchange.images = len(inputs)
        rows, exchange.timing = await served.probabilities(inputs, deadline=exchange.deadline)
        return infer_answer(
            rows,
            labels=served.metadata.labels,
            classes=classes,
            id=request_id,
            model=served.name,
            version=VERSION,
        )

    async def index(self, request: dict[str, Any], exchange: Exchange) -> Fields:
        _require_one_repository(request)
        rows = [
            {"name": m.name, "version": VERSION, "state": m.state, "reason": m.reason}
            for m in self._models.index()
            if m.state == "READY" or not request["ready"]
        ]
        return {"models": rows}

    async def load(self, request: dict[str, Any], exchange: Exchange) -> Fields:
        name = self._controlled(request)
        try:
            await self._models.load(name)
        except Refused:
            raise
        except RegNetError as exc:  # its message names files of the server: for the log only
            self._service.log.event("not loaded", id=exchange.id, model=name, error=str(exc))
            raise BadRequest(f"{name}: cannot be loaded; the server's log says why") from exc
        self._service.log.event("loaded", model=name)
        return {}

    async def unload(self, request: dict[str, Any], exchange: Exchange) -> Fields:
        name = self._controlled(request)
        await self._models.unload(name)
        self._service.log.event("unloaded", model=name)
        return {}

    def _controlled(self, request: dict[str, Any]) -> str:
        """Return the name of the model to load or unload; raises `Forbidden` where that is off."""
        if not self._service.model_control:
            raise Forbidden(
                "models are not loaded or unloaded here: the server was started without "
                "--model-control"
            )
        _require_one_repository(request)
        if {parameter["key"] for parameter in request["parameters"]} - {"unload_dependents"}:
            raise BadRequest(
                "a model is loaded by its name only; no configuration or file is taken"
            )
        return str(request["model_name"])


def _require_one_repository(request: dict[str, Any]) -> None:
    if request["repository_name"]:
        name = request["repository_name"][:100]
        raise NotFound(f"there is no repository {name!r}; name none")
