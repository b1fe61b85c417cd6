"""The JSON that goes in and out of a server, as JSON Schema."""

from typing import Any, Final

Json = dict[str, Any]


def _object(required: tuple[str, ...], /, **properties: Json) -> Json:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_TEXT: Final[Json] = {"type": "string"}
_NUMBER: Final[Json] = {"type": "number"}
_WHOLE: Final[Json] = {"type": "integer"}
_FLAG: Final[Json] = {"type": "boolean"}
_SHAPE: Final[Json] = _list(_WHOLE)
_ERROR: Final[Json] = {
    "error": _TEXT | {"description": "What is wrong and what to do"},
    "limit": _TEXT | {"description": "The limit that was exceeded, where one was"},
    "id": _TEXT | {"description": "The request's id, as in the header X-Request-Id"},
}
_TIMES: Final = _object(
    ("decode", "queue", "infer", "total"), decode=_NUMBER, queue=_NUMBER, infer=_NUMBER,
    total=_NUMBER,
)  # fmt: skip
_PREDICTIONS: Final[Json] = {
    "predictions": _list(_ref("Prediction")),
    "model": _TEXT,
    "timing_ms": _TIMES,
}
_TENSOR: Final[Json] = {
    "name": _TEXT,
    "datatype": {"enum": ["BYTES", "UINT8", "FP32"]},
    "shape": _SHAPE,
    "parameters": {"type": "object"},
    "data": {"type": "array"},
}

SCHEMAS: Final[Json] = {
    "ClassScore": _object(
        ("index", "wnid", "label", "probability"),
        index=_WHOLE,
        wnid=_TEXT,
        label=_TEXT,
        probability=_NUMBER | {"minimum": 0, "maximum": 1},
    ),
    "Explanation": {
        "type": "object",
        "description": "Where on the photo a class was seen: `map`, rows of numbers over the `box` "
        "[x, y, width, height] in pixels of the upright photo",
    },
    "Prediction": _object(
        ("source", "predictions", "error", "model"),
        source=_TEXT,
        predictions=_list(_ref("ClassScore")),
        error={"type": ["string", "null"]},
        model=_TEXT,
        set=_list(_ref("ClassScore")),
        coverage=_NUMBER,
        explanation=_ref("Explanation"),
    ),
    "Predictions": _object(("predictions", "model", "timing_ms"), **_PREDICTIONS),
    "Unread": _object(("error", "id"), **_ERROR, **_PREDICTIONS),
    "Images": _object(
        (),
        images=_list(_TEXT | {"contentEncoding": "base64"}),
        urls=_list(_TEXT | {"format": "uri"}) | {"description": "Only with --allow-url"},
    )
    | {"additionalProperties": False, "minProperties": 1},
    "Files": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": "string", "format": "binary"},
    },
    "ServedModel": _object(
        ("name", "classes", "crop", "protocol", "precision", "calibrated", "explainable"),
        name=_TEXT,
        classes=_WHOLE,
        crop=_WHOLE,
        protocol=_TEXT,
        precision=_TEXT,
        calibrated=_FLAG,
        coverage={"type": ["number", "null"]},
        explainable=_FLAG,
    ),
    "Models": _object(
        ("models", "default"),
        models=_list(_ref("ServedModel")),
        default={"type": ["string", "null"]},
    ),
    "Server": _object(
        ("name", "version", "extensions"), name=_TEXT, version=_TEXT, extensions=_list(_TEXT)
    ),
    "Live": _object(("live",), live=_FLAG),
    "Ready": _object(("ready",), ready=_FLAG),
    "NotReady": _object(("error", "id", "ready"), **_ERROR, ready=_FLAG),
    "ModelReady": _object(("name", "ready"), name=_TEXT, ready=_FLAG),
    "Port": _object(("name", "datatype", "shape"), name=_TEXT, datatype=_TEXT, shape=_SHAPE),
    "Model": _object(
        ("name", "versions", "platform", "inputs", "outputs"),
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_ref("Port")),
        outputs=_list(_ref("Port")),
    ),
    "InferRequest": _object(
        ("inputs",),
        id=_TEXT,
        parameters={"type": "object"},
        inputs=_list(_object(("name", "datatype", "shape"), **_TENSOR))
        | {"minItems": 1, "maxItems": 1},
        outputs=_list(_object(("name",), name={"const": "prob"}, parameters={"type": "object"}))
        | {"maxItems": 1},
    ),
    "InferAnswer": _object(
        ("model_name", "model_version", "outputs"),
        id=_TEXT,
        model_name=_TEXT,
        model_version=_TEXT,
        outputs=_list(_object(("name", "datatype", "shape"), **_TENSOR)),
    ),
    "IndexRequest": _object((), ready=_FLAG),
    "Index": _list(
        _object(
            ("name", "version", "state", "reason"),
            name=_TEXT,
            version=_TEXT,
            state={"enum": ["READY", "LOADING", "UNAVAILABLE"]},
            reason=_TEXT,
        )
    ),
    "Control": {"type": "object"},
    "Nothing": {"type": "object", "maxProperties": 0},
    "Error": _object(("error", "id"), **_ERROR),
}
