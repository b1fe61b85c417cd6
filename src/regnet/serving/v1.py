"""The routes under /v1: photos in a request, the predictions of `regnet classify` back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from regnet.inference.result import Prediction, Wanted
from regnet.serving.exchange import Exchange, exchange_of, json_answer
from regnet.serving.photos import RequestPhotos, read_photos
from regnet.serving.refusals import BadRequest, Unprocessable
from regnet.serving.served_model import ServedModel, limit_of
from regnet.serving.service import Service
from regnet.system.errors import ModelError, shown

MOST_TOP_K: Final = 999_999_999
_CLASS: Final = 200  # bytes of data that take as long as a class in JSON
OPTIONS: Final = ("model", "top_k", "sets", "explain")


@dataclass(frozen=True)
class Options:
    """The options in the query of a request, or in the text fields of its form."""

    model: str | None = None
    top_k: int = 5
    sets: bool = False
    explain: bool = False


def options_of(given: Mapping[str, str]) -> Options:
    """Return options from their texts; raises `BadRequest` for an unknown or malformed one."""
    if unknown := [name for name in given if name not in OPTIONS]:
        raise BadRequest(f"unknown option {shown(unknown[0])}; there are {', '.join(OPTIONS)}")
    top_k = given.get("top_k", "5")
    whole = top_k.isascii() and top_k.isdecimal() and len(top_k) <= len(str(MOST_TOP_K))
    if not (whole and int(top_k) > 0):
        raise BadRequest(f"top_k={shown(top_k)} must be a whole number of at least 1")
    return Options(given.get("model"), int(top_k), _flag(given, "sets"), _flag(given, "explain"))


def _flag(given: Mapping[str, str], name: str) -> bool:
    value = given.get(name, "false")
    if value not in ("true", "false"):
        raise BadRequest(f"{name}={shown(value)} must be true or false")
    return value == "true"


def v1_routes(service: Service) -> list[Route]:
    """Return the routes of a server under /v1."""

    def _chosen(asked: Mapping[str, str], exchange: Exchange) -> tuple[Options, ServedModel]:
        options = options_of(asked)
        model = service.models.get(options.model)
        exchange.model = model.name
        if options.sets:
            model.require_calibrated()
        model.require_room()  # before the body is read: a full server refuses at once
        return options, model

    async def classify(request: Request) -> Response:
        exchange = exchange_of(request.scope)
        asked = _by_name(request.query_params.multi_items())
        options, model = _chosen(asked, exchange)
        photos = await read_photos(exchange, service, model)
        if photos.fields:
            options, model = _chosen(asked | _of_form(photos.fields), exchange)
        if not photos.data:
            raise BadRequest("the form has no files")
        exchange.images = len(photos.data)
        predictions, timing = await model.classify(
            photos.data,
            sources=photos.sources,
            wanted=Wanted(options.top_k, options.sets),
            deadline=exchange.deadline,
        )
        exchange.timing = timing
        size = _CLASS * sum(len(each.predictions) for each in predictions)
        rows = await service.in_turn(
            lambda: [prediction.to_dict() for prediction in predictions],
            size=size,
            exchange=exchange,
        )
        if options.explain:
            await _explain(model, photos, predictions, rows, exchange.deadline)
        times = {
            "decode": round(timing.decode_ms, 3),
            "queue": round(timing.queue_ms, 3),
            "infer": round(timing.infer_ms, 3),
            "total": round(exchange.age * 1e3, 3),
        }
        answer = {"predictions": rows, "model": model.name, "timing_ms": times, **_assumed(model)}
        if all(prediction.error is not None for prediction in predictions):
            return _all_failed(exchange, predictions[0], answer)
        return await service.in_turn(partial(json_answer, answer), size=size, exchange=exchange)

    async def models(request: Request) -> Response:
        served = [_described(service.models.get(name)) for name in service.models.names]
        return json_answer({"models": served, "default": service.models.default})

    return [
        Route("/v1/classify", classify, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
    ]


def _described(model: ServedModel) -> dict[str, Any]:
    """Return what the page and scripts need to know of a model."""
    metadata = model.metadata
    calibration = metadata.calibration
    return {
        "name": model.name,
        "classes": metadata.spec.classes,
        "crop": metadata.preprocess.crop,
        "protocol": metadata.preprocess.name,
        "precision": model.precision,
        "calibrated": calibration is not None,
        "coverage": None if calibration is None else calibration.coverage,
        "explainable": True,  # exactly, as all models of this package end in mean and layer
        **_assumed(model),
    }


def _assumed(model: ServedModel) -> dict[str, Any]:
    """Return the field with the model's assumptions, if there are any."""
    sentences = list(model.metadata.assumed)
    return {"assumed": sentences} if sentences else {}


def _by_name(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    options = dict(pairs)
    if len(options) < len(pairs):
        raise BadRequest("an option is given twice")
    return options


def _of_form(fields: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the options that a form's text fields ask for."""
    if unknown := [name for name, _ in fields if name not in OPTIONS]:
        raise Unprocessable(
            f"the form's field {shown(unknown[0])} is no option ({', '.join(OPTIONS)}), and no "
            "photo: those are files, with a name"
        )
    return _by_name(fields)


async def _explain(
    model: ServedModel,
    photos: RequestPhotos,
    predictions: list[Prediction],
    rows: list[dict[str, Any]],
    deadline: float,
) -> None:
    """Add the explanation of its best class to each row that has one."""
    for photo, prediction, row in zip(photos.data, predictions, rows, strict=True):
        if prediction.error is None:
            try:
                explanation = await model.explain(photo, prediction, deadline=deadline)
            except ModelError as exc:
                raise Unprocessable(f"{model.name}: cannot be explained ({exc})") from exc
            row["explanation"] = explanation.to_dict()


def _all_failed(exchange: Exchange, first: Prediction, answer: dict[str, Any]) -> Response:
    """Return the answer if no image could be read: their errors, and the first one's limit."""
    limit = limit_of(first.error or "")
    error = f"no image could be read: {first.error}"
    exchange.reason, exchange.error = limit or "unreadable", error
    return exchange.error_answer(422, error, limit=limit, more=answer)
