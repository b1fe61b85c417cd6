"""The Ray that work is spread over: of this machine's cores, or a cluster that runs."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from regnet.cluster.address import HOST, LOCAL, is_address
from regnet.system.errors import ClusterError, MissingExtraError
from regnet.system.parallel import cores

_PATIENCE: Final = 10.0  # seconds for a host to answer

# Of the processes that are started here, where the environment does not say otherwise.
ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",  # else it reports the use of Ray to its maker
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else each start warns of a default to come
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else Ray Data's own use of actors is told as an error
    "RAY_worker_niceness": "0",  # 15, the default, starves workers where the machine is busy ...
    "RAY_worker_register_timeout_seconds": "600",  # ... and one that is late is killed, ...
    "RAY_prestart_worker_first_driver": "0",  # ... and then waited for without an end
}


@dataclass(frozen=True)
class Cluster:
    """What is connected: the address asked for, and nodes, CPUs and GPUs that are alive."""

    address: str
    nodes: int
    cpus: int
    gpus: int

    @property
    def described(self) -> str:
        """The cluster in words."""
        nodes = f"{self.nodes} node" + "s" * (self.nodes != 1)
        return f"Ray, {nodes}, {self.cpus} CPUs" + f", {self.gpus} GPUs" * bool(self.gpus)


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Connect this process to a Ray for the time of the block.

    "local" starts one of the cores this process may use, and ends it; "auto" is the cluster that
    runs on this machine, "host:port" and "ray://host:port" another. Where the process is connected
    already, that Ray is used, whatever the address, and left as it is. Raises `ClusterError` where
    there is none, and `MissingExtraError` without Ray.
    """
    if not is_address(address):
        raise ClusterError(
            f"{address!r} names no Ray cluster: write local, auto, host:port or ray://host:port"
        )
    with ExitStack() as stack:
        stack.enter_context(_environment(ENVIRONMENT))
        ray = _imported()
        if not ray.is_initialized():
            stack.enter_context(logging_at("ray", logging.ERROR))
            stack.enter_context(_without_prints())
            _start(ray, address)
            stack.callback(ray.shutdown)
        yield _described(ray, address)


def _imported() -> Any:
    try:
        import ray
    except ImportError as exc:
        raise MissingExtraError("Ray", "cluster") from exc
    return ray


def _start(ray: Any, address: str) -> None:
    own = {"num_cpus": cores(), "include_dashboard": False} if address == LOCAL else {}
    try:
        if host := HOST.fullmatch(address):
            _reach(host[2].strip("[]"), int(host[3]))
        with _silent(), _own_sigterm():  # it tells which level of logs was chosen
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (OSError, OverflowError, RuntimeError, ValueError, AssertionError, ImportError) as exc:
        ray.shutdown()
        raise ClusterError(_no_ray(address, exc)) from exc


def _reach(host: str, port: int) -> None:
    """Raise `OSError` where nobody listens: Ray would go on asking for minutes."""
    with socket.create_connection((host, port), timeout=_PATIENCE):
        pass


def _no_ray(address: str, exc: BaseException) -> str:
    reason = str(exc).strip().split("\n")[0] or type(exc).__name__
    if address == LOCAL:
        return f"Ray does not start on this machine: {reason}"
    return (
        f"no Ray cluster at {address}: {reason}\nStart one with `ray start --head`, or leave the "
        "address out to use the cores of this machine; the cluster needs the same Ray and Python, "
        "and its token (`ray get-auth-token`) in RAY_AUTH_TOKEN"
    )


def _described(ray: Any, address: str) -> Cluster:
    alive = sum(node["Alive"] for node in ray.nodes())
    total = ray.cluster_resources()
    return Cluster(address, alive, int(total.get("CPU", 0)), int(total.get("GPU", 0)))


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables that are not set for the time of the block."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's way to end: on SIGTERM Ray's own ends it with status 15."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before):
        with suppress(ValueError):  # another thread than the main one, where Ray sets none
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _silent() -> Iterator[None]:
    """Drop what is written to standard error in the block, also by libraries in C++."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _without_prints() -> Iterator[None]:
    """Keep Ray from printing on standard output, where results are, that a worker died."""
    from ray._private import worker

    printing = getattr(worker, "print_to_stdstream", None)  # other versions may have another way
    if printing is None:
        yield
        return
    worker.print_to_stdstream = lambda *args, **options: None
    try:
        yield
    finally:
        worker.print_to_stdstream = printing


@contextmanager
def logging_at(name: str, level: int) -> Iterator[None]:
    """Give a logger a level for the time of the block."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
