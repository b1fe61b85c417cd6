"""Photos at addresses that clients name: real servers on this machine, the resolver ours."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest
from local_server import (
    Handler,
    LocalServer,
    chunked,
    claims_length,
    dies_after,
    redirect,
    slowly,
    stalls_after,
    status,
)

from regnet.errors import ImageError
from regnet.serving.public_addresses import Address, is_public
from regnet.serving.remote import RemotePhotos

HERE = ip_address("127.0.0.1")
PHOTO = bytes(range(256)) * 400


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        server.files["a.jpg"] = PHOTO
        yield server


class Names:
    """A resolver with these hosts and no others; counts what it was asked."""

    def __init__(self, **hosts: Sequence[str]) -> None:
        self.hosts = {name.replace("_", "."): hosts[name] for name in hosts}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        self.asked.append(host)
        if host not in self.hosts:
            raise OSError("no such host")
        return [ip_address(text) for text in self.hosts[host]]


def fetch(*urls: str, seconds: float = 20.0, **options: Any) -> list[Any]:
    async def run() -> list[Any]:
        options.setdefault("max_bytes", 1 << 20)
        remote = RemotePhotos(**options)
        try:
            return await remote.fetch_all(
                urls, deadline=asyncio.get_running_loop().time() + seconds
            )
        finally:
            await remote.close()

    return asyncio.run(run())


def only_here(address: Address) -> bool:
    return address == HERE


def here(server: LocalServer, *urls: str, **options: Any) -> list[Any]:
    """Fetch from hosts under example.org, which is this machine; 127.0.0.2 counts as private."""
    names = Names(example_org=["127.0.0.1"], inside_example_org=["127.0.0.2"])
    port = server.base.rpartition(":")[2]
    settings = {"resolve": names, "may_connect": only_here, **options}
    return fetch(*(url.replace("PORT", port) for url in urls), **settings)


def reason(found: object) -> str:
    assert isinstance(found, ImageError), found
    return str(found)


PUBLIC = """
8.8.8.8 1.1.1.1 172.15.0.1 172.32.0.1 100.63.0.1 193.0.0.1 223.255.255.1
2606:4700::1111 2a00:1450:4001::1 ::ffff:8.8.8.8 64:ff9b::808:808
"""
NOT_PUBLIC = """
127.0.0.1 127.255.0.9 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 0.0.0.0
0.1.2.3 100.64.0.1 198.18.0.1 192.0.2.1 192.88.99.1 192.0.0.8 224.0.0.1 239.255.255.250 240.0.0.1
255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe ::ffff:10.0.0.1
64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::808:808 fe80::1 fe80::1%eth0 fec0::1 fc00::1
fd00:ec2::254 ff02::1 ff0e::1 100::1 2001:db8::1 2001::1 2001:2::1 2001:20::1 2002:7f00:1::1
2002:808:808::1 3fff::1 5f00::1 4000::1 ::ffff:0:127.0.0.1 2606:4700::1%eth0
"""
THIS_MACHINE = """
http://127.0.0.1:PORT/a.jpg http://localhost:PORT/a.jpg http://2130706433:PORT/a.jpg
http://0x7f.1:PORT/a.jpg http://017700000001:PORT/ http://[::1]:PORT/a.jpg http://0:PORT/
http://[::ffff:127.0.0.1]:PORT/a.jpg http://[::ffff:7f00:1]:PORT/ http://127.1:PORT/a.jpg
http://0.0.0.0:PORT/a.jpg http://LOCALHOST.:PORT/a.jpg http://169.254.169.254/latest/meta-data/
http://[fe80::1]:PORT/ http://[64:ff9b::7f00:1]/ http://①②⑦.⓪.⓪.①:PORT/a.jpg
http://127。0。0。1:PORT/a.jpg
"""


@pytest.mark.parametrize("text", PUBLIC.split())
def test_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC.split())
def test_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


def test_what_python_calls_private_is_not_public() -> None:
    for kind, bits in ((IPv4Address, 32), (IPv6Address, 128)):
        for step in range(4096):
            address = kind(step << (bits - 12) | 1)
            if not address.is_global:
                assert not is_public(address), address
            if is_public(address):
                special = (address.is_multicast, address.is_reserved, address.is_link_local)
                assert not any(special), address


def test_a_photo(server: LocalServer) -> None:
    assert here(server, "http://example.org:PORT/a.jpg#part") == [PHOTO]
    assert [request.path for request in server.log] == ["a.jpg"]


def test_the_host_is_named_to_the_server(server: LocalServer) -> None:
    heads: list[Any] = []
    server.script = [
        lambda handler, content: (heads.append(handler.headers), status(404)(handler, content))
    ]
    assert "answered 404" in reason(here(server, "http://example.org:PORT/a.jpg")[0])
    assert heads[0]["Host"] == server.base.replace("http://127.0.0.1", "example.org")
    assert not heads[0]["Authorization"]
    assert not heads[0]["Cookie"]


def test_several_in_order_and_one_failure_alone(server: LocalServer) -> None:
    server.files["b.jpg"] = b"B"
    urls = ["http://example.org:PORT/" + name for name in ("b.jpg", "none.jpg", "a.jpg")]
    first, second, third = here(server, *urls)
    assert (first, third) == (b"B", PHOTO)
    assert "answered 404" in reason(second)


@pytest.mark.parametrize("url", THIS_MACHINE.split())
def test_this_machine_is_refused(server: LocalServer, url: str) -> None:
    port = server.base.rpartition(":")[2]
    (found,) = fetch(url.replace("PORT", port))  # the system's resolver, the real rule
    said = ("not on the public internet", "is not known", "it is none")
    assert any(text in reason(found) for text in said)
    assert server.log == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("file:///etc/passwd", "none of http"),
        ("ftp://example.org/a.jpg", "none of http"),
        ("gopher://example.org/", "none of http"),
        ("data:image/png;base64,AAAA", "none of http"),
        ("//example.org/a.jpg", "none of http"),
        ("/etc/passwd", "none of http"),
        ("example.org", "none of http"),
        ("", "none of http"),
        ("http://", "none of http"),
        ("http:///a.jpg", "none of http"),
        ("http://user:secret@example.org/", "user name"),
        ("http://user@example.org/", "user name"),
        ("http://:@example.org/", "user name"),
        ("http://example.org:99999/", "port"),
        ("http://example.org:0/", "port"),
        ("http://exam ple.org/", "not known"),
        ("http://example.org/\r\nHost: inside", "it is none"),
        ("http://[::1/", "it is none"),
        ("http://" + "a" * 3000, "longer"),
        ("http://unknown.example.org/", "not known"),
        ("http://" + "a" * 300 + "/", "not known"),
        ("http://a..b/", "not known"),
    ],
)
def test_what_is_no_address(server: LocalServer, url: str, why: str) -> None:
    assert why in reason(here(server, url)[0])
    assert server.log == []


def test_a_host_with_one_private_address_is_refused(server: LocalServer) -> None:
    names = Names(example_org=["127.0.0.1", "10.0.0.1"])
    (found,) = here(server, "http://example.org:PORT/a.jpg", resolve=names)
    assert "not on the public internet" in reason(found)
    assert "10.0.0.1" not in reason(found)  # nothing is told of our network
    assert server.log == []


def test_a_host_is_resolved_once(server: LocalServer) -> None:
    class Rebinding(Names):
        async def __call__(self, host: str, port: int) -> Sequence[Address]:
            found = await super().__call__(host, port)
            self.hosts[host] = ["127.0.0.2"]
            return found

    names = Rebinding(example_org=["127.0.0.1"])
    assert here(server, "http://example.org:PORT/a.jpg", resolve=names) == [PHOTO]
    assert names.asked == ["example.org"]


def test_the_next_address_where_the_first_has_no_connection(server: LocalServer) -> None:
    names = Names(example_org=["127.0.0.3", "127.0.0.1"])  # the server listens on .1 alone
    url = "http://example.org:PORT/a.jpg"
    assert here(server, url, resolve=names, may_connect=lambda address: True) == [PHOTO]


def test_no_connection_is_said(server: LocalServer) -> None:
    names = Names(example_org=["127.0.0.3"])
    url = "http://example.org:PORT/a.jpg"
    (found,) = here(server, url, resolve=names, may_connect=lambda address: True)
    assert "connect" in reason(found)


def test_redirects_are_followed_and_counted(server: LocalServer) -> None:
    server.script = [redirect("/b"), redirect("a.jpg")]
    assert here(server, "http://example.org:PORT/x") == [PHOTO]
    server.script = [redirect("/x")] * 9
    assert "more than 2 redirects" in reason(
        here(server, "http://example.org:PORT/x", redirects=2)[0]
    )
    assert len(server.log) == 6


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("http://inside.example.org:PORT/a.jpg", "not on the public internet"),
        ("//inside.example.org:PORT/a.jpg", "not on the public internet"),
        ("file:///etc/passwd", "none of http"),
        ("http://user:secret@example.org:PORT/a.jpg", "user name"),
        ("http://unknown.example.org/", "not known"),
        ("http://[", "not known"),
        ("", "more than 3 redirects"),
    ],
)
def test_redirects_are_checked_again(server: LocalServer, target: str, why: str) -> None:
    target = target.replace("PORT", server.base.rpartition(":")[2])
    server.script = [redirect(target)] * 4
    assert why in reason(here(server, "http://example.org:PORT/x")[0])
    assert {request.path for request in server.log} == {"x"}


@pytest.mark.parametrize(
    ("behave", "why"),
    [
        (chunked(), "over the limit of 1,000 bytes"),
        (claims_length(1 << 50), "over the limit of 1,000 bytes"),
        (claims_length(1001), "over the limit of 1,000 bytes"),
    ],
    ids=["streamed", "huge length", "length"],
)
def test_too_many_bytes(server: LocalServer, behave: Callable[..., None], why: str) -> None:
    server.script = [behave]
    assert why in reason(here(server, "http://example.org:PORT/a.jpg", max_bytes=1000)[0])


def test_the_photos_of_a_request_share_their_limit(server: LocalServer) -> None:
    urls = ["http://example.org:PORT/a.jpg"] * 3
    found = here(server, *urls, max_bytes=2 * len(PHOTO))
    assert sum(photo == PHOTO for photo in found) <= 2
    assert any("over the limit" in str(photo) for photo in found if isinstance(photo, ImageError))


def test_it_takes_too_long(server: LocalServer) -> None:
    server.script = [stalls_after(100)]
    assert "not finished in time" in reason(
        here(server, "http://example.org:PORT/a.jpg", seconds=0.3)[0]
    )
    server.released.set()


def test_a_trickle_does_not_prolong_the_time(server: LocalServer) -> None:
    server.script = [slowly(5)]
    (found,) = asyncio.run(_with_own_seconds(server))
    assert "not finished in time" in reason(found)


async def _with_own_seconds(server: LocalServer) -> list[Any]:
    remote = RemotePhotos(
        max_bytes=1 << 20,
        seconds=0.7,
        resolve=Names(example_org=["127.0.0.1"]),
        may_connect=only_here,
    )
    url = server.url("a.jpg").replace("127.0.0.1", "example.org")
    found = await remote.fetch_all([url], deadline=asyncio.get_running_loop().time() + 60)
    await remote.close()
    return list(found)


def test_what_breaks_off_is_no_photo(server: LocalServer) -> None:
    for behave in (dies_after(100), chunked(cut=50_000)):
        server.script = [behave]
        assert isinstance(here(server, "http://example.org:PORT/a.jpg")[0], ImageError)


def test_what_comes_compressed_is_refused(server: LocalServer) -> None:
    def bomb(handler: Handler, content: bytes) -> None:
        handler.head(200, ("Content-Encoding", "gzip"), ("Content-Length", len(content)))
        handler.body(content)

    server.script = [bomb]
    assert "compressed" in reason(here(server, "http://example.org:PORT/a.jpg")[0])


def test_cookies_do_not_travel(server: LocalServer) -> None:
    heads: list[str | None] = []

    def sets_cookie(handler: Handler, content: bytes) -> None:
        heads.append(handler.headers["Cookie"])
        handler.head(302, ("Set-Cookie", "a=b"), ("Location", "/a.jpg"), ("Content-Length", 0))

    server.script = [sets_cookie, sets_cookie]
    here(server, "http://example.org:PORT/x")
    assert heads == [None, None]


def test_no_proxy_of_the_environment(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert here(server, "http://example.org:PORT/a.jpg") == [PHOTO]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and a certificate for secure.example.org, made on the spot."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    names = ["-subj", "/CN=test", "-addext", "subjectAltName=DNS:secure.example.org"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *files, *names],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both


def _secure(certificate: Path, host: str, trust: bool) -> list[Any]:
    with LocalServer() as server:
        server.files["a.jpg"] = PHOTO
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        names = Names(secure_example_org=["127.0.0.1"], other_example_org=["127.0.0.1"])
        verify = ssl.create_default_context(cafile=str(certificate)) if trust else True
        url = f"https://{host}:PORT/a.jpg"
        return here(server, url, resolve=names, verify=verify)


def test_tls_verifies_the_name_and_not_the_address(certificate: Path) -> None:
    assert _secure(certificate, "secure.example.org", trust=True) == [PHOTO]
    assert "CERTIFICATE_VERIFY_FAILED" in reason(
        _secure(certificate, "other.example.org", trust=True)[0]
    )
    assert "CERTIFICATE_VERIFY_FAILED" in reason(
        _secure(certificate, "secure.example.org", trust=False)[0]
    )


def test_https_does_not_lead_to_http(certificate: Path) -> None:
    with LocalServer() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        server.script = [redirect("http://secure.example.org/")]
        names = Names(secure_example_org=["127.0.0.1"])
        verify = ssl.create_default_context(cafile=str(certificate))
        (found,) = here(server, "https://secure.example.org:PORT/", resolve=names, verify=verify)
        assert "from https to http" in reason(found)
