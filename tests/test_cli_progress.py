"""What downloads show on standard error."""

import hashlib
import os
import pty
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import local_server as behave
import pytest
from local_server import LocalServer

from regnet.cli.progress import download_display
from regnet.zoo.events import Event

NAME = "weights.pyth"
CONTENT = random.Random(7).randbytes(3_000_000)

CLIENT = """
import sys
from dataclasses import replace
from regnet.cli.progress import download_display
from regnet.zoo.card import WeightsFile
from regnet.zoo.catalogue import find_cards
from regnet.zoo.download import download
from regnet.zoo.download_batch import fetch_all

url, cache, sha384 = sys.argv[1:]
file = WeightsFile(name="weights.pyth", urls=(url,), sha384=sha384)
cards = [replace(card, file=file) for card in find_cards(["regnetx-200mf", "regnetx-400mf"])]
for _ in range(2):
    with download_display() as show:

        def on_event(event):
            show(event)
            if event.event == "start":
                print("started", flush=True)

        fetch = lambda card: download(card, cache_dir=cache, on_event=on_event)
        for outcome in fetch_all(cards, fetch, jobs=1):
            print(outcome.path or outcome.error)
print("rich.progress" in sys.modules)
"""


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        server.files[NAME] = CONTENT
        yield server


def run_on_a_terminal(server: LocalServer, cache: Path, *, term: str = "xterm") -> tuple[str, str]:
    """Return what the client prints on standard output, a pipe, and on its terminal."""
    sha384 = hashlib.sha384(CONTENT).hexdigest()
    command = [sys.executable, "-c", CLIENT, server.url(NAME), str(cache), sha384]
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": term, "COLUMNS": "100"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, env=environment)
    os.close(slave)
    shown = b"".join(iter(lambda: _read(master), b""))
    os.close(master)
    out, _ = process.communicate(timeout=60)
    return out.decode(), shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end was closed
        return b""


def paths(cache: Path) -> list[str]:
    return [str(cache / "weights" / f"regnetx-{n}mf" / NAME) for n in (200, 400)]


def test_a_terminal_shows_bars_and_standard_output_has_the_paths(
    server: LocalServer, tmp_path: Path
) -> None:
    server.script = [behave.dies_after(2_000_000)]
    out, shown = run_on_a_terminal(server, tmp_path)
    first, second = paths(tmp_path)
    started = ["started", "started", first, "started", second]
    assert out.splitlines() == [*started, first, second, "True"]
    for text in ("regnetx-200mf", "regnetx-400mf", "3.0/3.0 MB", "left", "trying again in"):
        assert text in shown


def test_what_is_cached_shows_nothing_and_loads_nothing(
    server: LocalServer, tmp_path: Path
) -> None:
    run_on_a_terminal(server, tmp_path)
    out, shown = run_on_a_terminal(server, tmp_path)
    assert (out.splitlines(), shown) == ([*paths(tmp_path) * 2, "False"], "")


def test_a_terminal_that_cannot_draw_gets_lines(server: LocalServer, tmp_path: Path) -> None:
    out, shown = run_on_a_terminal(server, tmp_path, term="dumb")
    assert "\n".join(paths(tmp_path)) in out
    assert shown.splitlines()[:2] == [
        f"regnetx-200mf: downloading 3.0 MB from {server.base.removeprefix('http://')}",
        "regnetx-200mf: downloaded 3.0 MB",
    ]


def test_without_a_terminal_there_is_a_line_at_the_start_and_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    url, second = "https://example.test/a/w.pyth", "https://second.test/w.pyth"
    total = 122_749_825
    with download_display() as show:
        show(Event(event="start", model="m", url=url, total=total))
        show(Event(event="progress", model="m", bytes=10_000_000, total=total))
        show(Event(event="retry", model="m", url=url, message="it broke; trying again in 1.0 s"))
        show(Event(event="start", model="m", url=url, bytes=20_000_000, total=total))
        show(Event(event="retry", model="m", url=url, message="gave up: HTTP 404"))
        show(Event(event="start", model="m", url=second, bytes=20_000_000, total=total))
        show(Event(event="done", model="m", bytes=total, total=total, path="/c/w.pyth"))
    assert capsys.readouterr() == (
        "",
        "m: downloading 122.7 MB from example.test\n"
        "m: example.test: it broke; trying again in 1.0 s\n"
        "m: example.test: gave up: HTTP 404\n"
        "m: downloading 122.7 MB from second.test, 20.0 MB are here already\n"
        "m: downloaded 122.7 MB\n",
    )


def test_without_a_terminal_what_is_not_fetched_has_no_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with download_display() as show:
        show(Event(event="done", model="m", bytes=5, total=5, path="/c/w.pyth"))
        show(Event(event="failed", model="n", message="the command says it"))
        show(Event(event="waiting", model="o", message="another process is fetching it"))
        show(Event(event="start", model="p", url="http://127.0.0.1:80/w"))
    assert capsys.readouterr().err == (
        "o: another process is fetching it\np: downloading from 127.0.0.1:80\n"
    )


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_bar_fits_into_the_terminal_with_its_counts_and_time(width: int) -> None:
    code = """
from regnet.cli.progress import counter
with counter("classifying", 100_000, "images") as advance:
    advance(50_000)
"""
    master, slave = pty.openpty()
    size = {"COLUMNS": str(width), "TERM": "xterm", "NO_COLOR": "1"}
    subprocess.run([sys.executable, "-c", code], stderr=slave, env=os.environ | size, check=True)
    os.close(slave)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    assert "50000/100000" in shown
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
