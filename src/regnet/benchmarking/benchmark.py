"""How fast a model is on this machine, beside the machine's ceiling and beside other engines."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from regnet.assumptions import warn_assumed
from regnet.benchmarking.ceiling import Gemm, gemm
from regnet.benchmarking.competitors import NAMES, TORCH, Competitor, Competitors, find_competitors
from regnet.benchmarking.end_to_end import EndToEnd, Setup, end_to_end
from regnet.benchmarking.machine import Machine, this_machine, watch_others
from regnet.benchmarking.timing import Contestant, Timing, Watch, measure, ratio, side_by_side
from regnet.conversion import InferencePrecision
from regnet.engine import ConvertedModel, Engine, read_model
from regnet.errors import ModelError, UnknownModelError
from regnet.graph import graph_cost, read_graph
from regnet.library import Library
from regnet.metadata import ModelMetadata
from regnet.parallel import BATCH_SIZE, cores
from regnet.preprocess import crop_pixels, rgb_pixels
from regnet.samples import sample_photos

PRECISIONS: Final = get_args(InferencePrecision)
PERCENTILES: Final = {"min": 0, "p50": 50, "p90": 90, "p99": 99}
WHOLE_IMAGE: Final = (500, 375)
"""Width and height of the photo that a model takes which makes the crop itself."""

Paths = dict[InferencePrecision, Path]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked for; None in `precisions` is all that the model has.

    Both parts, engines and `photos` to labels, take `rounds`, or as many as fit in `seconds`.
    """

    model: str
    precisions: tuple[InferencePrecision, ...] | None = None
    batch_size: int = BATCH_SIZE
    rounds: int | None = None
    seconds: float = 30.0
    against: tuple[str, ...] = NAMES
    photos: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The machine's best matrix products in one precision, and what they would allow."""

    precision: InferencePrecision
    computed_in: str
    gflops_per_second: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class EngineSpeed:
    """One engine in one precision.

    `latency_ms` are percentiles of one image at a time, with all cores; `images_per_second` the
    best of `by_batch`. `share` is that in units of the ceiling, `times` in units of each other
    engine's.
    """

    engine: str
    version: str
    precision: InferencePrecision
    latency_ms: dict[str, float]
    images_per_second: float
    by_batch: dict[int, float]
    share: float
    times: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What was measured of a model, and where.

    `input` is (H, W, 3) of the image that was inferred; `gflops` those of one. `own_weights` is
    False where the competitors ran random weights, which are as fast. `other_work` is the share of
    the machine that other processes took meanwhile, None where that is not known. `assumed` is the
    model's.
    """

    model: str
    name: str
    input: tuple[int, ...]
    gflops: float
    machine: Machine
    rounds: int
    ceilings: tuple[Ceiling, ...]
    engines: tuple[EngineSpeed, ...]
    absent: dict[str, str]
    own_weights: bool
    other_work: float | None
    assumed: tuple[str, ...] = ()
    end_to_end: EndToEnd | None = None

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
    """Return the IR of each precision that is asked for, or of all that model and machine have.

    Where one is asked for that is not there raises `ModelError`, and all that `Library.ir` does.
    """
    if plan.precisions is not None:
        if "bf16" in plan.precisions and not machine.has_bf16:
            raise ModelError(f"bf16: this CPU ({machine.cpu}) has none; leave it out")
        return {p: library.ir(plan.model, precision=p) for p in plan.precisions}
    path = library.ir(plan.model)
    if read_model(path).metadata.precision == "int8":
        return {"int8": path}
    paths: Paths = {"f32": path}
    if machine.has_bf16:
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
    rivals = find_competitors(
        plan.model,
        metadata,
        library=library,
        names=plan.against,
        batches=(1, plan.batch_size),
        say=say,
    )
    image = example_image(metadata)
    ceilings = {p: gemm(p, workers=cores()) for p in _with_f32(paths, rivals)}
    entries = [
        *(_engine_entry(p, model, image, plan, library) for p, model in models.items()),
        *(_rival_entry(rival, _as_crop(image, metadata), plan) for rival in rivals.present),
    ]
    others = watch_others()
    say(f"{metadata.name}: {len(entries)} engines, {len(ceilings)} ceilings, in turns")
    timings = measure(
        [c for entry in entries for c in entry.contestants]
        + [ceiling.contestant for ceiling in ceilings.values()],
        rounds=plan.rounds,
        seconds=plan.seconds,
        watch=watch,
    )
    flops = _flops(paths)
    result = Benchmark(
        model=plan.model,
        name=metadata.name,
        input=image.shape,
        gflops=flops / 1e9,
        machine=machine,
        rounds=len(next(iter(timings.values())).rounds),
        ceilings=tuple(_ceiling(c, timings[c.contestant.name], flops) for c in ceilings.values()),
        engines=tuple(_speeds(entries, timings, ceilings, flops)),
        absent=rivals.absent,
        own_weights=rivals.own_weights,
        other_work=others(),
        assumed=metadata.assumed,
    )
    if not plan.photos:
        return result
    say(f"{metadata.name}: {len(plan.photos)} photos, from files to labels")
    whole = _end_to_end(plan, paths, rivals, library, watch)
    return replace(result, end_to_end=whole, other_work=others())


def example_image(metadata: ModelMetadata) -> NDArray[Any]:
    """Return a photo as a model takes it: its crop, or 375 x 500 x 3 where it makes the crop."""
    photo = sample_photos()[0]
    if metadata.preprocessing == "graph":
        return rgb_pixels(Image.open(photo).convert("RGB").resize(WHOLE_IMAGE))
    return crop_pixels(photo, metadata.preprocess)


def _as_crop(image: NDArray[Any], metadata: ModelMetadata) -> NDArray[Any]:
    """Return what the competitors take, which do not make the crop themselves."""
    if metadata.preprocessing == "graph":
        return crop_pixels(image, metadata.preprocess)
    return image


def _with_f32(paths: Paths, rivals: Competitors) -> list[InferencePrecision]:
    """Return the precisions that need a ceiling; competitors compute in f32."""
    return [p for p in PRECISIONS if p in paths or (p == "f32" and rivals.present)]


def _flops(paths: Paths) -> float:
    """Return the operations of one image, counted on the floating-point graph where there is one.

    The same work is done in INT8.
    """
    return float(graph_cost(read_graph(next(iter(paths.values())))).flops)


@dataclass(frozen=True)
class _Entry:
    """An engine in one precision, with what is measured of it."""

    engine: str
    version: str
    precision: InferencePrecision
    latency: Contestant
    throughput: dict[int, Contestant]

    @property
    def contestants(self) -> list[Contestant]:
        return list({c.name: c for c in (self.latency, *self.throughput.values())}.values())


def _engine_entry(
    precision: InferencePrecision,
    model: ConvertedModel,
    image: NDArray[Any],
    plan: Plan,
    library: Library,
) -> _Entry:
    """Return OpenVINO: one image with all cores, and many with a core each."""
    name = f"OpenVINO {precision}"
    alone, many = (
        Engine(model, precision=precision, streams=n, compiled_cache=library.compiled)
        for n in (1, cores())
    )
    latency = Contestant(f"{name} latency", partial(alone.infer, image[None]))
    throughput = {}
    for batch in sorted({1, plan.batch_size}):
        images = np.stack([image] * batch)
        calls = side_by_side(partial(many.infer, images), workers=many.streams)
        throughput[batch] = replace(calls, name=f"{name} x{batch}", work=calls.work * batch)
    return _Entry("OpenVINO", this_machine().openvino, precision, latency, throughput)


def _rival_entry(rival: Competitor, crop: NDArray[Any], plan: Plan) -> _Entry:
    """Return a competitor, which gives each call all cores."""
    latency = Contestant(f"{rival.name} latency", partial(rival.infer, crop[None]))
    throughput = {1: latency}
    if plan.batch_size > 1:
        images = np.stack([crop] * plan.batch_size)
        throughput[plan.batch_size] = Contestant(
            f"{rival.name} x{plan.batch_size}", partial(rival.infer, images), plan.batch_size
        )
    return _Entry(rival.name, rival.version, "f32", latency, throughput)


def _ceiling(found: Gemm, timing: Timing, flops: float) -> Ceiling:
    return Ceiling(
        precision=found.precision,
        computed_in=found.computed_in,
        gflops_per_second=timing.rate / 1e9,
        images_per_second=timing.rate / flops,
    )


def _speeds(
    entries: Sequence[_Entry],
    timings: dict[str, Timing],
    ceilings: dict[InferencePrecision, Gemm],
    flops: float,
) -> list[EngineSpeed]:
    best = {(e.engine, e.precision): _best(e, timings) for e in entries}
    rows = []
    for entry in entries:
        own = best[entry.engine, entry.precision]
        latency = timings[entry.latency.name]
        ceiling = timings[ceilings[entry.precision].contestant.name]
        others = {
            f"{engine} {precision}": timing
            for (engine, precision), timing in best.items()
            if (engine, precision) != (entry.engine, entry.precision)
        }
        rows.append(
            EngineSpeed(
                engine=entry.engine,
                version=entry.version,
                precision=entry.precision,
                latency_ms={n: 1e3 * latency.percentile(q) for n, q in PERCENTILES.items()},
                images_per_second=own.rate,
                by_batch={b: timings[c.name].rate for b, c in entry.throughput.items()},
                share=ratio(own, ceiling) * flops,
                times={name: ratio(own, other) for name, other in others.items()},
            )
        )
    return rows


def _best(entry: _Entry, timings: dict[str, Timing]) -> Timing:
    """Return the timing of the batch with the best throughput."""
    return max((timings[c.name] for c in entry.throughput.values()), key=lambda t: t.rate)


def _end_to_end(
    plan: Plan, paths: Paths, rivals: Competitors, library: Library, watch: Watch
) -> EndToEnd:
    setup = Setup(
        paths=paths,
        photos=plan.photos,
        batch_size=plan.batch_size,
        torch=rivals.get(TORCH),
        own_weights=rivals.own_weights,
        compiled_cache=library.compiled,
    )
    return end_to_end(setup, rounds=plan.rounds, seconds=plan.seconds, watch=watch)
