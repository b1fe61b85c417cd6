"""A model's name -> a classifier ready to run."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from regnet.conversion.store import Library
from regnet.inference.classify import Classifier
from regnet.inference.predictors import default_precision
from regnet.ir.metadata import InferencePrecision
from regnet.system.cache import cache_dir as default_cache_dir
from regnet.system.devices import CPU, canonical_device, require_device
from regnet.zoo.catalogue import DEFAULT_MODEL
from regnet.zoo.events import Event, OnEvent, ignore


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    device: str = CPU,
    precision: InferencePrecision | None = None,
    cache_dir: str | Path | None = None,
    offline: bool = False,
    mirrors: str | tuple[str, ...] = (),
    entry: str | None = None,
    progress: bool = False,
) -> Classifier:
    """Return the classifier of a card's name, `bundled`, an IR (.xml) or a checkpoint file.

    Weights are downloaded, verified and converted once and kept in `cache_dir`. `device` is `CPU`,
    `GPU`, `NPU`, `AUTO` or `cuda`; `regnet doctor --self` lists those of this machine. `precision`
    is "f32" (exact, the default), "bf16" (that of `cuda`, and faster on CPUs with bf16) or "int8"
    (after `regnet quantize`). `mirrors` are base URLs that are tried first; `offline` never uses
    the network, not for images either. `entry` names one of several networks in a checkpoint file.
    `progress` shows a bar while weights are downloaded, on a terminal or in a notebook.
    Warns with `AssumptionWarning` of what the checkpoint does not say and had to be assumed.
    Raises `UnknownModelError`, `DownloadError`, `WeightsError`, `ConversionError`, `ModelError`.
    """
    device = canonical_device(device)
    require_device(device)
    precision = precision or default_precision(device)
    mirrors = (mirrors,) if isinstance(mirrors, str) else mirrors
    folder = default_cache_dir(cache_dir)
    with _download_bar() if progress else nullcontext(ignore) as on_event:
        library = Library(
            folder=folder, offline=offline, mirrors=mirrors, entry=entry, on_event=on_event
        )
        path = library.ir(model, precision=precision)
    return Classifier(
        path,
        device=device,
        precision=precision,
        compiled_cache=library.compiled,
        offline=offline,
        name=str(model),
    )


@contextmanager
def _download_bar() -> Iterator[OnEvent]:
    """Give a listener for the events of a download that shows a bar from its start on."""
    from rich.progress import DownloadColumn, Progress

    with Progress(*Progress.get_default_columns(), DownloadColumn()) as display:

        def show(event: Event) -> None:
            if event.event == "start" and not display.task_ids:
                display.add_task(event.model)
            if display.task_ids and event.event in ("start", "progress", "done"):
                display.update(display.task_ids[0], completed=event.bytes, total=event.total)

        yield show
