"""The application: every route of a server, around the models that are passed in.

Here are also the server's own pages: the one at /, files of the package under a policy that allows
nothing else, and the one at /docs, made from the OpenAPI 3.1 document `openapi.json`.
"""

import base64
import hashlib
import html
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from regnet.pixels.samples import sample_photos
from regnet.serving.exchange import exchange_of, short_json
from regnet.serving.gate import Gate
from regnet.serving.service import Service
from regnet.serving.v1 import v1_routes
from regnet.serving.v2 import v2_routes
from regnet.system.version import TOOL_VERSION

Life = Callable[[Any], AbstractAsyncContextManager[None]]

Json = dict[str, Any]

_FILE: Final = Path(__file__).with_name("openapi.json")
_STYLE: Final = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;"
    "margin:2rem auto;padding:0 1rem;overflow-wrap:anywhere}h1{font-size:1.6rem;line-height:1.2}"
    "h2{margin:2rem 0 0;font-size:1.25rem}h3{margin:1.5rem 0 0;font-size:1rem}p{margin:.4rem 0}"
    "code,pre{font-size:.9em}pre{white-space:pre-wrap;padding:.75rem;border:1px solid #8886;"
    "border-radius:8px}dl{display:grid;grid-template-columns:max-content 1fr;gap:.25rem 1rem;"
    "margin:.5rem 0}dd{margin:0}"
)
_VERSION: Final = "/versions/{version}"

_FOLDER: Final = Path(__file__).with_name("page")
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # cached, but revalidated each time: a new version shows at once
}


def create_app(service: Service, *, page: bool = True, life: Life | None = None) -> Starlette:
    """Return the ASGI application of a server; `page` adds the page for people at /.

    `life` surrounds its run, as Starlette's lifespan.
    """
    routes = [
        *v1_routes(service),
        *v2_routes(service),
        *_about(service),
        *(page_routes() if page else ()),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Gate, service=service, routes=routes)],
        exception_handlers={HTTPException: _http_error},
        lifespan=life,
    )
    app.router.redirect_slashes = False
    return app


def _about(service: Service) -> list[Route]:
    """Return the routes of the metrics and of the reference."""
    document = openapi(service)
    text = short_json(document)
    page, headers = reference_page(document)

    async def metrics(request: Request) -> Response:
        registry = service.metrics
        return Response(registry.exposition(), headers={"content-type": registry.content_type})

    async def described(request: Request) -> Response:
        return Response(text, media_type="application/json")

    async def docs(request: Request) -> Response:
        shown = page.replace("{host}", html.escape(request.url.netloc))
        return Response(shown, headers=headers, media_type="text/html")

    return [
        Route("/metrics", metrics),
        Route("/openapi.json", described),
        Route("/docs", docs),
    ]


async def _http_error(request: Request, exc: Exception) -> Response:
    """Return the answer to a request that no route takes, in JSON too."""
    assert isinstance(exc, HTTPException)
    path = request.scope["path"][:200]
    texts = {404: f"there is no {path} here", 405: f"{path} takes another method"}
    answer = exchange_of(request.scope).error_answer(
        exc.status_code, texts.get(exc.status_code, exc.detail)
    )
    answer.headers.update(exc.headers or {})
    return answer


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
    """Return the page of an OpenAPI document, and headers that allow its own style only.

    Each parameter and each status is described once. "{host}" stands for the server's name.
    """
    info, paths = document["info"], document["paths"]
    sections = [
        _section(document, f"{method.upper()} {_either(path, paths)}", operation)
        for path, methods in paths.items()
        for method, operation in methods.items()
        if path.replace(_VERSION, "") not in paths or _VERSION not in path
    ]
    title = html.escape(f"{info['title']} {info['version']}: its HTTP interface")
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<h1>{title}</h1><p>{html.escape(info['description'])}</p>"
        '<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>'
        f"{_example(with_token='security' in document)}"
        f"<h2>Requests</h2>{''.join(sections)}"
        f"<h2>Parameters</h2>{_listed(_parameters(document))}"
        f"<h2>Statuses</h2>{_listed(_statuses(document))}</html>"
    )
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; "
        "frame-ancestors 'none'"
    )
    # Without a referrer the form's request would have no origin, and be refused as a stranger's.
    return page, {"content-security-policy": policy, "referrer-policy": "same-origin"}


def _either(path: str, paths: Json) -> str:
    """Return a path with the version that it may also name."""
    base, name, rest = path.partition("{name}")
    versioned = f"{base}{name}{_VERSION}{rest}" in paths
    return f"{base}{name}[{_VERSION}]{rest}" if versioned else path


def _example(*, with_token: bool) -> str:
    """Return a request to try: a command and, where no token is needed, a form."""
    token = ' -H "Authorization: Bearer $REGNET_TOKEN"' if with_token else ""
    form = (
        '<form method="post" action="/v1/classify" enctype="multipart/form-data"><p>Or here: '
        '<input type="file" name="photo" accept="image/*" required> <button>Classify</button>'
        "</p></form>"
    )
    return (
        f"<h2>Try it</h2><pre>curl{token} --data-binary @photo.jpg "
        f"'http://{{host}}/v1/classify?top_k=3'</pre>{'' if with_token else form}"
    )


def _section(document: Json, name: str, operation: Json) -> str:
    """Return the part of the page about an operation."""
    names = [_resolved(document, one)["name"] for one in operation.get("parameters", [])]
    lists = {
        "Parameters": names,
        "Body": list(operation.get("requestBody", {}).get("content", {})),
        "Statuses": list(operation["responses"]),
    }
    rows = [(f"{title}:", ", ".join(values)) for title, values in lists.items() if values]
    about = " ".join(filter(None, (f"{operation['summary']}.", operation.get("description"))))
    listed = "".join(f"<p>{title} <code>{html.escape(text)}</code></p>" for title, text in rows)
    return f"<h3><code>{html.escape(name)}</code></h3><p>{html.escape(about)}</p>{listed}"


def _parameters(document: Json) -> dict[str, str]:
    """Return what each parameter of any operation means."""
    given = [
        _resolved(document, parameter)
        for methods in document["paths"].values()
        for operation in methods.values()
        for parameter in operation.get("parameters", [])
    ]
    return {
        f"{one['name']} ({one['in']})": _resolved(document, one["schema"]).get("description", "")
        for one in given
    }


def _statuses(document: Json) -> dict[str, str]:
    """Return what each status means; that of one operation may say more, and comes later."""
    found = {
        status: _resolved(document, response)["description"]
        for methods in document["paths"].values()
        for operation in methods.values()
        for status, response in operation["responses"].items()
    }
    return dict(sorted(found.items()))


def _listed(texts: dict[str, str]) -> str:
    rows = (
        f"<dt><code>{html.escape(k)}</code></dt><dd>{html.escape(v)}</dd>" for k, v in texts.items()
    )
    return f"<dl>{''.join(rows)}</dl>"


def _resolved(document: Json, value: Json) -> Json:
    """Return the value that a reference into the document stands for."""
    if "$ref" in value:
        for key in value["$ref"].removeprefix("#/").split("/"):
            document = document[key]
        return document
    return value


@dataclass(frozen=True)
class PageFile:
    """One file of the page; `etag` names its content."""

    content: bytes
    media_type: str
    etag: str

    def answer(self, request: Request) -> Response:
        """Return the file, or 304 if the client has it already."""
        headers = {**_HEADERS, "etag": self.etag}
        known = [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]
        if self.etag in known or f"W/{self.etag}" in known:
            return Response(status_code=304, headers=headers)
        headers["content-type"] = self.media_type
        return Response(self.content, headers=headers)


def page_files() -> dict[str, PageFile]:
    """Return the files by their names under /page/; the sample photos are in samples/."""
    paths = {path.name: path for path in _FOLDER.iterdir() if path.suffix in _MEDIA_TYPES}
    paths |= {f"samples/{path.name}": path for path in sample_photos()}
    files = {}
    for name, path in paths.items():
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        files[name] = PageFile(content, _MEDIA_TYPES[path.suffix], etag)
    return files


def page_routes() -> list[Route]:
    """Return the routes of the page, whose files are read now."""
    files = page_files()

    async def file(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            raise HTTPException(404)
        return files[name].answer(request)

    return [Route("/", file), Route("/page/{name:path}", file)]
