"""Variants of an INT8 model: which layers stay in FP32, how they agree, how fast they are.

One half of the check photos chooses the layers. The other half certifies them: it is used once,
after the choice, so the certificate's lower bound is above the truth in at most 5 % of all runs.
Choosing asks for more than certifying (a lower bound instead of a share), so that most choices
pass.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from regnet.ir.engine import Engine, read_model
from regnet.ir.graph import write_ir
from regnet.ir.metadata import InferencePrecision
from regnet.ir.records import Certificate
from regnet.quantization.int8_graph import Int8Graph
from regnet.quantization.photo_sets import CalibrationPhotos, Crops
from regnet.statistics.agreement import Agreement, agreement, lower_bound
from regnet.system.errors import AgreementError
from regnet.system.machine import this_machine
from regnet.system.parallel import BATCH_SIZE, Watch, cores
from regnet.system.timing import Contestant, Timing, measure, ratio, side_by_side
from regnet.system.version import TOOL_VERSION

Agreeing = Callable[[int, slice], int]
"""`agreeing(n, part)`: on how many photos of the part the top class is FP32's, n layers in FP32."""

_RANKING: Final = 64  # calibration photos: a mean KL is a smooth figure, so a few tell

Layers = tuple[str, ...]


def halves(photos: int) -> tuple[slice, slice]:
    """Return the check photos that choose the layers, and those that certify them."""
    return slice(photos // 2), slice(photos // 2, photos)


@dataclass(frozen=True)
class Verdict:
    """`restored` layers in FP32 agree on `agreeing` of `images` photos, at least `low` (95 %).

    `passed`: whether that share is the one asked for.
    """

    restored: int
    agreeing: int
    images: int
    low: float
    passed: bool


def certify(layers: int, photos: int, agreeing: Agreeing, min_agreement: float) -> Verdict | None:
    """Choose how many of the ranked layers to restore, and certify that choice once.

    None if not even restoring all `layers` is enough on the photos that choose.
    """
    choosing, certifying = halves(photos)
    needed = hits_needed(photos // 2, min_agreement)
    restored = fewest(layers, lambda n: agreeing(n, choosing) >= needed)
    if restored is None:
        return None
    images = photos - photos // 2
    hits = agreeing(restored, certifying)
    passed = hits / images >= min_agreement
    return Verdict(restored, hits, images, lower_bound(hits, images), passed)


def hits_needed(images: int, share: float) -> int:
    """Return the fewest hits whose 95 % lower bound is `share`; all images if that takes more."""
    hits = fewest(images, lambda hits: lower_bound(hits, images) >= share)
    return images if hits is None else hits


def fewest(most: int, holds: Callable[[int], bool]) -> int | None:
    """Return the smallest n in 0..most with `holds(n)`, or None. Bisection: holds is monotonic."""
    if holds(0):
        return 0
    if most < 1 or not holds(most):
        return None
    return bisect_left(range(most), True, lo=1, key=holds)


@dataclass(frozen=True)
class Speed:
    """Images a second of the engine alone, in batches of 8, and how many times faster INT8 is.

    `bf16` and `vs_bf16` are None where the CPU has no bfloat16.
    """

    f32: float
    bf16: float | None
    int8: float
    vs_f32: float
    vs_bf16: float | None


@dataclass(frozen=True)
class Chosen:
    """The layers of a variant that are in FP32, and its agreement with the original.

    `agreement` is on the photos that certify, which were not used to choose the layers. `before`
    is that of every layer in INT8 on the same photos; None if no layer is restored.
    """

    restored: Layers
    agreement: Agreement
    before: Agreement | None = None


class Trial:
    """Chooses which layers of an INT8 model to keep in FP32; `engine` runs the original in f32.

    Variants are written to the folder `scratch` and read back: what is measured is what users run.
    """

    def __init__(
        self,
        graphs: Int8Graph,
        engine: Engine,
        photos: CalibrationPhotos,
        *,
        scratch: Path,
        watch: Watch,
    ) -> None:
        self._graphs, self._photos, self._scratch, self._watch = graphs, photos, scratch, watch
        self._metadata = replace(
            engine.metadata,
            precision="int8",
            version=TOOL_VERSION,
            certificate=None,
            calibration=None,
        )
        self._expected = self._predict(engine, photos.agreement, "running f32")
        self._choosing, self._certifying = halves(len(photos.agreement))
        self._known: dict[tuple[Layers, int], Agreement] = {}
        self._few = photos.calibration.part(slice(_RANKING))
        self._expected_of_few = np.concatenate(list(_rows(engine, self._few)))

    def search(self, min_agreement: float) -> Chosen:
        """Return the fewest layers to restore for this agreement, certified on other photos.

        Raises `AgreementError` if no number of layers is enough on the photos that choose, or the
        choice misses `min_agreement` on those that certify.
        """
        verdict = certify(
            len(self._graphs.multiplications),
            len(self._photos.agreement),
            lambda count, part: self._agreement(self._ranked(count), part).top1.hits,
            min_agreement,
        )
        if verdict is None:
            raise AgreementError(self._out_of_reach(min_agreement))
        restored = self._ranked(verdict.restored)
        certified = self._agreement(restored, self._certifying)
        if not verdict.passed:
            raise AgreementError(self._missed(restored, certified, min_agreement))
        before = self._agreement((), self._certifying) if restored else None
        return Chosen(restored, certified, before)

    def certificate(self, chosen: Chosen, least: float) -> Certificate:
        """Return what travels inside a variant."""
        found = chosen.agreement
        return Certificate(
            agreement=found.top1.value,
            low=found.top1_at_least,
            photos=found.images,
            kl=found.mean_kl,
            min_agreement=least,
            calibration_photos=len(self._photos.calibration),
            restored=chosen.restored,
        )

    def write(self, restored: Layers, name: str, *, certificate: Certificate | None) -> Path:
        """Write a variant to the scratch folder as `<name>.xml` and .bin; return its .xml."""
        graph = self._graphs.restored(restored)
        metadata = replace(self._metadata, certificate=certificate)
        path = self._scratch / f"{name}.xml"
        path.with_suffix(".bin").unlink(missing_ok=True)  # one that is in use stays as it is
        write_ir(graph, metadata, path)
        return path

    def speeds(self, original: Path, variants: Sequence[Layers], seconds: float) -> list[Speed]:
        """Return the speed of each variant, measured in turns with the original's."""
        found = measure(self._contestants(original, variants), seconds=seconds)
        return [_speed(found, str(number)) for number in range(len(variants))]

    def _contestants(self, original: Path, variants: Sequence[Layers]) -> list[Contestant]:
        kinds: tuple[InferencePrecision, ...] = ("f32", "bf16")
        engines: dict[str, Engine] = {
            kind: Engine(read_model(original), precision=kind, streams=cores())
            for kind in kinds[: 2 if this_machine().has_bf16 else 1]
        }
        engines |= {str(number): self._engine(v) for number, v in enumerate(variants)}
        batch = np.stack(self._photos.calibration.part(slice(BATCH_SIZE)).crops)
        calls = {
            name: side_by_side(partial(engine.infer, batch), workers=cores())
            for name, engine in engines.items()
        }
        return [Contestant(name, c.run, c.work * len(batch)) for name, c in calls.items()]

    def _agreement(self, restored: Layers, part: slice) -> Agreement:
        """Return how a variant agrees with the original on some of the check photos."""
        key = (restored, part.start or 0)
        if key not in self._known:
            what = f"running INT8, {len(restored)} layers in FP32" if restored else "running INT8"
            photos = self._photos.agreement.part(part)
            rows = self._predict(self._engine(restored), photos, what)
            self._known[key] = agreement(self._expected[part], rows, list(photos.sources))
        return self._known[key]

    def _ranked(self, count: int) -> Layers:
        """Return the `count` most sensitive layers; ranking them takes a while."""
        return self._ranking[:count] if count else ()

    @cached_property
    def _ranking(self) -> Layers:
        """The layers ranked by the damage that each does alone in INT8."""
        layers = list(self._graphs.multiplications)
        damage = {}
        for layer in self._watch(layers, "ranking layers", len(layers)):
            engine = self._engine(tuple(other for other in layers if other != layer))
            rows = np.concatenate(list(_rows(engine, self._few)))
            damage[layer] = agreement(self._expected_of_few, rows).mean_kl
        return ranked(damage, self._graphs.multiplications)

    def _engine(self, restored: Layers) -> Engine:
        path = self.write(restored, "trial", certificate=None)
        return Engine(read_model(path), precision="int8", streams=cores())

    def _predict(self, engine: Engine, photos: Crops, what: str) -> NDArray[np.float32]:
        count = -(-len(photos) // BATCH_SIZE)
        return np.concatenate(list(self._watch(_rows(engine, photos), what, count)))

    def _out_of_reach(self, min_agreement: float) -> str:
        layers = len(self._graphs.multiplications)
        before = self._agreement((), self._choosing)
        best = self._agreement(self._ranked(layers), self._choosing)
        return (
            f"{self._metadata.name}: INT8 agrees with FP32 on {before.top1.value:.2%} of "
            f"{before.images:,} photos, and on {best.top1.value:.2%} with all {layers} layers in "
            f"FP32; {min_agreement:.2%} is asked. Nothing was written: lower --min-agreement"
        )

    def _missed(self, restored: Layers, certified: Agreement, min_agreement: float) -> str:
        return (
            f"{self._metadata.name}: INT8 with {len(restored)} of "
            f"{len(self._graphs.multiplications)} layers in FP32 agrees with FP32 on "
            f"{certified.top1.value:.2%} of the {certified.images:,} photos kept to certify it (at "
            f"least {certified.top1_at_least:.2%} with 95 % confidence); {min_agreement:.2%} is "
            "asked. Nothing was written. These photos cannot certify another try: check on more or "
            "other photos (--checks, --agreement), or lower --min-agreement"
        )


def _rows(engine: Engine, photos: Crops) -> Iterator[NDArray[np.float32]]:
    """Yield the probabilities (8, classes) of a batch after the other, computed side by side."""
    starts = range(0, len(photos), BATCH_SIZE)
    with ThreadPoolExecutor(cores()) as pool:
        yield from pool.map(
            lambda start: engine.infer(np.stack(photos.crops[start : start + BATCH_SIZE])), starts
        )


def _speed(found: Mapping[str, Timing], name: str) -> Speed:
    int8, f32, bf16 = found[name], found["f32"], found.get("bf16")
    return Speed(
        f32=f32.rate,
        bf16=bf16.rate if bf16 else None,
        int8=int8.rate,
        vs_f32=ratio(int8, f32),
        vs_bf16=ratio(int8, bf16) if bf16 else None,
    )


def ranked(damage: Mapping[str, float], multiplications: Mapping[str, int]) -> tuple[str, ...]:
    """Return the layers, most damage per multiplication first.

    `damage` is that of each layer alone in INT8 (mean KL in nats). Restoring layers in this order
    removes most damage for the arithmetic that becomes slow again.
    """
    return tuple(sorted(damage, key=lambda layer: (-damage[layer] / multiplications[layer], layer)))
