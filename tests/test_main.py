"""The process of a command: it ends quickly, and with all that it owes."""

import subprocess
import sys

import pytest

BEGIN = """
import atexit, sys
import regnet.cli
from regnet.__main__ import run

def main():
    atexit.register(print, "closed")
    sys.stdout.write("unflushed ")
    {ends}

regnet.cli.main = main
run()
"""


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        ("pass", 0),
        ("sys.exit()", 0),
        ("sys.exit(2)", 2),
        ("sys.exit('why')", 1),
        ("raise ValueError", 1),
    ],
)
def test_a_process_ends_with_its_status_output_and_exit_handlers(ends: str, status: int) -> None:
    code = BEGIN.format(ends=ends)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "unflushed closed\n")
    assert ("why" in done.stderr, "ValueError" in done.stderr) == ("why" in ends, "Value" in ends)


def test_output_that_nobody_reads_is_a_failure() -> None:
    code = BEGIN.format(ends="sys.stdout.write('x' * 2**20)")
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(60) == 1
