"""`regnet space analyze`: what records of training runs tell about design spaces."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from regnet.cli.console import (
    print_json,
    require_html,
    require_writable,
    say,
    stdout,
    table,
    write_html,
)
from regnet.cli.options import Json
from regnet.system.option import Options, argument, option

if TYPE_CHECKING:
    from rich.table import Table

    from regnet.space.analysis import Analysis


class _Records(Options):
    records: tuple[Path, ...] = argument("Files of `regnet space sweep`", "RECORDS...")
    mixed: bool = option(False, "Accept runs of different settings")
    seed: int = option(0, "Random seed of the bootstrap", min=0)


class _Results(Json):
    output: Path | None = option(None, "Write a report with plots", "-o", "FILE")
    parquet: Path | None = option(None, "Write a table, one row per network", "FILE")


def analyze(records: _Records, results: _Results) -> None:
    """Compare design spaces by their trained networks, and find what good networks share.

    RECORDS are files that `regnet space sweep` wrote, of one or more spaces, all of one setting.

    Reports the error distribution of each space, differences between spaces, each finding of the
    paper as confirmed, contradicted or not separated, the best values of each parameter, and how
    well a line fits the widths, all with 95 % bootstrap intervals.

    Exit status: 0 done, 2 could not run (for example, records of different settings).

      regnet space analyze anynetx-a.jsonl regnetx.jsonl -o report.html
      regnet space analyze records/*.jsonl --json > analysis.json
      regnet space analyze records/*.jsonl --parquet networks.parquet
    """
    require_html(results.output)
    require_writable(results.parquet)
    from regnet.space.analysis import analyze_files
    from regnet.space.analysis_json import analysis_to_dict, rows, write_rows
    from regnet.system.row_writers import require_parquet

    if results.parquet is not None:
        require_parquet()
    analysis = analyze_files(records.records, mixed=records.mixed, seed=records.seed)
    if results.parquet is not None:
        write_rows(results.parquet, rows(analysis))
        say(f"{results.parquet}: written")
    if results.output is not None:
        from regnet.space.analysis_page import analysis_page

        write_html(results.output, analysis_page(analysis))
    if results.json:
        print_json(analysis_to_dict(analysis))
    else:
        _show(analysis)


def _show(analysis: "Analysis") -> None:
    """Print tables and sentences."""
    from regnet.space.analysis_table import failed_lines
    from regnet.space.remarks import remarks

    console = stdout()
    for made in _tables(analysis):
        console.print(made)
        console.print()
    sentences = [difference.sentence for difference in analysis.differences]
    for text in [*sentences, *remarks(analysis), *failed_lines(analysis)]:
        console.print(text, soft_wrap=not console.is_terminal)


def _tables(analysis: "Analysis") -> Iterator["Table"]:
    """Yield the tables of spaces, findings and best values."""
    from regnet.space.analysis_table import best_rows, finding_rows, space_rows

    spaces = ("space", "networks", "failed", "least", "median", "mean", "95 %", "MMACs")
    yield table(spaces, space_rows(analysis), left=[0])
    if analysis.findings:
        names = ("finding of the paper", "measured", "95 %", "verdict")
        yield table(names, finding_rows(analysis), left=[0])
    if best := best_rows(analysis):
        yield table(("best values", *best[0][1:]), best[1:], left=[0])
