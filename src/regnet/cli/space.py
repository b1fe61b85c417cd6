"""`regnet space`: samples of the design space."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from regnet.cli import space_analyze, space_search, space_sweep
from regnet.cli.console import interruptible, say, track
from regnet.cli.outputs import require_writable
from regnet.cli.ranges import Range, bounds
from regnet.system.json_text import json_text

HELP = "The design space of RegNets: samples of it."

SAMPLE_HELP = """Draw networks from a design space, one JSON object a line.

SPACE is one of the paper's: anynetx-a (free), -b (shared bottleneck), -c (shared group width), \
-d (widths that never fall), -e (depths that never fall), regnet (unrestricted), regnetx and \
regnety (b = 1, d <= 40, wm >= 2, and no more parameters and activations than good models have).

A range is LOW:HIGH, either may be missing, with K, M or G for thousands, millions and milliards.

Exit status: 0 done, 2 could not run (almost no network is within the ranges, for one).

Examples:

  regnet space sample regnetx -n 100 --macs 360M:400M -o population.jsonl

  regnet space sample anynetx-e -n 50 --seed 3 --small-stem --resolution 64 --macs 10M:20M
"""


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    group = typer.Typer(no_args_is_help=True, help=HELP)
    group.command("sample", help=SAMPLE_HELP)(sample)
    space_analyze.register(group)
    space_sweep.register(group)
    space_search.register(group)
    app.add_typer(group, name="space")


def sample(
    space: Annotated[str, typer.Argument(help="The space, see above", show_default=False)],
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=10_000_000, help="Different networks")
    ] = 100,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same networks")] = 0,
    macs: Range = None,
    params: Range = None,
    acts: Range = None,
    resolution: Annotated[
        int, typer.Option(min=1, max=16384, help="Pixels of the image that MACs are counted for")
    ] = 224,
    classes: Annotated[int, typer.Option(min=1, max=1_000_000, help="Classes")] = 1000,
    stages: Annotated[int, typer.Option(min=1, max=8, help="Stages")] = 4,
    small_stem: Annotated[
        bool, typer.Option("--small-stem", help="The stem for images of 32 to 64 pixels")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write")
    ] = None,
) -> None:
    """Write the sample."""
    from dataclasses import replace

    from regnet.network.spec import spec_to_dict
    from regnet.space.sampling import Frame, Window
    from regnet.space.sampling import sample as draw
    from regnet.space.spaces import space_by_name
    from regnet.system.files import whole_file

    require_writable(output)
    frame = Frame(image_size=resolution, classes=classes)
    if small_stem:
        frame = frame.with_small_stem()
    window = Window(macs=bounds(macs), params=bounds(params), acts=bounds(acts))
    chosen = replace(space_by_name(space), stages=stages)
    networks = draw(chosen, count, seed=seed, window=window, frame=frame)
    lines = (json_text(spec_to_dict(one.spec)) + "\n" for one in networks)
    with interruptible():
        if output is None:
            sys.stdout.writelines(lines)
            return
        with whole_file(output) as file:
            shown = track(lines, "drawing", lambda: count, unit="networks")
            file.writelines(line.encode() for line in shown)
    say(f"{output}: {count:,} networks of {chosen.name}, {window}")
