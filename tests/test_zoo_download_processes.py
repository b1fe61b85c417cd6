"""Downloads by whole processes: killed, interrupted, several at once."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import local_server as behave
import pytest
from local_server import LocalServer
from zoo_weights import TINY, weights_of

from regnet.zoo.catalogue import card_by_name
from regnet.zoo.download import import_file

NAME = "weights.pyth"
CONTENT = weights_of(TINY, 4, size=2_000_000)

CLIENT = """
import sys
from dataclasses import replace
from pathlib import Path
from regnet.network.spec import RegNetSpec
from regnet.zoo.card import WeightsFile
from regnet.zoo.catalogue import card_by_name
from regnet.zoo.download import download

url, cache, sha384 = sys.argv[1:]

def record(event):
    with (Path(cache) / "events").open("a") as file:
        print(event.event, file=file)

file = WeightsFile(name="weights.pyth", urls=(url,), sha384=sha384 or None)
tiny = RegNetSpec(d=3, w0=24, wa=24.0, wm=2.2, g=8)
card = replace(card_by_name("regnetx-200mf"), spec=tiny, file=file)
print(download(card, cache_dir=cache, on_event=record))
"""


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        server.files[NAME] = CONTENT
        yield server


@pytest.fixture(params=["hash published", "no hash"])
def client(
    request: pytest.FixtureRequest, server: LocalServer, tmp_path: Path
) -> Callable[[], subprocess.Popen[str]]:
    """Return what starts a process that downloads the file."""
    sha384 = hashlib.sha384(CONTENT).hexdigest() if request.param == "hash published" else ""
    command = [sys.executable, "-c", CLIENT, server.url(NAME), str(tmp_path), sha384]
    return lambda: subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "waited a minute in vain"
        time.sleep(0.02)


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def final(cache: Path) -> Path:
    return cache / "weights" / "regnetx-200mf" / NAME


def events(cache: Path) -> list[str]:
    """What the processes reported so far."""
    return (cache / "events").read_text().split()


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.strip()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_client_goes_on_from_where_it_was(
    server: LocalServer,
    tmp_path: Path,
    client: Callable[[], subprocess.Popen[str]],
    how: signal.Signals,
) -> None:
    server.script = [behave.stalls_after(1_234_567)]
    part = final(tmp_path).with_name(f"{NAME}.part")
    process = client()
    wait_for(lambda: size_of(part) == 1_234_567)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not final(tmp_path).exists()
    assert finished(client()) == str(final(tmp_path))
    assert final(tmp_path).read_bytes() == CONTENT
    assert [r.range for r in server.log] == [None, "bytes=1234567-"]
    assert server.sent == len(CONTENT)


def test_two_processes_fetch_once(
    server: LocalServer, tmp_path: Path, client: Callable[[], subprocess.Popen[str]]
) -> None:
    server.script = [behave.stalls_after(1_000_000)]
    part = final(tmp_path).with_name(f"{NAME}.part")
    first = client()
    wait_for(lambda: size_of(part) == 1_000_000)
    second = client()
    wait_for(lambda: "waiting" in events(tmp_path))
    assert second.poll() is None
    server.released.set()
    assert finished(first) == finished(second) == str(final(tmp_path))
    assert final(tmp_path).read_bytes() == CONTENT
    assert server.sent == len(CONTENT)


def test_a_waiting_process_takes_over_from_a_killed_one(
    server: LocalServer, tmp_path: Path, client: Callable[[], subprocess.Popen[str]]
) -> None:
    server.script = [behave.stalls_after(1_000_000)]
    part = final(tmp_path).with_name(f"{NAME}.part")
    first = client()
    wait_for(lambda: size_of(part) == 1_000_000)
    second = client()
    wait_for(lambda: "waiting" in events(tmp_path))
    assert second.poll() is None
    first.kill()
    first.communicate(timeout=60)
    assert finished(second) == str(final(tmp_path))
    assert final(tmp_path).read_bytes() == CONTENT
    assert server.sent == len(CONTENT)


IMPORTER = """
import sys
from regnet.zoo.catalogue import card_by_name
from regnet.zoo.download import import_file

print(import_file(card_by_name("regnetx-200mf"), sys.argv[1], cache_dir=sys.argv[2]))
"""


def test_killed_imports_leave_one_file_that_the_next_one_takes_away(tmp_path: Path) -> None:
    cache, pipe = tmp_path / "cache", tmp_path / "pipe"
    os.mkfifo(pipe)
    folder = cache / "weights" / "regnetx-200mf"
    for _ in range(2):
        writing = os.open(pipe, os.O_RDWR)
        process = subprocess.Popen([sys.executable, "-c", IMPORTER, str(pipe), str(cache)])
        os.write(writing, bytes(1 << 20))
        wait_for(lambda: any(size_of(path) == 1 << 20 for path in folder.rglob("*")))
        process.kill()
        process.wait()
        os.close(writing)
        assert len(list(folder.glob(".*"))) == 1
    source = tmp_path / "fetched elsewhere"
    card = card_by_name("regnetx-200mf")
    source.write_bytes(weights_of(card.build_spec(), 1))
    import_file(card, source, cache_dir=cache)
    assert list(folder.glob(".*")) == []
