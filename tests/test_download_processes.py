"""Downloads by whole processes: killed, interrupted, several at once."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import local_server as behave
import pytest
from local_server import LocalServer

NAME = "weights.pyth"
CONTENT = random.Random(4).randbytes(2_000_000)

CLIENT = """
import sys
from dataclasses import replace
from regnet.zoo.card import WeightsFile
from regnet.zoo.catalogue import card_by_name
from regnet.zoo.download import download

url, cache, sha384 = sys.argv[1:]
file = WeightsFile(name="weights.pyth", urls=(url,), sha384=sha384 or None)
card = replace(card_by_name("regnetx-200mf"), file=file)
print(download(card, cache_dir=cache))
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
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1.5)
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
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(1.0)
    first.kill()
    first.communicate(timeout=60)
    assert finished(second) == str(final(tmp_path))
    assert final(tmp_path).read_bytes() == CONTENT
    assert server.sent == len(CONTENT)
