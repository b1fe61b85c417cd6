"""`regnet classify --ray`: sources -> a folder of Parquet files."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from regnet.cli.console import say
from regnet.cli.options import Ray
from regnet.cli.progress import Advance, counter
from regnet.inference.result import Wanted
from regnet.inference.writers import OutputFormat
from regnet.ir.metadata import InferencePrecision
from regnet.system.addresses import is_local_address, without_secrets
from regnet.system.errors import OutputError
from regnet.system.option import option


class RayOptions(Ray):
    """How the work is spread; without `ray` it is not."""

    partition_images: int = option(10_000, "Images per Parquet file", min=1)
    cpus_per_worker: int = option(1, "CPUs per worker", min=1)
    workers: int | None = option(None, "Workers [as many as have CPUs]", min=1)
    price: float | None = option(
        None, "Cost of the cluster per hour, to print that of a million images", min=0
    )


def require_folder(output: str | None, format: OutputFormat | None, *, offline: bool) -> str:
    """Return the folder to write to.

    Raises `OutputError` without one, for another format, and if `offline` for one elsewhere.
    """
    if output is None:
        raise OutputError("--ray writes a folder of Parquet files: name it with -o FOLDER")
    if format not in (None, "parquet"):
        raise OutputError(f"--ray writes Parquet, not {format}: leave out --format")
    if offline:
        from regnet.data.remote import is_object_address

        if is_object_address(output) and not is_local_address(output):
            raise OutputError(f"{without_secrets(output)}: not written to, because of --offline")
    return output


def classify_on_ray(
    sources: tuple[str, ...],
    spread: RayOptions,
    *,
    folder: str,
    path: Path,
    model: str,
    wanted: Wanted,
    precision: InferencePrecision,
    batch_size: int,
    **options: Any,
) -> int:
    """Classify the sources into the folder, print a summary, and return how many failed."""
    from regnet.cluster.batch import BatchJob, classify_batch
    from regnet.cluster.session import connected
    from regnet.inference.classify import Classifier

    classifier = Classifier(path, precision=precision, name=model)
    classifier.require_possible(wanted, batch_size)
    job = BatchJob(
        model=path,
        sources=sources,
        wanted=wanted,
        precision=precision,
        batch_size=batch_size,
        partition_images=spread.partition_images,
        cpus_per_worker=spread.cpus_per_worker,
        workers=spread.workers,
        **options,
    )
    with connected(spread.ray or "") as cluster, ExitStack() as stack:
        advance: list[Advance] = []

        def begin(images: int, left: int) -> None:
            """Show a bar, once the number of images is known."""
            advance.append(stack.enter_context(counter("classifying", images, "images")))
            advance[0](images - left)

        summary = classify_batch(
            job,
            folder,
            cluster=cluster,
            metadata=classifier.metadata,
            on_listed=begin,
            on_finished=lambda images: advance[0](images),
        )
    for line in summary.lines(folder, price=spread.price):
        say(line)
    return summary.failed
