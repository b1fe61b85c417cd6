"""Whom a server answers: names and sites in every combination, over real sockets and without."""

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import httpx
from serving_process import Served, serving

from regnet.pixels.samples import sample_photos
from regnet.serving.access import Visitors
from regnet.serving.refusals import Forbidden
from regnet.system.errors import StartError

PHOTO = sample_photos()[0].read_bytes()
TOKEN = "a-token-of-some-length"
NAME = "photos.example.org"  # given by --allow-host


def cell(host: str | None, **headers: str) -> tuple[list[tuple[str, str]], str]:
    """Return the headers of a request and its version of HTTP; {} in them is the port."""
    named = [] if host is None else [("Host", host)]
    version = headers.pop("version", "1.1")
    return named + [(name.replace("_", "-"), value) for name, value in headers.items()], version


SENT = {
    "own address": (200, cell("127.0.0.1:{}")),
    "localhost": (200, cell("localhost:{}")),
    "localhost, no port": (200, cell("localhost")),
    "localhost, another port, as through ssh -L": (200, cell("localhost:9000")),
    "upper case": (200, cell("LocalHost:{}")),
    "trailing dot": (200, cell("localhost.:{}")),
    "another loopback address": (200, cell("127.8.9.1:{}")),
    "IPv6 loopback": (200, cell("[::1]:{}")),
    "IPv6 loopback written out": (200, cell("[0:0:0:0:0:0:0:1]:{}")),
    "allowed name": (200, cell(NAME)),
    "allowed name, upper case, dot and port": (200, cell("Photos.Example.ORG.:443")),
    "HTTP/1.0 without Host": (200, cell(None, version="1.0")),
    "no Host": (400, cell(None)),
    "two Hosts": (400, ([("Host", "localhost"), ("Host", "localhost")], "1.1")),
    "two Hosts, one foreign": (400, ([("Host", "evil.test"), ("Host", "localhost")], "1.1")),
    "foreign Host": (403, cell("evil.test")),
    "foreign Host with our port": (403, cell("evil.test:{}")),
    "foreign Host, HTTP/1.0": (403, cell("evil.test", version="1.0")),
    "rebound Host, same-origin": (
        403, cell("evil.test:{}", Origin="http://evil.test:{}", Sec_Fetch_Site="same-origin"),
    ),
    "rebound Host without Origin": (403, cell("evil.test:{}", Sec_Fetch_Site="none")),
    "name that ends in an allowed one": (403, cell("evil-photos.example.org")),
    "name below an allowed one": (403, cell(f"evil.{NAME}")),
    "name that begins as localhost": (403, cell("localhost.evil.test")),
    "name below localhost": (403, cell("evil.localhost")),
    "address of another machine": (403, cell("192.0.2.7:{}")),
    "IPv6 address of another machine": (403, cell("[2001:db8::7]:{}")),
    "loopback in another notation": (403, cell("2130706433:{}")),
    "empty Host": (403, cell("")),
    "Host with userinfo": (403, cell("localhost@evil.test")),
    "Host with a path": (403, cell("localhost/evil.test")),
    "Host of two": (403, cell("localhost, evil.test")),
    "own Origin": (200, cell("127.0.0.1:{}", Origin="http://127.0.0.1:{}")),
    "own Origin, same-origin": (
        200, cell("localhost:{}", Origin="http://localhost:{}", Sec_Fetch_Site="same-origin"),
    ),
    "own Origin, upper case": (200, cell("localhost:{}", Origin="HTTP://LOCALHOST:{}")),
    "own Origin, IPv6": (200, cell("[::1]:{}", Origin="http://[::1]:{}")),
    "own Origin through ssh -L": (200, cell("localhost:9000", Origin="http://localhost:9000")),
    "own Origin at the usual port": (200, cell("localhost", Origin="http://localhost")),
    "allowed name behind a proxy": (200, cell(NAME, Origin=f"https://{NAME}")),
    "allowed name, usual port of https": (200, cell(f"{NAME}:443", Origin=f"https://{NAME}")),
    "foreign Origin": (403, cell("localhost:{}", Origin="http://evil.test")),
    "foreign Origin, https": (403, cell("localhost:{}", Origin="https://evil.test")),
    "foreign Origin that says same-origin": (
        403, cell("localhost:{}", Origin="http://evil.test", Sec_Fetch_Site="same-origin"),
    ),
    "null Origin": (403, cell("localhost:{}", Origin="null")),
    "empty Origin": (403, cell("localhost:{}", Origin="")),
    "Origin with userinfo": (403, cell("localhost:{}", Origin="http://localhost:{}@evil.test")),
    "Origin with a path": (403, cell("localhost:{}", Origin="http://localhost:{}/")),
    "Origin at another port": (403, cell("localhost:{}", Origin="http://localhost:1")),
    "Origin at the usual port": (403, cell("localhost:{}", Origin="http://localhost")),
    "Origin of another name of ours": (403, cell("localhost:{}", Origin="http://127.0.0.1:{}")),
    "https Origin": (403, cell("localhost:{}", Origin="https://localhost:{}")),
    "http Origin at the port of https": (403, cell(f"{NAME}:443", Origin=f"http://{NAME}")),
    "Origin of another scheme": (403, cell("localhost:{}", Origin="chrome-extension://localhost")),
    "two Origins": (
        403,
        (
            [("Host", "localhost"), ("Origin", "http://localhost"), ("Origin", "http://localhost")],
            "1.1",
        ),
    ),
    "cross-site without Origin": (403, cell("localhost:{}", Sec_Fetch_Site="cross-site")),
    "same-site without Origin": (403, cell("localhost:{}", Sec_Fetch_Site="same-site")),
    "typed by the user": (200, cell("localhost:{}", Sec_Fetch_Site="none")),
}  # fmt: skip
"""What a POST of a photo gets, by what it says of itself."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(
        tmp_path_factory.mktemp("s"), "bundled", "--offline", "--allow-host", NAME
    ) as found:
        yield found


def status(served: Served, line: str, headers: list[tuple[str, str]], body: bytes = b"") -> int:
    """Send one request over a socket of its own and return the answer's status."""
    host, port = served.host.split(":")
    lines = [f"{name}: {value.replace('{}', port)}" for name, value in headers]
    head = "\r\n".join([line, *lines, f"Content-Length: {len(body)}"])
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
    assert not any(name.lower().startswith("access-control") for name in answer.headers)
    return answer.status


@pytest.mark.parametrize("name", SENT)
def test_a_photo_from(served: Served, name: str) -> None:
    right, (headers, version) = SENT[name]
    assert status(served, f"POST /v1/classify HTTP/{version}", headers, PHOTO) == right
    if "Sec-Fetch-Site" not in dict(headers):  # reading is held to the same names and origins
        assert status(served, f"GET /v1/models HTTP/{version}", headers) == right


PATHS = ("/", "/page/page.js", "/metrics", "/v1/models", "/v2", "/v2/models/bundled", "/docs",
         "/openapi.json", "/nowhere")  # fmt: skip
SENDING = ("/v1/classify", "/v2/models/bundled/infer", "/v2/repository/index",
           "/v2/repository/models/bundled/load")  # fmt: skip


def test_every_path_but_health_asks_for_the_name(served: Served) -> None:
    for headers in ({"Host": "evil.test"}, {"Origin": "http://evil.test"}):
        for path in PATHS:
            assert httpx.get(served.url + path, headers=headers).status_code == 403, path
        for path in SENDING:
            assert httpx.post(served.url + path, headers=headers).status_code == 403, path
        for path in ("live", "ready"):
            assert httpx.get(f"{served.url}/v2/health/{path}", headers=headers).status_code == 200
    refused = httpx.get(f"{served.url}/v2", headers={"Host": "a.lan"}).json()["error"]
    assert "not called 'a.lan'" in refused
    assert "--allow-host" in refused


def test_no_site_is_given_leave_in_advance(served: Served) -> None:
    asked = {"Origin": "http://evil.test", "Access-Control-Request-Method": "POST"}
    refused = httpx.options(f"{served.url}/v1/classify", headers=asked)
    assert refused.status_code == 403
    assert not any(name.startswith("access-control") for name in refused.headers)


def test_a_link_from_another_site_opens_the_page(served: Served) -> None:
    assert httpx.get(served.url, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_with_a_token_the_token_decides(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    bearer = ("Authorization", f"Bearer {TOKEN}")
    options = ["bundled", "--offline", "--token-file", str(tmp_path / "token")]
    with serving(tmp_path, *options) as served:
        for headers in (
            [("Host", "photos.lan")],
            [("Host", "localhost"), ("Origin", "http://evil.test")],
            [("Host", "localhost"), ("Sec-Fetch-Site", "cross-site")],
        ):
            line = "POST /v1/classify HTTP/1.1"
            assert status(served, line, headers, PHOTO) == 401
            assert status(served, line, [*headers, bearer], PHOTO) == 200


def admitted(visitors: Visitors, host: str, came_in_at: str) -> bool:
    scope = {
        "type": "http", "method": "POST", "http_version": "1.1", "server": (came_in_at, 8000),
        "headers": [(b"host", host.encode())],
    }  # fmt: skip
    try:
        visitors.require_welcome(scope)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    ("bound", "came_in_at", "host", "right"),
    [
        ("0.0.0.0", "192.168.1.5", "192.168.1.5:8000", True),
        ("0.0.0.0", "192.168.1.5", "192.168.1.6:8000", False),
        ("0.0.0.0", "127.0.0.1", "0.0.0.0:8000", True),  # as it prints its own address
        ("0.0.0.0", "192.168.1.5", f"{socket.gethostname().upper()}.:8000", True),
        ("0.0.0.0", "192.168.1.5", "server.lan", False),
        ("127.0.0.1", "127.0.0.1", f"{socket.gethostname()}:8000", False),
        ("Server.lan", "192.168.1.5", "server.lan:8000", True),
        ("::", "2001:db8::5", "[2001:DB8:0:0::5]:8000", True),
        ("::", "fe80::5%eth0", "[fe80::5]:8000", True),
        ("::", "2001:db8::5", "[2001:db8::6]:8000", False),
    ],
)
def test_its_own_names_are_where_it_listens(
    bound: str, came_in_at: str, host: str, right: bool
) -> None:
    assert admitted(Visitors(bound), host, came_in_at) is right


def test_what_is_allowed_is_a_name_or_an_address() -> None:
    visitors = Visitors("127.0.0.1", ["a.example.", "::5", "[::6]", "10.0.0.1"])
    for host in ("A.example:1", "[::5]", "[0::6]:80", "10.0.0.1"):
        assert admitted(visitors, host, "127.0.0.1"), host
    for wrong in ("a.example:80", "http://a.example", "*", "", "a b"):
        with pytest.raises(StartError, match="is not a name"):
            Visitors("127.0.0.1", [wrong])
