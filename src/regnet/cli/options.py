"""Options that several commands share, and the library that they describe."""

from pathlib import Path
from typing import Annotated

import typer

from regnet.cache import cache_dir
from regnet.cli.console import say
from regnet.library import Library

CacheDir = Annotated[
    Path | None,
    typer.Option("--cache-dir", help="Cache folder (default: $REGNET_CACHE, else the platform's)"),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network")]
Mirrors = Annotated[
    list[str] | None,
    typer.Option(
        "--mirror",
        metavar="URL",
        help="Address to try first; repeatable; also $REGNET_MIRROR",
    ),
]


def library(folder: Path | None, offline: bool, mirrors: list[str] | None) -> Library:
    """Return the library of these options; it reports on standard error."""
    return Library(folder=cache_dir(folder), offline=offline, mirrors=tuple(mirrors or ()), say=say)
