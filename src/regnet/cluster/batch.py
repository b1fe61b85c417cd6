"""Images by the million, classified on a Ray cluster, partition by partition, with Ray Data."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from regnet.cluster.output import Output, PartitionFile, open_output, part_name, part_of
from regnet.cluster.plan import Partition, local_places, partitions
from regnet.cluster.session import Cluster, logging_at
from regnet.cluster.worker import BatchJob, PackedModel, Worker, read_model_files
from regnet.ir.metadata import ModelMetadata
from regnet.system.addresses import without_secrets
from regnet.system.errors import ClusterError, MissingExtraError, OutputError, RegNetError
from regnet.system.text import counted
from regnet.system.version import TOOL_VERSION

_MEASURED: Final = ("worker", "started", "ended", "memory", "cpu")
_TRIES: Final = 5  # more often than that a partition is not given to a new worker


@dataclass(frozen=True)
class Done:
    """A partition as it was finished: by whom, in which seconds (since 1970).

    `memory` is the most bytes that the worker has held, `cpu` the seconds of CPU that it took.
    """

    part: PartitionFile
    worker: str
    started: float
    ended: float
    memory: int
    cpu: float


@dataclass(frozen=True)
class Summary:
    """What is in the folder now; `found` of the partitions were there before, `done` are new."""

    partitions: int
    images: int
    failed: int
    found: int
    done: tuple[Done, ...]

    @property
    def rate(self) -> float | None:
        """Images a second of this run, from the first image's begin to the last one's end."""
        if not self.done:
            return None
        begin, end = min(d.started for d in self.done), max(d.ended for d in self.done)
        return sum(d.part.rows for d in self.done) / max(end - begin, 1e-9)

    def lines(self, folder: str, price: float | None = None) -> Iterator[str]:
        """Yield what there is to say; `price` is what the cluster costs an hour."""
        before = f", {self.found} of them from before" if self.found else ""
        yield (
            f"{folder}: {counted(self.images, 'image')}, {self.failed:,} failed, "
            f"{self.partitions:,} partitions{before}"
        )
        if (rate := self.rate) is None:
            return
        hours = 1e6 / rate / 3600
        cost = "" if price is None else f", {hours * price:.2f} at {price:g} an hour"
        yield f"{rate:.1f} images a second; a million in {hours:.1f} hours{cost}"


Listed = Callable[[int, int], None]
Finished = Callable[[int], None]


def classify_batch(
    batch: BatchJob,
    folder: str,
    *,
    cluster: Cluster,
    metadata: ModelMetadata,
    on_listed: Listed = lambda images, found: None,
    on_finished: Finished = lambda images: None,
) -> Summary:
    """Classify into a folder (a path, or an address of an object store), and return what is there.

    Partitions that are there are not done again. `cluster` is connected; `on_listed` hears how many
    images there are, and how many of them were done before, `on_finished` how many more are. Raises
    `ClusterError`, `OutputError`, `MissingExtraError`.
    """
    model = read_model_files(batch.model)
    batch = replace(batch, places=local_places(batch.sources))
    with open_output(folder, _identity(batch, metadata, model.sha256)) as output:
        planned = partitions(batch.sources, batch.partition_images, offline=batch.offline)
        todo, parts = _missing(planned, output.finished(), folder)
        on_listed(todo.images + sum(part.rows for part in parts), todo.images)
        done = []
        workers = min(batch.workers_of(cluster), len(todo.refs))
        for row in _rows(todo, model, batch, workers) if workers else ():
            finished = _finish(row, todo, output)
            on_finished(finished.part.rows)
            done.append(finished)
        every = sorted([*parts, *(one.part for one in done)], key=lambda part: part.file)
        output.complete(every)
    return Summary(
        partitions=len(every),
        images=sum(part.rows for part in every),
        failed=sum(part.failed for part in every),
        found=len(parts),
        done=tuple(done),
    )


@dataclass
class _Todo:
    """The partitions that are not there yet, in Ray's object store; their hashes here."""

    refs: list[Any] = field(default_factory=list)
    sha256: dict[int, str] = field(default_factory=dict)
    images: int = 0

    def add(self, partition: Partition) -> None:
        import pyarrow as pa
        import ray

        row = {"number": partition.number, "packed": partition.packed}
        self.refs.append(ray.put(pa.Table.from_pylist([row])))
        self.sha256[partition.number] = partition.sha256
        self.images += partition.images


def _missing(
    planned: Iterator[Partition], found: dict[str, PartitionFile], folder: str
) -> tuple[_Todo, list[PartitionFile]]:
    """Return what of the plan is not there yet, and the rest. Raises `OutputError`."""
    todo, there, changed = _Todo(), [], []
    for partition in planned:
        part = found.pop(part_name(partition.number), None)
        if part is None:
            todo.add(partition)
            continue
        there.append(part)
        if part.images != partition.sha256:
            changed.append(part.file)
            break
    if changed := [*changed, *found]:
        raise OutputError(
            f"{folder}: the sources are not those that {changed[0]} was made of: they have changed "
            "since; name a new folder"
        )
    return todo, there


def _identity(batch: BatchJob, metadata: ModelMetadata, sha256: str) -> dict[str, Any]:
    """Return all that the rows depend on."""
    wanted = batch.wanted
    return {
        "version": TOOL_VERSION,
        "model": {
            "name": metadata.name,
            "sha256": sha256,
            "weights_sha384": metadata.weights_sha384,
            "assumed": list(metadata.assumed),
        },
        "options": {
            "top_k": wanted.top_k,
            "sets": wanted.sets,
            "unknown": wanted.unknown,
            "precision": batch.precision,
            "partition_images": batch.partition_images,
        },
        "sources": [without_secrets(source) for source in batch.sources],
    }


def _finish(row: dict[str, Any], todo: _Todo, output: Output) -> Done:
    number, data = row["number"], row["data"]
    part = part_of(number, data, rows=row["rows"], failed=row["failed"], images=todo.sha256[number])
    output.add(part, data)
    return Done(part, **{name: row[name] for name in _MEASURED})


def _rows(
    todo: _Todo, model: PackedModel, batch: BatchJob, workers: int
) -> Iterator[dict[str, Any]]:
    """Yield what the workers make of the partitions, as it comes."""
    import ray

    with _quiet_data() as data:
        try:
            made = data.from_arrow_refs(todo.refs).map_batches(
                Worker,
                fn_constructor_args=(ray.put(model), batch, TOOL_VERSION),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=batch.cpus_per_worker,
                compute=data.ActorPoolStrategy(size=workers),
                max_restarts=-1,
                max_task_retries=_TRIES,
            )
            yield from made.iter_rows()
        except (ray.exceptions.RayError, SystemError) as exc:
            raise _mapped(exc) from exc


def _mapped(exc: BaseException) -> RegNetError:
    """Return what went wrong in a worker, or with it."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, RegNetError):
            return ClusterError(str(cause).split("\n")[-1])
        cause = getattr(cause, "cause", None) or cause.__cause__
    from ray.exceptions import ActorUnavailableError, RayActorError

    if isinstance(exc, RayActorError | ActorUnavailableError):
        return ClusterError(
            f"workers died {_TRIES + 1} times at one partition, or no node is left: they may lack "
            "memory; what is done is kept; Ray's logs (/tmp/ray/session_latest/logs) say more"
        )
    return ClusterError(f"the cluster could not do its work: {str(exc).strip().splitlines()[-1]}")


@contextmanager
def _quiet_data() -> Iterator[Any]:
    """Give Ray Data without its bars and messages."""
    try:
        import ray.data
    except ImportError as exc:
        raise MissingExtraError("Ray Data", "cluster") from exc
    with logging_at("ray.data", logging.CRITICAL), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray's of its own settings
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        yield ray.data
