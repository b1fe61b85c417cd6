"""`regnet.load`: from a model's name to a classifier."""

from pathlib import Path

from regnet.conversion.store import Library
from regnet.inference.classify import Classifier
from regnet.ir.metadata import InferencePrecision
from regnet.system.cache import cache_dir as default_cache_dir


def load(
    model: str | Path = "regnetx-3.2gf",
    *,
    precision: InferencePrecision = "f32",
    cache_dir: str | Path | None = None,
    offline: bool = False,
    mirrors: str | tuple[str, ...] = (),
    entry: str | None = None,
) -> Classifier:
    """Return the classifier of a card's name, `bundled`, an IR (.xml) or a checkpoint file.

    Weights are downloaded, verified and converted once (that needs the extra `torch`) and kept in
    `cache_dir`. `precision` is what the CPU computes in: "f32" exactly, "bf16" faster where it
    can, "int8" a model that `regnet quantize` made. `mirrors` are base addresses
    tried first; `offline` never uses the network, for images neither. `entry` names one of several
    networks in a checkpoint file, as the error about them does.
    Warns with `AssumptionWarning` of what the checkpoint does not say and had to be assumed.
    Raises `UnknownModelError`, `DownloadError`, `WeightsError`, `ConversionError`, `ModelError`.
    """
    mirrors = (mirrors,) if isinstance(mirrors, str) else mirrors
    library = Library(
        folder=default_cache_dir(cache_dir), offline=offline, mirrors=mirrors, entry=entry
    )
    path = library.ir(model, precision=precision)
    return Classifier(
        path,
        precision=precision,
        compiled_cache=library.compiled,
        offline=offline,
        name=str(model),
    )
