"""`regnet classify`: photos and videos -> their classes."""

import codecs
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from regnet.cli.console import in_utf8, say
from regnet.cli.options import Model, Store, require_photos
from regnet.cli.progress import Advance, counter, track
from regnet.cluster.address import Spread
from regnet.data.photo_files import is_video, require_extra
from regnet.inference.predictors import Choice
from regnet.inference.result import Prediction, Wanted
from regnet.inference.sorting import Sorting
from regnet.inference.writers import OutputFormat, format_of, open_writer
from regnet.network.labels import Labels
from regnet.pixels.decode_limits import DecodeLimits
from regnet.system.addresses import is_local_address, without_secrets
from regnet.system.devices import CPU
from regnet.system.errors import DatasetError, OutputError, UnknownModelError, reason_of
from regnet.system.option import Options, argument, option
from regnet.system.output_file import part_of
from regnet.system.parallel import BATCH_SIZE
from regnet.system.text import counted
from regnet.video.sampling import Sampling
from regnet.zoo.catalogue import DEFAULT_MODEL


class Input(Model):
    """What to classify, and by which model."""

    sources: tuple[str, ...] = argument("Photos and videos, see above", "SOURCE...", ())
    sources_from: Path | None = option(
        None, "Also the sources in FILE, one per line or NUL; - is standard input", "-T", "FILE"
    )
    samples: bool = option(False, "Classify the sample photos in the package, by `bundled`")
    classes: Path | None = option(
        None, "Only the classes in FILE compete: names, wnids or indices, one per line", "FILE"
    )
    batch_size: int | None = option(
        None, "Maximum batch size, 1 to 256 [8; cuda: measured]", min=1, max=256
    )

    @property
    def photos(self) -> tuple[str, ...]:
        """All sources; raises `DatasetError` if there are none."""
        sources = self.sources
        if self.sources_from:
            sources += _listed(self.sources_from)
        if self.samples:
            from regnet.pixels.samples import sample_photos

            sources += tuple(map(str, sample_photos()))
        if not sources:
            raise DatasetError(
                "which SOURCE? Name a photo or a folder, or take the sample photos: --samples"
            )
        return sources

    @property
    def choice(self) -> Choice:
        """The model and its precision; raises `UnknownModelError`."""
        return self.chosen("classify", "bundled" if self.samples else DEFAULT_MODEL)

    def competing(self, wanted: Wanted, labels: Labels) -> Wanted:
        """Return what is wanted, of the listed classes alone; raises `DatasetError`."""
        if self.classes is None:
            return wanted
        from regnet.data.class_names import ClassNames

        names = [name.strip() for name in _listed(self.classes)]
        matches = ClassNames(labels).match_labels(names, what=f"classes in {self.classes}")
        return replace(wanted, classes=tuple(dict.fromkeys(matches.values())))


def _listed(path: Path) -> tuple[str, ...]:
    """Return the entries of a list, one per line or NUL. Raises `DatasetError`."""
    try:
        data = sys.stdin.buffer.read() if path == Path("-") else path.read_bytes()
    except OSError as exc:
        raise DatasetError(f"cannot read the list {path}: {reason_of(exc)}") from exc
    data = data.removeprefix(codecs.BOM_UTF8)
    lines = data.split(b"\0") if b"\0" in data else data.splitlines()
    if not (entries := tuple(os.fsdecode(line) for line in lines if line.strip())):
        raise DatasetError(f"the list {path} is empty")
    return entries


class Output(Options):
    """Where results go."""

    output: str | None = option(
        None, "Write results to FILE (with --ray: to a folder)", "-o", "FILE"
    )
    format: OutputFormat | None = option(
        None, "table, json, jsonl, csv or parquet [from FILE's suffix, else table]", "-f", "FORMAT"
    )

    def opened(self, sources: tuple[str, ...]) -> tuple[Path | None, OutputFormat]:
        """Return the file to write, None for standard output, and its format."""
        file = Path(self.output) if self.output is not None else None
        chosen = self.format or (format_of(file) if file else "table")
        if chosen == "parquet" and file is None:
            raise OutputError("Parquet is not text: name a file with -o FILE")
        if file and os.path.realpath(file) in map(os.path.realpath, sources):
            raise OutputError(f"cannot write {file}: it is one of the sources")
        return file, chosen

    def folder(self, *, offline: bool) -> str:
        """Return the folder for Parquet files of --ray. Raises `OutputError`."""
        if self.output is None:
            raise OutputError("--ray writes a folder of Parquet files: name it with -o FOLDER")
        if self.format not in (None, "parquet"):
            raise OutputError(f"--ray writes Parquet, not {self.format}: leave out --format")
        if offline:
            from regnet.data.remote import is_object_address

            if is_object_address(self.output) and not is_local_address(self.output):
                place = without_secrets(self.output)
                raise OutputError(f"{place}: not written to, because of --offline")
        return self.output


def classify(
    input: Input,
    results: Wanted,
    output: Output,
    sorting: Sorting,
    video: Sampling,
    ray: Spread,
    limits: DecodeLimits,
    models: Store,
) -> bool:
    """Classify photos and videos.

    SOURCE is a file, a folder with its subfolders, a glob in quotes, an http(s) URL, a zip or tar
    archive, a Parquet file with a column of images, or - for standard input.

    With the extra `video` it may also be a video, a camera (camera:0) or an rtsp:// URL. Other
    files are skipped and counted on standard error. With --ray (extra `cluster`) also object stores
    (s3://, gs://, hf:// ...): the results are a folder of Parquet files, and the same command
    resumes.

    The first use of a model downloads and converts it; `bundled` needs neither.

    Exit status: 0 done, 1 some images failed, 2 could not run, 130 interrupted.

      regnet classify --samples
      regnet classify cat.jpg
      regnet classify --model bundled photos/ -o results.csv
      regnet classify 'photos/**/*.jpg' -f jsonl -k 1 > labels.jsonl
      regnet classify photos/ --sort-into sorted/ --min-probability 0.5
      regnet classify clip.mp4 --every 0.5 --smooth 2 -o clip.csv
      regnet classify s3://bucket/photos/ --ray auto -o s3://bucket/labels
    """
    if sorting.sort_into and sorting.undo:
        return undo_sorting(sorting.sort_into)
    if ray.ray is not None:
        if sorting.sort_into:
            raise OutputError("--sort-into moves files of this machine: leave out --ray")
        return _classify_on_ray(input, results, output, ray, limits, models) > 0
    sources, choice = input.photos, input.choice
    require_photos("classify", sources)
    file, chosen = output.opened(sources)
    wanted = replace(results, timestamps=any(map(is_video, sources)))
    if wanted.timestamps:
        require_extra()
    from regnet.data.sources import count_items, iter_items

    classifier = models.classifier(choice, offline=models.offline, limits=limits)
    wanted = input.competing(wanted, classifier.labels)
    predict = partial(
        classifier.predict_items, wanted=wanted, batch_size=input.batch_size, sampling=video
    )
    with sorting.sorter(classifier.labels) as sorter:
        items = iter_items(sources, offline=models.offline)
        predictions = predict(items) if sorter is None else sorter.sort(items, predict)
        if input.samples:
            predictions = (replace(p, source=Path(p.source).name) for p in predictions)
        if file is not None or not sys.stdout.isatty() or sorter:
            count = lambda: count_items(sources)  # noqa: E731
            predictions = track(predictions, "classifying", count, "images")
        if sorter and (output.output, output.format) == (None, None):
            predictions = (p for p in predictions if p.error is not None)
            if sys.stdout.isatty():  # after the bar, not in its line
                predictions = at_the_end(predictions)
        failed = _write(predictions, file, chosen, wanted)
        if sorter:
            say(sorter.summary())
    return failed > 0


def at_the_end(predictions: Iterator[Prediction]) -> Iterator[Prediction]:
    """Yield predictions when all are there, or those that are when the run is interrupted."""
    known: list[Prediction] = []
    try:
        known.extend(predictions)
    finally:
        yield from known


def undo_sorting(folder: Path, *, relabelled: bool = False) -> bool:
    """Undo a sorting (or `relabelled` photos) and say what is left; tell whether anything is."""
    from regnet.inference.sorting import sorting_lock, undo

    if not folder.is_dir():
        raise OutputError(f"{folder}: no such folder")
    with sorting_lock(folder):
        count, left = undo(folder, relabelled=relabelled)
    for target in left:
        say(f"{target}: left, for it was changed, or its old place is taken")
    were = counted(count, "photo is where it was", "photos are where they were")
    say(f"{folder}: {were}")
    return bool(left)


def _write(
    results: Iterator[Prediction], output: Path | None, format: OutputFormat, wanted: Wanted
) -> int:
    """Write the results and return how many failed; a summary of a file is on standard error."""
    done = failed = 0
    try:
        screen = sys.stdout if format == "table" else in_utf8(sys.stdout)
        with open_writer(output or screen, format, wanted) as write:
            for prediction in results:
                write(prediction)
                done += 1
                failed += prediction.error is not None
    except KeyboardInterrupt:
        if output is not None:
            written = part_of(output) if part_of(output).exists() else output
            say(f"{written}: {counted(done, 'image')}, {failed:,} failed, then interrupted")
        raise
    if output is not None:
        say(f"{output}: {counted(done, 'image')}, {failed:,} failed")
    return failed


def _classify_on_ray(
    input: Input,
    results: Wanted,
    output: Output,
    spread: Spread,
    limits: DecodeLimits,
    models: Store,
) -> int:
    """Classify the sources into a folder, print a summary, and return how many failed."""
    folder = output.folder(offline=models.offline)
    choice = input.choice
    if choice.device != CPU:
        raise UnknownModelError(f"--ray runs on CPUs: leave out the device {choice.device}")
    with models.library() as library:
        path = library.ir(choice.model, precision=choice.precision)
    from regnet.cluster.batch import classify_batch
    from regnet.cluster.session import connected
    from regnet.cluster.worker import BatchJob
    from regnet.inference.classify import Classifier

    classifier = Classifier(path, precision=choice.precision, name=choice.model)
    results = input.competing(results, classifier.labels)
    batch_size = input.batch_size or BATCH_SIZE
    classifier.require_possible(results, batch_size)
    job = BatchJob(
        model=path,
        sources=input.photos,
        wanted=results,
        precision=choice.precision,
        batch_size=batch_size,
        offline=models.offline,
        limits=limits,
        **vars(spread),
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
    for line in summary.lines(folder, job.price):
        say(line)
    return summary.failed
