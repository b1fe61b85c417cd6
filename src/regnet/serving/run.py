"""A server process: models loaded, a socket opened, requests served until a signal says stop."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from regnet.conversion import InferencePrecision
from regnet.errors import MissingExtraError, ServeError
from regnet.library import Library
from regnet.serving.limits import Limits

try:
    import uvicorn
    import uvloop

    from regnet.serving.access_log import AccessLog
    from regnet.serving.app import create_app
    from regnet.serving.connection import connection_class
    from regnet.serving.metrics import Metrics
    from regnet.serving.models import Models
    from regnet.serving.service import Service
    from regnet.serving.visitors import Visitors
except ImportError as exc:
    raise MissingExtraError("serving", "serve") from exc

from regnet.serving.auth import Token

if TYPE_CHECKING:
    from regnet.serving.grpc_service import GrpcServer

_LINGER: Final = 0.25  # seconds after the last connection is taken until the idle ones are closed
_GRACE: Final = 5.0  # seconds more than a request may take


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What to serve and how; `models` are the sources of models by name, the default first.

    `grpc` is the port for gRPC, None for none.
    """

    models: Mapping[str, str]
    library: Library
    host: str = "127.0.0.1"
    port: int = 8000
    precision: InferencePrecision = "f32"
    limits: Limits = field(default_factory=Limits)
    token: Token | None = None
    allow_hosts: Sequence[str] = ()
    model_control: bool = False
    page: bool = True
    grpc: int | None = None


OnReady = Callable[[str, str | None], None]
"""Hears the address of HTTP, and that of gRPC where there is one."""


def serve(setup: Setup, *, on_ready: OnReady) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted.

    `on_ready` is called once requests are taken. Raises `ServeError` where the port cannot
    be had, and the errors of `Library.ir` where a model cannot be loaded.
    """
    listener = _listener(setup.host, setup.port)
    with contextlib.closing(listener), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(setup, listener, on_ready))


async def _serve(setup: Setup, listener: socket.socket, on_ready: OnReady) -> None:
    metrics = Metrics()
    log = AccessLog()
    models = Models(setup.library, precision=setup.precision, limits=setup.limits, observer=metrics)
    service = Service(
        models=models,
        limits=setup.limits,
        metrics=metrics,
        log=log,
        token=setup.token,
        visitors=Visitors(setup.host, setup.allow_hosts),
        model_control=setup.model_control,
    )
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(log.of_libraries())
        stack.push_async_callback(models.close)
        for name, source in setup.models.items():
            await models.load(name, source)
        _settle()
        grpc = await _grpc(setup, service)
        server = _Server(
            setup, service, grpc, lambda: on_ready(_address(listener), _where(grpc, setup.host))
        )
        await server.serve([listener])


def _settle() -> None:
    """Spare what is here to stay from the search for garbage, which halts all threads."""
    gc.collect()
    gc.freeze()


async def _grpc(setup: Setup, service: Service) -> "GrpcServer | None":
    if setup.grpc is None:
        return None
    from regnet.serving.grpc_service import start_grpc

    return await start_grpc(service, setup.host, setup.grpc)


class _Server(uvicorn.Server):
    """uvicorn, with signals that end it well and a stop that drops nothing it accepted."""

    def __init__(
        self,
        setup: Setup,
        service: Service,
        grpc: "GrpcServer | None",
        on_ready: Callable[[], None],
    ) -> None:
        limits = setup.limits
        super().__init__(
            uvicorn.Config(
                create_app(service, page=setup.page),
                http=connection_class(
                    slowest=limits.seconds + _GRACE,
                    most=limits.body,
                    failed=service.metrics.failed,
                ),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=60,
                timeout_graceful_shutdown=int(limits.seconds + _GRACE),
            )
        )
        self._service, self._grpc, self._on_ready = service, grpc, on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open for requests and say so."""
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, answer what comes on the others, then close the idle ones.

        Clients keep connections open between requests. For a moment every answer tells them that
        its connection ends, so that none is closed under a request that is on its way.
        """
        self._service.draining = True
        self._service.log.event("stopping", requests=len(self.server_state.tasks))
        for server in self.servers:
            server.close()
        await asyncio.sleep(_LINGER)
        async with asyncio.TaskGroup() as group:
            group.create_task(super().shutdown(sockets))
            if self._grpc is not None:
                group.create_task(self._grpc.stop())
        self._service.log.event("stopped")

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Stop at the first signal; a second Ctrl-C does not wait for what is under way."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)


def _listener(host: str, port: int) -> socket.socket:
    """Return a listening socket."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as exc:
        reason = str(getattr(exc, "strerror", None) or exc).partition(" (while")[0]
        raise ServeError(
            f"cannot listen on {host}, port {port}: {reason}; choose another with --host and "
            "--port (--port 0 finds a free one)"
        ) from exc


def _address(listener: socket.socket) -> str:
    """Return the address that browsers and clients are given."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _where(grpc: "GrpcServer | None", host: str) -> str | None:
    return None if grpc is None else f"{host}:{grpc.port}"
