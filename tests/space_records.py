"""Records for tests of analyses: real networks of real spaces, with errors of a formula."""

import math
from collections.abc import Callable
from dataclasses import replace

from regnet.network.complexity import complexity
from regnet.network.spec import Spec
from regnet.space.networks import Frame
from regnet.space.outcomes import fit_line
from regnet.space.records import RunRecord, Setting
from regnet.space.sampling import Window, sample, space_by_name
from regnet.statistics.draws import Uniforms

SETTING = Setting(
    data="photos", train_photos=2000, val_photos=1000, classes=10, image_size=32, epochs=3,
    recipe="0123456789abcdef",
)  # fmt: skip


def by_line(spec: Spec, noise: float) -> float:
    """Return an error that grows with the distance to a line, and shrinks with depth."""
    depth = sum(stage.depth for stage in spec.stages)
    return 0.35 + 0.12 * fit_line(spec).error + 0.05 / math.sqrt(depth) + 0.06 * noise


def a_record(
    spec: Spec, *, space: str = "regnetx", error: float | None = 0.5, seed: int = 0
) -> RunRecord:
    """Return a record of three epochs; error None is a run that failed."""
    cost = complexity(spec, image_size=SETTING.image_size)
    errors = () if error is None else (0.9, 0.7, error)
    return RunRecord(
        space=space, spec=spec, **vars(cost), setting=SETTING, seed=seed, errors=errors,
        losses=tuple(errors), seconds=1.0, machine="a machine", started="2026-11-23T00:00:00Z",
        tool="0.0.0", failure="out of memory" if error is None else None,
    )  # fmt: skip


def records_of(
    space: str,
    count: int,
    *,
    seed: int = 0,
    error: Callable[[Spec, float], float] = by_line,
) -> list[RunRecord]:
    """Return records of a sample of a space, their errors in steps of 1/1000."""
    frame = Frame(image_size=32, stem_width=16, stem_stride=1, classes=10)
    window = Window(macs=(3_000_000, 6_000_000))
    noises = Uniforms(seed, f"noise {space}").draw(count).tolist()
    drawn = sample(
        replace(space_by_name(space), stages=3), count, seed=seed, window=window, frame=frame
    )
    return [
        a_record(one.spec, space=space, error=round(error(one.spec, noise), 3))
        for one, noise in zip(drawn, noises, strict=True)
    ]
