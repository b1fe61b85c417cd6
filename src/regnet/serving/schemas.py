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
_ASSUMED: Final[Json] = _list(_TEXT) | {
    "description": "What the model's checkpoint does not say and was assumed, if anything was"
}
_PREDICTIONS: Final[Json] = {
    "predictions": _list(_ref("Prediction")),
    "model": _TEXT,
    "timing_ms": _TIMES,
    "assumed": _ASSUMED,
}
PHOTO: Final[Json] = {"type": "string", "format": "photo", "contentMediaType": "image/*"}
"""An encoded photo, JPEG and the like. No schema can say more of it."""

_BASE64_PHOTO: Final[Json] = {
    "type": "string",
    "format": "photo-base64",
    "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    "contentEncoding": "base64",
    "contentMediaType": "image/*",
}
_TENSOR: Final[Json] = {
    "name": _TEXT,
    "datatype": {"enum": ["BYTES", "UINT8", "FP32"]},
    "shape": _SHAPE,
    "parameters": {"type": "object"},
    "data": {"type": "array"},
}

_ANSWERS: Final[Json] = {
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
        assumed=_ASSUMED,
        explanation=_ref("Explanation"),
    ),
    "Predictions": _object(("predictions", "model", "timing_ms"), **_PREDICTIONS),
    "Unread": _object(("error", "id"), **_ERROR, **_PREDICTIONS),
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
        assumed=_ASSUMED,
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
        assumed=_ASSUMED,
    ),
    "Config": _object(
        ("name", "platform", "backend", "max_batch_size", "input", "output"),
        name=_TEXT,
        platform=_TEXT,
        backend=_TEXT,
        version_policy={"type": "object"},
        max_batch_size=_WHOLE,
        input=_list(_ref("ConfigTensor")),
        output=_list(_ref("ConfigTensor")),
        instance_group={"type": "array"},
        dynamic_batching={"type": "object"},
        parameters={"type": "object"},
    ),
    "ConfigTensor": _object(
        ("name", "data_type", "dims"), name=_TEXT, data_type=_TEXT, dims=_SHAPE
    ),
    "Statistics": _object(("model_stats",), model_stats=_list(_ref("ModelStatistics"))),
    "ModelStatistics": _object(
        (
            "name",
            "version",
            "last_inference",
            "inference_count",
            "execution_count",
            "inference_stats",
            "batch_stats",
        ),
        name=_TEXT,
        version=_TEXT,
        last_inference=_WHOLE | {"description": "Milliseconds since 1970, 0 before the first"},
        inference_count=_WHOLE,
        execution_count=_WHOLE,
        inference_stats={"type": "object", "additionalProperties": _ref("Duration")},
        batch_stats=_list({"type": "object", "required": ["batch_size"]}),
    ),
    "Duration": _object(("count", "ns"), count=_WHOLE, ns=_WHOLE),
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


def schemas(batch: int, options: Json) -> Json:
    """Return all schemas of a server that takes `batch` images in a request.

    `options` are the schemas of what a form may ask for beside its files.
    """
    return {
        **_ANSWERS,
        "Images": _images(batch),
        "Files": {
            "type": "object",
            "description": "Photos are the files, under any name; the other fields are options",
            "required": ["photo"],
            "properties": {"photo": _list(PHOTO) | {"minItems": 1, "maxItems": batch}, **options},
            "additionalProperties": False,
        },
        "InferRequest": _object(
            ("inputs",),
            id=_TEXT,
            parameters=_options(binary_data_output=_FLAG),
            inputs=_list(_photos(batch)) | {"minItems": 1, "maxItems": 1},
            outputs=_list(_OUTPUT) | {"maxItems": 1},
        ),
    }


def _images(batch: int) -> Json:
    images = _list(_BASE64_PHOTO) | {"minItems": 1, "maxItems": batch}
    return _object(("images",), images=images) | {"additionalProperties": False}


def _photos(batch: int) -> Json:
    """Return the input `image`: its shape says how many photos its data has."""
    counts = [
        {"properties": {"shape": {"const": [n]}, "data": {"minItems": n, "maxItems": n}}}
        for n in range(1, batch + 1)
    ]
    photos = _object(
        ("name", "datatype", "shape", "data"),
        name={"const": "image"},
        datatype={"const": "BYTES"},
        shape=_SHAPE,
        parameters={"type": "object"},
        data=_list(_BASE64_PHOTO),
    )
    return photos | {"anyOf": counts}


def _options(**properties: Json) -> Json:
    return {"type": "object", "properties": properties}


_OUTPUT: Final = _object(
    ("name",),
    name={"const": "prob"},
    parameters=_options(classification=_WHOLE | {"minimum": 0}, binary_data=_FLAG),
)
