"""The networks of a sweep: a sample of a space, or those of a file."""

import json
from itertools import islice
from pathlib import Path
from typing import Final

from regnet.network.spec import Spec, spec_from_dict
from regnet.space.sampling import Frame, Window, sample
from regnet.space.spaces import SPACES, Space, space_by_name
from regnet.system.errors import SpaceError, SpecError, UnknownModelError

SAMPLED: Final = 100
"""Networks of a sample, unless told otherwise."""


def open_population(source: str | Path) -> Space | Path:
    """Return the space of that name, or the file of specs; raises `UnknownModelError`."""
    if str(source).lower() in SPACES:
        return space_by_name(str(source))
    path = Path(source)
    if not path.is_file():
        known = ", ".join(SPACES)
        raise UnknownModelError(
            f"{source}: is neither a file of specs nor a design space; known are {known}"
        )
    return path


def read_specs(path: Path, count: int | None = None) -> list[Spec]:
    """Return the specs of a file of JSON lines, the first `count` of them.

    Raises `SpaceError` that names file and line.
    """
    try:
        with path.open(encoding="utf-8") as file:
            numbered = ((n, line) for n, line in enumerate(file, start=1) if line.strip())
            specs = [_spec(path, *pair) for pair in islice(numbered, count)]
    except (OSError, UnicodeDecodeError) as exc:
        raise SpaceError(f"cannot read the specs {path}: {exc}") from exc
    if not specs:
        raise SpaceError(f"{path}: holds no spec")
    return specs


def _spec(path: Path, number: int, line: str) -> Spec:
    try:
        values = json.loads(line)
        if not isinstance(values, dict):
            raise ValueError("it is no object")
        return spec_from_dict(values)
    except (ValueError, RecursionError, SpecError) as exc:
        raise SpaceError(
            f"{path}, line {number}: is no network of `regnet space sample`: {exc}"
        ) from exc


def draw_specs(
    space: Space,
    count: int | None,
    *,
    seed: int,
    window: Window,
    image_size: int,
    classes: int,
    small_stem: bool,
) -> list[Spec]:
    """Return a sample of a space; costs are those on the images that it is trained on."""
    frame = Frame(image_size=image_size, classes=classes)
    if small_stem:
        frame = frame.with_small_stem()
    drawn = sample(space, count or SAMPLED, seed=seed, window=window, frame=frame)
    return [one.spec for one in drawn]
