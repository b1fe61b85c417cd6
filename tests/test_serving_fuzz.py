"""Random, broken and hostile requests against a real server: refused, logged, forgotten."""

import asyncio
import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvloop")

from hostile_requests import (
    DOCUMENTED,
    PHOTO,
    Hostile,
    ask,
    broken,
    corpus,
    message,
)
from serving_process import Served, serving

from regnet.serving import exchange

CORPUS = corpus()
GOOD = Hostile("good", message("POST", "/v1/classify", PHOTO), frozenset({200}))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("fuzz"), "bundled", "--offline") as served:
        yield served
        assert served.process.poll() is None
        assert "Traceback" not in served.log.read_text()


def address(served: Served) -> tuple[str, int]:
    host, _, port = served.host.rpartition(":")
    return host, int(port)


def resident(served: Served) -> float:
    """Return the server's memory in MB."""
    status = Path(f"/proc/{served.process.pid}/status")
    if not status.exists():
        pytest.skip("needs /proc")
    return int(status.read_text().partition("VmRSS:")[2].split()[0]) / 1000


def wrong_answers(served: Served, requests: Iterator[Hostile]) -> list[str]:
    where = address(served)
    answers = ((request, ask(where, request)) for request in requests)
    return [f"{r.name}: {status}" for r, status in answers if status not in r.statuses]


def test_hostile_requests_are_refused_and_leave_nothing(server: Served) -> None:
    assert wrong_answers(server, iter(CORPUS)) == []
    before = resident(server)
    assert wrong_answers(server, iter(CORPUS)) == []
    assert resident(server) < before + 80
    assert ask(address(server), GOOD) == 200


@pytest.mark.parametrize("seed", [1, 2])
def test_broken_requests_are_answered_as_documented(server: Served, seed: int) -> None:
    assert wrong_answers(server, itertools.islice(broken(seed), 150)) == []
    assert ask(address(server), GOOD) == 200


def test_the_server_is_what_its_openapi_says(server: Served, tmp_path: Path) -> None:
    schemathesis = Path(sys.executable).with_name("schemathesis")
    if not schemathesis.exists():
        pytest.skip("needs schemathesis")
    # What is well-formed may still be no photo, which no schema can say: the hooks give photos.
    hooks = {"SCHEMATHESIS_HOOKS": str(Path(__file__).with_name("photo_strategies.py"))}
    checks = ["--checks", "all"]
    amount = ["--phases", "coverage,fuzzing", "--max-examples", "4", "--seed", "1", "--no-shrink"]
    found = subprocess.run(
        [schemathesis, "run", f"{server.url}/openapi.json", *checks, *amount],
        cwd=tmp_path,
        env={**os.environ, **hooks},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_pipelined_requests_are_answered_in_order(server: Served) -> None:
    paths = [f"/v2/models/{name}" for name in ("bundled", "none")] * 20
    with socket.create_connection(address(server), timeout=60) as connection:
        requests = [message("GET", path) for path in paths]
        last = message("GET", "/v2", b"", ("Connection", "close"))
        connection.sendall(b"".join([*requests, last]))
        answers = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", answers)]
    assert statuses == [200, 404] * 20 + [200]


def test_those_who_send_slowly_hold_up_nobody(tmp_path: Path) -> None:
    heads = [message("POST", "/v1/classify", PHOTO)[:cut] for cut in (1, 20, 80, 400, 5000)]
    with serving(tmp_path, "bundled", "--offline", "--timeout", "2") as served:
        where = address(served)
        slow = [socket.create_connection(where, timeout=60) for _ in range(40)]
        for connection, head in zip(slow, itertools.cycle(heads), strict=False):
            connection.sendall(head)
        for _ in range(20):
            assert ask(where, GOOD) == 200
        answers = [connection.recv(4096) for connection in slow]  # none is left open
        for connection in slow:
            connection.close()
        for answer in answers:
            assert answer == b"" or b" 408 " in answer.splitlines()[0], answer
        assert any(answers)
        assert ask(where, GOOD) == 200


def test_a_crowd_of_broken_requests(server: Served) -> None:
    """From many clients at once, between good ones: those are all served."""
    wrong: list[str] = []
    good: list[int | None] = []

    def hostile(seed: int) -> None:
        wrong.extend(wrong_answers(server, itertools.islice(broken(seed), 25)))

    def friendly() -> None:
        good.extend(ask(address(server), GOOD) for _ in range(10))

    threads = [threading.Thread(target=hostile, args=(seed,)) for seed in range(100, 110)]
    threads += [threading.Thread(target=friendly) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert good == [200] * 40


def test_memory_that_is_freed_while_other_is_given_back_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[float] = []
    monkeypatch.setattr(exchange, "_trim", lambda: (time.sleep(0.05), calls.append(1)))

    async def answer() -> None:
        held = exchange.Held(1 << 30, 1 << 30, now=600 << 20)
        for _ in range(2):
            held.release(300 << 20)
            await asyncio.sleep(0.01)
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    asyncio.run(answer())
    assert len(calls) == 2


def test_only_documented_statuses_are_answered(server: Served) -> None:
    """Of all that the other tests sent; the list is that of the OpenAPI document."""
    answered = {line["status"] for line in server.lines() if line["event"] == "request"}
    assert answered - {499} <= DOCUMENTED
    assert {200, 400, 404, 413, 415, 422} <= answered
