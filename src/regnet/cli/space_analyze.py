"""`regnet space analyze`: what records of training runs tell about design spaces."""

from functools import partial
from pathlib import Path

from regnet.cli.console import require_html, require_writable, say, show
from regnet.cli.options import Json
from regnet.system.option import Options, argument, option


class _Records(Options):
    records: tuple[Path, ...] = argument("Files of `regnet space sweep`", "RECORDS...")
    mixed: bool = option(False, "Accept runs of different settings")
    seed: int = option(0, "Random seed of the bootstrap", min=0)


class _Results(Json):
    output: Path | None = option(None, "Write a report with plots", "-o", "FILE")
    parquet: Path | None = option(None, "Write a table, one row per network", "FILE")


def analyze(records: _Records, results: _Results) -> None:
    """Compare design spaces by their trained networks.

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
    from regnet.space.analysis import analyze_files, rows, write_rows
    from regnet.space.analysis_report import analysis_report
    from regnet.system.row_writers import require_parquet

    if results.parquet is not None:
        require_parquet()
    analysis = analyze_files(records.records, mixed=records.mixed, seed=records.seed)
    if results.parquet is not None:
        write_rows(results.parquet, list(rows(analysis)))
        say(f"{results.parquet}: written")
    report = partial(analysis_report, analysis)
    show(report, analysis.to_dict, as_json=results.json, html=results.output)
