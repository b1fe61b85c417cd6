"""Files that commands write after long work: found out before it whether they can be written."""

from pathlib import Path

from regnet.cli.console import say
from regnet.system.errors import OutputError


def require_writable(path: Path | None) -> None:
    """Raise `OutputError` where a file could not be written; None is none wanted."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise OutputError(f"cannot write {path}: it is a folder, or is in one that is not here")


def require_html(path: Path | None) -> None:
    """Raise as `require_writable`, or `MissingExtraError` where reports cannot be made."""
    require_writable(path)
    if path is not None:
        from regnet.pages import require_report

        require_report()


def write_html(path: Path, text: str) -> None:
    """Write a report and say so."""
    from regnet.pages import write_page

    write_page(path, text)
    say(f"{path}: written")
