"""How fast a model is on this machine, in each of its precisions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regnet.benchmarking.end_to_end import EndToEnd, EndToEndSetup, end_to_end
from regnet.conversion.store import Library
from regnet.ir.agreement import DeviceAgreement
from regnet.ir.assumptions import warn_assumed
from regnet.ir.engine import ConvertedModel, read_model
from regnet.ir.engines import Engines
from regnet.ir.graph import read_graph
from regnet.ir.graph_cost import graph_cost
from regnet.ir.metadata import InferencePrecision, ModelMetadata
from regnet.pixels.preprocess import crop_pixels, rgb_pixels
from regnet.pixels.samples import sample_photos
from regnet.system.devices import CPU, is_cuda
from regnet.system.errors import ModelError, UnknownModelError
from regnet.system.machine import Machine, this_machine, watch_others
from regnet.system.timing import Contestant, Timing, Watch, measure, ratio, side_by_side

PRECISIONS: Final = get_args(InferencePrecision)
PERCENTILES: Final = {"min": 0, "p50": 50, "p90": 90, "p99": 99}
WHOLE_IMAGE: Final = (500, 375)
"""Width and height of the photo that a model takes which makes the crop itself."""

Paths = dict[InferencePrecision, Path]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked for; None in `precisions` is all that the model and the device have.

    None in `batch_size` is what the device runs well, on the CPU 8. Both parts, engines and
    `photos` to labels, take `rounds`, or as many as fit in `seconds`.
    """

    model: str
    device: str = CPU
    precisions: tuple[InferencePrecision, ...] | None = None
    batch_size: int | None = None
    rounds: int | None = None
    seconds: float = 30.0
    photos: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EngineSpeed:
    """The engine in one precision.

    `latency_ms` are percentiles of one image at a time, with all cores; `images_per_second` is the
    best of `by_batch`, `times` that in units of each other precision's.
    """

    precision: InferencePrecision
    latency_ms: dict[str, float]
    images_per_second: float
    by_batch: dict[int, float]
    times: dict[str, float]

    @property
    def best_batch(self) -> int:
        """The batch that gave the best throughput."""
        return max(self.by_batch, key=lambda batch: self.by_batch[batch])


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What was measured of a model, and where.

    `input` is (H, W, 3) of the image that was inferred; `gflops` those of one. `other_work` is the
    share of the machine that other processes took meanwhile, None if that is not known. `assumed`
    is the model's. `agreement` has that of each precision with the CPU; none on the CPU.
    """

    model: str
    device: str
    name: str
    input: tuple[int, ...]
    gflops: float
    machine: Machine
    rounds: int
    engines: tuple[EngineSpeed, ...]
    other_work: float | None
    assumed: tuple[str, ...] = ()
    end_to_end: EndToEnd | None = None
    agreement: tuple[DeviceAgreement, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain JSON values."""
        return asdict(self)


def parse_precisions(text: str) -> tuple[InferencePrecision, ...]:
    """Return the precisions in a list such as `f32,int8`; raises `ModelError`."""
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in PRECISIONS]:
        raise ModelError(f"precision {unknown[0]!r} is none of {', '.join(PRECISIONS)}")
    return tuple(p for p in PRECISIONS if p in names)


def find_paths(plan: Plan, *, library: Library, machine: Machine) -> Paths:
    """Return the IR of each precision that is asked for, or of all that model and device have.

    Where one is asked for that is not there raises `ModelError`, and all that `Library.ir` does.
    """
    if plan.precisions is not None:
        if plan.device == CPU and "bf16" in plan.precisions and not machine.has_bf16:
            raise ModelError(f"bf16: this CPU ({machine.cpu}) has none; leave it out")
        return {p: library.ir(plan.model, precision=p) for p in plan.precisions}
    path = library.ir(plan.model)
    if read_model(path).metadata.precision == "int8":
        return {"int8": path}
    paths: Paths = {"f32": path}
    if is_cuda(plan.device):
        return paths | {"bf16": path}
    if plan.device == CPU and machine.has_bf16:
        paths["bf16"] = path
    for source in (plan.model, path):
        try:
            return paths | {"int8": library.ir(source, precision="int8")}
        except UnknownModelError:  # it has no INT8 model, which is no error where none was named
            continue
    return paths


def benchmark(
    plan: Plan,
    *,
    library: Library,
    watch: Watch = iter,
    say: Callable[[str], None] = lambda _: None,
) -> Benchmark:
    """Measure a model as planned; `watch` sees the turns of each part, `say` what is going on.

    Raises what `find_paths` does, and `DatasetError` where no photo can be read.
    """
    machine = this_machine()
    paths = find_paths(plan, library=library, machine=machine)
    models = {p: read_model(path) for p, path in paths.items()}
    metadata = next(iter(models.values())).metadata
    warn_assumed(plan.model, metadata)
    image = example_image(metadata)
    rows = [
        engine_calls(model, precision, image, plan=plan, library=library)
        for precision, model in models.items()
    ]
    agreement = tuple(row.engines.agreement for row in rows if plan.device != CPU)
    others = watch_others()
    say(f"{metadata.name}: {len(rows)} precisions, in turns")
    timings = measure(
        [call for row in rows for call in row.contestants],
        rounds=plan.rounds,
        seconds=plan.seconds,
        watch=watch,
    )
    rounds = len(next(iter(timings.values())).rounds)
    whole = None
    if plan.photos:
        say(f"{metadata.name}: {len(plan.photos)} photos, from files to labels")
        setup = EndToEndSetup(
            paths=paths,
            photos=plan.photos,
            device=plan.device,
            batch_size=plan.batch_size or rows[0].engines.side_by_side.batch,
            compiled_cache=library.compiled,
        )
        whole = end_to_end(setup, rounds=plan.rounds, seconds=plan.seconds, watch=watch)
    return Benchmark(
        model=plan.model,
        device=plan.device,
        name=metadata.name,
        input=image.shape,
        gflops=graph_cost(read_graph(next(iter(paths.values())))).gflops,
        machine=machine,
        rounds=rounds,
        engines=tuple(_speeds(rows, timings)),
        other_work=others(),
        assumed=metadata.assumed,
        end_to_end=whole,
        agreement=agreement,
    )


def example_image(metadata: ModelMetadata) -> NDArray[Any]:
    """Return a photo as a model takes it: its crop, or 375 x 500 x 3 where it makes the crop."""
    photo = sample_photos()[0]
    if metadata.preprocessing == "graph":
        return rgb_pixels(Image.open(photo).convert("RGB").resize(WHOLE_IMAGE))
    return crop_pixels(photo, metadata.preprocess)


@dataclass(frozen=True)
class EngineCalls:
    """The calls that are timed of the engines in one precision: one image, and batches."""

    precision: InferencePrecision
    engines: Engines
    latency: Contestant
    throughput: dict[int, Contestant]

    @property
    def contestants(self) -> list[Contestant]:
        """All of them."""
        return [self.latency, *self.throughput.values()]

    def best(self, timings: dict[str, Timing]) -> Timing:
        """Return the timing of the batch with the best throughput."""
        return max((timings[c.name] for c in self.throughput.values()), key=lambda t: t.rate)


def engine_calls(
    model: ConvertedModel,
    precision: InferencePrecision,
    image: NDArray[Any],
    *,
    plan: Plan,
    library: Library,
) -> EngineCalls:
    """Return the calls of one precision: one image with all cores, and batches on a core each."""
    name = f"{plan.device} {precision}"
    engines = Engines(
        model, device=plan.device, precision=precision, compiled_cache=library.compiled
    )
    alone, many = engines.one_at_a_time, engines.side_by_side
    latency = Contestant(f"{name} latency", partial(alone.infer, image[None]))
    throughput = {}
    for batch in sorted({1, plan.batch_size or many.batch}):
        images = np.stack([image] * batch)
        calls = side_by_side(partial(many.infer, images), workers=many.streams)
        throughput[batch] = replace(calls, name=f"{name} x{batch}", work=calls.work * batch)
    return EngineCalls(precision, engines, latency, throughput)


def _speeds(rows: Sequence[EngineCalls], timings: dict[str, Timing]) -> Iterator[EngineSpeed]:
    best = {row.precision: row.best(timings) for row in rows}
    for row in rows:
        own, latency = best[row.precision], timings[row.latency.name]
        yield EngineSpeed(
            precision=row.precision,
            latency_ms={n: 1e3 * latency.percentile(q) for n, q in PERCENTILES.items()},
            images_per_second=own.rate,
            by_batch={b: timings[c.name].rate for b, c in row.throughput.items()},
            times={p: ratio(own, other) for p, other in best.items() if p != row.precision},
        )
