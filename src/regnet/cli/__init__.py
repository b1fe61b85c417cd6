"""The command `regnet`: parse, call, print.

Exit codes: 0 done, 1 some items failed (their errors are in the output), 2 the command could not
run (the reason is on standard error), 130 interrupted, by Ctrl-C or SIGTERM.
"""

import io
import os
import signal
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated

import typer

from regnet.cli.console import EXIT_COULD_NOT_RUN, EXIT_INTERRUPTED, EXIT_SOME_FAILED, say
from regnet.cli.notices import notices_said
from regnet.system.errors import NoGainError, RegNetError

COMMANDS = (
    "classify",
    "explain",
    "serve",
    "evaluate",
    "compare",
    "train",
    "quantize",
    "calibrate",
    "benchmark",
    "models",
    "download",
    "convert",
    "info",
    "doctor",
    "space",
)


def build_app(commands: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the application with these commands; each is imported only if it is named."""
    app = typer.Typer(
        name="regnet",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        help="RegNet image classifiers: verified weights, exact conversion, fast classification.",
    )
    app.callback()(_options)
    for command in commands:
        import_module(f"regnet.cli.{command}").register(app)
    return app


def main() -> None:
    """Run the command line; never shows a traceback for an error that regnet foresaw."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a sign shows "?"
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what Ctrl-C puts in order, it does
    asked = [word for word in sys.argv[1:2] if word in COMMANDS]
    try:
        build_app(asked or COMMANDS)(prog_name="regnet")
    except NoGainError as exc:
        _say_error(exc)
        sys.exit(EXIT_SOME_FAILED)
    except RegNetError as exc:
        _say_error(exc)
        sys.exit(EXIT_COULD_NOT_RUN)
    except BrokenPipeError:  # the reader of standard output has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_SOME_FAILED)
    except OSError as exc:
        say(f"regnet: {exc}")
        sys.exit(EXIT_COULD_NOT_RUN)
    except KeyboardInterrupt:
        say("regnet: interrupted")
        sys.exit(EXIT_INTERRUPTED)


def _say_error(error: RegNetError) -> None:
    """Print what went wrong; names out of files cannot steer the terminal."""
    from regnet.inference.writers import visible

    say("\n".join(map(visible, f"regnet: {error}".split("\n"))))


def _print_version(wanted: bool) -> None:
    if wanted:
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
    """Take the options that come before a command."""
    context.with_resource(notices_said())
