"""`regnet space sample`: networks drawn from a design space."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from regnet.cli.console import require_writable, say
from regnet.cli.options import SmallStem
from regnet.cli.progress import track
from regnet.system.errors import SpaceError
from regnet.system.json_text import json_text
from regnet.system.option import Options, argument, option
from regnet.system.text import parse_count

if TYPE_CHECKING:
    from regnet.space.sampling import Window


class Ranges(Options):
    """What networks may cost."""

    macs: str | None = option(None, "Range of MACs, such as 360M:400M", "LOW:HIGH")
    params: str | None = option(None, "Range of parameters, such as :5M", "LOW:HIGH")
    acts: str | None = option(None, "Range of activations", "LOW:HIGH")

    def limits(self) -> "Window":
        """Return the ranges as numbers; raises `SpaceError`."""
        from regnet.space.sampling import Window

        return Window(macs=_bounds(self.macs), params=_bounds(self.params), acts=_bounds(self.acts))


def _bounds(text: str | None) -> tuple[int, int] | None:
    """Return the ends of a range such as 360M:400M; raises `SpaceError`."""
    if text is None:
        return None
    low, colon, high = text.partition(":")
    least, most = parse_count(low.strip() or "0"), parse_count(high.strip() or f"{2**63 - 1}")
    if not colon or least is None or most is None or least > most:
        raise SpaceError(f"{text!r} is not a range: write LOW:HIGH, such as 360M:400M or :5M")
    return least, most


class _Sample(Options):
    space: str = argument("Design space, see above", "SPACE")
    count: int = option(100, "Number of networks, all different", "-n", min=1, max=10_000_000)
    seed: int = option(0, "Random seed", min=0)
    output: Path | None = option(None, "Write to FILE", "-o", "FILE")


class _Networks(Ranges, SmallStem):
    resolution: int = option(
        224, "Image size that MACs are counted for", "PIXELS", min=1, max=16384
    )
    classes: int = option(1000, "Number of classes", min=1, max=1_000_000)
    stages: int = option(4, "Number of stages", min=1, max=8)


def sample(sample: _Sample, networks: _Networks) -> None:
    """Draw networks from a design space, one JSON object per line.

    SPACE is one of the paper's: anynetx-a (free), -b (shared bottleneck), -c (shared group width),
    -d (widths never decrease), -e (depths never decrease), regnet (unrestricted), regnetx and
    regnety (b = 1, d <= 40, wm >= 2, no more parameters and activations than good models have).

    A range is LOW:HIGH with K, M or G for thousands, millions and billions; either may be missing.

    Exit status: 0 done, 2 could not run (for example, almost no network is within the ranges).

      regnet space sample regnetx -n 100 --macs 360M:400M -o population.jsonl
      regnet space sample anynetx-e --small-stem --resolution 64 --macs :20M
    """
    from regnet.network.spec import spec_to_dict
    from regnet.space.networks import Frame
    from regnet.space.sampling import sample as draw
    from regnet.space.sampling import space_by_name
    from regnet.system.files import whole_file

    require_writable(sample.output)
    frame = Frame(image_size=networks.resolution, classes=networks.classes)
    if networks.small_stem:
        frame = frame.with_small_stem()
    space, window = replace(space_by_name(sample.space), stages=networks.stages), networks.limits()
    drawn = draw(space, sample.count, seed=sample.seed, window=window, frame=frame)
    lines = (json_text(spec_to_dict(network.spec)) + "\n" for network in drawn)
    if sample.output is None:
        sys.stdout.writelines(lines)
        return
    with whole_file(sample.output) as file:
        shown = track(lines, "drawing", sample.count, "networks")
        file.writelines(line.encode() for line in shown)
    say(f"{sample.output}: {sample.count:,} networks of {space.name}, {window}")
