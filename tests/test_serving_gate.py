"""What every request passes: token, limits, headers, log and figures, around models that are fakes.

The whole application runs here, as httpx calls it; only the models are ten lines.
"""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("prometheus_client")

import httpx

from regnet.inference.result import ClassScore, Prediction
from regnet.serving.access import Token, new_token, read_token
from regnet.serving.app import create_app
from regnet.serving.gate import SECURITY_HEADERS
from regnet.serving.limits import Limits
from regnet.serving.metrics import ServerMetrics
from regnet.serving.refusals import NotFound, Refused, TooLate, TooMany
from regnet.serving.served_model import Timing
from regnet.serving.service import AccessLog, Service
from regnet.serving.v1 import MOST_TOP_K, v1_routes
from regnet.serving.v2 import v2_routes
from regnet.system.errors import ModelError, StartError
from regnet.system.version import TOOL_VERSION

TOKEN = "0123456789abcdef0123"
CAT = ClassScore(3, "n1", "cat", 0.75)


class FakeModel:
    """Says that everything is a cat, or raises what it was given."""

    name = "fake"
    precision = "f32"
    metadata = SimpleNamespace(
        name="m",
        calibration=None,
        assumed=(),
        labels=[None] * 5,
        spec=SimpleNamespace(classes=5),
        preprocess=SimpleNamespace(crop=4, name="p"),
    )

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.full: Exception | None = None
        self.seen: list[bytes] = []

    def require_room(self, images: int = 1) -> None:
        if self.full:
            raise self.full

    async def classify(self, photos: Any, *, sources: Any, **_: Any) -> Any:
        if self.error:
            raise self.error
        self.seen += photos
        return [Prediction(source, (CAT,), None, "m") for source in sources], Timing(1, 2, 3, 4)

    async def embed(self, photos: Any, **_: Any) -> Any:
        if self.error:
            raise self.error
        return [np.ones(3, np.float32) for _ in photos], Timing(1, 2, 3, 4)


class FakeModels:
    names = ("fake",)
    default = "fake"
    ready = True

    def __init__(self) -> None:
        self.model = FakeModel()

    def require_room(self) -> None:
        self.model.require_room()

    def get(self, name: str | None = None, version: str | None = None) -> FakeModel:
        if name not in (None, "fake"):
            raise NotFound("there is no such model")
        return self.model


class App:
    """The application, its models and its log."""

    def __init__(self, limits: Limits | None = None, token: Token | None = None) -> None:
        self.stream = io.StringIO()
        self.models = FakeModels()
        self.service = Service(
            models=self.models,  # type: ignore[arg-type]
            limits=limits or Limits(),
            metrics=ServerMetrics(),
            log=AccessLog(self.stream),
            token=token,
        )
        self.app = create_app(self.service)

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.request(method, path, **options)

        return asyncio.run(call())

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def figure(self, name: str) -> float:
        """Return a figure as /metrics gives it, with its labels as written there."""
        text = self.service.metrics.exposition().decode()
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def test_every_answer_has_an_id_and_the_security_headers() -> None:
    app = App()
    for method, path in (
        ("GET", "/"), ("GET", "/v2"), ("GET", "/metrics"), ("GET", "/docs"), ("GET", "/nowhere"),
        ("PUT", "/v1/classify"), ("POST", "/v1/classify"),
    ):  # fmt: skip
        answer = app(method, path)
        assert len(answer.headers["x-request-id"]) == 16
        for name, _ in SECURITY_HEADERS:
            assert answer.headers[name.decode()], (path, name)
        assert len(answer.headers.get_list("content-security-policy")) == 1
    ids = [line["id"] for line in app.lines]
    assert len(set(ids)) == len(ids) == 7


def test_a_clients_id_is_kept_unless_it_is_odd() -> None:
    app = App()
    assert app("GET", "/v2", headers={"X-Request-Id": "job-7"}).headers["x-request-id"] == "job-7"
    for odd in ("a b", "x" * 65, '"', ""):
        found = app("GET", "/v2", headers={"X-Request-Id": odd}).headers["x-request-id"]
        assert found != odd


def test_what_no_route_takes_is_refused_in_json() -> None:
    app = App()
    assert app("GET", "/no").status_code == 404
    wrong = app("GET", "/v1/classify")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    assert wrong.json() == {
        "error": "/v1/classify takes another method",
        "id": wrong.headers["x-request-id"],
    }


def test_the_token_is_asked_for_everywhere_but_at_the_pages_and_health() -> None:
    app = App(token=new_token(TOKEN, source="test"))
    for path in ("/", "/docs", "/page/icon.svg", "/v2/health/live", "/v2/health/ready"):
        assert app("GET", path).status_code == 200
    for path in ("/v2", "/v1/models", "/metrics", "/openapi.json", "/no"):
        refused = app("GET", path)
        assert refused.status_code == 401, path
        assert refused.headers["www-authenticate"] == "Bearer"
    for given in (
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer",
        "",
    ):
        assert app("GET", "/v2", headers={"Authorization": given}).status_code == 401, given
    assert app("GET", "/v2", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200
    assert TOKEN not in app.stream.getvalue() + repr(app.service.token)


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Any) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(None, {}) is None
    for token in (read_token(file, {}), read_token(None, {"REGNET_TOKEN": TOKEN})):
        assert token is not None
        assert token.admits(b"Bearer " + TOKEN.encode())
    file.write_text("short")
    with pytest.raises(StartError, match=r"holds no token: at least 16"):
        read_token(file, {})
    with pytest.raises(StartError, match=r"cannot be read: No such file"):
        read_token(tmp_path / "none", {})
    with pytest.raises(StartError, match=r"\$REGNET_TOKEN: holds no token"):
        read_token(None, {"REGNET_TOKEN": ""})


def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    app = App(Limits(body=100))
    read = []

    async def pieces() -> AsyncIterator[bytes]:
        read.append(1)
        yield b"x" * 101

    refused = app("POST", "/v1/classify", content=pieces(), headers={"Content-Length": "101"})
    assert refused.status_code == 413
    assert refused.json()["limit"] == "body"
    assert refused.json()["error"] == "the body is over the limit of 100 bytes (body)"
    assert app("POST", "/v1/classify", content=b"x" * 100).status_code == 200
    assert app.models.model.seen == [b"x" * 100]


def call_raw(app: App, *chunks: bytes, headers: dict[str, str] | None = None) -> tuple[int, int]:
    """Send a body of unknown length in pieces; return the status and how many were taken."""
    taken = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        if taken > len(chunks):
            await asyncio.sleep(60)
        return {"type": "http.request", "body": chunks[taken - 1], "more_body": True}

    status = 0
    given = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/classify", "raw_path": b"/v1/classify",
        "query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1",
        "headers": [(b"host", b"here"), *given],
        "client": ("1.2.3.4", 5), "server": ("here", 80), "state": {}, "asgi": {"version": "3.0"},
    }  # fmt: skip
    asyncio.run(app.app(scope, receive, send))  # type: ignore[arg-type]
    return status, taken


def test_a_body_of_unknown_length_is_cut_off_at_the_limit() -> None:
    app = App(Limits(body=100))
    assert call_raw(app, *[b"x" * 40] * 10) == (413, 3)
    assert app.service.held.now == 0


def test_a_body_that_does_not_come_is_given_up() -> None:
    app = App(Limits(seconds=0.05))
    assert call_raw(app, b"x") == (408, 2)
    assert app.lines[-1]["reason"] == "seconds"
    assert app.service.held.now == 0


def test_all_bodies_together_are_limited() -> None:
    app = App(Limits(body=100, queue_bytes=150))
    app.service.held.take(100)
    refused = app("POST", "/v1/classify", content=b"x" * 60)
    assert refused.status_code == 429
    assert refused.json()["limit"] == "queue_bytes"
    assert refused.headers["retry-after"] == "1"
    assert app("POST", "/v1/classify", content=b"x" * 50).status_code == 200
    assert app.service.held.now == 100


def test_large_bodies_leave_room_to_small_ones() -> None:
    app = App(Limits(body=3 << 20, queue_bytes=4 << 20))
    app.service.held.take(2 << 20)
    refused = app("POST", "/v1/classify", content=bytes(3 << 19))
    assert (refused.status_code, refused.json()["limit"]) == (429, "queue_bytes")
    assert "at most 3,145,728 are taken" in refused.json()["error"]
    app.service.held.take(1 << 20)
    assert app("POST", "/v1/classify", content=bytes(1 << 20)).status_code == 200


def test_a_full_queue_refuses_before_the_body_is_read() -> None:
    app = App()
    app.models.model.full = TooMany("the queue is full", limit="queue", retry_after=0.2)
    for path in ("/v1/classify", "/v1/embed"):
        refused = app("POST", path, content=b"x")
        assert (refused.status_code, refused.json()["limit"]) == (429, "queue")
        assert refused.headers["retry-after"] == "1"
        assert app.lines[-1]["bytes_in"] == 0


def test_a_model_without_features_cannot_embed() -> None:
    app = App()
    assert app("POST", "/v1/embed", content=b"x").json()["embeddings"][0]["embedding"] == [1, 1, 1]
    app.models.model.error = ModelError("m.xml: has no pooled features")
    refused = app("POST", "/v1/embed", content=b"x")
    assert refused.status_code == 422
    assert refused.json()["error"] == "fake: cannot embed photos (m.xml: has no pooled features)"


def test_refusals_of_models_have_their_status_and_are_counted() -> None:
    app = App()
    app.models.model.error = TooLate("its time was over", limit="seconds")
    refused = app("POST", "/v1/classify", content=b"x")
    assert refused.status_code == 504
    assert refused.json() == {
        "error": "its time was over",
        "limit": "seconds",
        "id": refused.headers["x-request-id"],
    }
    assert app("POST", "/v1/classify?model=other", content=b"x").status_code == 404
    assert app.figure('regnet_errors_total{reason="seconds"}') == 1
    assert app.figure('regnet_errors_total{reason="not_found"}') == 1
    counted = 'regnet_requests_total{method="POST",route="/v1/classify",status="504"}'
    assert app.figure(counted) == 1


def test_what_nobody_foresaw_is_told_to_the_log_only() -> None:
    app = App()
    app.models.model.error = RuntimeError("a secret at /home/me")
    failed = app("POST", "/v1/classify", content=b"x")
    assert failed.status_code == 500
    assert "secret" not in failed.text
    line = app.lines[-1]
    assert (line["id"], line["reason"]) == (failed.json()["id"], "internal")
    assert "a secret at /home/me" in line["error"]


def test_bodies_that_are_compressed_in_an_unknown_way_are_refused() -> None:
    headers = {"Content-Encoding": "br"}
    answer = App()("POST", "/v1/classify", content=b"x", headers=headers)
    assert answer.status_code == 415
    assert "gzip, deflate" in answer.json()["error"]


def test_the_log_has_one_line_a_request_without_its_content() -> None:
    app = App()
    photo = b"\xff\xd8\xff the photo"
    files = [("file", ("holiday\n.jpg", photo))]
    assert app("POST", "/v1/classify?top_k=3", files=files).status_code == 200
    (line,) = app.lines
    assert line["bytes_in"] > len(photo)
    assert (line["model"], line["images"], line["batch"]) == ("fake", 1, 4)
    assert (line["decode_ms"], line["queue_ms"], line["infer_ms"]) == (1, 2, 3)
    assert (line["path"], line["status"]) == ("/v1/classify", 200)
    assert "holiday" not in app.stream.getvalue()
    app("GET", "/a%0d%0a" + "x" * 500)
    assert len(app.lines) == 2
    assert len(app.lines[-1]["path"]) == 200


def test_figures_of_requests_and_models() -> None:
    app = App()
    app("POST", "/v1/classify", content=b"x")
    observer = app.service.metrics
    observer.queued("m", 3)
    observer.decoded("m", 0.01)
    observer.batch_done("m", 8, 0.002, 0.02)
    observer.refused("m", "queue")
    text = app("GET", "/metrics")
    assert text.headers["content-type"].startswith("text/plain")
    assert app.figure('regnet_request_seconds_count{route="/v1/classify"}') == 1
    assert app.figure('regnet_images_queued{model="m"}') == 3
    assert app.figure('regnet_images_total{model="m"}') == 8
    assert app.figure('regnet_batch_images_bucket{le="8.0",model="m"}') == 1
    assert app.figure('regnet_queue_seconds_sum{model="m"}') == 0.002
    assert app.figure('regnet_model_refusals_total{model="m",reason="queue"}') == 1
    assert app.figure("regnet_requests_in_flight") == 0
    assert "regnet_requests_in_flight 1.0" in text.text  # the request for them itself


def test_while_it_stops_it_is_not_ready_and_connections_end() -> None:
    app = App()
    assert app("GET", "/v2/health/ready").json() == {"ready": True}
    app.service.draining = True
    stopping = app("GET", "/v2/health/ready")
    assert stopping.status_code == 503
    assert stopping.headers["connection"] == "close"
    assert stopping.json()["ready"] is False
    assert app("GET", "/v2/health/live").json() == {"live": True}


def test_the_document_has_every_route_and_no_other() -> None:
    app = App()
    document = app("GET", "/openapi.json").json()
    described = {
        (method.upper(), path) for path, found in document["paths"].items() for method in found
    }
    routes: set[Any] = {
        (method, route.path)  # type: ignore[attr-defined]
        for route in (*v1_routes(app.service), *v2_routes(app.service))
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
    }
    assert routes | {("GET", "/metrics")} == described
    assert set(document["components"]["schemas"]) >= {"Error", "Prediction", "InferRequest"}
    assert "security" not in document
    protected = App(token=new_token(TOKEN, source="test"))
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert protected("GET", "/openapi.json", headers=bearer).json()["security"] == [{"token": []}]


def references(value: Any) -> set[str]:
    """Return all that a document refers to."""
    if isinstance(value, list):
        return set().union(*map(references, value))
    if not isinstance(value, dict):
        return set()
    found = {value["$ref"]} if "$ref" in value else set()
    return found.union(*map(references, value.values()))


def test_the_document_is_valid_and_has_every_status() -> None:
    validator = pytest.importorskip("jsonschema").Draft202012Validator
    document = App()("GET", "/openapi.json").json()
    kinds = document["components"]
    assert document["info"]["version"] == TOOL_VERSION
    assert kinds["schemas"]["TopK"]["maximum"] == MOST_TOP_K
    assert kinds["schemas"]["Images"]["properties"]["images"]["maxItems"] == Limits().batch
    for schema in kinds["schemas"].values():
        validator.check_schema(schema)
    named = {f"#/components/{kind}/{name}" for kind, found in kinds.items() for name in found}
    assert references(document) <= named
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    statuses = {int(status) for one in operations for status in one["responses"]}
    assert statuses == {200} | {error.status for error in Refused.__subclasses__()}


def test_the_reference_page_needs_nothing_from_elsewhere() -> None:
    page = App()("GET", "/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "POST /v2/models/{name}[/versions/{version}]/infer" in page.text
    for name in ("top_k (query)", "name (path)", "version (path)", "<dt><code>413</code>"):
        assert page.text.count(name) == 1
    assert "--data-binary @photo.jpg" in page.text
    assert '<form method="post" action="/v1/classify"' in page.text
    assert "{host}" not in page.text
    locked = App(token=new_token(TOKEN, source="test"))("GET", "/docs").text
    assert "Authorization: Bearer $REGNET_TOKEN" in locked
    assert "<form" not in locked
    assert "<script" not in page.text
    assert "//" not in page.text.replace("http://", "")
    assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("top_k=0", "top_k='0' must be a whole number of at least 1"),
        ("top_k=x", "top_k='x' must be"),
        ("top_k=9999999999", "must be"),
        ("top_k=٣", "must be"),
        ("sets=maybe", "sets='maybe' must be true or false"),
        ("top_k=1&top_k=2", "an option is given twice"),
        ("topk=1", "unknown option 'topk'; there are model, top_k, sets, explain"),
    ],
)
def test_options_that_are_none_are_named(query: str, said: str) -> None:
    refused = App()("POST", f"/v1/classify?{query}", content=b"x")
    assert refused.status_code == 400
    assert said in refused.json()["error"]
