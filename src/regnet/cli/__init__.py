"""The command `regnet`: parse, call, print.

Exit codes: 0 done, 1 some items failed (their errors are in the output), 2 the command could not
run (the reason is on standard error), 130 interrupted, by Ctrl-C or SIGTERM.
"""

import codecs
import errno
import io
import os
import signal
import sys
import warnings
from collections.abc import Iterable
from importlib import import_module
from types import FrameType
from typing import Annotated, Final

import typer

from regnet.cli.command import add
from regnet.cli.completion import words_typed
from regnet.cli.console import (
    EXIT_COULD_NOT_RUN,
    EXIT_INTERRUPTED,
    EXIT_SOME_FAILED,
    notices_said,
    say,
)
from regnet.system.errors import NoGainError, RegNetError, reason_of
from regnet.system.notices import RegNetWarning
from regnet.system.text import BAR

COMMANDS = (
    "demo",
    "classify",
    "explain",
    "embed",
    "search",
    "serve",
    "evaluate",
    "compare",
    "teach",
    "train",
    "quantize",
    "calibrate",
    "benchmark",
    "models",
    "download",
    "convert",
    "info",
    "samples",
    "cache",
    "doctor",
    "space",
)
_PLAIN: Final = "regnet-plain"
SPACE_COMMANDS = ("sample", "sweep", "analyze", "search")


def build_app(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the application with these commands; each is imported only if it is named."""
    app = typer.Typer(
        name="regnet",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="RegNet image classifiers: verified weights, exact conversion, fast classification.",
    )
    app.callback()(_options)
    for name in commands:
        if name == "space":
            space = typer.Typer(no_args_is_help=True, help="Design spaces of RegNets.")
            for part in SPACE_COMMANDS:
                add(space, part, getattr(import_module(f"regnet.cli.space_{part}"), part))
            app.add_typer(space, name=name)
        else:
            add(app, name, getattr(import_module(f"regnet.cli.{name}"), name))
    return app


def main() -> None:
    """Run the command line; never shows a traceback for an error that regnet foresaw."""
    codecs.register_error(_PLAIN, _plain_sign)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAIN)
    warnings.simplefilter("ignore", RegNetWarning)  # of threads that outlive `notices_said`
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # as of a command in the background
                signal.signal(number, interrupt)
        named = [word for word in words_typed()[:1] if word in COMMANDS]
        build_app(named or COMMANDS)(prog_name="regnet")
    except (Exception, KeyboardInterrupt) as exc:
        sys.exit(_status_after(exc, interrupted=bool(interrupts)))


def _plain_sign(error: UnicodeError) -> tuple[str, int]:
    """Return what a terminal shows for a sign that it does not have: "#" in bars, else "?"."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join("#" if sign == BAR else "?" for sign in signs), error.end


def _status_after(exc: BaseException, *, interrupted: bool) -> int:
    """Print why a command ended and return its exit status; raises unforeseen errors.

    Where it was `interrupted`, that is why: an interrupt in the middle of an import may come out
    as an error of any kind.
    """
    if interrupted or _is_interrupt(exc):
        say("regnet: interrupted")
        return EXIT_INTERRUPTED
    if isinstance(exc, RegNetError):
        from regnet.system.text import visible  # names in files cannot steer the terminal

        say("\n".join(map(visible, f"regnet: {exc}".split("\n"))))
        return EXIT_SOME_FAILED if isinstance(exc, NoGainError) else EXIT_COULD_NOT_RUN
    if isinstance(exc, BrokenPipeError):  # nobody reads standard output any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_SOME_FAILED
    if isinstance(exc, OSError):
        say(f"regnet: {_place_of(exc)}{reason_of(exc)}")
        return EXIT_COULD_NOT_RUN
    raise exc


def _place_of(exc: OSError) -> str:
    """Return where an error of the system happened, as the beginning of a message."""
    if exc.filename is not None:
        return f"{exc.filename}: "
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT)  # files are named by who writes them
    return "cannot write to standard output: " * full


def _is_interrupt(exc: BaseException | None) -> bool:
    """Tell whether an interrupt is behind an error: libraries turn one into ImportError."""
    while exc is not None and not isinstance(exc, KeyboardInterrupt):
        exc = exc.__cause__ or exc.__context__
    return exc is not None


def _print_version(asked: bool) -> None:
    if asked:
        from regnet.system.version import TOOL_VERSION

        typer.echo(f"regnet {TOOL_VERSION}")
        raise typer.Exit


def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit"
        ),
    ] = False,
) -> None:
    """Take the options before a command."""
    context.with_resource(notices_said())
