"""The command `regnet`: parse, call, print.

Exit codes: 0 done, 1 some items failed (their errors are in the output), 2 the command could not
run (the reason is on standard error), 130 interrupted.
"""

import sys

import typer

from regnet.cli.console import EXIT_COULD_NOT_RUN, EXIT_INTERRUPTED, say
from regnet.errors import RegNetError

app = typer.Typer(
    name="regnet",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="RegNet image classifiers: verified weights, exact conversion, fast classification.",
)


def main() -> None:
    """Run the command line; never shows a traceback for an error that regnet foresaw."""
    try:
        app()
    except RegNetError as exc:
        say(f"regnet: {exc}")
        sys.exit(EXIT_COULD_NOT_RUN)
    except KeyboardInterrupt:
        say("regnet: interrupted")
        sys.exit(EXIT_INTERRUPTED)
