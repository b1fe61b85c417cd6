"""The Open Inference Protocol over gRPC, in the same loop and over the same models as HTTP.

A request passes what one over HTTP does: token, limits, log, figures. Its message is read only
then, and only so many at once, so memory stays bounded whoever sends.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from regnet.serving.exchange import Exchange, open_exchange
from regnet.serving.freed_memory import FreedMemory
from regnet.serving.grpc_calls import Call, calls
from regnet.serving.grpc_messages import SERVICE, decode, encode
from regnet.serving.refusals import BadRequest, NotReady, Refused, TooLate, Unauthorized
from regnet.serving.service import Service
from regnet.system.errors import MissingExtraError, StartError

try:
    import grpc
    import grpc.aio
except ImportError as exc:
    raise MissingExtraError("gRPC", "grpc") from exc

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
_READERS: Final = 8  # messages that are being received, of unknown size
_OPEN_TO_ALL: Final = ("ServerLive", "ServerReady")
_FIELDS: Final = 1000  # of a message, beside those of its images
_ON_THE_WAY: Final = 0.2  # seconds
_LAST_BYTES: Final = 1.0  # seconds
_LONGEST_ERROR: Final = 1000  # characters: it travels in a header


class GrpcServer:
    """A gRPC server that listens on `port`."""

    def __init__(self, server: Any, service: "GrpcService", port: int) -> None:
        self._server, self._service, self.port = server, service, port

    async def stop(self) -> None:
        """Finish what was accepted, and end; what comes meanwhile is told so (UNAVAILABLE)."""
        await asyncio.sleep(_ON_THE_WAY)  # gRPC would drop what was sent but not yet accepted
        await self._service.finish()
        await self._server.stop(_LAST_BYTES)


async def start_grpc(service: Service, host: str, port: int) -> GrpcServer:
    """Return a server that answers already; of port 0 the system chooses one.

    Raises `StartError` where it cannot listen there.
    """
    limits = service.limits
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", limits.body),
            ("grpc.so_reuseport", 0),
        ],
        maximum_concurrent_rpcs=4 * limits.queue,
    )
    answering = GrpcService(service)
    server.add_generic_rpc_handlers((answering.handlers(),))
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(where)
    except RuntimeError as exc:
        raise StartError(f"cannot listen for gRPC on {where}: {exc}; choose another port") from exc
    await server.start()
    return GrpcServer(server, answering, bound)


@dataclass(frozen=True)
class _Refusal:
    """Why a call ends without an answer: an HTTP status, a text, and metadata that follow."""

    status: int
    text: str
    trailing: tuple[tuple[str, str], ...] = ()


class GrpcService:
    """Answers the calls of the protocol, with what every request passes first."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._reading = asyncio.Semaphore(_READERS)
        self._freed = FreedMemory()
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False

    def handlers(self) -> Any:
        """Return the handlers of all calls."""
        # As a stream of requests, of which there is one, so that it is read when we want it.
        methods = {
            name: grpc.stream_unary_rpc_method_handler(self._handler(name, call))
            for name, call in calls(self._service).items()
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _handler(self, name: str, call: Call) -> Callable[[Any, Any], Awaitable[bytes]]:
        async def handle(messages: Any, context: Any) -> bytes:
            exchange = self._exchange(name, context)
            self._begin()
            try:
                reply = await self._reply(name, call, context, exchange)
                if isinstance(reply, _Refusal):
                    await self._abort(context, exchange, reply)
                    raise AssertionError  # abort raises
                exchange.status, exchange.bytes_out = 200, len(reply)
                return reply
            finally:
                self._end()
                self._record(name, exchange)

        return handle

    async def _reply(
        self, name: str, call: Call, context: Any, exchange: Exchange
    ) -> bytes | _Refusal:
        """Return the bytes of the answer, or why there is none.

        No error leaves this: gRPC would keep it, and with it what the call holds in memory.
        """
        try:
            fields = await call(await self._request(name, context, exchange), exchange)
            return encode(f"{name}Response", fields)
        except Refused as exc:
            exchange.reason, exchange.error = exc.limit, str(exc)
            trailing = [("limit", exc.limit)] if exc.limit is not None else []
            if exc.retry_after is not None:
                trailing.append(("retry-after", f"{exc.retry_after:.1f}"))
            return _Refusal(exc.status, str(exc), tuple(trailing))
        except Exception as exc:
            exchange.error = "".join(traceback.format_exception(exc))
            return _Refusal(500, "the server failed; its log says why, under this id")

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

    async def _request(self, name: str, context: Any, exchange: Exchange) -> dict[str, Any]:
        """Return the fields of a request that may be served; raises `Refused`."""
        if self._stopping:
            raise NotReady("the server stops")
        token = self._service.token
        known = token is None or token.admits(exchange.headers.get(b"authorization"))
        if not known and name not in _OPEN_TO_ALL:
            raise Unauthorized(
                "this server asks for a token: send the metadata `authorization: Bearer TOKEN`"
            )
        message = await self._message(context, exchange)
        exchange.hold(len(message))
        exchange.bytes_in = len(message)
        try:
            return decode(f"{name}Request", message, most=_FIELDS + 2 * self._service.limits.batch)
        except ValueError as exc:
            raise BadRequest(f"the message cannot be read: {exc}") from exc

    async def _message(self, context: Any, exchange: Exchange) -> bytes:
        """Return the one message of a request, in time."""
        late = TooLate("the message did not arrive in time", limit="seconds")
        try:
            async with asyncio.timeout_at(exchange.deadline):
                await self._reading.acquire()
        except TimeoutError:
            raise late from None
        reading = asyncio.ensure_future(_only_message(context))
        reading.add_done_callback(self._was_read)
        # What takes too long ends with its call: gRPC 1.85 never frees what a cancelled read gets.
        left = exchange.deadline - asyncio.get_running_loop().time()
        done, _ = await asyncio.wait({reading}, timeout=left)
        if not done:
            raise late
        return reading.result()

    def _was_read(self, reading: "asyncio.Future[bytes]") -> None:
        self._reading.release()
        if not reading.cancelled():
            reading.exception()  # whoever waited for it has it

    async def _abort(self, context: Any, exchange: Exchange, refusal: _Refusal) -> None:
        """End a call with a status, and what HTTP has in headers and JSON."""
        exchange.status = refusal.status
        code = _CODES.get(refusal.status, grpc.StatusCode.UNKNOWN)
        trailing = (("x-request-id", exchange.id), *refusal.trailing)
        await context.abort(code, refusal.text[:_LONGEST_ERROR], trailing)

    def _record(self, name: str, exchange: Exchange) -> None:
        """Log and count a request, as HTTP's gate does."""
        exchange.release()
        self._freed.add(exchange.bytes_held)
        metrics, seconds = self._service.metrics, exchange.age()
        exchange.status = exchange.status or _GONE
        metrics.answered("POST", f"/{SERVICE}/{name}", exchange.status, seconds)
        if exchange.status >= 400:
            code = _CODES.get(exchange.status)
            exchange.reason = exchange.reason or (code.name.lower() if code else "client_gone")
            metrics.failed(exchange.reason)
        self._service.log.request(exchange, seconds)


async def _only_message(context: Any) -> bytes:
    """Return the message of a call, which must be the only one.

    Its end is read too, else gRPC 1.85 never frees the message.
    """
    message: bytes = await context.read()
    if message is grpc.aio.EOF:
        raise BadRequest("there is no message")
    if await context.read() is not grpc.aio.EOF:
        raise BadRequest("there is more than one message")
    return message


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")


async def _no_body() -> Any:
    raise AssertionError("a message of gRPC is not read from here")
