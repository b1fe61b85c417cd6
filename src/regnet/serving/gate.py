"""The middleware around the application, pure ASGI: access, limits, headers, log and metrics."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from starlette.routing import Match, Route

from regnet.serving.exchange import (
    WORK,
    ClientGoneError,
    Exchange,
    Message,
    Receive,
    Scope,
    Send,
    Work,
)
from regnet.serving.refusals import Refused, Unauthorized
from regnet.serving.service import Service

App = Callable[[Scope, Receive, Send], Awaitable[None]]

SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
"""On every answer that does not set its own."""

_CLASSIFY: Final = "/v1/classify"
_PHOTOS: Final = (_CLASSIFY, "/v1/embed")  # what queues photos
_HEALTH: Final = "/v2/health/"
_CLIENT_GONE: Final = 499  # in the log only: nobody is there to read it
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_REASONS: Final = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    415: "unsupported",
    422: "unprocessable",
    _CLIENT_GONE: "client_gone",
    500: "internal",
    503: "not_ready",
}


class Gate:
    """Gives a request its id and its limits, an answer its headers; logs and counts both.

    It checks the token, or without one where a request is from, and it answers whatever the
    application raises. Health is open to all. So are the page's own files if there is a token: they
    hold no secret, and a browser could not send one for them.
    """

    def __init__(self, app: App, service: Service, routes: Sequence[Route]) -> None:
        self._app = app
        self._routes = routes
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits = self._service.limits
        deadline = asyncio.get_running_loop().time() + limits.seconds
        exchange = Exchange(scope, receive, deadline, limits.body, self._service.held)
        work: Work = scope.get("state", {}).get(WORK) or Work()
        task = asyncio.current_task()
        assert task is not None
        self._service.metrics.in_flight.inc()
        work.tasks.add(task)
        try:
            await self._serve(exchange, send)
        except asyncio.CancelledError:
            if not work.ended:
                raise
        finally:
            work.tasks.discard(task)
            work.answered += 1
            self._service.held.release(exchange.bytes_held)
            self._service.metrics.in_flight.dec()
            self._record(exchange)

    async def _serve(self, exchange: Exchange, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = self._with_headers(message["headers"], exchange)
            else:
                exchange.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            self._admit(exchange)
            await self._app(exchange.scope, exchange.receive, sending)
            return
        except ClientGoneError:
            return
        except Refused as exc:
            answer = exchange.refusal_answer(exc)
        except Exception as exc:  # unforeseen: only the log says what it was
            exchange.error = "".join(traceback.format_exception(exc))
            answer = exchange.error_answer(
                500, "the server failed; its log says why, under this id"
            )
        if not exchange.status:
            await answer(exchange.scope, exchange.receive, sending)

    def _admit(self, exchange: Exchange) -> None:
        """Raise `Refused` for a request that may not reach the application."""
        scope, token = exchange.scope, self._service.token
        path = scope["path"]
        if token is None:
            if not path.startswith(_HEALTH):
                self._service.visitors.require_welcome(scope)
        elif (
            path not in ("/", "/docs")
            and not path.startswith(("/page/", _HEALTH))
            and not token.admits(exchange.headers.get(b"authorization"))
        ):
            raise Unauthorized(
                "this server asks for a token: send the header `Authorization: Bearer TOKEN`"
            )
        if scope["method"] not in _READS:
            exchange.require_small_body()
            if path in _PHOTOS:
                self._service.models.require_room()

    def _with_headers(
        self, given: list[tuple[bytes, bytes]], exchange: Exchange
    ) -> list[tuple[bytes, bytes]]:
        names = {name for name, _ in given}
        headers = [*given, (b"x-request-id", exchange.id.encode())]
        headers += [header for header in SECURITY_HEADERS if header[0] not in names]
        if self._service.draining:
            headers.append((b"connection", b"close"))
        return headers

    def _route(self, scope: Scope) -> str:
        """Return the pattern of the path, `none` if it is not served."""
        if scope["path"] == _CLASSIFY:
            return _CLASSIFY
        fit = (each.path for each in self._routes if each.matches(scope)[0] is not Match.NONE)
        return next(fit, "none")

    def _record(self, exchange: Exchange) -> None:
        seconds = exchange.age
        scope, metrics = exchange.scope, self._service.metrics
        route = self._route(scope)
        status = exchange.status = exchange.status or _CLIENT_GONE
        metrics.answered(scope["method"], route, status, seconds)
        metrics.held_bytes.set(self._service.held.now)
        if status >= 400:
            exchange.reason = exchange.reason or _REASONS.get(status, "other")
            metrics.failed(exchange.reason)
        self._service.log.request(exchange, seconds)
