"""Options that several commands share, and groups of options as values."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from regnet.cli.console import say
from regnet.conversion.store import Library
from regnet.pixels.decode_limits import DecodeLimits
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


@dataclass(frozen=True, kw_only=True)
class Store:
    """The options of the models on this machine, last in most commands."""

    entry: CheckpointEntry = None
    cache_dir: CacheDir = None
    offline: Offline = False
    mirror: Mirrors = None

    def library(self) -> Library:
        """Return the library of these options; it reports on standard error."""
        return Library(
            folder=cache_dir(self.cache_dir),
            offline=self.offline,
            mirrors=tuple(self.mirror or ()),
            entry=self.entry,
            say=say,
        )


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """What decoding one image may take."""

    max_memory: MaxMemory = 2000
    max_decode: MaxDecode = 8

    def limits(self) -> DecodeLimits:
        """Return them as the decoder takes them."""
        return DecodeLimits(memory=self.max_memory * 1_000_000, seconds=self.max_decode)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for typer whose groups of options are single options.

    A group is a parameter whose type is a dataclass: each field is an option, annotated as
    parameters are, in the place of the group.
    """
    groups: dict[str, Any] = {}
    options: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        if is_dataclass(parameter.annotation):
            groups[name] = parameter.annotation
            options += inspect.signature(groups[name], eval_str=True).parameters.values()
        else:
            options.append(parameter)

    def run(**values: Any) -> None:
        made = {n: g(**{f.name: values.pop(f.name) for f in fields(g)}) for n, g in groups.items()}
        command(**values, **made)

    run.__doc__ = command.__doc__
    run.__annotations__ = {option.name: option.annotation for option in options}
    named = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    vars(run)["__signature__"] = inspect.Signature(named)
    return run
