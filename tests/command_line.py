"""The command `regnet` in the tests' own process, which ends as in a process of its own."""

import subprocess
import sys
from unittest.mock import patch

from typer.testing import CliRunner

from regnet.cli import main


def run_main(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run `regnet` with these arguments; return its exit status and what it printed."""
    words = ["regnet", *map(str, arguments)]
    with (
        CliRunner().isolation(input=stdin) as streams,
        patch.object(sys, "argv", words),
        patch("signal.signal"),
    ):
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        return subprocess.CompletedProcess(
            words, status, streams[0].getvalue(), streams[1].getvalue()
        )
