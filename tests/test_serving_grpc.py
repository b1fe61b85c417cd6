"""The Open Inference Protocol over gRPC: tritonclient's own calls against the real server."""

import asyncio
import io
import json
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

grpc = pytest.importorskip("grpc")
pytest.importorskip("prometheus_client")
pytest.importorskip("tritonclient.grpc")

import tritonclient.grpc as triton  # noqa: E402
from google.protobuf.message import DecodeError  # noqa: E402
from tritonclient.grpc import model_config_pb2, service_pb2  # noqa: E402
from tritonclient.grpc.model_config_pb2 import DataType, ModelInstanceGroup  # noqa: E402
from tritonclient.utils import InferenceServerException  # noqa: E402

from regnet.conversion.store import Library  # noqa: E402
from regnet.inference.classify import Classifier  # noqa: E402
from regnet.ir.engine import Engine, read_model  # noqa: E402
from regnet.pixels.preprocess import crop_pixels  # noqa: E402
from regnet.pixels.samples import sample_photos  # noqa: E402
from regnet.serving.access_log import AccessLog  # noqa: E402
from regnet.serving.auth import new_token  # noqa: E402
from regnet.serving.grpc_messages import _MESSAGES, _fields, decode, encode  # noqa: E402
from regnet.serving.grpc_service import start_grpc  # noqa: E402
from regnet.serving.grpc_tensors import _small_numbers  # noqa: E402
from regnet.serving.limits import Limits  # noqa: E402
from regnet.serving.metrics import ServerMetrics  # noqa: E402
from regnet.serving.models import Models  # noqa: E402
from regnet.serving.refusals import BadRequest  # noqa: E402
from regnet.serving.service import Service  # noqa: E402
from regnet.system.errors import StartError  # noqa: E402
from regnet.zoo.catalogue import bundled_path, card_by_name  # noqa: E402

PHOTOS = [Path(photo).read_bytes() for photo in sample_photos()]
BUNDLED = bundled_path(card_by_name("bundled"))
ENGINE = Engine(read_model(BUNDLED))
TOKEN = "0123456789abcdef"


class Running:
    """A server in a thread with a loop of its own."""

    def __init__(self, folder: Path, limits: Limits | None = None, **options: Any) -> None:
        limits = limits or Limits()
        self.log = io.StringIO()
        metrics = ServerMetrics()
        models = Models(Library(folder=folder, offline=True), limits=limits, observer=metrics)
        self.service = Service(
            models=models, limits=limits, metrics=metrics, log=AccessLog(self.log), **options
        )
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)

    def do(self, work: Any, seconds: float = 60) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(seconds)

    def start(self) -> None:
        self._thread.start()
        self.do(self.service.models.load("bundled", "bundled"))
        self.server = self.do(start_grpc(self.service, "127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.server.port}"

    def stop(self) -> None:
        self.do(self.server.stop())
        self.do(self.service.models.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log so far; a line is written once the client has its answer."""
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    def new_lines(self, count: int, *, after: int = 0) -> list[dict[str, Any]]:
        while len(self.lines) < after + count:
            time.sleep(0.001)
        return self.lines[after:]


@contextmanager
def running(folder: Path, **options: Any) -> Iterator[Running]:
    server = Running(folder, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def server(cache: Path) -> Iterator[Running]:
    with running(cache) as server:
        yield server


@contextmanager
def client_of(server: Running) -> Iterator[Any]:
    client = triton.InferenceServerClient(server.address)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[Any]:
    with client_of(server) as client:
        yield client


def photos(*data: bytes) -> list[Any]:
    tensor = triton.InferInput("image", [len(data)], "BYTES")
    tensor.set_data_from_numpy(np.array(data, object))
    return [tensor]


def pixels(array: Any, name: str = "data") -> list[Any]:
    kinds = {"uint8": "UINT8", "float32": "FP32", "int32": "INT32"}
    tensor = triton.InferInput(name, list(array.shape), kinds[str(array.dtype)])
    tensor.set_data_from_numpy(array)
    return [tensor]


def code_of(error: pytest.ExceptionInfo[Any]) -> str:
    return str(error.value.status()).removeprefix("StatusCode.")


def send(server: Running, request: Any, method: str = "ModelInfer", **options: Any) -> Any:
    """Send a message of tritonclient's generated classes, as any other client would."""
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
        data = request if isinstance(request, bytes) else request.SerializeToString()
        return service_pb2.ModelInferResponse.FromString(call(data, timeout=20, **options))


def refused(server: Running, request: Any, method: str = "ModelInfer", **options: Any) -> Any:
    with pytest.raises(grpc.RpcError) as error:
        send(server, request, method, **options)
    return error.value


def expected(data: list[bytes]) -> Any:
    return ENGINE.infer([ENGINE.pixels(photo) for photo in data])


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("bundled")
    assert client.is_model_ready("bundled", "1")
    assert not client.is_model_ready("bundled", "2")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata().name == "regnet"
    described = client.get_model_metadata("bundled", as_json=True)
    assert described["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": ["-1"]}]
    assert described["outputs"] == [{"name": "prob", "datatype": "FP32", "shape": ["-1", "200"]}]
    assert described["versions"] == ["1"]


def test_configuration(client: Any) -> None:
    config = client.get_model_config("bundled").config
    assert (config.name, config.platform, config.backend) == ("bundled", "openvino", "openvino")
    assert config.max_batch_size == Limits().batch
    (image,), (prob,) = config.input, config.output
    assert (image.name, image.data_type, list(image.dims)) == ("image", DataType.TYPE_STRING, [])
    assert (prob.name, prob.data_type, list(prob.dims)) == ("prob", DataType.TYPE_FP32, [200])
    assert list(config.dynamic_batching.preferred_batch_size) == [8]
    assert [group.kind for group in config.instance_group] == [ModelInstanceGroup.KIND_CPU]
    labels = json.loads(config.parameters["labels"].string_value)
    assert labels == [label.name for label in ENGINE.metadata.labels]
    assert client.get_model_config("bundled", "1").config == config


def test_statistics(cache: Path) -> None:
    with running(cache) as server, client_of(server) as client:
        (before,) = client.get_inference_statistics().model_stats
        assert (before.name, before.inference_count, before.last_inference) == ("bundled", 0, 0)
        started = time.perf_counter()
        for count in (1, 3):
            client.infer("bundled", photos(*PHOTOS[:count]))
        took = 1e9 * (time.perf_counter() - started)
        with pytest.raises(InferenceServerException):
            client.infer("bundled", photos(b"no photo"))
        (after,) = client.get_inference_statistics("bundled", "1").model_stats
        assert after.inference_count == 4
        stats = after.inference_stats
        assert (stats.success.count, stats.fail.count) == (2, 1)
        parts = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
        assert [part.count for part in parts] == [2] * 4
        assert 0 < stats.compute_infer.ns < stats.success.ns < took
        batches = after.batch_stats
        assert sum(one.batch_size * one.compute_infer.count for one in batches) == 4
        assert sum(one.compute_infer.count for one in batches) == after.execution_count
        assert abs(after.last_inference / 1e3 - time.time()) < 60


def test_messages_may_be_compressed_within_the_limit(cache: Path) -> None:
    with running(cache, limits=Limits(body=1 << 20)) as server, client_of(server) as client:
        for algorithm in ("gzip", "deflate"):
            answer = client.infer("bundled", photos(PHOTOS[0]), compression_algorithm=algorithm)
            np.testing.assert_allclose(answer.as_numpy("prob"), expected(PHOTOS[:1]), atol=1e-5)
            with pytest.raises(InferenceServerException) as error:
                client.infer("bundled", photos(bytes(1 << 20)), compression_algorithm=algorithm)
            assert code_of(error) == "RESOURCE_EXHAUSTED"


def test_photos(client: Any) -> None:
    answer = client.infer("bundled", photos(*PHOTOS), request_id="seven")
    rows = answer.as_numpy("prob")
    assert rows.shape == (len(PHOTOS), 200)
    np.testing.assert_allclose(rows, expected(PHOTOS), atol=1e-5)
    response = answer.get_response()
    assert (response.id, response.model_name, response.model_version) == ("seven", "bundled", "1")


@pytest.mark.parametrize("kind", ["uint8", "float32"])
@pytest.mark.parametrize("first", [False, True], ids=["NHWC", "NCHW"])
def test_crops(client: Any, kind: str, first: bool) -> None:
    crops = np.stack([crop_pixels(photo, ENGINE.metadata.preprocess) for photo in PHOTOS])
    given = crops.transpose(0, 3, 1, 2) if first else crops
    answer = client.infer("bundled", pixels(np.ascontiguousarray(given, kind)))
    np.testing.assert_allclose(answer.as_numpy("prob"), expected(PHOTOS), atol=1e-5)


def test_classes_by_name(client: Any) -> None:
    output = triton.InferRequestedOutput("prob", class_count=3)
    found = client.infer("bundled", photos(*PHOTOS), outputs=[output]).as_numpy("prob")
    assert found.shape == (len(PHOTOS), 3)
    classifier = Classifier(BUNDLED)
    for names, photo in zip(found, PHOTOS, strict=True):
        for name, score in zip(names, classifier.classify(photo, top_k=3).predictions, strict=True):
            probability, index, label = name.decode().split(":", 2)
            assert (int(index), label) == (score.index, score.label)
            assert float(probability) == pytest.approx(score.probability, abs=1e-5)


def test_more_classes_than_there_are(client: Any) -> None:
    output = triton.InferRequestedOutput("prob", class_count=10_000)
    found = client.infer("bundled", photos(PHOTOS[0]), outputs=[output]).as_numpy("prob")
    assert found.shape == (1, 200)


def request(**fields: Any) -> Any:
    return service_pb2.ModelInferRequest(model_name="bundled", **fields)


def tensor(name: str = "image", datatype: str = "BYTES", shape: Any = (1,), **fields: Any) -> Any:
    return service_pb2.ModelInferRequest.InferInputTensor(
        name=name, datatype=datatype, shape=shape, **fields
    )


def contents(**fields: Any) -> Any:
    return service_pb2.InferTensorContents(**fields)


def raw(*data: bytes) -> bytes:
    return b"".join(len(one).to_bytes(4, "little") + one for one in data)


def test_typed_contents(server: Running) -> None:
    by_bytes = request(inputs=[tensor(contents=contents(bytes_contents=PHOTOS[:1]))])
    crop = crop_pixels(PHOTOS[0], ENGINE.metadata.preprocess)
    shape = (1, *crop.shape)
    flat = crop.ravel().tolist()
    whole = tensor("data", "UINT8", shape, contents=contents(uint_contents=flat))
    floats = tensor("data", "FP32", shape, contents=contents(fp32_contents=flat))
    for message in (by_bytes, request(inputs=[whole]), request(inputs=[floats])):
        answer = send(server, message)
        (data,) = answer.raw_output_contents
        np.testing.assert_allclose(np.frombuffer(data, "<f4"), expected(PHOTOS[:1])[0], atol=1e-5)


CROP = 128 * 128 * 3
MALFORMED: dict[str, tuple[Callable[[], Any], str]] = {
    "no input": (lambda: request(), "one input"),
    "two inputs": (
        lambda: request(inputs=[tensor(), tensor()], raw_input_contents=[b"", b""]),
        "one input",
    ),
    "duplicated names": (
        lambda: request(inputs=[tensor(contents=contents(bytes_contents=[b"x"]))] * 2),
        "one input",
    ),
    "unknown name": (
        lambda: request(inputs=[tensor("../x")], raw_input_contents=[b""]),
        "no input is called",
    ),
    "no data": (lambda: request(inputs=[tensor()]), "has no data"),
    "raw and typed": (
        lambda: request(
            inputs=[tensor(contents=contents(bytes_contents=[b"x"]))], raw_input_contents=[b""]
        ),
        "raw_input_contents too",
    ),
    "more raw than inputs": (
        lambda: request(inputs=[tensor()], raw_input_contents=[b"", b""]),
        "1 inputs, but 2",
    ),
    "no shape": (lambda: request(inputs=[tensor(shape=())], raw_input_contents=[b""]), "shape"),
    "negative": (lambda: request(inputs=[tensor(shape=[-1])], raw_input_contents=[b""]), "shape"),
    "zero": (lambda: request(inputs=[tensor(shape=[0])], raw_input_contents=[b""]), "shape"),
    "huge": (lambda: request(inputs=[tensor(shape=[1 << 62])], raw_input_contents=[b""]), "shape"),
    "huge pixels": (
        lambda: request(
            inputs=[tensor("data", "FP32", [1, 1 << 30, 1 << 30, 3])], raw_input_contents=[b"1234"]
        ),
        "the model's crop is",
    ),
    "many dimensions": (
        lambda: request(inputs=[tensor(shape=[1] * 100)], raw_input_contents=[b""]),
        "shape",
    ),
    "too few bytes": (
        lambda: request(
            inputs=[tensor("data", "UINT8", [1, 128, 128, 3])], raw_input_contents=[b"1"]
        ),
        "takes 49152 bytes, 1 came",
    ),
    "element too long": (
        lambda: request(inputs=[tensor()], raw_input_contents=[b"\xff\xff\xff\xff123"]),
        "ends after",
    ),
    "half a length": (
        lambda: request(inputs=[tensor()], raw_input_contents=[raw(b"x") + b"\x01\0"]),
        "ends after",
    ),
    "more elements": (
        lambda: request(inputs=[tensor()], raw_input_contents=[raw(b"x", b"y")]),
        "1 elements, 2 came",
    ),
    "another datatype": (
        lambda: request(inputs=[tensor(datatype="FP64")], raw_input_contents=[b""]),
        "BYTES",
    ),
    "datatype of pixels": (
        lambda: request(
            inputs=[tensor("data", "INT64", [1, 128, 128, 3])], raw_input_contents=[b""]
        ),
        "UINT8 or FP32",
    ),
    "shared memory": (
        lambda: request(
            inputs=[tensor(parameters={"shared_memory_region": {"string_param": "/etc/passwd"}})]
        ),
        "shared memory",
    ),
    "another output": (
        lambda: request(
            inputs=[tensor()], raw_input_contents=[raw(PHOTOS[0])], outputs=[{"name": "logits"}]
        ),
        "only output",
    ),
    "classification of text": (
        lambda: request(
            inputs=[tensor()],
            raw_input_contents=[raw(PHOTOS[0])],
            outputs=[{"name": "prob", "parameters": {"classification": {"string_param": "9"}}}],
        ),
        "classification",
    ),
    "negative classification": (
        lambda: request(
            inputs=[tensor()],
            raw_input_contents=[raw(PHOTOS[0])],
            outputs=[{"name": "prob", "parameters": {"classification": {"int64_param": -1}}}],
        ),
        "classification",
    ),
    "no image": (
        lambda: request(inputs=[tensor()], raw_input_contents=[raw(b"no image")]),
        "image 0: not an image",
    ),
    "truncated image": (
        lambda: request(
            inputs=[tensor(shape=[2])], raw_input_contents=[raw(PHOTOS[0], PHOTOS[0][:99])]
        ),
        "image 1: ",
    ),
    "not finite": (
        lambda: request(
            inputs=[tensor("data", "FP32", [1, 128, 128, 3])],
            raw_input_contents=[np.full(CROP, np.nan, "<f4").tobytes()],
        ),
        "0..255",
    ),
    "normalised pixels": (
        lambda: request(
            inputs=[tensor("data", "FP32", [1, 128, 128, 3])],
            raw_input_contents=[np.full(CROP, -1.5, "<f4").tobytes()],
        ),
        "without mean and scale",
    ),
    "fractions": (
        lambda: request(
            inputs=[tensor("data", "FP32", [1, 128, 128, 3])],
            raw_input_contents=[np.full(CROP, 0.5, "<f4").tobytes()],
        ),
        "whole numbers",
    ),
    "no message": (lambda: b"\xff\xff\xff", "cannot be read"),
    "cut off": (lambda: request(id="x" * 99).SerializeToString()[:-9], "cannot be read"),
    "not UTF-8": (lambda: b"\x0a\x02\xff\xfe", "cannot be read"),
    "a group": (lambda: b"\x0b\x0c", "cannot be read"),
    "a million inputs": (lambda: b"\x2a\x00" * 1_000_000, "too many fields"),
    "a million parameters": (
        lambda: request(inputs=[tensor()]).SerializeToString()[:-1] + b"\x22\x00" * 1_000_000,
        "too many fields",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(server: Running, name: str) -> None:
    make, why = MALFORMED[name]
    error = refused(server, make())
    assert (error.code(), why in error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, True), error


def test_no_such_model_or_version(client: Any, server: Running) -> None:
    for name, version in (("other", ""), ("bundled", "2"), ("../../etc/passwd", "")):
        with pytest.raises(InferenceServerException) as error:
            client.infer(name, photos(PHOTOS[0]), model_version=version)
        assert code_of(error) == "NOT_FOUND"
    assert refused(server, b"", "ModelInfer").code() == grpc.StatusCode.NOT_FOUND


def test_a_call_that_there_is_not(server: Running) -> None:
    assert refused(server, b"", "TraceSetting").code() == grpc.StatusCode.UNIMPLEMENTED


def test_limits(cache: Path) -> None:
    limits = Limits(body=1 << 20, pixels=10_000, batch=2, queue=2)
    with running(cache, limits=limits) as server, client_of(server) as client:
        with pytest.raises(InferenceServerException) as error:
            client.infer("bundled", photos(b"x" * (1 << 20)))
        assert code_of(error) == "RESOURCE_EXHAUSTED"
        too_many = refused(
            server, request(inputs=[tensor(shape=[3])], raw_input_contents=[raw(*[b"x"] * 3)])
        )
        assert too_many.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(too_many.trailing_metadata())["limit"] == "batch"
        large = refused(server, request(inputs=[tensor()], raw_input_contents=[raw(PHOTOS[0])]))
        assert large.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert dict(large.trailing_metadata())["limit"] == "pixels"
        assert client.is_server_live()


def test_a_full_queue_refuses_at_once(cache: Path) -> None:
    crop = crop_pixels(PHOTOS[0], ENGINE.metadata.preprocess)
    message = request(
        inputs=[tensor("data", "UINT8", (4, *crop.shape))], raw_input_contents=[crop.tobytes() * 4]
    )
    with running(cache, limits=Limits(batch=4, queue=4)) as server:

        def one(number: int) -> Any:
            try:
                return len(send(server, message).raw_output_contents)
            except grpc.RpcError as exc:
                return exc

        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(one, range(48)))
        assert 1 in found
        errors = [one for one in found if one != 1]
        assert errors
        for error in errors:
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            trailing = dict(error.trailing_metadata())
            assert trailing["limit"] == "queue"
            assert float(trailing["retry-after"]) > 0
        assert send(server, message).outputs[0].shape == [4, 200]


def test_time(cache: Path) -> None:
    with running(cache, limits=Limits(seconds=1e-6)) as server:
        error = refused(server, request(inputs=[tensor()], raw_input_contents=[raw(PHOTOS[0])]))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert dict(error.trailing_metadata())["limit"] == "seconds"


def test_a_message_that_does_not_come(cache: Path) -> None:
    with (
        running(cache, limits=Limits(seconds=0.3)) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        released = threading.Event()

        def nothing() -> Iterator[bytes]:
            released.wait(20)
            yield from ()

        with pytest.raises(grpc.RpcError) as error:
            call(nothing(), timeout=20)
        released.set()
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert server.service.held.now == 0


def test_no_message(server: Running) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as error:
            call(iter(()), timeout=20)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_token(cache: Path) -> None:
    with running(cache, token=new_token(TOKEN, source="test")) as server:
        with client_of(server) as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            for headers in (None, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}):
                with pytest.raises(InferenceServerException) as error:
                    client.infer("bundled", photos(PHOTOS[0]), headers=headers)
                assert code_of(error) == "UNAUTHENTICATED"
                with pytest.raises(InferenceServerException):
                    client.get_model_metadata("bundled", headers=headers)
            headers = {"authorization": f"Bearer {TOKEN}"}
            assert client.infer("bundled", photos(PHOTOS[0]), headers=headers)
        assert TOKEN not in server.log.getvalue()


def test_models_come_and_go(cache: Path) -> None:
    with running(cache, model_control=True) as server, client_of(server) as client:
        client.unload_model("bundled")
        assert not client.is_model_ready("bundled")
        assert not client.is_server_ready()
        (state,) = client.get_model_repository_index().models
        assert (state.name, state.state) == ("bundled", "UNAVAILABLE")
        client.load_model("bundled")
        assert client.infer("bundled", photos(PHOTOS[0]))
        (state,) = client.get_model_repository_index().models
        assert (state.name, state.state) == ("bundled", "READY")
        for name in ("other", "/etc/passwd", "../bundled"):
            with pytest.raises(InferenceServerException) as error:
                client.load_model(name)
            assert code_of(error) == "NOT_FOUND"
        with pytest.raises(InferenceServerException, match="no configuration"):
            client.load_model("bundled", config="{}", files={"file:1/x": b"x"})
        assert [line["event"] for line in server.lines if "model" in line][:2] == [
            "unloaded",
            "loaded",
        ]


def test_models_are_not_controlled_unless_allowed(client: Any) -> None:
    for call in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="--model-control") as error:
            call("bundled")
        assert code_of(error) == "PERMISSION_DENIED"


def test_requests_are_logged_and_counted(cache: Path) -> None:
    with running(cache) as server, client_of(server) as client:
        client.infer("bundled", photos(PHOTOS[0]), headers={"x-request-id": "mine"})
        with pytest.raises(InferenceServerException):
            client.infer("other", photos(PHOTOS[0]))
        good, bad = server.new_lines(2)
        assert (good["id"], good["status"], good["model"]) == ("mine", 200, "bundled")
        assert (good["images"], good["client"]) == (1, "127.0.0.1")
        assert good["bytes_in"] > len(PHOTOS[0])
        assert (bad["status"], bad["reason"]) == (404, "not_found")
        text = server.service.metrics.exposition().decode()
        assert 'route="/inference.GRPCInferenceService/ModelInfer",status="200"} 1.0' in text
        assert "regnet_requests_in_flight 0.0" in text
        assert server.service.held.now == 0


def test_an_unforeseen_error_is_in_the_log_alone(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = server.service.models.get("bundled")
    monkeypatch.setattr(model, "require_room", lambda: 1 / 0)
    time.sleep(0.1)
    before = len(server.lines)
    error = refused(server, request(inputs=[tensor()], raw_input_contents=[raw(PHOTOS[0])]))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "division" not in error.details()
    (line,) = server.new_lines(1, after=before)
    assert "division by zero" in line["error"]
    assert line["id"] == dict(error.trailing_metadata())["x-request-id"]


def test_stopping_answers_what_was_accepted(cache: Path) -> None:
    server = Running(cache)
    server.start()
    data = PHOTOS * 4
    with ThreadPoolExecutor(8) as pool, client_of(server) as client:
        under_way = [pool.submit(client.infer, "bundled", photos(*data)) for _ in range(8)]
        while server.service.models.get("bundled")._batcher.images < len(data):
            time.sleep(0.001)
        server.stop()
        outcomes = [future.exception() for future in under_way]
        good = [future.result() for future in under_way if future.exception() is None]
    assert good
    for error in outcomes:  # those that came after are refused, none is left without an answer
        assert error is None or str(error.status()) == "StatusCode.UNAVAILABLE"
    for answer in good:
        assert answer.as_numpy("prob").shape == (len(data), 200)
    assert [line["status"] for line in server.lines].count(200) == len(good)


def test_a_client_that_goes_away(server: Running) -> None:
    time.sleep(0.1)
    before = len(server.lines)
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        message = request(inputs=[tensor(shape=[64])], raw_input_contents=[raw(*PHOTOS[:1] * 64)])
        future = call.future(message.SerializeToString())
        while not server.service.held.now:
            time.sleep(0.001)
        future.cancel()
    (line,) = server.new_lines(1, after=before)
    assert line["status"] == 499
    assert server.service.held.now == 0


def test_a_port_that_is_taken(server: Running) -> None:
    with pytest.raises(StartError, match="choose another port"):
        server.do(start_grpc(server.service, "127.0.0.1", server.server.port))


FLAT = {
    "TensorMetadata": "ModelMetadataResponse.TensorMetadata",
    "InputTensor": "ModelInferRequest.InferInputTensor",
    "RequestedOutput": "ModelInferRequest.InferRequestedOutputTensor",
    "OutputTensor": "ModelInferResponse.InferOutputTensor",
    "TensorContents": "InferTensorContents",
    "Parameter": "ModelInferRequest.ParametersEntry",
    "ParameterValue": "InferParameter",
    "BatchStatistics": "InferBatchStatistics",
    "Duration": "StatisticDuration",
    "ModelIndex": "RepositoryIndexResponse.ModelIndex",
    "RepositoryParameter": "RepositoryModelLoadRequest.ParametersEntry",
}


CONFIG = {
    "ModelConfig": "ModelConfig",
    "VersionPolicy": "ModelVersionPolicy",
    "LatestVersions": "ModelVersionPolicy.Latest",
    "ConfigTensor": "ModelInput",
    "ConfigOutput": "ModelOutput",
    "InstanceGroup": "ModelInstanceGroup",
    "DynamicBatching": "ModelDynamicBatching",
    "ConfigParameter": "ModelConfig.ParametersEntry",
    "ConfigValue": "ModelParameter",
}


def theirs(name: str) -> Any:
    if name in CONFIG:
        found, name = model_config_pb2, CONFIG[name]
    else:
        found = service_pb2
    for part in FLAT.get(name, name).split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", _MESSAGES)
def test_messages_are_those_of_the_published_interface(name: str) -> None:
    kinds = {1: "double", 8: "bool", 9: "string", 11: "", 12: "bytes"}
    kinds |= dict.fromkeys((3, 4, 5, 13, 14), "int64")  # numbers of all sizes, and enums
    described = {field.number: field for field in theirs(name).DESCRIPTOR.fields}
    ours = _fields(name)
    # What an answer never has: contents, and most of what a configuration may have.
    assert name in CONFIG or set(described) - set(ours) <= {5, 8}
    for number, field in ours.items():
        other = described[number]
        assert field.name == other.name
        if field.kind == "packed":
            assert other.is_packed
        elif field.kind != "ignored":
            assert field.many == other.is_repeated
            kind = kinds[other.type]
            assert field.kind == kind if kind else field.kind in _MESSAGES


TEXTS = st.text(max_size=5)
WHOLE = st.integers(-(1 << 63), (1 << 63) - 1)
VALUES = st.one_of(
    st.fixed_dictionaries({"bool_param": st.booleans()}),
    st.fixed_dictionaries({"int64_param": WHOLE}),
    st.fixed_dictionaries({"string_param": TEXTS}),
    st.fixed_dictionaries({"double_param": st.floats(allow_nan=False)}),
)
PARAMETERS = st.dictionaries(TEXTS, VALUES, max_size=3)
TENSORS = st.fixed_dictionaries(
    {"name": TEXTS, "datatype": TEXTS, "shape": st.lists(WHOLE, max_size=3)}
)
REQUESTS = st.fixed_dictionaries(
    {
        "model_name": TEXTS,
        "id": TEXTS,
        "parameters": PARAMETERS,
        "inputs": st.lists(TENSORS, max_size=3),
        "raw_input_contents": st.lists(st.binary(max_size=300), max_size=3),
    }
)


def as_protobuf(message: Any) -> dict[str, Any]:
    """Return what protobuf read, as `decode` gives it."""
    return {
        "model_name": message.model_name,
        "model_version": message.model_version,
        "id": message.id,
        "parameters": {
            key: {value.WhichOneof("parameter_choice"): getattr(value, kind)}
            for key, value in message.parameters.items()
            if (kind := value.WhichOneof("parameter_choice"))
        },
        "inputs": [
            {"name": one.name, "datatype": one.datatype, "shape": list(one.shape)}
            for one in message.inputs
        ],
        "raw_input_contents": list(message.raw_input_contents),
    }


def as_ours(found: dict[str, Any]) -> dict[str, Any]:
    keys = ("model_name", "model_version", "id")
    return {
        **{key: found[key] for key in keys},
        "parameters": {one["key"]: one["value"] for one in found["parameters"] if one["value"]},
        "inputs": [
            {key: one[key] for key in ("name", "datatype", "shape")} for one in found["inputs"]
        ],
        "raw_input_contents": [bytes(one) for one in found["raw_input_contents"]],
    }


@given(REQUESTS)
def test_requests_are_read_as_protobuf_reads_them(fields: dict[str, Any]) -> None:
    data = service_pb2.ModelInferRequest(**fields).SerializeToString()
    found = decode("ModelInferRequest", data, most=1000)
    assert as_ours(found) == as_protobuf(service_pb2.ModelInferRequest.FromString(data))


@given(REQUESTS, st.randoms(use_true_random=False))
def test_damaged_requests_are_read_as_protobuf_reads_them(
    fields: dict[str, Any], rng: random.Random
) -> None:
    data = bytearray(service_pb2.ModelInferRequest(**fields).SerializeToString() or b"x")
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    try:
        expected = service_pb2.ModelInferRequest.FromString(bytes(data))
    except DecodeError:
        expected = None
    try:
        found = decode("ModelInferRequest", bytes(data), most=1000)
    except ValueError:
        return  # we may refuse more than protobuf does, groups for one
    if expected is not None:
        assert as_ours(found)["raw_input_contents"] == list(expected.raw_input_contents)


@given(
    st.fixed_dictionaries(
        {
            "model_name": TEXTS,
            "id": TEXTS,
            "outputs": st.lists(TENSORS, max_size=3),
            "raw_output_contents": st.lists(st.binary(max_size=300), max_size=3),
        }
    )
)
def test_answers_are_written_as_protobuf_reads_them(fields: dict[str, Any]) -> None:
    found = service_pb2.ModelInferResponse.FromString(encode("ModelInferResponse", fields))
    assert found == service_pb2.ModelInferResponse(**fields)


def test_nested_fields_count() -> None:
    message = request(inputs=[tensor(contents=contents(bytes_contents=[b"x"] * 50))])
    assert decode("ModelInferRequest", message.SerializeToString(), most=60)
    with pytest.raises(ValueError, match="too many fields"):
        decode("ModelInferRequest", message.SerializeToString(), most=40)


def test_reading_takes_no_memory() -> None:
    numbers = contents(int64_contents=[1] * 2_000_000, uint_contents=[7] * 2_000_000)
    data = request(inputs=[tensor(contents=numbers)], raw_input_contents=[bytes(2_000_000)])
    message = data.SerializeToString()
    tracemalloc.start()
    found = decode("ModelInferRequest", message, most=60)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found["raw_input_contents"][0].nbytes == 2_000_000
    assert peak < 100_000


@pytest.mark.parametrize("values", [[0, 127, 128, 255], [255] * 3, [], [5]])
def test_small_packed_numbers(values: list[int]) -> None:
    data = contents(uint_contents=values).SerializeToString()
    (packed,) = decode("TensorContents", data, most=9)["uint_contents"] or [memoryview(b"")]
    assert _small_numbers(packed, "x").tolist() == values
    for wrong in ([16384], [1 << 31], [1, 1 << 20, 2]):
        data = contents(uint_contents=wrong).SerializeToString()
        (packed,) = decode("TensorContents", data, most=9)["uint_contents"]
        with pytest.raises(BadRequest):
            _small_numbers(packed, "x")
