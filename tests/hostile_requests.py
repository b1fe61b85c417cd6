"""Requests that nobody should send, as bytes, and the statuses that may answer them.

A corpus written by hand, and an endless supply of good requests with something broken in them.
"""

import base64
import gzip
import http.client
import io
import json
import random
import socket
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hostile_photos import hostile_files
from PIL import Image

from regnet.pixels.samples import sample_photos

REFUSALS = frozenset({400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 422, 429, 431})
DOCUMENTED = REFUSALS | {200, 503, 504}
PHOTO = next(photo.read_bytes() for photo in sample_photos() if photo.suffix == ".jpg")
SMALL = io.BytesIO()
Image.new("RGB", (96, 64), (200, 30, 60)).save(SMALL, "JPEG")
HOSTILE_IMAGES = {
    f"{kind}, {name}": data
    for kind, name, data in hostile_files("PNG claims", "GIF", "BMP", "TIFF claims", "PPM", "AVIF")
    if len(data) < 1 << 20
}
SIDE = 128  # the crop of the bundled model


@dataclass(frozen=True)
class Hostile:
    """Bytes to send; `statuses` may answer them, None stands for no answer at all.

    Where it `closes`, the sender says that nothing will follow.
    """

    name: str
    data: bytes
    statuses: frozenset[int | None]
    closes: bool = False


def message(
    method: str, path: str, body: bytes = b"", *headers: tuple[str, str], length: str | None = ""
) -> bytes:
    """Return a request; `length` replaces its true Content-Length, None leaves it out."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *(f"{n}: {v}" for n, v in headers)]
    if length is not None:
        lines.append(f"Content-Length: {length or len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def ask(address: tuple[str, int], request: Hostile, *, seconds: float = 60.0) -> int | None:
    """Send a request on a connection of its own and return the status, None where none came."""
    with socket.create_connection(address, timeout=seconds) as connection:
        try:
            connection.sendall(request.data)
            if request.closes:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer may be there all the same
        return _status(connection)


def _status(connection: socket.socket) -> int | None:
    response = http.client.HTTPResponse(connection, method="POST")
    try:
        response.begin()
        body = response.read()
    except (http.client.HTTPException, ConnectionResetError):
        return None
    if response.status >= 400:
        assert json.loads(body)["error"], body
    return response.status


def corpus() -> list[Hostile]:
    """Return the requests written by hand."""
    groups = (
        _http(),
        _paths(),
        _images(),
        _classify(),
        _multipart(),
        _infer_json(),
        _infer_binary(),
    )
    return [request for group in groups for request in group]


def _case(name: str, data: bytes, *statuses: int | None, closes: bool = False) -> Hostile:
    return Hostile(name, data, frozenset(statuses) or frozenset({400}), closes)


def _http() -> Iterator[Hostile]:
    post = "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    chunked = post + "Transfer-Encoding: chunked\r\n\r\n"
    whole = b"%x\r\n%b\r\n0\r\n\r\n" % (len(PHOTO), PHOTO)
    for name, data in {
        "no http": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        "http 9.9": b"GET /v2 HTTP/9.9\r\n\r\n",
        "control characters": b"GET /v2 HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
        "header without a colon": b"GET /v2 HTTP/1.1\r\nHost\r\n\r\n",
        "folded header": b"GET /v2 HTTP/1.1\r\nHost: a\r\n \x01b\r\n\r\n",
        "bad method": b"G\xc3\x8bT /v2 HTTP/1.1\r\nHost: a\r\n\r\n",
        "negative length": message("POST", "/v1/classify", b"x", length="-1"),
        "length in letters": message("POST", "/v1/classify", b"x", length="ten"),
        "length in hex": message("POST", "/v1/classify", b"x", length="0x10"),
        "length over 64 bits": message("POST", "/v1/classify", b"x", length="9" * 30),
        "two lengths": message("POST", "/v1/classify", b"x", ("Content-Length", "9")),
        "length and chunks": (
            post + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        ).encode()
        + whole,
        "bad chunk size": chunked.encode() + b"zz\r\n",
        "endless chunk size": chunked.encode() + b"f" * 400 + b"\r\n",
        "negative chunk size": chunked.encode() + b"-5\r\nabcde\r\n",
        "chunk too long": chunked.encode() + b"3\r\nabcdef\r\n0\r\n\r\n",
        "chunks twice": (post + "Transfer-Encoding: chunked, chunked\r\n\r\n").encode() + whole,
    }.items():
        yield _case(name, data, 400, 405, 422, 501, None, closes=True)
    yield _case("http 0.9", b"GET /v2\r\n\r\n", 200, 400, None)
    head = b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n"
    yield _case("a large header", head + b"X: " + b"y" * 200_000 + b"\r\n\r\n", 431, 400, None)
    yield _case("many headers", head + b"X: y\r\n" * 50_000 + b"\r\n", 431, 400, None)
    yield _case("a long path", b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n", 431, 414, None)
    yield _case("a head without end", head + b"X: y\r\n", None, closes=True)
    yield _case(
        "length lies, more",
        message("POST", "/v1/classify", PHOTO, length="99999"),
        None,
        closes=True,
    )
    yield _case(
        "length lies, less",
        message("POST", "/v1/classify", PHOTO, length="99"),
        422,
        400,
        closes=True,
    )
    yield _case(
        "length of a terabyte", message("POST", "/v1/classify", b"x", length="1099511627776"), 413
    )
    yield _case("chunks without end", chunked.encode() + whole[:-7], None, closes=True)
    yield _case(
        "endless chunks", chunked.encode() + b"100000\r\n%b\r\n" % bytes(1 << 20) * 40, 413, None
    )
    yield _case("chunked", chunked.encode() + whole, 200)
    yield _case(
        "continue",
        (post + f"Expect: 100-continue\r\nContent-Length: {len(PHOTO)}\r\n\r\n").encode() + PHOTO,
        200,
    )
    yield _case(
        "another expectation",
        (post + "Expect: 999\r\nContent-Length: 1\r\n\r\nx").encode(),
        417,
        422,
    )
    yield _case(
        "upgrade", head + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 200, 400, 426
    )
    yield _case(
        "h2c",
        head + b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n\r\n",
        200,
        400,
    )
    yield _case("http 2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 405, 404, None)
    yield from _compressed()
    for method in ("TRACE", "CONNECT", "DELETE", "PATCH", "OPTIONS", "PUT", "FOO"):
        yield _case(
            f"method {method}",
            message(method, "/v1/classify", PHOTO),
            400,
            404,
            405,
            None,
            closes=True,
        )


def _compressed() -> Iterator[Hostile]:
    zlib_bomb, gzip_bomb = zlib.compress(bytes(50 << 20)), gzip.compress(bytes(50 << 20))
    bodies = {
        "deflate bomb": ("deflate", zlib_bomb, 413),
        "raw deflate bomb": ("deflate", zlib_bomb[2:-4], 413),
        "gzip bomb": ("gzip", gzip_bomb, 413),
        "gzip of many bombs": ("gzip", gzip.compress(bytes(1 << 20)) * 100, 413),
        "gzip of many empty members": ("gzip", gzip.compress(b"") * 100_000, 400),
        "gzip in gzip": ("gzip", gzip.compress(gzip_bomb), 422),
        "deflate as gzip": ("gzip", zlib_bomb, 400),
        "gzip cut off": ("gzip", gzip.compress(PHOTO)[:-9], 400),
        "gzip with a wrong checksum": ("gzip", gzip.compress(PHOTO)[:-8] + bytes(8), 400),
        "deflate and more": ("deflate", zlib.compress(PHOTO) + b"x", 400),
        "br": ("br", zlib_bomb, 415),
        "gzip twice": ("gzip, gzip", gzip_bomb, 415),
        "gzip, as it should be": ("X-GZIP", gzip.compress(PHOTO), 200),
    }
    for name, (coding, body, status) in bodies.items():
        packed = message("POST", "/v1/classify", body, ("Content-Encoding", coding))
        yield _case(name, packed, status)


def _paths() -> Iterator[Hostile]:
    names = [
        "..",
        ".",
        "%2e%2e",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%00",
        "bundled%00.xml",
        "%ff%fe",
        "%",
    ]
    names += [
        "..\\..\\windows",
        "bundled;x",
        "bundled%0d%0aX-A:%20b",
        "x" * 30_000,
        "a%2fb",
        "%u0041",
        "%ed%a0%80",
    ]
    names += [
        "{name}",
        "%252e%252e",
        "bundled.xml",
        "/etc/passwd",
        "//etc/passwd",
        "~root",
        "C:%5cx",
        "%e2%80%ae",
    ]
    for name in names:
        for path in (
            f"/v2/models/{name}",
            f"/v2/models/{name}/ready",
            f"/v2/models/bundled/versions/{name}",
        ):
            yield _case(f"GET {path[:50]}", message("GET", path), 404, 400)
        yield _case(
            f"infer {name[:50]}", message("POST", f"/v2/models/{name}/infer", PHOTO), 404, 400
        )
        for verb in ("load", "unload"):
            yield _case(
                f"{verb} {name[:50]}",
                message("POST", f"/v2/repository/models/{name}/{verb}"),
                403,
                404,
                400,
            )
        yield _case(
            f"model={name[:50]}", message("POST", f"/v1/classify?model={name}", PHOTO), 404, 400
        )
    for path in (
        "/page/../../../../etc/passwd",
        "/page/..%2f..%2fpyproject.toml",
        "/page/%2e%2e/run.py",
    ):
        yield _case(path, message("GET", path), 404, 400)
    for path in (
        "/page//etc/passwd",
        "//",
        "/v2//",
        "/v1/../v2x",
        "*",
        "http://other/v2x",
        "/\u00e9",
        "/..;/x",
        "?",
    ):
        yield _case(f"path {path}", message("GET", path), 404, 400, 405)


def _images() -> Iterator[Hostile]:
    for name, data in HOSTILE_IMAGES.items():
        yield _case(
            name, message("POST", "/v1/classify", data, ("Content-Type", "image/png")), 200, 422
        )
        binary = _binary(
            {"inputs": [_tensor(parameters={"binary_data_size": len(data) + 4})]}, _raw(data)
        )
        yield _case(f"infer {name}", binary, 200, 422)
    bomb = io.BytesIO()
    Image.new("1", (16_000, 16_000)).save(bomb, "PNG")
    for name, data in {
        "empty": b"",
        "truncated": PHOTO[: len(PHOTO) // 2],
        "head alone": PHOTO[:20],
        "no jpeg": b"\xff\xd8\xff" + bytes(random.Random(1).randbytes(5000)),
        "bomb": bomb.getvalue(),
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
        "text": b"GIF",
        "zeros": bytes(1 << 20),
    }.items():
        yield _case(
            name, message("POST", "/v1/classify", data, ("Content-Type", "image/jpeg")), 422, 200
        )


def _json(value: Any, path: str = "/v1/classify", *headers: tuple[str, str]) -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return message("POST", path, body, ("Content-Type", "application/json"), *headers)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


BROKEN_JSON = {
    "nothing": b"",
    "garbage": b"\xff\xfe{}",
    "cut off": b'{"images": ["',
    "a list": b"[]",
    "null": b"null",
    "NaN": b"NaN",
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "deep and closed": b'{"inputs": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "many values": b'{"images": [' + b"1," * 5_000_000 + b"1]}",
    "long number": b'{"images": ' + b"9" * 1_000_000 + b"}",
    "large exponent": b'{"images": [1e999999999]}',
    "two of a name": b'{"images": [], "images": []}',
    "utf-16": '{"images": []}'.encode("utf-16"),
    "utf-32": '{"images": []}'.encode("utf-32"),
    "bom": b'\xef\xbb\xbf{"images": []}',
    "control character": b'{"images": ["\x01"]}',
    "surrogates": b'{"\\ud800": ["\\udfff"]}',
    "comment": b'{/* */"images": []}',
}


def _classify() -> Iterator[Hostile]:
    for name, body in BROKEN_JSON.items():
        yield _case(f"json {name}", _json(body), 400, 413)
        yield _case(f"infer json {name}", _json(body, "/v2/models/bundled/infer"), 400, 413)
        yield _case(f"index json {name}", _json(body, "/v2/repository/index"), 200, 400, 413)
    good = _base64(SMALL.getvalue())
    for name, value, *statuses in (
        ("bad base64", {"images": ["!!!"]}, 400),
        ("half a base64", {"images": [good[:-3]]}, 400, 422),
        ("base64 with newlines", {"images": [good[:60] + "\n" + good[60:]]}, 400),
        ("url base64", {"images": ["_-_-"]}, 400, 422),
        ("data url", {"images": [f"data:image/jpeg;base64,{good}"]}, 400),
        ("null image", {"images": [None]}, 400),
        ("nested images", {"images": [[good]]}, 400),
        ("object of images", {"images": {"0": good}}, 400),
        ("text of images", {"images": good}, 400),
        ("no images", {"images": []}, 400),
        ("nothing asked", {}, 400),
        ("unknown field", {"images": [good], "path": "/etc/passwd"}, 400),
        ("urls", {"urls": ["http://169.254.169.254/latest/meta-data/"]}, 400),
        ("file urls", {"urls": ["file:///etc/passwd"]}, 400),
        ("images and urls", {"images": [good], "urls": ["http://localhost/"]}, 400),
        ("urls that are none", {"urls": [1, None]}, 400),
        ("too many images", {"images": [good] * 65}, 413),
        ("empty images", {"images": [""] * 64}, 422),
        ("one of two", {"images": [good, "AAAA"]}, 200),
    ):
        yield _case(name, _json(value), *statuses)
    for query in (
        "top_k=0",
        "top_k=-1",
        "top_k=x",
        "top_k=1.5",
        "top_k=%00",
        f"top_k={'9' * 400}",
        "top_k=",
        "a=b",
    ):
        yield _case(query[:40], message("POST", f"/v1/classify?{query}", SMALL.getvalue()), 400)
    for query in (
        "sets=maybe",
        "sets=1",
        "explain=%ff",
        "explain=",
        "sets=true&explain=x",
        "&".join(["x=y"] * 5000),
    ):
        yield _case(
            query[:40], message("POST", f"/v1/classify?{query}", SMALL.getvalue()), 400, 422
        )
    yield _case(
        "all classes", message("POST", "/v1/classify?top_k=999999999", SMALL.getvalue()), 200
    )
    yield _case("explain garbage", message("POST", "/v1/classify?explain=true", b"x"), 422)
    for kind in (
        "text/plain",
        "application/xml",
        "application/x-ndjson",
        "video/mp4",
        "\u00e9",
        ";;;",
        "/",
    ):
        yield _case(
            f"type {kind}",
            message("POST", "/v1/classify", PHOTO, ("Content-Type", kind)),
            415,
            400,
            200,
        )


def _form(body: bytes, kind: str = "multipart/form-data; boundary=b") -> bytes:
    return message("POST", "/v1/classify", body, ("Content-Type", kind))


def _multipart() -> Iterator[Hostile]:
    head = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a.jpg"\r\n\r\n'
    good = head + SMALL.getvalue() + b"\r\n--b--\r\n"
    yield _case("form", _form(good), 200)
    for kind in (
        "",
        "; boundary=",
        "; boundary=other",
        f"; boundary={'b' * 5000}",
        "; boundary=\u00e9",
    ):
        yield _case(f"form {kind[:20]}", _form(good, f"multipart/form-data{kind}"), 400)
    for name, body, *statuses in (
        ("empty form", b"", 400),
        ("form that ends", b"--b--\r\n", 400),
        ("form cut off", good[:-9], 400),
        ("form cut in a head", head[:30], 400),
        ("form with garbage before", b"garbage\r\n" * 999 + good, 400, 200),
        ("form with garbage after", good + b"\xff" * 9999, 200, 400),
        ("many parts", (head + b"x\r\n") * 100_000, 413),
        ("parts without heads", b"--b\r\n\r\nx\r\n" * 60 + b"--b--\r\n", 422),
        ("a large head", b"--b\r\nX: " + b"y" * 5_000_000 + b"\r\n\r\nx\r\n--b--\r\n", 400, 422),
        ("many heads", b"--b\r\n" + b"X: y\r\n" * 100_000 + b"\r\nx\r\n--b--\r\n", 400, 422),
        ("a long name", head.replace(b"a.jpg", b"x" * 1_000_000) + b"x\r\n--b--\r\n", 422, 400),
        (
            "a path for a name",
            head.replace(b"a.jpg", b"../../etc/passwd\0\xff") + b"x\r\n--b--\r\n",
            422,
            400,
        ),
        (
            "encoded parts",
            head[:-2] + b"Content-Transfer-Encoding: base64\r\n\r\nAA\r\n--b--\r\n",
            422,
            400,
        ),
        ("form in a form", head + good + good, 200, 400, 422),
    ):
        yield _case(name, _form(body), *statuses)


def _tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": [1], **fields}


def _crop(**fields: Any) -> dict[str, Any]:
    return {"name": "data", "datatype": "UINT8", "shape": [1, SIDE, SIDE, 3], **fields}


def _infer(value: Any) -> bytes:
    return _json(value, "/v2/models/bundled/infer")


def _infer_json() -> Iterator[Hostile]:
    good = [_base64(SMALL.getvalue())]
    shapes = (
        [],
        [-1],
        [0],
        [1.5],
        [True],
        ["1"],
        [None],
        [[1]],
        [1] * 1000,
        [10**30],
        [2**62] * 4,
        None,
        "1",
        1,
    )
    for shape in (*shapes, [2], [1, 2], [65], [-(2**63)], [1e308]):
        yield _case(
            f"shape {str(shape)[:40]}",
            _infer({"inputs": [_tensor(shape=shape, data=good)]}),
            400,
            413,
        )
        yield _case(
            f"crop {str(shape)[:40]}", _infer({"inputs": [_crop(shape=shape, data=[1])]}), 400, 413
        )
    flat = [0] * (SIDE * SIDE * 3)
    for name, value, *statuses in (
        ("no inputs", {}, 400),
        ("inputs no list", {"inputs": {"image": 1}}, 400),
        ("inputs null", {"inputs": None}, 400),
        ("an input no object", {"inputs": ["image"]}, 400),
        ("many inputs", {"inputs": [_tensor(data=good)] * 5000}, 400),
        ("duplicated names", {"inputs": [_tensor(data=good)] * 2}, 400),
        ("unknown name", {"inputs": [_tensor(name="../x", data=good)]}, 400),
        ("name no text", {"inputs": [_tensor(name=["image"], data=good)]}, 400),
        ("datatype null", {"inputs": [_tensor(datatype=None, data=good)]}, 400),
        ("datatype unknown", {"inputs": [_tensor(datatype="COMPLEX", data=good)]}, 400),
        ("no data", {"inputs": [_tensor()]}, 400),
        ("data null", {"inputs": [_tensor(data=None)]}, 400),
        ("data object", {"inputs": [_tensor(data={"0": good})]}, 400),
        ("data numbers", {"inputs": [_tensor(data=[1])]}, 400),
        ("data no image", {"inputs": [_tensor(data=["AAAA"])]}, 422),
        ("more data", {"inputs": [_tensor(data=good * 2)]}, 400),
        ("too many photos", {"inputs": [_tensor(shape=[65], data=good * 65)]}, 413),
        ("crop of texts", {"inputs": [_crop(data=["1"] * len(flat))]}, 400, 422, 200),
        ("crop too short", {"inputs": [_crop(data=flat[:-1])]}, 400),
        ("crop over 255", {"inputs": [_crop(data=[256, *flat[1:]])]}, 422),
        ("crop below 0", {"inputs": [_crop(data=[-1, *flat[1:]])]}, 422),
        ("crop of fractions", {"inputs": [_crop(data=[0.5, *flat[1:]])]}, 422),
        ("crop of huge numbers", {"inputs": [_crop(data=[10**300, *flat[1:]])]}, 422, 400),
        ("crop of no numbers", {"inputs": [_crop(data=[10**400, *flat[1:]])]}, 422, 400),
        ("crop of NaN", {"inputs": [_crop(datatype="FP32", data=[float("nan"), *flat[1:]])]}, 422),
        (
            "crop infinite",
            {"inputs": [_crop(datatype="FP32", data=[float("inf"), *flat[1:]])]},
            422,
        ),
        ("crop with null", {"inputs": [_crop(data=[None, *flat[1:]])]}, 400, 422),
        ("ragged crop", {"inputs": [_crop(data=[[1], [1, 2]])]}, 400),
        ("crop of another size", {"inputs": [_crop(shape=[1, 3, 3, 3], data=[0] * 27)]}, 400),
        ("id a number", {"id": 7, "inputs": [_tensor(data=good)]}, 400),
        ("id of surrogates", {"id": "\ud800\0", "inputs": [_tensor(data=good)]}, 200, 400),
        ("parameters a list", {"parameters": [1], "inputs": [_tensor(data=good)]}, 400),
        (
            "shared memory",
            {"inputs": [_tensor(parameters={"shared_memory_region": "/etc/passwd"})]},
            400,
        ),
        (
            "binary size and data",
            {"inputs": [_tensor(data=good, parameters={"binary_data_size": 0})]},
            400,
        ),
        ("binary size of nothing", {"inputs": [_tensor(parameters={"binary_data_size": 9})]}, 400),
    ):
        yield _case(name, _infer(value), *statuses)
    for outputs in (
        [{"name": "other"}],
        [{"name": "prob"}] * 2,
        [1],
        {"name": "prob"},
        [{"name": None}],
        [{}],
    ):
        yield _case(
            f"outputs {str(outputs)[:40]}",
            _infer({"inputs": [_tensor(data=good)], "outputs": outputs}),
            400,
        )
    for k in (-1, 1.5, "3", None, True, 10**30, [3], {"k": 3}):
        output = {"name": "prob", "parameters": {"classification": k}}
        yield _case(
            f"classification {k}",
            _infer({"inputs": [_tensor(data=good)], "outputs": [output]}),
            400,
            200,
        )


def _raw(*data: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(one)) + one for one in data)


def _binary(value: Any, data: bytes, length: str | None = None) -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    header = ("Inference-Header-Content-Length", str(len(text)) if length is None else length)
    return message("POST", "/v2/models/bundled/infer", text + data, header)


def _infer_binary() -> Iterator[Hostile]:
    photo = _raw(SMALL.getvalue())
    value = {"inputs": [_tensor(parameters={"binary_data_size": len(photo)})]}
    yield _case("binary", _binary(value, photo), 200)
    yield _case("one photo", _binary(b"", SMALL.getvalue(), "0"), 200)
    for length in (
        "-1",
        "1",
        "5",
        "99999999",
        "9" * 50,
        "x",
        "1.0",
        "\u0661",
        "",
        " ",
        "0x5",
        "1e1",
        "+5",
    ):
        yield _case(f"header length {length[:20]}", _binary(value, photo, length), 400)
    for size in (-1, 0, 1, len(photo) - 1, len(photo) + 1, 10**30, 1.0, "9", None, True, [9], {}):
        changed = {"inputs": [_tensor(parameters={"binary_data_size": size})]}
        yield _case(f"binary size {size}", _binary(changed, photo), 400)
    for name, data, *statuses in (
        ("element too long", b"\xff\xff\xff\xff" + b"x" * 99, 400),
        ("element too short", photo[:-1], 400),
        ("no length", b"\x01\0", 400),
        ("two elements", photo * 2, 400),
        ("many empty elements", bytes(4 * 200_000), 400),
        ("no photo", _raw(b"no photo"), 422),
    ):
        changed = {"inputs": [_tensor(parameters={"binary_data_size": len(data)})]}
        yield _case(f"binary {name}", _binary(changed, data), *statuses)
    for datatype, kind in (
        ("UINT8", "B"),
        ("FP32", "f"),
        ("FP16", "e"),
        ("INT64", "q"),
        ("BYTES", "B"),
    ):
        data = struct.pack(f"<{SIDE * SIDE * 3}{kind}", *([0] * (SIDE * SIDE * 3)))
        for shape in (
            [1, SIDE, SIDE, 3],
            [1, 3, SIDE, SIDE],
            [2, SIDE, SIDE, 3],
            [1, SIDE * SIDE * 3],
        ):
            tensor = _crop(
                datatype=datatype, shape=shape, parameters={"binary_data_size": len(data)}
            )
            yield _case(f"crop {datatype} {shape}", _binary({"inputs": [tensor]}, data), 200, 400)
    huge = _crop(
        datatype="FP32", shape=[2**31, 2**31, 2**31, 3], parameters={"binary_data_size": 4}
    )
    yield _case("crop of all memory", _binary({"inputs": [huge]}, b"1234"), 400, 413)


ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    10**25,
    "",
    "\ud800",
    "../x",
    [],
    {},
    [[]],
    [None] * 3,
    2**63,
)


def broken(seed: int) -> Iterator[Hostile]:
    """Yield good requests with something broken in each, without end, the same for a seed."""
    rng = random.Random(seed)
    makers = (_broken_photo, _broken_json, _broken_binary, _broken_form, _broken_head)
    number = 0
    while True:
        maker = rng.choice(makers)
        number += 1
        yield Hostile(f"{maker.__name__[1:]} {number}", *maker(rng))


Made = tuple[bytes, frozenset[int | None], bool]
_ANY: frozenset[int | None] = REFUSALS | {200}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with a few cut out, changed, repeated or put in."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        end = min(len(changed), at + int(rng.expovariate(1 / 40)))
        kind = rng.randrange(5)
        if kind == 0:
            del changed[at:end]
        elif kind == 1:
            changed[at:end] = rng.randbytes(end - at)
        elif kind == 2:
            changed[at:at] = changed[at:end]
        elif kind == 3:
            changed[at:at] = rng.randbytes(rng.randint(1, 9))
        else:
            del changed[at:]
    return bytes(changed)


def _broken_photo(rng: random.Random) -> Made:
    photo = rng.choice((PHOTO, SMALL.getvalue(), *HOSTILE_IMAGES.values()))
    return message("POST", "/v1/classify", damaged(photo, rng)), frozenset({200, 422}), False


def _replaced(value: Any, rng: random.Random) -> Any:
    """Return JSON with some value replaced by an odd one."""
    if rng.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return rng.choice(ODD)
    changed = value.copy()
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    changed[key] = _replaced(value[key], rng)
    return changed


def _asked(rng: random.Random) -> dict[str, Any]:
    good = _base64(SMALL.getvalue())
    tensor = rng.choice(
        (_tensor(data=[good]), _crop(data=[0] * 99), _tensor(shape=[2], data=[good] * 2))
    )
    output = {"name": "prob", "parameters": {"classification": 3}}
    return {
        "id": "1",
        "parameters": {"binary_data_output": False},
        "inputs": [tensor],
        "outputs": [output],
    }


def _broken_json(rng: random.Random) -> Made:
    value: Any = rng.choice((_asked(rng), {"images": [_base64(SMALL.getvalue())] * 2}))
    path = "/v2/models/bundled/infer" if "inputs" in value else "/v1/classify"
    if rng.random() < 0.5:
        return _json(_replaced(value, rng), path), _ANY, False
    return _json(damaged(json.dumps(value).encode(), rng), path), _ANY, False


def _broken_binary(rng: random.Random) -> Made:
    photo = _raw(SMALL.getvalue())
    value = {"inputs": [_tensor(parameters={"binary_data_size": len(photo)})]}
    if rng.random() < 0.3:
        value = _replaced(value, rng)
    text = json.dumps(value).encode()
    length = len(text) + rng.choice((0, 0, 0, rng.randint(-9, 9)))
    return _binary(text, damaged(photo, rng), str(length)), _ANY, False


def _broken_form(rng: random.Random) -> Made:
    head = b'--b\r\nContent-Disposition: form-data; name="a"; filename="a.jpg"\r\n\r\n'
    body = (head + SMALL.getvalue() + b"\r\n") * 2 + b"--b--\r\n"
    return _form(damaged(body, rng)), _ANY, False


def _broken_head(rng: random.Random) -> Made:
    """Break the line and headers of a request; then it may be another one, or none."""
    path = rng.choice(
        (
            "/v1/classify?top_k=3",
            "/v2/models/bundled/infer",
            "/v2/models/bundled",
            "/metrics",
            "/v2",
        )
    )
    whole = message(
        rng.choice(("GET", "POST")), path, b"", ("Content-Type", "image/jpeg"), length="9"
    )
    return damaged(whole, rng) + b"123456789\r\n\r\n", _ANY | {501, 505, None}, True
