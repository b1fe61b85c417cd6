"""`regnet space search`: the most accurate network within a latency on this machine."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from regnet.cli.console import interruptible, print_json, say, stdout
from regnet.cli.options import AsJson
from regnet.cli.outputs import require_html, require_writable, write_html

if TYPE_CHECKING:
    from rich.table import Table

    from regnet.ir.metadata import InferencePrecision
    from regnet.space.search import Found
    from regnet.space.search_results import Trained

HELP = """Find the most accurate network that takes at most so many milliseconds on this machine.

Networks of the spaces regnetx and regnety are drawn, those that seem worth it are measured with \
the real engine (one image, all cores, random weights, which are as fast), and a model fitted to \
the 24 published networks predicts their accuracy. The latency of the answer has been measured \
twice. Printed are the networks that none as fast is more accurate than, and the published ones \
beside what was found at their latency.

-o writes the answer as a spec for `regnet train --model`, --export as a model for `regnet \
benchmark`, --front a report. --train trains the best few for real and ranks them by that. Needs \
the extra `torch`, --train the extra `train`.

Exit status: 0 done, 2 could not run (nothing is that fast, for one), 130 interrupted.

Examples:

  regnet space search --latency-ms 5 --precision int8 -o pick.json --export exported

  regnet space search --latency-ms 20 --space regnetx --front front.html

  regnet space search --latency-ms 5 --resolution 64 --train photos/ --top 3 --epochs 10
"""

WIDTH_WHEN_PIPED = 160


def register(group: typer.Typer) -> None:
    """Add the command to the group."""
    group.command("search", help=HELP)(search)


def search(
    latency_ms: Annotated[
        float, typer.Option("--latency-ms", min=0.01, help="Milliseconds of one image, at most")
    ],
    device: Annotated[str, typer.Option(help="What it is to run on: CPU")] = "CPU",
    precision: Annotated[str, typer.Option(help="f32, bf16 or int8")] = "f32",
    resolution: Annotated[
        int, typer.Option(min=32, max=1024, help="Side of the image in pixels")
    ] = 224,
    space: Annotated[
        list[str] | None,
        typer.Option(help="regnetx or regnety; repeatable [default: both]", show_default=False),
    ] = None,
    candidates: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Networks drawn from each space")
    ] = 20_000,
    measure: Annotated[int, typer.Option(min=12, help="Networks measured, at most")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.json", help="File for the spec")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for a model of it, to measure")
    ] = None,
    front: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a report, one HTML file")
    ] = None,
    train: Annotated[
        str | None, typer.Option(metavar="DATASET", help="Photos to train the best networks on")
    ] = None,
    val: Annotated[str | None, typer.Option(metavar="PATH", help="Photos to validate on")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of the best to train")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each")] = 10,
    records: Annotated[
        Path, typer.Option(metavar="FILE.jsonl", help="Records of the trained networks")
    ] = Path("search.jsonl"),
    as_json: AsJson = False,
) -> None:
    """Search, write what is asked for, and print."""
    require_html(front)
    require_writable(output)
    if train is not None:
        require_writable(records)
    with interruptible():
        from regnet.space.candidates import SPACES, require_spaces
        from regnet.space.measure import LatencySetup
        from regnet.space.search import Plan
        from regnet.space.search import search as run
        from regnet.space.search_results import require_training

        plan = Plan(
            latency_ms=latency_ms,
            setup=LatencySetup(
                precision=cast("InferencePrecision", precision),
                image_size=resolution,
                device=device,
            ),
            spaces=require_spaces(space or SPACES),
            candidates=candidates,
            measure=measure,
            seed=seed,
        )
        if train is not None:
            require_training(train, val)
        found = run(plan, say=say)
        trained: list[Trained] = []
        if train is not None:
            trained = _train(found, train, records, val=val, top=top, epochs=epochs)
        _write(found, trained, output=output, export=export, front=front)
        if as_json:
            from regnet.space.search_results import found_to_dict

            print_json(found_to_dict(found, trained))
        else:
            _show(found, trained)


def _train(
    found: "Found", dataset: str, records: Path, *, val: str | None, top: int, epochs: int
) -> "list[Trained]":
    """Train the best, saying how each came out."""
    from regnet.space.search_results import train_best
    from regnet.system.parallel import cores

    trained = train_best(
        found, dataset, records, val=val, top=top, epochs=epochs, cpus=cores(), say=say
    )
    say(f"{records}: {len(trained)} records")
    return trained


def _write(
    found: "Found",
    trained: "list[Trained]",
    *,
    output: Path | None,
    export: Path | None,
    front: Path | None,
) -> None:
    """Write what is asked for of the best network: of those trained, where any were."""
    from regnet.network.spec import write_spec
    from regnet.space.search_results import export_pick

    best = trained[0].measured if trained else found.pick
    if output is not None:
        write_spec(output, best.network.spec)
        say(f"{output}: written; `regnet train DATASET --model {output}` trains it")
    if export is not None:
        model = next(path for path in export_pick(found, best, export) if path.suffix == ".xml")
        say(f"{export}: written; `regnet benchmark {model}` measures it")
    if front is not None:
        from regnet.space.search_page import search_page

        write_html(front, search_page(found, trained))


def _show(found: "Found", trained: "Sequence[Trained]") -> None:
    """Print the answer, the tables, and what must be known to read them."""
    from regnet.space.search_table import beaten_line, pick_line, remarks

    console = stdout()
    if not console.is_terminal:
        console.width = WIDTH_WHEN_PIPED
    lines = [*remarks(found), *filter(None, [beaten_line(found.rivals)])]
    console.print(pick_line(found), markup=False, highlight=False)
    for table in _tables(found, trained):
        console.print()
        console.print(table, markup=False, highlight=False)
    console.print()
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _tables(found: "Found", trained: "Sequence[Trained]") -> "Iterator[Table]":
    from regnet.space import search_table as lines

    yield _table(lines.FRONT_COLUMNS, lines.front_rows(found))
    yield _table(lines.RIVAL_COLUMNS, lines.rival_rows(found), left=(0, 3))
    if trained:
        yield _table(lines.TRAINED_COLUMNS, lines.trained_rows(trained))


def _table(
    names: "Sequence[str]", rows: "Iterator[tuple[str, ...]]", *, left: tuple[int, ...] = (0,)
) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if place in left else "right")
    for row in rows:
        table.add_row(*row)
    return table
