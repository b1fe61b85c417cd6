"""IR -> INT8 IR, with how far it agrees with the original on photos it was not made with."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from regnet.conversion.store import Library
from regnet.data.labelled import Unreadable
from regnet.inference.result import readable_rows
from regnet.ir.assumptions import warn_assumed
from regnet.ir.engine import Engine, read_model
from regnet.ir.graph import read_graph
from regnet.ir.metadata import ModelMetadata
from regnet.ir.records import Certificate
from regnet.quantization.int8_graph import Int8Graph, int8_graph
from regnet.quantization.photo_sets import draw_photos
from regnet.quantization.trial import Layers, Speed, Trial
from regnet.statistics.agreement import Agreement
from regnet.system.cache import cache_dir as default_cache_dir
from regnet.system.errors import ModelError, NoGainError, OutputError, QuantizationError, reason_of
from regnet.system.files import new_folder_beside, replace_all
from regnet.system.json_text import plain_fields
from regnet.system.parallel import Watch, cores, unwatched

SAMPLES: Final = 300
CHECKS: Final = 2000
MIN_AGREEMENT: Final = 0.99

_MAX_RESTORED: Final = 0.5  # of the multiplications: with more it is hardly an INT8 model
_MAX_LAYERS: Final = 0.9


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """An INT8 model and what was measured of it.

    `agreement` is with the original in f32, on the photos that certify; `chosen_on` others chose
    the layers. `agreement_before` and `speed_before` are those of the model with every layer in
    INT8, None if no layer is restored. `layers` could be INT8; `restored` are in FP32, the most
    sensitive first. `unreadable` photos and `duplicates` were skipped. `no_gain` says why the model
    is not worth using, if it was written by `force`; `assumed` is the original's.
    """

    path: Path
    files: tuple[str, ...]
    certificate: Certificate
    agreement: Agreement
    speed: Speed
    agreement_before: Agreement | None
    speed_before: Speed | None
    layers: int
    chosen_on: int
    no_gain: tuple[str, ...]
    unreadable: tuple[Unreadable, ...]
    duplicates: int
    assumed: tuple[str, ...] = ()

    @property
    def restored(self) -> tuple[str, ...]:
        """The layers that are in FP32."""
        return self.certificate.restored

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain JSON values, as docs/quantize.md lists them."""
        before = self.agreement_before
        return plain_fields(self) | {
            "files": [str(self.path.parent / name) for name in self.files],
            "agreement": _agreement_values(self.agreement),
            "agreement_before": before and _agreement_values(before),
            "restored": list(self.restored),
            "unreadable": readable_rows(self.unreadable),
        }


def _agreement_values(found: Agreement) -> dict[str, Any]:
    return asdict(found) | {"flips": readable_rows(found.flips)}


def quantize(
    model: str | Path,
    calibration: str | Path,
    *,
    agreement: str | Path | None = None,
    samples: int = SAMPLES,
    checks: int = CHECKS,
    min_agreement: float = MIN_AGREEMENT,
    folder: str | Path = ".",
    seconds: float = 6.0,
    entry: str | None = None,
    force: bool = False,
    cache_dir: str | Path | None = None,
    offline: bool = False,
    library: Library | None = None,
    watch: Watch = unwatched,
) -> Quantization:
    """Write the INT8 model of another to `<folder>/<name>-int8.xml`; return what was measured.

    `model` is a card's name, `bundled`, an IR, ONNX or a checkpoint. `samples` photos of
    `calibration` (a folder or archive of unlabelled photos) set the ranges. Up to `checks` others,
    of `agreement` if given, are split in two: one half chooses how many of the most sensitive
    layers stay in FP32 so that the top class is that of f32 on `min_agreement` of photos; the other
    half certifies that choice, once. `seconds` go into measuring speed. The same photos give the
    same file.

    Raises `QuantizationError` if there are too few photos, `AgreementError` if the agreement is out
    of reach or not certified, `NoGainError` unless `force` if most of the model stays in FP32 or it
    is slower than bf16, `ModelError`, `UnknownModelError`, `DownloadError`, `MissingExtraError`,
    `OutputError`. Nothing is written then.
    """
    _require_values(samples, checks, min_agreement)
    library = library or Library(folder=default_cache_dir(cache_dir), offline=offline, entry=entry)
    source = library.ir(model)
    original = read_model(source)
    warn_assumed(model, original.metadata)
    _require_quantizable(original.metadata, source)
    engine = Engine(original, streams=cores())
    counts = {"samples": samples, "checks": checks}
    photos = draw_photos(
        calibration, agreement, engine.pixels, **counts, watch=watch, offline=library.offline
    )
    graphs = int8_graph(read_graph(source), photos.calibration.crops, watch=watch)
    path = Path(folder) / f"{source.stem.removesuffix('-fp16')}-int8.xml"
    try:
        with new_folder_beside(path) as scratch:
            trial = Trial(graphs, engine, photos, scratch=scratch, watch=watch)
            chosen = trial.search(min_agreement)
            restored = chosen.restored
            no_gain = _barely_int8(restored, graphs, engine.metadata.name, min_agreement)
            more = "calibrate with more photos (--samples), " if samples < SAMPLES else ""
            _require_gain(no_gain, f"{more}lower --min-agreement", force)
            certificate = trial.certificate(chosen, min_agreement)
            trial.write(restored, path.stem, certificate=certificate)
            for _ in watch(range(1), "measuring speed", 1):
                speeds = trial.speeds(source, [restored, ()] if restored else [()], seconds)
            slow = _slower(speeds[0], engine.metadata.name)
            _require_gain(slow, "use --precision bf16 or f32", force)
            files = (path.with_suffix(".bin").name, path.name)
            replace_all(scratch, path.parent, files)
    except OSError as exc:
        raise OutputError(f"cannot write to {folder}: {reason_of(exc)}") from exc
    return Quantization(
        path=path,
        files=files,
        certificate=certificate,
        agreement=chosen.agreement,
        speed=speeds[0],
        agreement_before=chosen.before,
        speed_before=speeds[1] if restored else None,
        layers=len(graphs.multiplications),
        chosen_on=len(photos.agreement) // 2,
        no_gain=(*no_gain, *slow),
        unreadable=photos.unreadable,
        duplicates=photos.duplicates,
        assumed=original.metadata.assumed,
    )


def _require_gain(no_gain: tuple[str, ...], remedy: str, force: bool) -> None:
    """Raise `NoGainError` if there is a reason not to use the model, unless forced."""
    if no_gain and not force:
        raise NoGainError(no_gain[0], remedy)


def _barely_int8(
    restored: Layers, graphs: Int8Graph, name: str, min_agreement: float
) -> tuple[str, ...]:
    """Return a sentence if most of the model had to stay in FP32."""
    products = graphs.multiplications
    share = sum(products[layer] for layer in restored) / sum(products.values())
    if share <= _MAX_RESTORED and len(restored) <= _MAX_LAYERS * len(products):
        return ()
    return (
        f"{name}: to agree with FP32 on {min_agreement:.2%} of photos, {len(restored)} of its "
        f"{len(products)} layers ({share:.0%} of the multiplications) must stay in FP32",
    )


def _slower(speed: Speed, name: str) -> tuple[str, ...]:
    """Return a sentence if the model is slower than the original in bf16, or f32 without bf16."""
    kind, ratio = ("f32", speed.vs_f32) if speed.vs_bf16 is None else ("bf16", speed.vs_bf16)
    if ratio >= 1:
        return ()
    return (
        f"{name}: INT8 is slower than {kind}: {ratio:.2f} x {kind}, {speed.int8:,.0f} images/s",
    )


def _require_values(samples: int, checks: int, min_agreement: float) -> None:
    if samples < 1 or checks < 1 or not 0 <= min_agreement <= 1:
        raise QuantizationError(
            f"samples={samples} and checks={checks} must be at least 1, and "
            f"min_agreement={min_agreement} from 0 to 1"
        )


def _require_quantizable(metadata: ModelMetadata, path: Path) -> None:
    if metadata.precision == "int8":
        raise ModelError(f"{path}: is an INT8 model already; name the one it was made from")
    if metadata.preprocessing == "graph":
        raise ModelError(
            f"{path}: its graph makes the crop; quantize the model converted without "
            "--preprocessing graph"
        )
