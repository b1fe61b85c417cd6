"""What runs on the nodes: an engine that makes a partition's images to a Parquet file."""

import hashlib
import io
import os
import socket
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regnet.cluster.address import Spread
from regnet.cluster.plan import jobs, unpack
from regnet.cluster.session import Cluster
from regnet.inference.result import Wanted
from regnet.ir.metadata import InferencePrecision
from regnet.pixels.decode_limits import DECODE_LIMITS, DecodeLimits
from regnet.system.errors import ClusterError
from regnet.system.files import temporary_folder
from regnet.system.version import TOOL_VERSION

if TYPE_CHECKING:
    from regnet.ir.engine import Engine


@dataclass(frozen=True)
class PackedModel:
    """The two files of an IR, as bytes that travel to the nodes."""

    name: str
    xml: bytes
    weights: bytes

    @property
    def sha256(self) -> str:
        """Hash of both."""
        return hashlib.sha256(self.xml + self.weights).hexdigest()


def read_model_files(path: Path) -> PackedModel:
    """Return the files of the IR at `path`, its .xml."""
    return PackedModel(path.stem, path.read_bytes(), path.with_suffix(".bin").read_bytes())


class BatchJob(Spread):
    """What to classify, with which model (the .xml of an IR), and how the work is cut.

    With `offline` images at addresses are rows with an error. `places` are the files and folders
    that every node has to see.
    """

    model: Path
    sources: tuple[str, ...]
    wanted: Wanted = Wanted()
    precision: InferencePrecision = "f32"
    batch_size: int = 8
    offline: bool = False
    places: tuple[str, ...] = ()
    limits: DecodeLimits = DECODE_LIMITS

    def workers_of(self, cluster: Cluster) -> int:
        """Return how many workers there are to be. Raises `ClusterError` where none has room."""
        room = cluster.cpus // self.cpus_per_worker
        if room < 1:
            raise ClusterError(
                f"{cluster.described}: no room for a worker of {self.cpus_per_worker} CPUs"
            )
        return self.workers or room


class LocalWorker:
    """One engine with its share of the cores; `partition` makes packed entries to a file."""

    def __init__(self, model: PackedModel, job: BatchJob) -> None:
        self._job = job
        self._engine = _engine(model, job)

    def partition(self, packed: bytes) -> dict[str, Any]:
        """Return rows, failed and the file's bytes (`data`), and who made them when."""
        from regnet.inference.classify import predict
        from regnet.inference.writers import PredictionWriter
        from regnet.system.parallel import in_order

        self._require_places()
        started, cpu = time.time(), time.process_time()
        job, engine = self._job, self._engine
        found = in_order(
            jobs(unpack(packed)),
            partial(predict, engine, wanted=job.wanted),
            workers=engine.streams,
            batch_size=job.batch_size,
        )
        rows = failed = 0
        file = io.BytesIO()
        writer = PredictionWriter(file, "parquet", job.wanted)
        for prediction in found:
            writer.write(prediction)
            rows += 1
            failed += prediction.error is not None
        writer.close()
        made = {"rows": rows, "failed": failed, "data": file.getvalue()}
        ran = {"started": started, "ended": time.time(), "cpu": time.process_time() - cpu}
        by = {"worker": f"{socket.gethostname()}:{os.getpid()}", "memory": peak_memory()}
        return {**made, **ran, **by}

    def _require_places(self) -> None:
        """Refuse to report every image as missing where the node does not see the photos."""
        for place in self._job.places:
            if not Path(place).exists():
                raise ClusterError(
                    f"{place}: is not there on a node of the cluster: use a file system that all "
                    "nodes have, or an object store"
                )


class Worker(LocalWorker):
    """The same on a node, with a model from Ray's object store; called with a table by Ray Data."""

    def __init__(self, model: Any, job: BatchJob, version: str) -> None:
        import ray

        if version != TOOL_VERSION:
            raise ClusterError(
                f"a node has regnet {TOOL_VERSION}, this machine {version}: install the same on all"
            )
        super().__init__(ray.get(model), job)

    def __call__(self, table: Any) -> Any:
        """Return what `partition` makes of each row of (number, packed), with the number."""
        import pyarrow as pa

        numbers = table["number"].to_pylist()
        made = [self.partition(packed.as_py()) for packed in table["packed"]]
        return pa.Table.from_pylist(
            [{"number": number, **row} for number, row in zip(numbers, made, strict=True)]
        )


def peak_memory() -> int:
    """Return the most bytes that this process has held; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _engine(model: PackedModel, job: BatchJob) -> "Engine":
    """Return the compiled model; its files are needed only until then."""
    from regnet.ir.engine import Engine, read_model
    from regnet.system.runtime import core

    core.set_property("CPU", {"INFERENCE_NUM_THREADS": job.cpus_per_worker})
    with temporary_folder() as folder:
        path = folder / f"{model.name}.xml"
        path.write_bytes(model.xml)
        path.with_suffix(".bin").write_bytes(model.weights)
        return Engine(
            read_model(path),
            precision=job.precision,
            streams=job.cpus_per_worker,
            limits=job.limits,
        )
