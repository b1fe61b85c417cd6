"""The `--ray` part of `regnet classify`: from the options to a folder of Parquet files."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from regnet.cli.console import Advance, counter, say
from regnet.cli.ray_option import Ray
from regnet.inference.result import Wanted
from regnet.inference.writers import OutputFormat
from regnet.ir.metadata import InferencePrecision
from regnet.pixels.decode_limits import DecodeLimits
from regnet.system.addresses import is_local_address, without_secrets
from regnet.system.errors import OutputError


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """How the work is spread; without `ray` it is not."""

    ray: Ray = None
    partition_images: Annotated[
        int, typer.Option(min=1, help="With --ray: images of one Parquet file of the results")
    ] = 10_000
    cpus_per_worker: Annotated[int, typer.Option(min=1, help="With --ray: CPUs of each engine")] = 1
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --ray: engines; default: as many as have CPUs", show_default=False
        ),
    ] = None
    price: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="PER_HOUR",
            help="With --ray: what the cluster costs an hour, to say what a million images cost",
            show_default=False,
        ),
    ] = None


def require_folder(output: str | None, format: OutputFormat | None, *, offline: bool) -> str:
    """Return the folder to write to.

    Raises `OutputError` without one, for another format, and if `offline` for one elsewhere.
    """
    if output is None:
        raise OutputError("--ray writes a folder of Parquet files: name it with -o FOLDER")
    if format not in (None, "parquet"):
        raise OutputError(f"--ray writes Parquet, not {format}: leave out --format")
    if offline:
        _require_local(output)
    return output


def _require_local(folder: str) -> None:
    from regnet.data.remote import is_object_address

    if is_object_address(folder) and not is_local_address(folder):
        raise OutputError(f"{without_secrets(folder)}: not written to, because of --offline")


def classify_on_ray(
    sources: list[str],
    spread: RayOptions,
    *,
    address: str,
    folder: str,
    model: Path,
    name: str,
    wanted: Wanted,
    precision: InferencePrecision,
    batch_size: int,
    offline: bool,
    limits: DecodeLimits,
) -> int:
    """Classify the sources into the folder, say what came of it, and return how many failed."""
    from regnet.cluster.batch import BatchJob, classify_batch
    from regnet.cluster.session import connected
    from regnet.inference.classify import Classifier

    classifier = Classifier(model, precision=precision, name=name)
    classifier.require_possible(wanted, batch_size)
    batch = BatchJob(
        model=model,
        sources=tuple(sources),
        wanted=wanted,
        precision=precision,
        batch_size=batch_size,
        partition_images=spread.partition_images,
        cpus_per_worker=spread.cpus_per_worker,
        workers=spread.workers,
        offline=offline,
        limits=limits,
    )
    with connected(address) as cluster, ExitStack() as stack:
        bar = _Bar(stack)
        summary = classify_batch(
            batch,
            folder,
            cluster=cluster,
            metadata=classifier.metadata,
            on_listed=bar.begin,
            on_finished=bar.move,
        )
    for line in summary.lines(folder, price=spread.price):
        say(line)
    return summary.failed


class _Bar:
    """A bar over the images, once their number is known."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._advance: Advance | None = None

    def begin(self, images: int, left: int) -> None:
        self._advance = self._stack.enter_context(counter("classifying", images, "images"))
        self._advance(images - left)

    def move(self, images: int) -> None:
        if self._advance is not None:
            self._advance(images)
