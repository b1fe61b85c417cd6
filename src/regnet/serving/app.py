"""The application: every route of a server, around the models that are passed in."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from regnet.serving.answers import error_answer, short_json
from regnet.serving.exchange import exchange_of
from regnet.serving.gate import Gate
from regnet.serving.openapi import openapi
from regnet.serving.page import page_routes
from regnet.serving.reference import reference_page
from regnet.serving.service import Service
from regnet.serving.v1 import v1_routes
from regnet.serving.v2 import v2_routes
from regnet.version import TOOL_VERSION

Life = Callable[[Any], AbstractAsyncContextManager[None]]


def create_app(service: Service, *, page: bool = True, life: Life | None = None) -> FastAPI:
    """Return the ASGI application of a server, which lives in `life`.

    `page` adds the one for people at /.
    """
    app = FastAPI(
        title="regnet",
        version=TOOL_VERSION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        routes=v1_routes(service),
        lifespan=life,
    )
    app.add_middleware(Gate, service=service)
    app.add_exception_handler(HTTPException, _http_error)
    app.include_router(v2_routes(service))
    _add_figures(app, service)
    _add_reference(app, service)
    if page:
        app.include_router(page_routes())
    return app


def _add_figures(app: FastAPI, service: Service) -> None:
    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        figures = service.metrics
        return Response(figures.exposition(), headers={"content-type": figures.content_type})


def _add_reference(app: FastAPI, service: Service) -> None:
    document = openapi(service)
    app.openapi = lambda: document  # type: ignore[method-assign]
    text, page = short_json(document), reference_page(document)

    @app.get("/openapi.json", include_in_schema=False)
    async def described(request: Request) -> Response:
        return Response(text, media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return Response(page.html, headers=page.headers, media_type="text/html")


async def _http_error(request: Request, exc: Exception) -> Response:
    """Return the answer to what no route takes, in JSON too."""
    assert isinstance(exc, HTTPException)
    exchange = exchange_of(request.scope)
    path = request.scope["path"][:200]
    texts = {404: f"there is no {path} here", 405: f"{path} takes another method"}
    answer = error_answer(exchange, exc.status_code, texts.get(exc.status_code, exc.detail))
    answer.headers.update(exc.headers or {})
    return answer
