"""Options that several commands share, and the library that they describe."""

from pathlib import Path
from typing import Annotated

import typer

from regnet.cli.console import say
from regnet.conversion.store import Library
from regnet.system.cache import cache_dir

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

CheckpointEntry = Annotated[
    str | None,
    typer.Option(
        "--entry",
        metavar="NAME",
        help="The network to take from a checkpoint of several, as the error names it",
        show_default=False,
    ),
]

MaxMemory = Annotated[
    int, typer.Option(min=1, help="MB of memory for decoding one image; a small file has less")
]
MaxDecode = Annotated[float, typer.Option(min=0.01, help="Seconds for decoding one image")]

Model = Annotated[str, typer.Argument(help="The model, see above", show_default=False)]
LabelledPhotos = Annotated[
    str, typer.Argument(help="Labelled photos, see above", show_default=False)
]
Truth = Annotated[Path | None, typer.Option(metavar="FILE", help="File of labels of a flat folder")]
Subset = Annotated[
    bool, typer.Option("--subset", help="Classes of the model may be without photos")
]
OutputFolder = Annotated[
    Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print all figures as one JSON object")]
HtmlReport = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write a report, one HTML file with plots")
]


def library(
    folder: Path | None, offline: bool, mirrors: list[str] | None, entry: str | None = None
) -> Library:
    """Return the library of these options; it reports on standard error."""
    return Library(
        folder=cache_dir(folder),
        offline=offline,
        mirrors=tuple(mirrors or ()),
        entry=entry,
        say=say,
    )
