"""What the server says of itself: OpenAPI 3.1, written out, every status of every path in it."""

from typing import Any

from regnet.serving.schemas import PHOTO, schemas
from regnet.serving.service import Service
from regnet.serving.v1 import MOST_TOP_K
from regnet.system.version import TOOL_VERSION

Json = dict[str, Any]

_STATUSES = {
    400: "The request is not what it should be",
    401: "The token is missing or wrong",
    403: "This server does not do that for you, or not under that name",
    404: "There is no such model",
    408: "The body did not arrive in time (limit seconds)",
    413: "Too many bytes (limit body) or images (limit batch)",
    415: "The body is of a kind that is not taken",
    422: "The images or numbers cannot be used; over a limit of decoding, or unreadable",
    429: "Too much waits already (limit queue or queue_bytes); Retry-After says when to come back",
    503: "The model or the server is not ready, or it stops",
    504: "The time was over before its turn came (limit seconds)",
}
_READING = (400, 401, 403)
_FINDING = (400, 401, 403, 404, 503)
_WORKING = (400, 401, 403, 404, 408, 413, 415, 422, 429, 503, 504)
_CONTROLLING = (400, 401, 403, 404, 408, 413, 415, 429, 503, 504)


def openapi(service: Service) -> Json:
    """Return the document of a server, of its limits and whether it asks for a token."""
    options = _options(service)
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "regnet",
            "version": TOOL_VERSION,
            "description": "Names what is in photos. The paths under /v2 are the Open Inference "
            "Protocol (KServe v2, REST) with its extensions binary_tensor_data, classification, "
            "model_configuration and statistics.",
        },
        "paths": {**_v1_paths(options), **_v2_paths(), **_repository_paths(), **_own_paths()},
        "components": {"schemas": schemas(service.limits.batch, options)},
    }
    if service.token is not None:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _v1_paths(options: Json) -> Json:
    form = {"schema": {"$ref": "#/components/schemas/Files"}}
    body = {
        "required": True,
        "content": {
            "image/*": {"schema": PHOTO},
            "application/octet-stream": {"schema": PHOTO},
            "multipart/form-data": form | {"encoding": {"photo": {"contentType": "image/*"}}},
            "application/json": {"schema": {"$ref": "#/components/schemas/Images"}},
        },
    }
    classify = _operation(
        "Name what is in photos",
        "One photo as the body, the files of a form, or a list in JSON. Options are in the query, "
        "or fields of the form, which go before the query's. A photo that cannot be read has an "
        "error in its place; where none can, the status is 422.",
        "Predictions",
        _WORKING,
        parameters=[
            {"name": name, "in": "query", "schema": schema} for name, schema in options.items()
        ],
        body=body,
    )
    unread = {"schema": {"$ref": "#/components/schemas/Unread"}}
    classify["responses"]["422"]["content"] = {"application/json": unread}
    listed = _operation("The models served, the default first", "", "Models", _READING)
    return {"/v1/classify": {"post": classify}, "/v1/models": {"get": listed}}


def _options(service: Service) -> Json:
    """Return the schemas of what a request may ask for, by name."""
    models = [service.models.get(name) for name in service.models.names]
    calibrated = any(model.metadata.calibration is not None for model in models)
    flag = {"type": "boolean", "default": False}
    return {
        "model": {"type": "string", "description": "A model's name; the default one without"},
        "top_k": {
            "type": "integer",
            "minimum": 1,
            "maximum": MOST_TOP_K,
            "default": 5,
            "description": "Classes a photo",
        },
        "sets": flag
        | ({} if calibrated else {"enum": [False]})
        | {
            "description": "Also the classes that hold the true one with the model's `coverage`; "
            "for calibrated models only"
        },
        "explain": flag | {"description": "Also where on the photo the best class was seen"},
    }


def _v2_paths() -> Json:
    paths: Json = {
        "/v2": {"get": _operation("The server", "", "Server", _READING)},
        "/v2/health/live": {"get": _operation("Whether it runs", "", "Live", (), free=True)},
        "/v2/health/ready": {
            "get": _operation("Whether it takes requests", "", "Ready", (503,), free=True)
        },
    }
    all_stats = _operation("What all models have done", "", "Statistics", _FINDING)
    paths["/v2/models/stats"] = {"get": all_stats}
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        parameters = [_in_path(name) for name in ("name", "version") if f"{{{name}}}" in path]
        about = _operation("A model", "", "Model", _FINDING, parameters=parameters)
        ready = _operation(
            "Whether a model takes requests", "", "ModelReady", _FINDING, parameters=parameters
        )
        config = _operation(
            "A model's configuration, as Triton has it", "", "Config", _FINDING,
            parameters=parameters,
        )  # fmt: skip
        stats = _operation(
            "What a model has done since it was loaded, durations in nanoseconds", "",
            "Statistics", _FINDING, parameters=parameters,
        )  # fmt: skip
        paths |= {
            path: {"get": about},
            f"{path}/ready": {"get": ready},
            f"{path}/config": {"get": config},
            f"{path}/stats": {"get": stats},
            f"{path}/infer": {"post": _infer(parameters)},
        }
    return paths


def _infer(parameters: list[Json]) -> Json:
    body = {"required": True, "content": _json("InferRequest")}
    infer = _operation(
        "The probabilities of all classes, or the best ones by name",
        "The input is `image`, BYTES: encoded photos, in JSON as base64; or `data`, UINT8 or FP32: "
        "the model's crop, raw 0..255, in its order of channels. Binary data may follow the JSON, "
        "whose bytes the header Inference-Header-Content-Length counts then; 0 there says that the "
        "body is one photo.",
        "InferAnswer",
        _WORKING,
        parameters=parameters,
        body=body,
    )
    infer["responses"]["200"]["content"]["application/octet-stream"] = {"schema": {}}
    return infer


def _repository_paths() -> Json:
    off = "Only where the server was started with --model-control."
    name = [_in_path("name")]
    index = _operation(
        "All models and their state",
        "",
        "Index",
        (400, 401, 403, 408, 413, 415, 429),
        body=_optional("IndexRequest"),
    )
    paths: Json = {"/v2/repository/index": {"post": index}}
    for verb, text in (("load", "Load a model again from where it is"), ("unload", "Unload it")):
        paths[f"/v2/repository/models/{{name}}/{verb}"] = {
            "post": _operation(
                text, off, "Nothing", _CONTROLLING, parameters=name, body=_optional("Control")
            )
        }
    return paths


def _own_paths() -> Json:
    metrics = _operation("Figures for Prometheus", "", None, _READING)
    metrics["responses"]["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return {"/metrics": {"get": metrics}}


def _operation(
    summary: str,
    description: str,
    answer: str | None,
    errors: tuple[int, ...],
    *,
    parameters: list[Json] | None = None,
    body: Json | None = None,
    free: bool = False,
) -> Json:
    """Return an operation; `answer` and the errors' are names of schemas, `free` asks no token."""
    responses: Json = {"200": {"description": "OK"}}
    if answer is not None:
        responses["200"]["content"] = _json(answer)
    for status in sorted(errors):
        error = "NotReady" if free else "Error"
        responses[str(status)] = {"description": _STATUSES[status], "content": _json(error)}
    found: Json = {"summary": summary, "responses": responses}
    found |= {"description": description} if description else {}
    found |= {"parameters": parameters} if parameters else {}
    found |= {"requestBody": body} if body else {}
    found |= {"security": []} if free else {}
    return found


def _json(schema: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _optional(schema: str) -> Json:
    return {"required": False, "content": _json(schema)}


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
