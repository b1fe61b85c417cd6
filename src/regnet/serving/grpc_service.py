"""The Open Inference Protocol over gRPC, in the same loop and over the same models as HTTP.

A request passes what one over HTTP does: token, limits, log, figures. Its message is read only
then, and only so many at once, so memory stays bounded whoever sends.
"""

import asyncio
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from regnet.errors import MissingExtraError, RegNetError, ServeError
from regnet.serving.answers import Forbidden
from regnet.serving.exchange import Exchange, open_exchange
from regnet.serving.grpc_messages import SERVICE, message_class, parse
from regnet.serving.grpc_tensors import description, infer_answer, infer_inputs, wanted_names
from regnet.serving.models import VERSION
from regnet.serving.refusals import BadRequest, NotFound, NotReady, Refused, TooLate, Unauthorized
from regnet.serving.service import Service
from regnet.version import TOOL_VERSION

try:
    import grpc
    import grpc.aio
except ImportError as exc:
    raise MissingExtraError("gRPC", "grpc") from exc

Answer = Callable[[Any, Exchange], Awaitable[Any]]

_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_GONE: Final = 499  # in the log only
_OPEN_TO_ALL: Final = ("ServerLive", "ServerReady")
_FIELDS: Final = 1000  # of a message, beside those of its images
_ON_THE_WAY: Final = 0.2  # seconds
_LAST_BYTES: Final = 1.0  # seconds
_LONGEST_ERROR: Final = 1000  # characters: it travels in a header


class GrpcServer:
    """A gRPC server that listens on `port`."""

    def __init__(self, server: Any, calls: "GrpcService", port: int) -> None:
        self._server, self._calls, self.port = server, calls, port

    async def stop(self) -> None:
        """Finish what was accepted, and end; what comes meanwhile is told so (UNAVAILABLE)."""
        await asyncio.sleep(_ON_THE_WAY)  # gRPC would drop what was sent but not yet accepted
        await self._calls.finish()
        await self._server.stop(_LAST_BYTES)


async def start_grpc(service: Service, host: str, port: int) -> GrpcServer:
    """Return a server that answers already; of port 0 the system chooses one.

    Raises `ServeError` where it cannot listen there.
    """
    limits = service.limits
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limits.body),
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=4 * limits.queue,
    )
    calls = GrpcService(service)
    server.add_generic_rpc_handlers((calls.handlers(),))
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(where)
    except RuntimeError as exc:
        raise ServeError(f"cannot listen for gRPC on {where}: {exc}; choose another port") from exc
    await server.start()
    return GrpcServer(server, calls, bound)


class GrpcService:
    """Answers the calls of the protocol."""

    def __init__(self, service: Service) -> None:
        self._service = service
        limits = service.limits
        self._reading = asyncio.Semaphore(max(1, limits.queue_bytes // limits.body))
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        extensions = ["classification"]
        if service.model_control:
            extensions.append("model_repository")
        self._about = {"name": "regnet", "version": TOOL_VERSION, "extensions": extensions}

    def handlers(self) -> Any:
        """Return the handlers of all calls."""
        answers: dict[str, Answer] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server,
            "ModelMetadata": self._model,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        # As a stream of requests, of which there is one, so that it is read when we want it.
        methods = {
            name: grpc.stream_unary_rpc_method_handler(self._handler(name, answer))
            for name, answer in answers.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _handler(self, name: str, answer: Answer) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def handle(messages: AsyncIterator[bytes], context: Any) -> bytes:
            exchange = self._exchange(name, context)
            self._begin()
            try:
                request = await self._request(name, messages, exchange)
                reply: bytes = (await answer(request, exchange)).SerializeToString()
                exchange.status, exchange.bytes_out = 200, len(reply)
                return reply
            except Refused as exc:
                exchange.reason, exchange.error = exc.limit, str(exc)
                return await self._abort(context, exchange, exc.status, str(exc), exc)
            except Exception as exc:
                exchange.error = "".join(traceback.format_exception(exc))
                text = "the server failed; its log says why, under this id"
                return await self._abort(context, exchange, 500, text)
            finally:
                self._end()
                self._record(name, exchange)

        return handle

    async def finish(self) -> None:
        """Answer what is under way; what comes from now on is refused."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self._service.limits.seconds):
                await self._idle.wait()

    def _begin(self) -> None:
        self._running += 1
        self._idle.clear()
        self._service.metrics.in_flight.inc()

    def _end(self) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()
        self._service.metrics.in_flight.dec()

    def _exchange(self, name: str, context: Any) -> Exchange:
        """Return the request that came, as HTTP's log and figures know it."""
        limits = self._service.limits
        headers = [(key.encode(), _bytes(value)) for key, value in context.invocation_metadata()]
        client = str(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")
        scope = {
            "headers": headers,
            "client": (client, 0),
            "method": "POST",
            "path": f"/{SERVICE}/{name}",
        }
        left = context.time_remaining()
        seconds = limits.seconds if left is None else min(limits.seconds, max(left, 0.0))
        return open_exchange(
            scope,
            _no_body,
            seconds=seconds,
            body_limit=limits.body,
            held=self._service.held,
        )

    async def _request(self, name: str, messages: AsyncIterator[bytes], exchange: Exchange) -> Any:
        """Return the message of a request that may be served; raises `Refused`."""
        if self._stopping:
            raise NotReady("the server stops")
        token = self._service.token
        known = token is None or token.admits(exchange.headers.get(b"authorization"))
        if not known and name not in _OPEN_TO_ALL:
            raise Unauthorized(
                "this server asks for a token: send the metadata `authorization: Bearer TOKEN`"
            )
        try:
            async with asyncio.timeout_at(exchange.deadline), self._reading:
                message = await anext(aiter(messages), None)
        except TimeoutError as exc:
            raise TooLate("the message did not arrive in time", limit="seconds") from exc
        if message is None:
            raise BadRequest("there is no message")
        exchange.held.take(len(message))
        exchange.bytes_in = len(message)
        try:
            return parse(f"{name}Request", message, most=_FIELDS + 2 * self._service.limits.batch)
        except ValueError as exc:
            raise BadRequest(f"the message cannot be read: {exc}") from exc

    async def _abort(
        self, context: Any, exchange: Exchange, status: int, text: str, exc: Refused | None = None
    ) -> bytes:
        """End a call with a status and what HTTP has in headers and JSON."""
        exchange.status = status
        trailing = [("x-request-id", exchange.id)]
        if exc is not None and exc.limit is not None:
            trailing.append(("limit", exc.limit))
        if exc is not None and exc.retry_after is not None:
            trailing.append(("retry-after", f"{exc.retry_after:.1f}"))
        code = _CODES.get(status, grpc.StatusCode.UNKNOWN)
        await context.abort(code, text[:_LONGEST_ERROR], tuple(trailing))
        raise AssertionError  # abort raises

    def _record(self, name: str, exchange: Exchange) -> None:
        """Log and count a request, as HTTP's gate does."""
        exchange.release()
        metrics, seconds = self._service.metrics, exchange.age()
        exchange.status = exchange.status or _GONE
        metrics.answered("POST", f"/{SERVICE}/{name}", exchange.status, seconds)
        if exchange.status >= 400:
            code = _CODES.get(exchange.status)
            exchange.reason = exchange.reason or (code.name.lower() if code else "client_gone")
            metrics.failed(exchange.reason)
        self._service.log.request(exchange, seconds)

    async def _live(self, request: Any, exchange: Exchange) -> Any:
        return message_class("ServerLiveResponse")(live=True)

    async def _ready(self, request: Any, exchange: Exchange) -> Any:
        return message_class("ServerReadyResponse")(ready=self._service.ready)

    async def _model_ready(self, request: Any, exchange: Exchange) -> Any:
        ready = False
        with suppress(NotFound, NotReady):
            self._service.models.get(request.name, request.version)
            ready = True
        return message_class("ModelReadyResponse")(ready=ready)

    async def _server(self, request: Any, exchange: Exchange) -> Any:
        return message_class("ServerMetadataResponse")(**self._about)

    async def _model(self, request: Any, exchange: Exchange) -> Any:
        served = self._service.models.get(request.name, request.version)
        return description(served.metadata, model=served.name, version=VERSION)

    async def _infer(self, request: Any, exchange: Exchange) -> Any:
        served = self._service.models.get(request.model_name, request.model_version)
        exchange.model = served.name
        served.require_room()
        count = wanted_names(request)
        inputs = infer_inputs(request, served.metadata, self._service.limits)
        exchange.images = len(inputs)
        rows, exchange.timing = await served.probabilities(inputs, deadline=exchange.deadline)
        return infer_answer(
            rows,
            request,
            labels=served.metadata.labels,
            classes=count,
            model=served.name,
            version=VERSION,
        )

    async def _index(self, request: Any, exchange: Exchange) -> Any:
        _require_one_repository(request)
        rows = [
            {"name": m.name, "version": VERSION, "state": m.state, "reason": m.reason}
            for m in self._service.models.index()
            if m.state == "READY" or not request.ready
        ]
        return message_class("RepositoryIndexResponse")(models=rows)

    async def _load(self, request: Any, exchange: Exchange) -> Any:
        name = self._controlled(request)
        try:
            await self._service.models.load(name)
        except Refused:
            raise
        except RegNetError as exc:  # its message names files of the server: for the log only
            self._service.log.event("not loaded", id=exchange.id, model=name, error=str(exc))
            raise BadRequest(f"{name}: cannot be loaded; the server's log says why") from exc
        self._service.log.event("loaded", model=name)
        return message_class("RepositoryModelLoadResponse")()

    async def _unload(self, request: Any, exchange: Exchange) -> Any:
        name = self._controlled(request)
        await self._service.models.unload(name)
        self._service.log.event("unloaded", model=name)
        return message_class("RepositoryModelUnloadResponse")()

    def _controlled(self, request: Any) -> str:
        """Return the name of the model to load or unload; raises `Forbidden` where that is off."""
        if not self._service.model_control:
            raise Forbidden(
                "models are not loaded or unloaded here: the server was started without "
                "--model-control"
            )
        _require_one_repository(request)
        if {parameter.key for parameter in request.parameters} - {"unload_dependents"}:
            raise BadRequest(
                "a model is loaded by its name only; no configuration or file is taken"
            )
        return str(request.model_name)


def _require_one_repository(request: Any) -> None:
    if request.repository_name:
        raise NotFound(f"there is no repository {request.repository_name[:100]!r}; name none")


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")


async def _no_body() -> Any:
    raise AssertionError("a message of gRPC is not read from here")
