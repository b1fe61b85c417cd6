"""`regnet benchmark`: how fast a model is on this machine."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regnet.cli.console import interruptible, print_json, say, track
from regnet.cli.options import HtmlReport, Model, Store, grouped
from regnet.cli.outputs import require_html, write_html
from regnet.cli.progress import download_display
from regnet.conversion.store import Library

if TYPE_CHECKING:
    from regnet.benchmarking.benchmark import Plan
    from regnet.system.timing import Turn

HELP = """Measure how fast a model is on this machine.

MODEL is a card's name, `bundled`, an IR (.xml) or a checkpoint. Latency percentiles at batch 1 \
and the best throughput, in each precision. All take turns in rounds; figures are medians. The \
last line is one JSON object.

--end-to-end measures from JPEG files to labels, beside what decoding and engine allow together.

Exit status: 0 measured, 2 could not run, 130 interrupted.

Examples:

  regnet benchmark bundled

  regnet benchmark regnetx-3.2gf --end-to-end photos/ --html speed.html

  regnet benchmark my.xml --precision f32,int8 --rounds 9 --json
"""


def register(app: typer.Typer) -> None:
    """Add the command to an application."""
    app.command("benchmark", help=HELP)(grouped(benchmark))


def benchmark(
    model: Model,
    photos: Annotated[
        Path | None,
        typer.Option("--end-to-end", metavar="FOLDER", help="Measure from these JPEGs to labels"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Of f32,bf16,int8; default: all that the model has"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1024, help="Images inferred at once")] = 8,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Turns of each; default: by --seconds")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.0, help="Time for each part, 3 rounds at least")
    ] = 30.0,
    most: Annotated[
        int, typer.Option("--photos", min=1, help="How many of the photos, taken evenly")
    ] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print only the JSON line")] = False,
    html: HtmlReport = None,
    *,
    store: Store,
) -> None:
    """Measure and print."""
    require_html(html)
    models = store.library()
    with interruptible():
        from regnet.benchmarking.benchmark import Plan, parse_precisions
        from regnet.benchmarking.end_to_end import find_jpegs

        plan = Plan(
            model=model,
            precisions=parse_precisions(precision) if precision is not None else None,
            batch_size=batch_size,
            rounds=rounds,
            seconds=seconds,
            photos=tuple(find_jpegs(photos, most=most)) if photos is not None else (),
        )
        with download_display() as on_event:
            replace(models, on_event=on_event).ir(model)
        _run(plan, models, as_json=as_json, html=html)


def _run(plan: "Plan", models: Library, *, as_json: bool, html: Path | None) -> None:
    """Measure, print the figures and write the report."""
    from regnet.benchmarking.benchmark import benchmark as measure_all
    from regnet.benchmarking.table import as_text

    found = measure_all(plan, library=models, watch=_watch, say=say)
    if html is not None:
        from regnet.benchmarking.page import benchmark_page

        write_html(html, benchmark_page(found))
    if not as_json:
        typer.echo(as_text(found) + "\n")
    print_json(found.to_dict())


def _watch(turns: "Sequence[Turn]") -> "Iterable[Turn]":
    """Show the turns and the time left on a terminal."""
    return track(turns, "measuring", lambda: len(turns), "turns")
