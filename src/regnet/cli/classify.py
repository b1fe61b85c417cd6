"""`regnet classify`: names what is in photos and videos."""

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from regnet.cli.classify_ray import classify_on_ray, require_folder
from regnet.cli.console import EXIT_OK, EXIT_SOME_FAILED, interruptible, say, track, utf8_stdout
from regnet.cli.options import (
    CacheDir,
    CheckpointEntry,
    MaxDecode,
    MaxMemory,
    Mirrors,
    Offline,
    library,
)
from regnet.cli.progress import download_display
from regnet.cli.ray_option import Ray, RayCommand
from regnet.conversion.store import Library
from regnet.data.video_names import is_video, require_extra
from regnet.inference.result import Prediction, Wanted
from regnet.inference.writers import OutputFormat, format_of, open_writer
from regnet.ir.metadata import InferencePrecision
from regnet.pixels.decode_limits import DecodeLimits
from regnet.system.errors import DownloadError, LicenceError, OutputError
from regnet.system.output_file import part_of

DEFAULT_MODEL = "regnetx-3.2gf"

HELP = """Name what is in photos and videos.

A SOURCE is a file, a folder (with its subfolders), a glob in quotes, an http(s) address, a zip or \
tar archive, a Parquet file with a column of images, or - for standard input; with the extra \
`video` also a video file, a camera (camera:0) or an rtsp:// address. Results come in the order of \
the sources. Files that are no pictures are skipped and counted on standard error.

With --ray, which needs the extra `cluster`, a SOURCE is also an address of an object store \
(s3://, gs://, hf:// ...); the results are a folder of Parquet files, and the same command again \
goes on where it was ended.

The model is downloaded and converted once, on first use; `--model bundled` needs neither.

Exit status: 0 all classified, 1 some images failed (their rows say why), 2 could not run.

Examples:

  regnet classify cat.jpg

  regnet classify --model bundled photos/ -o results.csv

  regnet classify 'photos/**/*.jpg' --format jsonl --top-k 1 > labels.jsonl

  regnet classify -m mine-calibrated.xml --unknown photos/

  curl -s https://example.org/cat.jpg | regnet classify -

  regnet classify clip.mp4 --every 0.5 --smooth 2 -o clip.csv

  regnet classify camera:0 --top-k 1

  regnet classify s3://bucket/photos/ --ray auto -o s3://bucket/labels
"""


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("classify", cls=RayCommand, help=HELP)(classify)


def _finite(seconds: float) -> float:
    if not math.isfinite(seconds):
        raise typer.BadParameter("is not a number of seconds")
    return seconds


def classify(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Images, see above", show_default=False)
    ],
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="Card name, `bundled`, an IR (.xml) or a checkpoint"),
    ] = DEFAULT_MODEL,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Classes an image")] = 5,
    format: Annotated[
        OutputFormat | None,
        typer.Option(
            "--format",
            "-f",
            help="Default: by the ending of -o, else a table",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="File to write; with --ray the folder"),
    ] = None,
    sets: Annotated[
        bool,
        typer.Option(
            "--sets",
            help="Of a calibrated model: also the set of classes that holds the truth with the "
            "probability it was calibrated for",
        ),
    ] = False,
    unknown: Annotated[
        bool,
        typer.Option(
            "--unknown",
            help="Of a calibrated model: say unknown where that set is not a single class",
        ),
    ] = False,
    precision: Annotated[
        InferencePrecision,
        typer.Option(
            help="f32 is exact; bf16 is faster where the CPU has it; int8: see `regnet quantize`"
        ),
    ] = "f32",
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, max=256, help="Most images inferred in one call")
    ] = 8,
    every: Annotated[
        float,
        typer.Option(
            min=0,
            callback=_finite,
            metavar="SECONDS",
            help="Of a video, a frame of each so many seconds; 0: all",
        ),
    ] = 1.0,
    smooth: Annotated[
        float,
        typer.Option(
            min=0,
            callback=_finite,
            metavar="SECONDS",
            help="Of a video, average the probabilities over so many seconds",
        ),
    ] = 0.0,
    realtime: Annotated[
        bool | None,
        typer.Option(
            "--realtime/--no-realtime",
            help="Take the newest frame and drop those that came meanwhile, or classify all; "
            "default: drop for cameras and rtsp alone",
            show_default=False,
        ),
    ] = None,
    ray: Ray = None,
    partition_images: Annotated[
        int, typer.Option(min=1, help="With --ray: images of one Parquet file of the results")
    ] = 10_000,
    cpus_per_worker: Annotated[
        int, typer.Option(min=1, help="With --ray: CPUs of each engine")
    ] = 1,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="With --ray: engines; default: as many as have CPUs", show_default=False
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="PER_HOUR",
            help="With --ray: what the cluster costs an hour, to say what a million images cost",
            show_default=False,
        ),
    ] = None,
    max_memory: MaxMemory = 2000,
    max_decode: MaxDecode = 8,
    entry: CheckpointEntry = None,
    cache_dir: CacheDir = None,
    offline: Offline = False,
    mirror: Mirrors = None,
) -> None:
    """Classify the sources and exit with 0, or 1 if some failed."""
    models = library(cache_dir, offline, mirror, entry)
    limits = DecodeLimits(memory=max_memory * 1_000_000, seconds=max_decode)
    if ray is not None:
        folder = require_folder(output, format, offline=offline)
        with interruptible():
            with download_display() as on_event:
                path = _ir(replace(models, on_event=on_event), model, precision)
            failed = classify_on_ray(
                sources,
                address=ray,
                folder=folder,
                model=path,
                name=model,
                wanted=Wanted(top_k, sets, unknown),
                precision=precision,
                batch_size=batch_size,
                partition_images=partition_images,
                cpus_per_worker=cpus_per_worker,
                workers=workers,
                price=price,
                offline=offline,
                limits=limits,
            )
        raise typer.Exit(EXIT_SOME_FAILED if failed else EXIT_OK)
    file = Path(output) if output is not None else None
    chosen = format or (format_of(file) if file else "table")
    if chosen == "parquet" and file is None:
        raise OutputError("Parquet is not text: name a file with -o FILE")
    if file is not None:
        _require_not_a_source(file, sources)
    videos = any(is_video(source) for source in sources)
    if videos:
        require_extra()
    with interruptible():
        with download_display() as on_event:
            path = _ir(replace(models, on_event=on_event), model, precision)
        from regnet.data.sources import count_items
        from regnet.inference.classify import Classifier

        classifier = Classifier(
            path,
            precision=precision,
            compiled_cache=models.compiled,
            offline=offline,
            name=model,
            limits=limits,
        )
        results = classifier.stream(
            sources,
            top_k=top_k,
            sets=sets,
            unknown=unknown,
            batch_size=batch_size,
            every=every,
            smooth=smooth,
            realtime=realtime,
        )
        if file is not None or not sys.stdout.isatty():
            results = track(results, "classifying", lambda: count_items(sources), unit="images")
        failed = _write(results, file, chosen, Wanted(top_k, sets, unknown, timestamps=videos))
    raise typer.Exit(EXIT_SOME_FAILED if failed else EXIT_OK)


def _ir(models: Library, model: str, precision: InferencePrecision) -> Path:
    """Return the model's IR; where it cannot be fetched, name the one that is always here."""
    try:
        return models.ir(model, precision=precision)
    except LicenceError:
        raise
    except DownloadError as exc:
        bundled = "Or use the small model inside the package: regnet classify --model bundled ..."
        raise type(exc)(f"{exc}\n{bundled}") from exc


def _write(
    results: Iterator[Prediction], output: Path | None, format: OutputFormat, wanted: Wanted
) -> int:
    """Write the results and return how many failed; say so where the reader would not see it."""
    done = failed = 0
    try:
        screen = sys.stdout if format == "table" else utf8_stdout()
        with open_writer(output or screen, format, wanted) as writer:
            for prediction in results:
                writer.write(prediction)
                done += 1
                failed += prediction.error is not None
    except KeyboardInterrupt:
        if output is not None:
            kept = part_of(output) if part_of(output).exists() else output
            say(f"{kept}: {done} images, {failed} of them failed, then interrupted")
        raise
    if output is not None:
        say(f"{output}: {done} images, {failed} of them failed")
    return failed


def _require_not_a_source(output: Path, sources: list[str]) -> None:
    if any(os.path.realpath(source) == os.path.realpath(output) for source in sources):
        raise OutputError(f"cannot write {output}: it is one of the sources")
