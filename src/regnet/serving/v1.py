"""The routes under /v1: photos in a request, the predictions of `regnet classify` back.

A body is one photo as it is, the files of a form, or a list in JSON. All of it stays in memory:
images never touch the disk.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from regnet.inference.result import Prediction, Wanted, readable
from regnet.ir.metadata import ModelMetadata
from regnet.serving.batching import Timing
from regnet.serving.exchange import Exchange, exchange_of, json_answer
from regnet.serving.kserve import from_base64, json_object
from regnet.serving.limits import Limits
from regnet.serving.refusals import BadRequest, TooLarge, Unprocessable, Unsupported
from regnet.serving.served_model import ServedModel, limit_of
from regnet.serving.service import Service
from regnet.system.errors import ImageError, ModelError, shown

_IMAGE_TYPES: Final = ("application/octet-stream", "application/x-www-form-urlencoded", "")
"""Taken as one image beside image/*: `curl --data-binary` sends the second by itself."""

MOST_TOP_K: Final = 999_999_999
_CLASS: Final = 200  # bytes of data that take as long as a class in JSON
_VALUE: Final = 20  # bytes of a number in JSON
OPTIONS: Final = ("model", "top_k", "sets", "explain")
_OF_EMBED: Final = ("model",)


@dataclass(frozen=True)
class RequestPhotos:
    """The encoded photos of a request, a name of each, and the text `fields` of its form."""

    data: list[bytes]
    sources: list[str]
    fields: tuple[tuple[str, str], ...] = ()


async def read_photos(exchange: Exchange, service: Service, model: ServedModel) -> RequestPhotos:
    """Return the photos in the body of a request; raises `Refused`."""
    kind = exchange.media_type
    if kind.startswith("image/") or kind in _IMAGE_TYPES:
        return RequestPhotos([await exchange.body()], ["image 0"])
    if kind not in ("multipart/form-data", "application/json"):
        raise Unsupported(
            f"a body of {shown(kind)} is not taken: send image/*, application/octet-stream, "
            "multipart/form-data or application/json"
        )
    body = await exchange.body()
    if kind == "application/json":
        read = partial(_listed, body, model.metadata, service.limits)
    else:
        content_type = exchange.header("content-type") or ""
        read = partial(_files, body, content_type, max_files=service.limits.batch)
    return await service.in_turn(read, size=len(body), exchange=exchange)


def _listed(body: bytes, metadata: ModelMetadata, limits: Limits) -> RequestPhotos:
    """Return the photos that JSON lists in base64."""
    asked, most = json_object(body, metadata, limits), limits.batch
    if unknown := [name for name in asked if name != "images"]:
        raise BadRequest(
            f"unknown field {shown(unknown[0])}; the photos are the list images, in base64 (no "
            "address is opened here: fetch a photo yourself)"
        )
    texts = asked.get("images", [])
    if not isinstance(texts, list):
        raise BadRequest(f"images={shown(texts)} is not a list")
    if not texts:
        raise BadRequest('the JSON lists no images: {"images": ["<base64>", ...]}')
    if len(texts) > most:
        raise TooLarge(
            f"{len(texts)} images in one request are over the limit of {most} (batch)",
            limit="batch",
        )
    sources = [f"image {number}" for number in range(len(texts))]
    return RequestPhotos([from_base64(*each) for each in zip(texts, sources, strict=True)], sources)


def _files(body: bytes, content_type: str, *, max_files: int) -> RequestPhotos:
    """Return the files and fields of a form."""
    parts = _parts(body, content_type, max_files)
    files = [part for part in parts if part.is_file]
    sources = [part.name or f"image {number}" for number, part in enumerate(files)]
    fields = [(p.field, p.data.decode("utf-8", "replace")) for p in parts if not p.is_file]
    return RequestPhotos([part.data for part in files], sources, tuple(fields))


@dataclass
class _Part:
    """One part of a form: the names of its field and its file, its bytes.

    It is a file if it has a file's name, or a type other than text.
    """

    field: str = ""
    name: str = ""
    is_file: bool = False
    data: bytes = b""


@dataclass
class _Form:
    """Receives the calls of the parser."""

    max_files: int
    parts: list[_Part] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    header: bytes = b""
    value: bytes = b""
    ended: bool = False

    def on_part_begin(self) -> None:
        self.parts.append(_Part())
        self.chunks = []

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def on_header_end(self) -> None:
        part, header = self.parts[-1], self.header.lower()
        value, options = parse_options_header(self.value)
        if header == b"content-disposition":
            part.field = options.get(b"name", b"").decode("utf-8", "replace")
            part.name = options.get(b"filename", b"").decode("utf-8", "replace")
            part.is_file |= b"filename" in options
        elif header == b"content-type":
            part.is_file |= not value.lower().startswith(b"text/")
        self.header = self.value = b""

    def on_headers_finished(self) -> None:
        files = sum(part.is_file for part in self.parts)
        if files > self.max_files:
            raise TooLarge(
                f"more than {self.max_files} images in one request are over the limit (batch)",
                limit="batch",
            )
        if len(self.parts) - files > self.max_files:
            raise BadRequest(f"the form has more than {self.max_files} fields beside its files")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.chunks.append(data[start:end])

    def on_part_end(self) -> None:
        self.parts[-1].data = b"".join(self.chunks)

    def on_end(self) -> None:
        self.ended = True


def _parts(body: bytes, content_type: str, max_files: int) -> list[_Part]:
    """Return the parts of a multipart/form-data body."""
    _, options = parse_options_header(content_type)
    if not (boundary := options.get(b"boundary")):
        raise BadRequest("multipart/form-data without a boundary")
    form = _Form(max_files)
    callbacks = {name: getattr(form, name) for name in dir(form) if name.startswith("on_")}
    try:
        parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as exc:
        raise BadRequest(f"the body is not multipart/form-data ({exc})") from exc
    if not form.ended:
        raise BadRequest("the multipart/form-data ends too early")
    return form.parts


@dataclass(frozen=True)
class Options:
    """The options in the query of a request, or in the text fields of its form."""

    model: str | None = None
    top_k: int = 5
    sets: bool = False
    explain: bool = False


def options_of(given: Mapping[str, str], names: Sequence[str] = OPTIONS) -> Options:
    """Return options from their texts; raises `BadRequest` for an unknown or malformed one."""
    if unknown := [name for name in given if name not in names]:
        raise BadRequest(f"unknown option {shown(unknown[0])}; there are {', '.join(names)}")
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

    def _chosen(
        asked: Mapping[str, str], exchange: Exchange, names: Sequence[str]
    ) -> tuple[Options, ServedModel]:
        options = options_of(asked, names)
        model = service.models.get(options.model)
        exchange.model = model.name
        if options.sets:
            model.require_calibrated()
        model.require_room()  # before the body is read: a full server refuses at once
        return options, model

    async def _received(
        request: Request, names: Sequence[str] = OPTIONS
    ) -> tuple[Exchange, Options, ServedModel, RequestPhotos]:
        exchange = exchange_of(request.scope)
        asked = _by_name(request.query_params.multi_items())
        options, model = _chosen(asked, exchange, names)
        photos = await read_photos(exchange, service, model)
        if photos.fields:
            options, model = _chosen(asked | _of_form(photos.fields, names), exchange, names)
        if not photos.data:
            raise BadRequest("the form has no files")
        exchange.images = len(photos.data)
        return exchange, options, model, photos

    async def classify(request: Request) -> Response:
        exchange, options, model, photos = await _received(request)
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
        answer = {"predictions": rows, "model": model.name, "timing_ms": _times(exchange, timing)}
        answer |= _assumed(model)
        if all(prediction.error is not None for prediction in predictions):
            return _all_failed(exchange, predictions[0].error or "", answer)
        return await service.in_turn(partial(json_answer, answer), size=size, exchange=exchange)

    async def embed(request: Request) -> Response:
        exchange, _, model, photos = await _received(request, _OF_EMBED)
        try:
            vectors, timing = await model.embed(photos.data, deadline=exchange.deadline)
        except ModelError as exc:
            raise Unprocessable(f"{model.name}: cannot embed photos ({exc})") from exc
        exchange.timing = timing
        rows = [_embedded(*each) for each in zip(photos.sources, vectors, strict=True)]
        answer = {"embeddings": rows, "model": model.name, "timing_ms": _times(exchange, timing)}
        if all(row["error"] is not None for row in rows):
            return _all_failed(exchange, rows[0]["error"], answer)
        size = _VALUE * sum(len(row["embedding"] or ()) for row in rows)
        return await service.in_turn(partial(json_answer, answer), size=size, exchange=exchange)

    async def models(request: Request) -> Response:
        served = [_described(service.models.get(name)) for name in service.models.names]
        return json_answer({"models": served, "default": service.models.default})

    return [
        Route("/v1/classify", classify, methods=["POST"]),
        Route("/v1/embed", embed, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
    ]


def _described(model: ServedModel) -> dict[str, Any]:
    """Return what the page and scripts need to know of a model."""
    metadata = model.metadata
    calibration = metadata.calibration
    return {
        "name": model.name,
        "classes": metadata.classes,
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


def _of_form(fields: Sequence[tuple[str, str]], names: Sequence[str]) -> dict[str, str]:
    """Return the options that a form's text fields ask for."""
    if unknown := [name for name, _ in fields if name not in names]:
        raise Unprocessable(
            f"the form's field {shown(unknown[0])} is not an option ({', '.join(names)}), and no "
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


def _times(exchange: Exchange, timing: Timing) -> dict[str, float]:
    """Return what took how long, in ms."""
    times = {
        "decode": timing.decode_ms,
        "queue": timing.queue_ms,
        "infer": timing.infer_ms,
        "total": exchange.age * 1e3,
    }
    return {name: round(time, 3) for name, time in times.items()}


def _embedded(source: str, vector: NDArray[np.float32] | ImageError) -> dict[str, Any]:
    """Return the embedding of a photo, or its error, as JSON's types."""
    if isinstance(vector, ImageError):
        return {"source": readable(source), "embedding": None, "error": str(vector)}
    return {"source": readable(source), "embedding": vector.tolist(), "error": None}


def _all_failed(exchange: Exchange, first: str, answer: dict[str, Any]) -> Response:
    """Return the answer if no image could be read: their errors, and the `first` one's limit."""
    limit = limit_of(first)
    error = f"no image could be read: {first}"
    exchange.reason, exchange.error = limit or "unreadable", error
    return exchange.error_answer(422, error, limit=limit, more=answer)
