"""The interface of a server: its OpenAPI 3.1 document, and the page at /docs made from it.

`openapi.json` is the document; a server fills in its version, limits and security.
"""

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import Any, Final

from regnet.serving.service import Service
from regnet.system.version import TOOL_VERSION

Json = dict[str, Any]

_FILE: Final = Path(__file__).with_name("openapi.json")
_STYLE: Final = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;"
    "margin:2rem auto;padding:0 1rem}code{font-size:.95em}h2{margin:2rem 0 0;font-size:1.1rem}"
    "dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1rem;margin:.5rem 0}dd{margin:0}"
)


def openapi(service: Service) -> Json:
    """Return the document of a server."""
    document: Json = json.loads(_FILE.read_text("utf-8"))
    document["info"]["version"] = TOOL_VERSION
    components = document["components"]
    schemas, batch = components["schemas"], service.limits.batch
    schemas["Images"]["properties"]["images"]["maxItems"] = batch
    schemas["Files"]["properties"]["photo"]["maxItems"] = batch
    schemas["Photos"]["anyOf"] = [  # the shape is the number of photos in the data
        {"properties": {"shape": {"const": [n]}, "data": {"minItems": n, "maxItems": n}}}
        for n in range(1, batch + 1)
    ]
    models = map(service.models.get, service.models.names)
    if not any(model.metadata.calibration for model in models):
        schemas["Sets"]["enum"] = [False]
    if service.token is not None:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def reference_page(document: Json) -> tuple[str, dict[str, str]]:
    """Return the page of an OpenAPI document, and headers that allow its own style only."""
    info = document["info"]
    sections = [
        _section(document, f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    title = html.escape(f"{info['title']} {info['version']}: its HTTP interface")
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{html.escape(info['description'])}</p>"
        '<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"{''.join(sections)}</html>"
    )
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'"
    return page, {"content-security-policy": policy}


def _section(document: Json, name: str, operation: Json) -> str:
    """Return the part of the page about an operation: parameters, bodies, statuses."""
    parameters = [_resolved(document, one) for one in operation.get("parameters", [])]
    rows = [
        (f"{one['name']} ({one['in']})", _resolved(document, one["schema"]).get("description", ""))
        for one in parameters
    ]
    rows += [("body", kind) for kind in operation.get("requestBody", {}).get("content", {})]
    rows += [
        (status, _resolved(document, one)["description"])
        for status, one in operation["responses"].items()
    ]
    listed = "".join(
        f"<dt><code>{html.escape(term)}</code></dt><dd>{html.escape(text)}</dd>"
        for term, text in rows
    )
    about = " ".join(filter(None, (f"{operation['summary']}.", operation.get("description"))))
    return f"<h2><code>{html.escape(name)}</code></h2><p>{html.escape(about)}</p><dl>{listed}</dl>"


def _resolved(document: Json, value: Json) -> Json:
    """Return the value that a reference into the document stands for."""
    if "$ref" in value:
        for key in value["$ref"].removeprefix("#/").split("/"):
            document = document[key]
        return document
    return value
