"""The routes under /v2: the Open Inference Protocol (KServe v2, REST) with Triton's extensions."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from regnet.serving.exchange import exchange_of, json_answer
from regnet.serving.inputs import PHOTOS
from regnet.serving.kserve import (
    HEADER_LENGTH,
    OUTPUT,
    description,
    infer_answer,
    infer_request,
    small_object,
)
from regnet.serving.models import VERSION
from regnet.serving.refusals import BadRequest, Forbidden, Refused, TooLarge
from regnet.serving.served_model import ServedModel
from regnet.serving.service import Service
from regnet.system.errors import RegNetError, shown
from regnet.system.json_text import json_text
from regnet.system.parallel import cores
from regnet.system.version import TOOL_VERSION

Endpoint = Callable[[Request], Awaitable[Response]]

_JSON_NUMBER: Final = 50  # bytes of data that take as long as a number in JSON
_REASONS: Final = {
    "READY": "",
    "LOADING": "it is being loaded",
    "UNAVAILABLE": "it was unloaded, or cannot be loaded: the log says why",
}


def v2_routes(service: Service) -> list[Route]:
    """Return the routes of a server under /v2."""
    return [*_server(service), *_models(service), *_repository(service)]


def _server(service: Service) -> list[Route]:
    extensions = ["classification", "binary_tensor_data", "model_configuration", "statistics"]
    if service.model_control:
        extensions.append("model_repository")
    about = {"name": "regnet", "version": TOOL_VERSION, "extensions": extensions}

    async def server(request: Request) -> Response:
        return json_answer(about)

    async def live(request: Request) -> Response:
        return json_answer({"live": True})

    async def ready(request: Request) -> Response:
        if service.ready:
            return json_answer({"ready": True})
        reason = "the server stops" if service.draining else "a model is not ready"
        return exchange_of(request.scope).error_answer(503, reason, more={"ready": False})

    async def stats(request: Request) -> Response:
        models = [service.models.get(name) for name in service.models.names]
        return json_answer({"model_stats": [model_statistics(model) for model in models]})

    return [
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2/models/stats", stats),  # before the models: none is called `stats`
    ]


def _models(service: Service) -> list[Route]:
    def asked_for(request: Request) -> ServedModel:
        path = request.path_params
        return service.models.get(path["name"], path.get("version"))

    async def about(request: Request) -> Response:
        model = asked_for(request)
        return json_answer(description(model.metadata, model=model.name, version=VERSION))

    async def ready(request: Request) -> Response:
        return json_answer({"name": asked_for(request).name, "ready": True})

    async def config(request: Request) -> Response:
        return json_answer(model_config(asked_for(request)))

    async def stats(request: Request) -> Response:
        return json_answer({"model_stats": [model_statistics(asked_for(request))]})

    async def infer(request: Request) -> Response:
        exchange = exchange_of(request.scope)
        model = asked_for(request)
        exchange.model = model.name
        model.require_room()
        sent, metadata = await exchange.body(), model.metadata
        length = exchange.header(HEADER_LENGTH)
        read = partial(infer_request, sent, length, metadata, service.limits)
        asked = await service.in_turn(read, size=len(sent), exchange=exchange)
        exchange.images = len(asked.inputs)
        rows, exchange.timing = await model.probabilities(asked.inputs, deadline=exchange.deadline)
        write = partial(infer_answer, rows, asked, metadata.labels, model.name, VERSION)
        size = rows.size * (1 if asked.binary else _JSON_NUMBER)
        body, split = await service.in_turn(write, size=size, exchange=exchange)
        if split is None:
            return Response(body, media_type="application/json")
        headers = {HEADER_LENGTH: str(split)}
        return Response(body, headers=headers, media_type="application/octet-stream")

    endpoints: list[tuple[str, Endpoint, str]] = [
        ("", about, "GET"),
        ("/ready", ready, "GET"),
        ("/config", config, "GET"),
        ("/stats", stats, "GET"),
        ("/infer", infer, "POST"),
    ]
    return [
        Route(f"/v2/models/{{name}}{version}{end}", endpoint, methods=[method])
        for end, endpoint, method in endpoints
        for version in ("", "/versions/{version}")
    ]


def _repository(service: Service) -> list[Route]:
    async def index(request: Request) -> Response:
        asked = await _object(request)
        only = asked.get("ready", False)
        if not isinstance(only, bool):
            raise BadRequest(f"ready={shown(only)} must be true or false")
        rows = [
            {"name": name, "version": VERSION, "state": state, "reason": _REASONS[state]}
            for name, state in service.models.states.items()
            if state == "READY" or not only
        ]
        return json_answer(rows)

    async def load(request: Request) -> Response:
        name = await _controlled(request, service)
        try:
            await service.models.load(name)
        except Refused:
            raise
        except RegNetError as exc:  # its message names files of the server: for the log only
            exchange = exchange_of(request.scope)
            exchange.error = str(exc)
            return exchange.error_answer(
                400, f"{name}: cannot be loaded; the server's log says why"
            )
        service.log.event("loaded", model=name)
        return json_answer({})

    async def unload(request: Request) -> Response:
        name = await _controlled(request, service)
        await service.models.unload(name)
        service.log.event("unloaded", model=name)
        return json_answer({})

    models = "/v2/repository/models/{name}"
    return [
        Route("/v2/repository/index", index, methods=["POST"]),
        Route(f"{models}/load", load, methods=["POST"]),
        Route(f"{models}/unload", unload, methods=["POST"]),
    ]


async def _controlled(request: Request, service: Service) -> str:
    """Return the name of the model to load or unload; raises `Forbidden` if that is off."""
    if not service.model_control:
        raise Forbidden(
            "models are not loaded or unloaded here: the server was started without --model-control"
        )
    asked = await _object(request)
    parameters = asked.get("parameters", {})
    if not isinstance(parameters, dict) or set(parameters) - {"unload_dependents"}:
        raise BadRequest("a model is loaded by its name only; no configuration or file is taken")
    name: str = request.path_params["name"]
    return name


async def _object(request: Request) -> dict[str, Any]:
    """Return the JSON object in a body; an empty one stands for {}."""
    body = await exchange_of(request.scope).body()
    if len(body) > 1 << 20:
        raise TooLarge("the body of a request about the repository is over 1 MiB", limit="body")
    return small_object(body or b"{}")


def model_statistics(model: ServedModel) -> dict[str, Any]:
    """Return what a model has done since it was loaded, as Triton's extension "statistics"."""
    return {"name": model.name, "version": VERSION, **model.statistics.to_dict()}


def model_config(model: ServedModel) -> dict[str, Any]:
    """Return the configuration of a model as Triton describes models, as JSON values.

    A request has up to `max_batch_size` images, which `dims` leave out; `dynamic_batching` has the
    most images that are inferred together. The parameter `labels` is a JSON list of the classes'
    names, `assumed` one of the model's assumptions, if there are any.
    Source: Triton's model_config.proto and its extension "model configuration".
    """
    lists = {
        "labels": [label.name for label in model.metadata.labels],
        "assumed": list(model.metadata.assumed),
    }
    batching = {"preferred_batch_size": [model.largest_batch], "max_queue_delay_microseconds": 0}
    classes = len(model.metadata.labels)
    return {
        "name": model.name,
        "platform": "openvino",
        "backend": "openvino",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": model.limits.batch,
        "input": [{"name": PHOTOS, "data_type": "TYPE_STRING", "dims": []}],
        "output": [{"name": OUTPUT, "data_type": "TYPE_FP32", "dims": [classes]}],
        "instance_group": [{"name": model.name, "kind": "KIND_CPU", "count": cores()}],
        "dynamic_batching": batching,
        "parameters": {
            name: {"string_value": json_text(texts)} for name, texts in lists.items() if texts
        },
    }
