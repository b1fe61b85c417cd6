"""Files that commands write after long work: found out before it whether they can be written."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regnet.cli.console import print_json, say
from regnet.cli.notices import skipped_files
from regnet.system.errors import OutputError

if TYPE_CHECKING:
    from regnet.pages.report import Report


def require_writable(path: Path | None) -> None:
    """Raise `OutputError` where a file could not be written; None is none wanted."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise OutputError(f"cannot write {path}: it is a folder, or is in one that is not here")


def require_html(path: Path | None) -> None:
    """Raise as `require_writable`, or `MissingExtraError` where reports cannot be made."""
    require_writable(path)
    if path is not None:
        from regnet.pages.html import require_report

        require_report()


def write_html(path: Path, text: str) -> None:
    """Write a report and say so."""
    from regnet.pages.html import write_page

    write_page(path, text)
    say(f"{path}: written")


def show(
    report: Callable[[], "Report"],
    values: Callable[[], Mapping[str, Any]],
    *,
    as_json: bool = False,
    html: Path | None = None,
) -> None:
    """Write a result's page if one is wanted, and print the result: `values` as JSON, or text."""
    if html is not None:
        from regnet.pages.html import write_report

        write_report(html, report())
        say(f"{html}: written")
    if as_json:
        print_json({**values(), "skipped": skipped_files()})
        return
    from regnet.pages.terminal import report_lines

    for line in report_lines(report()):
        print(line)  # noqa: T201
