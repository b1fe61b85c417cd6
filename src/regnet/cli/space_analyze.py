"""`regnet space analyze`: what records of training runs tell of design spaces."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regnet.cli.console import interruptible, print_json, say, stdout
from regnet.cli.outputs import require_html, require_writable, write_html

if TYPE_CHECKING:
    from rich.table import Table

    from regnet.space.analysis import Analysis

WIDTH_WHEN_PIPED = 160

HELP = """Learn from trained networks which design space is better, and what good networks have.

RECORDS are files that `regnet space sweep` wrote, of one space or several, all of one setting.

It gives the error distribution of every space, the differences of spaces, each of the paper's \
findings as confirmed, contradicted or not separated, the best values of every parameter, and how \
near widths are to a line; each figure with a 95 % bootstrap interval. The report has them as plots.

Exit status: 0 done, 2 could not run (records of several settings, for one).

Examples:

  regnet space analyze anynetx-a.jsonl regnetx.jsonl -o report.html

  regnet space analyze records/*.jsonl --json > analysis.json

  regnet space analyze records/*.jsonl --parquet networks.parquet
"""


def register(group: typer.Typer) -> None:
    """Add the command to the group."""
    group.command("analyze", help=HELP)(analyze)


def analyze(
    records: Annotated[
        list[Path],
        typer.Argument(metavar="RECORDS...", help="Files of records", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Report to write, one HTML file"),
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table to write, a row a network")
    ] = None,
    mixed: Annotated[
        bool, typer.Option("--mixed", help="Put runs of several settings together")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all figures as one JSON object")
    ] = False,
) -> None:
    """Analyze, write what is asked for, and print."""
    require_html(output)
    require_writable(parquet)
    with interruptible():
        from regnet.space.analysis import analyze_files
        from regnet.space.analysis_json import analysis_to_dict, rows, write_rows
        from regnet.system.row_writers import require_parquet

        if parquet is not None:
            require_parquet()
        found = analyze_files(records, mixed=mixed, seed=seed)
        if parquet is not None:
            write_rows(parquet, rows(found))
            say(f"{parquet}: written")
        if output is not None:
            from regnet.space.analysis_page import analysis_page

            write_html(output, analysis_page(found))
        if as_json:
            print_json(analysis_to_dict(found))
        else:
            _show(found)


def _show(found: "Analysis") -> None:
    """Print tables and sentences."""
    from regnet.space.analysis_table import failed_lines
    from regnet.space.remarks import remarks

    console = stdout()
    if not console.is_terminal:
        console.width = WIDTH_WHEN_PIPED
    for item in _tables(found):
        console.print(item, markup=False, highlight=False)
        console.print()
    sentences = [one.sentence for one in found.differences]
    for text in [*sentences, *remarks(found), *failed_lines(found)]:
        console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _tables(found: "Analysis") -> Iterator["Table"]:
    """Yield the tables of spaces, findings and best values."""
    from regnet.space.analysis_table import best_rows, finding_rows, space_rows

    spaces = ("space", "networks", "failed", "least", "median", "mean", "95 %", "MMACs")
    yield _table(spaces, space_rows(found), left=1)
    if found.findings:
        names = ("finding of the paper", "measured", "95 %", "verdict")
        yield _table(names, finding_rows(found), left=1)
    if best := best_rows(found):
        yield _table(("best values", *best[0][1:]), best[1:], left=1)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(names):
        table.add_column(name, justify="left" if place < left else "right")
    for row in rows:
        table.add_row(*row)
    return table
