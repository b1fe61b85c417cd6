"""`regnet classify`: names what is in photos and videos."""

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regnet.cli.classify_ray import RayOptions, classify_on_ray, require_folder
from regnet.cli.console import EXIT_OK, EXIT_SOME_FAILED, interruptible, say, track, utf8_stdout
from regnet.cli.options import DecodeOptions, Store, grouped
from regnet.cli.progress import download_display
from regnet.cli.ray_option import RayCommand
from regnet.conversion.store import Library
from regnet.data.video_names import is_video, require_extra
from regnet.inference.result import Prediction, Wanted
from regnet.inference.writers import OutputFormat, format_of, open_writer
from regnet.ir.metadata import InferencePrecision
from regnet.pixels.decode_limits import DecodeLimits
from regnet.system.errors import DownloadError, LicenceError, OutputError
from regnet.system.output_file import part_of

if TYPE_CHECKING:
    from regnet.inference.classify import Classifier

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
    app.command("classify", cls=RayCommand, help=HELP)(grouped(classify))


def _finite(seconds: float) -> float:
    if not math.isfinite(seconds):
        raise typer.BadParameter("is not a number of seconds")
    return seconds


@dataclass(frozen=True, kw_only=True)
class Results:
    """Which results are wanted, and where they go."""

    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Classes an image")] = 5
    format: Annotated[
        OutputFormat | None,
        typer.Option(
            "--format",
            "-f",
            help="Default: by the ending of -o, else a table",
        ),
    ] = None
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="File to write; with --ray the folder"),
    ] = None
    sets: Annotated[
        bool,
        typer.Option(
            "--sets",
            help="Of a calibrated model: also the set of classes that holds the truth with the "
            "probability it was calibrated for",
        ),
    ] = False
    unknown: Annotated[
        bool,
        typer.Option(
            "--unknown",
            help="Of a calibrated model: say unknown where that set is not a single class",
        ),
    ] = False

    def wanted(self, *, timestamps: bool = False) -> Wanted:
        """Return what each prediction has to hold."""
        return Wanted(self.top_k, self.sets, self.unknown, timestamps=timestamps)


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """How videos are looked at, as `Classifier.stream` takes it."""

    every: Annotated[
        float,
        typer.Option(
            min=0,
            callback=_finite,
            metavar="SECONDS",
            help="Of a video, a frame of each so many seconds; 0: all",
        ),
    ] = 1.0
    smooth: Annotated[
        float,
        typer.Option(
            min=0,
            callback=_finite,
            metavar="SECONDS",
            help="Of a video, average the probabilities over so many seconds",
        ),
    ] = 0.0
    realtime: Annotated[
        bool | None,
        typer.Option(
            "--realtime/--no-realtime",
            help="Take the newest frame and drop those that came meanwhile, or classify all; "
            "default: drop for cameras and rtsp alone",
            show_default=False,
        ),
    ] = None


def classify(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Images, see above", show_default=False)
    ],
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="Card name, `bundled`, an IR (.xml) or a checkpoint"),
    ] = DEFAULT_MODEL,
    *,
    results: Results,
    precision: Annotated[
        InferencePrecision,
        typer.Option(
            help="f32 is exact; bf16 is faster where the CPU has it; int8: see `regnet quantize`"
        ),
    ] = "f32",
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, max=256, help="Most images inferred in one call")
    ] = 8,
    video: VideoOptions,
    spread: RayOptions,
    decoding: DecodeOptions,
    store: Store,
) -> None:
    """Classify the sources and exit with 0, or 1 if some failed."""
    if (address := spread.ray) is not None:
        folder = require_folder(results.output, results.format, offline=store.offline)
        with interruptible():
            failed = classify_on_ray(
                sources,
                spread,
                address=address,
                folder=folder,
                model=_ir(store.library(), model, precision),
                name=model,
                wanted=results.wanted(),
                precision=precision,
                batch_size=batch_size,
                offline=store.offline,
                limits=decoding.limits(),
            )
        raise typer.Exit(EXIT_SOME_FAILED if failed else EXIT_OK)
    file, chosen = _output(results, sources)
    wanted = results.wanted(timestamps=any(is_video(source) for source in sources))
    if wanted.timestamps:
        require_extra()
    with interruptible():
        classifier = _classifier(store, model, precision, decoding.limits())
        predictions = classifier.stream(
            sources,
            top_k=results.top_k,
            sets=results.sets,
            unknown=results.unknown,
            batch_size=batch_size,
            **asdict(video),
        )
        if file is not None or not sys.stdout.isatty():
            predictions = _tracked(predictions, sources)
        failed = _write(predictions, file, chosen, wanted)
    raise typer.Exit(EXIT_SOME_FAILED if failed else EXIT_OK)


def _output(results: Results, sources: list[str]) -> tuple[Path | None, OutputFormat]:
    """Return the file to write, None for standard output, and its format."""
    file = Path(results.output) if results.output is not None else None
    chosen = results.format or (format_of(file) if file else "table")
    if chosen == "parquet" and file is None:
        raise OutputError("Parquet is not text: name a file with -o FILE")
    if file is not None:
        _require_not_a_source(file, sources)
    return file, chosen


def _classifier(
    store: Store, model: str, precision: InferencePrecision, limits: DecodeLimits
) -> "Classifier":
    models = store.library()
    path = _ir(models, model, precision)
    from regnet.inference.classify import Classifier

    return Classifier(
        path,
        precision=precision,
        compiled_cache=models.compiled,
        offline=store.offline,
        name=model,
        limits=limits,
    )


def _tracked(predictions: Iterator[Prediction], sources: list[str]) -> Iterator[Prediction]:
    from regnet.data.sources import count_items

    return track(predictions, "classifying", lambda: count_items(sources), unit="images")


def _ir(models: Library, model: str, precision: InferencePrecision) -> Path:
    """Return the model's IR; where it cannot be fetched, name the one that is always here."""
    try:
        with download_display() as on_event:
            return replace(models, on_event=on_event).ir(model, precision=precision)
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
