"""The application: every route of a server, around the models that are passed in."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from regnet.serving.exchange import exchange_of, short_json
from regnet.serving.gate import Gate
from regnet.serving.openapi import openapi, reference_page
from regnet.serving.page import page_routes
from regnet.serving.service import Service
from regnet.serving.v1 import v1_routes
from regnet.serving.v2 import v2_routes

Life = Callable[[Any], AbstractAsyncContextManager[None]]


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
        return Response(page, headers=headers, media_type="text/html")

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
