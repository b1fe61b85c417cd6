"""A model behind an address: the Open Inference Protocol, spoken to a real server on this machine.

The server is written from the protocol's text, apart from the client, around the bundled model.
"""

import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_server import QuietServer
from test_conversion_export import SMALL, described
from typer.testing import CliRunner

from regnet.cli import build_app
from regnet.comparison.compare import ComparisonRecord, compare
from regnet.inference.server_predictor import ServerPredictor, is_address
from regnet.ir.engine import Engine, read_model
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ImageError, ServerError
from regnet.system.retry import Retry
from regnet.zoo.catalogue import bundled_path, card_by_name

SAMPLES = sample_photos()
ENGINE = Engine(read_model(bundled_path(card_by_name("bundled")), logits=True))
METADATA = ENGINE.metadata
INPUTS = {
    "photo": {"name": "image", "datatype": "BYTES", "shape": [-1]},
    "photo in two dimensions": {"name": "image", "datatype": "BYTES", "shape": [-1, 1]},
    "whole": {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
    "nchw": {"name": "data", "datatype": "FP32", "shape": [-1, 3, 128, 128]},
    "nhwc": {"name": "data", "datatype": "UINT8", "shape": [-1, 128, 128, 3]},
    "one": {"name": "data", "datatype": "FP32", "shape": [1, 3, 128, 128]},
}


class Server:
    """Serves the bundled model under `/v2/models/m`; `answers` go before what it would say."""

    def __init__(self, kind: str, *, binary: bool = True) -> None:
        self.input: dict[str, Any] = INPUTS[kind]
        self.outputs: list[dict[str, Any]] = [
            {"name": "prob", "datatype": "FP32", "shape": [-1, 200]}
        ]
        self.extensions = ["binary_tensor_data"] if binary else []
        self.logits = self.mirrored = False
        self.answers: list[tuple[int, bytes]] = []
        self.refused: bytes | None = None
        self.requests: list[dict[str, Any]] = []

    def describe(self, path: str) -> dict[str, Any] | None:
        if path == "/v2":
            return {"name": "test", "version": "1", "extensions": self.extensions}
        if path == "/v2/models/m":
            return {"name": "m", "platform": "x", "inputs": [self.input], "outputs": self.outputs}
        return None

    def infer(self, body: bytes, header_length: str | None) -> tuple[int, dict[str, Any]]:
        split = len(body) if header_length is None else int(header_length)
        asked = json.loads(body[:split])
        (tensor,) = asked["inputs"]
        self.requests.append(asked | {"extra": len(body) - split})
        assert tensor["name"] == self.input["name"]
        assert tensor["datatype"] == self.input["datatype"]
        assert len(tensor["shape"]) == len(self.input["shape"])
        if tensor["datatype"] == "BYTES":
            pixels = self._photos(body[split:], tensor)
        else:
            pixels = self._pixels(body[split:], tensor)
        if pixels is None:
            return 400, {"error": "that is no photo"}
        outputs = ENGINE.outputs(pixels)
        rows = outputs.logits if self.logits else outputs.probabilities
        data = {"name": "prob", "datatype": "FP32", "shape": list(rows.shape)}
        return 200, {"model_name": "m", "outputs": [data | {"data": rows.ravel().tolist()}]}

    def _photos(self, extra: bytes, tensor: dict[str, Any]) -> Any:
        assert tensor["parameters"]["binary_data_size"] == len(extra)
        crops = []
        while extra:
            (length,) = struct.unpack("<I", extra[:4])
            photo, extra = extra[4 : 4 + length], extra[4 + length :]
            if photo == self.refused:
                return None
            crop = crop_pixels(photo, METADATA.preprocess)
            crops.append(crop[:, ::-1] if self.mirrored else crop)
        assert len(crops) == tensor["shape"][0]
        return np.stack(crops)

    def _pixels(self, extra: bytes, tensor: dict[str, Any]) -> Any:
        kind = np.dtype({"UINT8": "u1", "FP32": "<f4"}[tensor["datatype"]])
        data = np.frombuffer(extra, kind) if extra else np.array(tensor["data"], kind)
        pixels = data.reshape(tensor["shape"])
        if pixels.shape[1] == 3:
            pixels = pixels.transpose(0, 2, 3, 1)
        if self.input["shape"][1] == -1:
            pixels = np.stack([crop_pixels(image, METADATA.preprocess) for image in pixels])
        return np.ascontiguousarray(pixels, np.uint8)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        found = self.served.describe(self.path)
        self._send(*((404, {"error": "no such model"}) if found is None else (200, found)))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v2/models/m/infer"
        self._send(*self.served.infer(body, self.headers.get("Inference-Header-Content-Length")))

    @property
    def served(self) -> Server:
        return self.server.served  # type: ignore[attr-defined, no-any-return]

    def _send(self, status: int, found: dict[str, Any]) -> None:
        content = json.dumps(found).encode()
        if self.served.answers:
            status, content = self.served.answers.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(server: Server) -> Iterator[str]:
    http = QuietServer(("127.0.0.1", 0), Handler)
    http.served = server  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}/v2/models/m"
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def client(url: str, **options: Any) -> ServerPredictor:
    return ServerPredictor(
        url, metadata=METADATA, **({"retry": Retry(attempts=3, base=0.0)} | options)
    )


def compared(server: Server, *, first: bool = False) -> ComparisonRecord:
    with serving(server) as url:
        sides = (url, "bundled") if first else ("bundled", url)
        return compare(*sides, SAMPLES[0].parent, offline=True)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("kind", INPUTS)
def test_a_server_of_any_kind_agrees_with_the_model_itself(kind: str, binary: bool) -> None:
    server = Server(kind, binary=binary)
    found = compared(server)
    assert found.comparison.agreement.images == 3
    assert found.comparison.agreement.max_delta <= 1e-5
    assert found.verdict.kind in ("identical", "rounding")
    assert "not seen: decode and resize and crop" in found.verdict.text
    assert found.comparison.stage("logits").hidden == "not given"
    assert found.comparison.stage("probabilities").photos == 3
    sent = {"extra" if asked["extra"] else "json" for asked in server.requests}
    assert sent == {"extra" if binary or kind.startswith("photo") else "json"}


def test_the_server_may_be_either_side() -> None:
    found = compared(Server("photo"), first=True)
    assert found.verdict.kind in ("identical", "rounding")
    assert found.to_dict()["a"]["takes"] == "photo"
    assert "A: inside the server" in found.verdict.text


def test_logits_are_told_from_probabilities() -> None:
    server = Server("nchw")
    server.logits = True
    found = compared(server)
    assert found.comparison.stage("logits").photos == 3
    assert found.comparison.stage("logits").largest < 1e-4
    assert found.comparison.agreement.max_delta < 1e-5


def test_a_server_that_crops_otherwise_is_found_out() -> None:
    server = Server("photo")
    server.mirrored = True
    found = compared(server)
    assert found.verdict.kind == "differs"
    assert found.verdict.stage == "probabilities"
    assert "first to differ: probabilities (A: ir; B: server)" in found.verdict.text


def test_a_photo_that_the_server_refuses_fails_alone() -> None:
    server = Server("photo")
    server.refused = SAMPLES[1].read_bytes()
    found = compared(server).comparison
    assert (found.agreement.images, found.unreadable) == (2, 1)
    ((source, error),) = found.errors
    assert source == str(SAMPLES[1])
    assert error.endswith("/v2/models/m: it answers 400 (that is no photo)")


def test_the_command_takes_an_address() -> None:
    with serving(Server("photo")) as url:
        words = ["compare", "bundled", url, str(SAMPLES[0].parent), "--max-delta", "1e-5"]
        done = CliRunner().invoke(build_app(("compare",)), [*words, "--offline"])
    assert done.exit_code == 0, done.output
    assert f"B {url}" in done.stdout
    assert "not seen: decode and resize and crop (B: inside the server)" in done.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": [{"name": "o", "shape": [-1, 5]}]}, r"200 classes: o \[-1, 5\]"),
        ({"outputs": []}, "its description has no outputs"),
        ({"input": {"name": "i"}}, "its description has no inputs"),
        ({"input": {"name": "i", "datatype": "INT64", "shape": [-1, 4]}}, r"is INT64 \[-1, 4\]"),
        (
            {"input": {"name": "i", "datatype": "FP32", "shape": [-1, 3, 224, 224]}},
            "takes 224 x 224 pixels, where .* tiny-imagenet-128 gives 128 x 128",
        ),
        ({"answers": [(200, b"[]")]}, "not a JSON object"),
        ({"answers": [(200, b"<html>")]}, "not JSON"),
        ({"answers": [(200, b"[" * 100_000)]}, "not JSON"),
        ({"answers": [(200, bytes(65 << 20))]}, "over the limit of 67,108,864"),
        ({"answers": [(403, b'{"error": "not you"}')]}, r"it answers 403 \(not you\)"),
        (
            {"answers": [(503, b"")] * 3},
            r"503 \(Service Unavailable\) \(3 att.*; is it running",
        ),
    ],
)
def test_what_is_no_such_classifier_is_refused(changes: dict[str, Any], message: str) -> None:
    server = Server("nchw")
    vars(server).update(changes)
    with serving(server) as url, pytest.raises(ServerError, match=message):
        client(url)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b'{"outputs": []}', "no numbers of the output prob"),
        (b'{"outputs": [{"name": "prob", "data": ["a"]}]}', "no numbers of the output prob"),
        (b'{"outputs": [{"name": "prob", "data": [0.5, 0.5]}]}', "gives 2 classes, .* has 200"),
        (b'{"outputs": [{"name": "prob", "data": [NaN]}]}', "gives 1 classes"),
        (json.dumps({"outputs": [{"name": "prob", "data": [float("nan")] * 200}]}).encode(), "NaN"),
    ],
)
def test_an_odd_answer_is_an_error(answer: bytes, message: str) -> None:
    server = Server("photo")
    with serving(server) as url:
        predictor = client(url)
        server.answers.append((200, answer))
        with pytest.raises(ServerError, match=message):
            predictor.answers([SAMPLES[0].read_bytes()])


def test_what_may_pass_is_tried_again() -> None:
    server = Server("nchw")
    server.answers += [(503, b""), (502, b"")]
    with serving(server) as url:
        predictor = client(f"{url}/infer")
        server.answers.append((429, b""))
        _, rows = predictor.answers([predictor.given(SAMPLES[0].read_bytes())])
    assert rows.shape == (1, 200)


def test_what_is_no_photo_is_an_image_error_of_our_own() -> None:
    with serving(Server("nchw")) as url, pytest.raises(ImageError):
        client(url).given(b"no photo")


def test_fractions_are_not_cut_to_whole_numbers() -> None:
    with (
        serving(Server("nhwc")) as url,
        pytest.raises(ServerError, match="takes whole numbers, where the other model's protocol"),
    ):
        compare("bundled:pycls", url, SAMPLES[0].parent, offline=True)


def test_where_nobody_listens_is_said_without_the_password() -> None:
    with pytest.raises(ServerError, match=r"^http://127\.0\.0\.1:9/v2/models/m: .*is it running"):
        client("http://me:secret@127.0.0.1:9/v2/models/m")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:9/v1/models/m:predict"])
def test_other_addresses_are_refused_before_they_are_asked(url: str) -> None:
    with pytest.raises(ServerError, match="a model, such as http://HOST:PORT/v2/models/NAME"):
        client(url)


def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v2/models/m"
        with pytest.raises(ServerError, match=r"nothing came for 0.05 s \(3 attempts"):
            client(url, timeout=0.05)


def test_addresses_are_told_from_models() -> None:
    assert is_address("https://a.org/v2/models/m")
    assert not is_address("bundled")


def test_models_of_other_classes_are_refused() -> None:
    with serving(Server("photo")) as url, pytest.raises(ServerError, match="each of 7 classes"):
        ServerPredictor(url, metadata=described(SMALL))
