"""A real `regnet serve` in a process of its own, for tests."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Served:
    """A running server: its address and process; its log is in a file."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def host(self) -> str:
        """Host and port, as tritonclient wants them."""
        return self.url.removeprefix("http://")

    def lines(self) -> list[dict[str, Any]]:
        """Return the log's lines."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def serving(folder: Path, *options: str, environ: dict[str, str] | None = None) -> Iterator[Served]:
    """Give a server on a free port that is ready; it ends with the block."""
    log = folder / "serve.log"
    command = [sys.executable, "-W", "error", "-m", "regnet", "serve", *options, "--port", "0"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "REGNET_CACHE": str(folder / "cache"), **(environ or {})},
        )
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        assert said.startswith("regnet serves http://"), log.read_text()
        yield Served(said.split()[-1], process, log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
