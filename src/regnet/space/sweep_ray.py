"""The runs of a sweep on a Ray cluster: one task each, the photos once on each node."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from regnet.cluster.session import Cluster, connected
from regnet.space.records import RunRecord
from regnet.space.sweep_run import Course, SweepRun, failed_or_done, train_one
from regnet.system.errors import ClusterError, RegNetError

_LOST: Final = "a worker that was lost"


def train_spread(
    runs: Sequence[SweepRun], course: Course, *, address: str, gpus: float, retries: int
) -> Iterator[RunRecord]:
    """Yield the records of runs as they end, each of `course.threads` CPUs and a share of GPUs.

    Where a worker is lost, its run begins again elsewhere, `retries` times; then it has failed.
    Raises `ClusterError` where no node is large enough.
    """
    with connected(address) as cluster:
        import ray

        _require_room(ray, cluster, course.threads, gpus)
        task = ray.remote(num_cpus=course.threads, num_gpus=gpus, max_retries=retries)(train_one)
        shared = ray.put(course)
        waiting = {task.remote(run, shared): run for run in runs}
        started, clock = datetime.now(UTC), time.perf_counter()
        while waiting:
            (done,), _ = ray.wait(list(waiting), num_returns=1)
            run = waiting.pop(done)
            try:
                yield ray.get(done)
            except ray.exceptions.RayTaskError as exc:
                raise _cause(exc) from exc
            except ray.exceptions.RayError as exc:
                yield failed_or_done(
                    course.prepared(run),
                    course.setting,
                    [],
                    seconds=time.perf_counter() - clock,
                    machine=_LOST,
                    started=started,
                    failure=f"lost its worker {retries + 1} times: {_line(exc)}",
                )


def _require_room(ray: Any, cluster: Cluster, cpus: int, gpus: float) -> None:
    """Raise `ClusterError` where a run would wait for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(n.get("CPU", 0) >= cpus and n.get("GPU", 0) >= gpus for n in nodes):
        raise ClusterError(
            f"no node of {cluster.described} has {cpus} CPUs and {gpus:g} GPUs for a run: ask for "
            "less (--cpus-per-run, --gpus-per-run)"
        )


def _cause(error: Any) -> BaseException:
    """Return what was raised in the worker, as far as it is ours."""
    cause: BaseException = error.cause
    return cause if isinstance(cause, RegNetError) else ClusterError(f"a run failed: {cause!r}")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
