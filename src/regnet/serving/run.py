"""A server process: load the models, open a socket, serve requests until a signal."""

import asyncio
import contextlib
import gc
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from regnet.conversion.store import Library
from regnet.ir.metadata import InferencePrecision
from regnet.serving.access import Token, Visitors
from regnet.serving.limits import Limits
from regnet.system.errors import MissingExtraError, StartError, reason_of

try:
    import uvicorn
    import uvloop

    from regnet.serving.app import Life, create_app
    from regnet.serving.connection import MAX_CONNECTIONS, connection_class
    from regnet.serving.metrics import ServerMetrics
    from regnet.serving.models import Models
    from regnet.serving.service import AccessLog, Service
except ImportError as exc:
    raise MissingExtraError("serving", "serve") from exc

_LINGER: Final = 0.25  # seconds between taking no new connections and closing the idle ones
_OTHER_FILES: Final = 1000  # open files beside connections
_GRACE: Final = 5.0  # seconds more than a request may take


@dataclass(frozen=True, kw_only=True)
class ServerSetup:
    """What to serve and how; `models` are the sources of models by name, the default first.

    `device` and `precision` are those of sources which name none, None: the CPU and f32.
    """

    models: Mapping[str, str]
    library: Library
    host: str = "127.0.0.1"
    port: int = 8000
    device: str | None = None
    precision: InferencePrecision | None = None
    limits: Limits = field(default_factory=Limits)
    token: Token | None = None
    allow_hosts: Sequence[str] = ()
    model_control: bool = False
    page: bool = True


def serve(setup: ServerSetup, *, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted.

    `on_ready` is called with the address once requests are taken. Raises `StartError` if the port
    is not available, and the errors of `Library.ir` if a model cannot be loaded.
    """
    listener = _listener(setup.host, setup.port)
    _allow_files(MAX_CONNECTIONS + _OTHER_FILES)
    with contextlib.closing(listener), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(setup, listener, on_ready))


async def _serve(
    setup: ServerSetup, listener: socket.socket, on_ready: Callable[[str], None]
) -> None:
    metrics, log = ServerMetrics(), AccessLog()
    models = Models(
        setup.library,
        device=setup.device,
        precision=setup.precision,
        limits=setup.limits,
        observer=metrics,
    )
    service = Service(
        models=models,
        limits=setup.limits,
        metrics=metrics,
        log=log,
        token=setup.token,
        visitors=Visitors(setup.host, setup.allow_hosts),
        model_control=setup.model_control,
    )
    host, port = listener.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(log.of_libraries())
        stack.push_async_callback(models.close)
        for name, source in setup.models.items():
            await models.load(name, source)
        gc.collect()
        gc.freeze()  # garbage collection halts all threads; models need not be searched
        await _until_stopped(setup, service, listener, lambda: on_ready(address))
        log.event("stopped")


def _server(setup: ServerSetup, service: Service, life: Life) -> uvicorn.Server:
    """Return uvicorn's server, which enters `life` when it starts."""
    limits = setup.limits
    return uvicorn.Server(
        uvicorn.Config(
            create_app(service, page=setup.page, life=life),
            http=connection_class(
                slowest=limits.seconds + _GRACE,
                most=limits.body,
                failed=service.metrics.failed,
            ),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=int(limits.seconds + _GRACE),
        )
    )


async def _until_stopped(
    setup: ServerSetup, service: Service, listener: socket.socket, on_ready: Callable[[], None]
) -> None:
    """Serve until the first signal, then finish; a second Ctrl-C does not wait for that."""
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        server.force_exit = number == signal.SIGINT and stop.is_set()
        stop.set()

    @contextlib.asynccontextmanager
    async def life(app: object) -> AsyncIterator[None]:
        for number in (signal.SIGTERM, signal.SIGINT):  # after uvicorn has set its own
            asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
        on_ready()
        yield

    server = _server(setup, service, life)
    serving = asyncio.create_task(server.serve([listener]))
    await asyncio.wait((serving, asyncio.create_task(stop.wait())), return_when="FIRST_COMPLETED")
    # Clients keep connections open between requests. For a moment no new ones are taken and every
    # answer says that its connection ends, so that none is closed under a request on its way.
    service.draining = True
    service.log.event("stopping")
    for one in server.servers:
        one.close()
    await asyncio.sleep(_LINGER)
    server.should_exit = True
    await serving


def _allow_files(count: int) -> None:
    """Let this process have so many open files, a connection being one, if the system does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < count:
        limit = count if hard < 0 else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _listener(host: str, port: int) -> socket.socket:
    """Return a listening socket."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as exc:
        reason = str(reason_of(exc)).partition(" (while")[0]
        raise StartError(
            f"cannot listen on {host}, port {port}: {reason}; choose another with --host and "
            "--port (--port 0 finds a free one)"
        ) from exc
