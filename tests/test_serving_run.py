"""A server's life: it starts, is reloaded under load, refuses slow and odd clients, and stops well.

The load is 4 clients in threads that send photo after photo and count what they get.
"""

import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import httpx
from hostile_requests import message
from PIL import Image
from serving_process import Served, serving
from typer.testing import CliRunner

from regnet.cli import build_app
from regnet.cli.serve import named_models
from regnet.pixels.samples import sample_photos
from regnet.system.errors import RegNetError, StartError

PHOTO = sample_photos()[0].read_bytes()
TOKEN = "a-token-of-some-length"


class Load:
    """Clients that keep their connections, each waiting for an answer before the next request."""

    def __init__(self, served: Served, clients: int = 4) -> None:
        self.served = served
        self.statuses: Counter[int] = Counter()
        self.ids: list[str] = []
        self.lost: list[str] = []
        self.ending = False
        self.threads = [threading.Thread(target=self.send, args=(n,)) for n in range(clients)]

    def send(self, client: int) -> None:
        host = self.served.host
        connection = http.client.HTTPConnection(host, timeout=60)
        number = 0
        while not self.ending:
            name = f"{client}-{number}"
            number += 1
            try:
                if connection.sock is None:
                    connection.connect()
            except ConnectionError:  # it takes no more connections: nothing was sent
                return
            try:
                connection.request("POST", "/v1/classify", PHOTO, {"X-Request-Id": name})
                answer = connection.getresponse()
                found = json.loads(answer.read())
            except (OSError, http.client.HTTPException) as exc:
                self.lost.append(f"{name}: {exc!r}")
                return
            assert answer.headers["x-request-id"] == name
            assert found["predictions"][0]["error"] is None
            self.statuses[answer.status] += 1
            self.ids.append(name)
        connection.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self.threads:
            thread.start()
        try:
            while len(self.ids) < 2 * len(self.threads):
                time.sleep(0.01)
            yield
        finally:
            self.ending = True
            for thread in self.threads:
                thread.join(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_answers_what_was_accepted(tmp_path: Path, number: int) -> None:
    with serving(tmp_path, "bundled", "--offline") as served:
        load = Load(served)
        with load.running():
            assert served.stop(number) == 0
        assert load.lost == []
        assert set(load.statuses) == {200}
        logged = Counter(line["id"] for line in served.lines() if line["event"] == "request")
        assert logged == Counter(load.ids)  # each answered once
        assert [line["event"] for line in served.lines()][-1] == "stopped"


def test_a_reload_under_load_drops_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, "bundled", "--offline", "--model-control") as served:
        load = Load(served)
        with load.running():
            for _ in range(2):
                url = f"{served.url}/v2/repository/models/bundled/load"
                assert httpx.post(url, timeout=60).status_code == 200
        assert load.lost == []
        assert set(load.statuses) == {200}
        figures = httpx.get(f"{served.url}/metrics").text
        assert "regnet_requests_in_flight 1.0" in figures
        assert 'regnet_images_queued{model="bundled"} 0.0' in figures
        assert f'regnet_images_total{{model="bundled"}} {len(load.ids)}.0' in figures


def slow_request() -> bytes:
    """Return a request whose photos keep a decoder busy for many seconds."""
    whole, side = io.BytesIO(), 5000
    Image.new("L", (side, side)).save(whole, "JPEG", progressive=True)
    photo = whole.getvalue()
    photo = photo[:-2] + photo[photo.rfind(b"\xff\xda") : -2] * 80 + photo[-2:]
    head = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    kind = ("Content-Type", "multipart/form-data; boundary=b")
    return message("POST", "/v1/classify", (head + photo + b"\r\n") * 8 + b"--b--\r\n", kind)


def connected(served: Served) -> socket.socket:
    host, port = served.host.split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def children(pid: int) -> list[str]:
    """Return the processes that a process has started and that still run."""
    task = Path(f"/proc/{pid}/task")
    if not task.exists():
        pytest.skip("needs /proc")
    return [child for one in task.iterdir() for child in (one / "children").read_text().split()]


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_clients_asked_for_ends_when_they_have_gone(tmp_path: Path) -> None:
    request = slow_request()
    with serving(tmp_path, "bundled", "--offline") as served:
        clients = [connected(served) for _ in range(4)]
        for client in clients:
            client.sendall(request)
        until(lambda: children(served.process.pid) != [])
        decoding = children(served.process.pid)
        for client in clients:
            client.close()
        until(lambda: len([line for line in served.lines() if line.get("status") == 499]) == 4, 5)
        until(lambda: not set(decoding) & set(children(served.process.pid)), 5)
        figures = httpx.get(f"{served.url}/metrics").text
        assert "regnet_requests_in_flight 1.0" in figures
        assert "regnet_request_bytes_held 0.0" in figures
        assert httpx.post(f"{served.url}/v1/classify", content=PHOTO).status_code == 200


def test_sigterm_ends_it_in_its_time_whatever_is_under_way(tmp_path: Path) -> None:
    with serving(tmp_path, "bundled", "--offline", "--timeout", "2") as served:
        clients = [connected(served) for _ in range(8)]
        for client in clients[:4]:
            client.sendall(slow_request())
        clients[4].sendall(b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\n")
        for client in clients[5:7]:
            client.sendall(slow_request()[:5000])
        until(lambda: children(served.process.pid) != [])
        decoding, start = children(served.process.pid), time.monotonic()
        assert served.stop() == 0
        assert time.monotonic() - start < 2 + 5 + 5  # the request's, the grace, a busy machine's
        assert not any(Path(f"/proc/{child}").exists() for child in decoding)
        assert [line["event"] for line in served.lines()][-1] == "stopped"
        assert clients[0].recv(1 << 16).startswith(b"HTTP/1.1 504 ")
        for client in clients:
            client.close()


def test_ordinary_photos_are_served_while_others_send_the_most_that_is_accepted(
    tmp_path: Path,
) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    kind = ("Content-Type", "multipart/form-data; boundary=b")
    many = message("POST", "/v1/classify", (head + PHOTO + b"\r\n") * 64 + b"--b--\r\n", kind)
    over, took = threading.Event(), list[float]()

    def attack(request: bytes) -> None:
        while not over.is_set():
            with connected(served) as client:
                client.sendall(request)
                with suppress(TimeoutError):
                    client.settimeout(5)
                    client.recv(1 << 16)

    with serving(tmp_path, "bundled", "--offline") as served:
        requests = [slow_request(), many] * 5
        attackers = [threading.Thread(target=attack, args=(each,)) for each in requests]
        for one in attackers:
            one.start()
        try:
            time.sleep(1)
            for _ in range(60):
                start = time.monotonic()
                answer = httpx.post(f"{served.url}/v1/classify", content=PHOTO, timeout=60)
                took.append(time.monotonic() - start)
                assert answer.status_code == 200, answer.text
        finally:
            over.set()
            for one in attackers:
                one.join()
    assert sorted(took)[len(took) // 2] < 1


def test_many_idle_connections_leave_room_for_more(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        with serving(tmp_path, "bundled", "--offline") as served:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            idle = [connected(served) for _ in range(400)]
            assert httpx.post(f"{served.url}/v1/classify", content=PHOTO).status_code == 200
            for one in idle:
                one.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.7])
def test_sigterm_ends_it_while_it_starts(tmp_path: Path, seconds: float) -> None:
    command = [sys.executable, "-m", "regnet", "serve", "bundled", "--offline", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    process.terminate()
    assert process.wait(20) in (0, 130, -signal.SIGINT, -signal.SIGTERM)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a server with low limits that asks for a token."""
    folder = tmp_path_factory.mktemp("strict")
    (folder / "token").write_text(TOKEN)
    limits = [
        "--max-body",
        "1",
        "--max-pixels",
        "0.05",
        "--max-batch",
        "2",
        "--queue",
        "2",
        "--timeout",
        "1.5",
    ]
    options = ["mine=bundled", "--offline", "--no-page", "--token-file", str(folder / "token")]
    with serving(folder, *options, *limits) as found:
        yield found


def ask(served: Served, path: str, body: bytes | None = None, **options: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {TOKEN}", **options.pop("headers", {})}  # type: ignore[dict-item]
    method = "GET" if body is None and "files" not in options else "POST"
    return httpx.request(
        method, f"{served.url}{path}", content=body, headers=headers, timeout=60, **options
    )  # type: ignore[arg-type]


def test_the_token_and_the_page_are_as_asked(strict: Served) -> None:
    assert httpx.get(f"{strict.url}/v2").status_code == 401
    assert ask(strict, "/v2/models/mine").status_code == 200
    assert ask(strict, "/").status_code == 404
    assert ask(strict, "/v2/repository/models/mine/unload", b"").status_code == 403
    assert TOKEN not in strict.log.read_text()


def test_each_limit_has_its_status_and_is_named(strict: Served) -> None:
    large = ask(strict, "/v1/classify", b"x" * (1 << 20) + b"x")
    many = ask(strict, "/v1/classify", files=[("f", ("a.jpg", PHOTO))] * 3)
    pixels = ask(strict, "/v1/classify", PHOTO)
    for answer, status, limit in (
        (large, 413, "body"), (many, 413, "batch"), (pixels, 422, "pixels"),
    ):  # fmt: skip
        assert answer.status_code == status, answer.text
        assert answer.json()["limit"] == limit
        assert limit in answer.json()["error"]
    bomb = ask(
        strict, "/v2/models/mine/infer", PHOTO, headers={"Inference-Header-Content-Length": "0"}
    )
    assert (bomb.status_code, bomb.json()["limit"]) == (422, "pixels")


def raw(served: Served, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send bytes and return all that comes until the server closes."""
    host, port = served.host.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
    return answer


HEAD = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n".encode()


def test_what_is_no_http_is_refused_in_json(strict: Served) -> None:
    head, _, body = raw(strict, b"\x16\x03\x01 hello\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-content-type-options: nosniff" in head
    assert json.loads(body) == {"error": "Invalid HTTP request received."}
    assert raw(strict, b"GET \xff HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(strict, b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert 'regnet_errors_total{reason="malformed"}' in ask(strict, "/metrics").text
    warned = [line["message"] for line in strict.lines() if line["event"] == "warning"]
    assert set(warned) == {"Invalid HTTP request received."}


def test_a_head_without_end_is_refused(strict: Served) -> None:
    with pytest.raises((ConnectionError, AssertionError)):  # it may close while we still send
        assert b" 431 " not in raw(strict, HEAD, *[b"X-A: " + b"a" * 8000 + b"\r\n"] * 40)


def test_a_body_that_stalls_is_given_up(strict: Served) -> None:
    start = time.monotonic()
    host, port = strict.host.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(HEAD + b"Content-Length: 9\r\n\r\nabc")
        answer = connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"limit":"seconds"' in answer
    assert time.monotonic() - start > 1.4


def test_a_large_body_in_chunks_is_cut_off(strict: Served) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    host, port = strict.host.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 20)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_several_requests_at_once_on_a_connection_are_answered_in_order(strict: Served) -> None:
    one = f"GET /v2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nX-Request-Id: %d\r\n"
    sent = "".join((one % n) + "\r\n" for n in range(5)) + one % 5 + "Connection: close\r\n\r\n"
    answer = raw(strict, sent.encode()).decode()
    ids = [line for line in answer.split("\r\n") if line.startswith("x-request-id")]
    assert ids == [f"x-request-id: {n}" for n in range(6)]
    assert b"HTTP/1.1 400 " in raw(strict, (one % 7 + "\r\n").encode() * 1000)


def refused(*options: str) -> str:
    """Return why a server does not start."""
    found = CliRunner().invoke(build_app(["serve"]), ["serve", *options, "--offline"])
    assert isinstance(found.exception, RegNetError)
    return str(found.exception)


def test_what_cannot_start_says_why(strict: Served, tmp_path: Path) -> None:
    port = strict.host.split(":")[1]
    assert refused("--port", port).startswith(
        f"cannot listen on 127.0.0.1, port {port}: Address already in use; choose another"
    )
    (tmp_path / "token").write_text("short")
    assert "holds no token" in refused("--token-file", str(tmp_path / "token"))
    assert "none.xml" in refused(str(tmp_path / "none.xml"), "--port", "0")
    assert "queue must be at least batch (300), not 128" in refused("--max-batch", "300")
    command = [sys.executable, "-m", "regnet", "serve", "a b=bundled"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("regnet: a b=bundled: 'a b' cannot be a model's name")


def test_models_have_names() -> None:
    assert named_models(["bundled:int8", "a=bundled", "/x/y-int8.xml", "b=/x/y.xml"]) == {
        "bundled": "bundled:int8",
        "a": "bundled",
        "y-int8": "/x/y-int8.xml",
        "b": "/x/y.xml",
    }
    with pytest.raises(StartError, match="there is a model y already"):
        named_models(["y.xml", "z/y.xml"])
    for name in ("a b", "stats"):
        with pytest.raises(StartError, match="cannot be a model's name"):
            named_models([f"{name}=bundled"])
