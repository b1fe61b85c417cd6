"""`regnet serve` as its users meet it: in a process of its own, by tritonclient and plain HTTP."""

import base64
import json
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import httpx
from serving_process import Served, serving
from typer.testing import CliRunner

from regnet.cli import build_app
from regnet.inference.classify import Classifier
from regnet.ir.engine import Engine, read_model
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.samples import sample_photos
from regnet.system.version import TOOL_VERSION
from regnet.zoo.catalogue import bundled_path, card_by_name

PATHS = sample_photos()
PHOTOS = [path.read_bytes() for path in PATHS]
BUNDLED = bundled_path(card_by_name("bundled"))
ENGINE = Engine(read_model(BUNDLED))
CROPS = np.stack([crop_pixels(photo, ENGINE.metadata.preprocess) for photo in PHOTOS])
ROWS = ENGINE.infer(CROPS)
LABELS = ENGINE.metadata.labels


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a server of the bundled model that lets clients load and unload it."""
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, "bundled", f"again={BUNDLED}", "--model-control", "--offline") as found:
        yield found


@pytest.fixture
def triton(served: Served) -> Iterator[Any]:
    """Return tritonclient, connected."""
    client = pytest.importorskip("tritonclient.http").InferenceServerClient(served.host)
    yield client
    client.close()


def tensor(values: Any, name: str, datatype: str, *, binary: bool = True) -> Any:
    from tritonclient.http import InferInput

    found = InferInput(name, list(values.shape), datatype)
    found.set_data_from_numpy(values, binary_data=binary)
    return found


def photos_tensor(photos: list[bytes] = PHOTOS, *, binary: bool = True) -> Any:
    return tensor(np.array(photos, object), "image", "BYTES", binary=binary)


def post(served: Served, path: str, **options: Any) -> httpx.Response:
    return httpx.post(f"{served.url}{path}", timeout=60, **options)


def test_triton_asks_how_it_is(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("bundled")
    assert triton.is_model_ready("bundled", "1")
    assert not triton.is_model_ready("bundled", "2")
    assert not triton.is_model_ready("other")
    assert triton.get_server_metadata() == {
        "name": "regnet",
        "version": TOOL_VERSION,
        "extensions": [
            "classification",
            "binary_tensor_data",
            "model_configuration",
            "statistics",
            "model_repository",
        ],
    }
    assert triton.get_model_metadata("bundled") == {
        "name": "bundled",
        "versions": ["1"],
        "platform": "openvino",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [{"name": "prob", "datatype": "FP32", "shape": [-1, 200]}],
    }


def test_triton_reads_the_configuration(triton: Any) -> None:
    config = triton.get_model_config("again")
    assert config["name"] == "again"
    assert config["max_batch_size"] == 64
    assert config["input"] == [{"name": "image", "data_type": "TYPE_STRING", "dims": []}]
    assert config["output"] == [{"name": "prob", "data_type": "TYPE_FP32", "dims": [200]}]
    labels = json.loads(config["parameters"]["labels"]["string_value"])
    assert labels == [label.name for label in LABELS]
    assert triton.get_model_config("again", "1") == config


def test_triton_reads_what_a_model_has_done(triton: Any, served: Served) -> None:
    from tritonclient.utils import InferenceServerException

    def figures() -> dict[str, Any]:
        (found,) = triton.get_inference_statistics("again")["model_stats"]
        return found

    before = figures()
    triton.infer("again", [photos_tensor()])
    post(served, "/v1/classify?model=again", content=PHOTOS[0])
    with pytest.raises(InferenceServerException):
        triton.infer("again", [photos_tensor([b"no photo"])])
    assert post(served, "/v1/classify?model=again", content=b"no photo").status_code == 422
    after = figures()
    assert (after["name"], after["version"]) == ("again", "1")
    assert after["inference_count"] - before["inference_count"] == len(PHOTOS) + 1
    stats = after["inference_stats"]
    assert stats["success"]["count"] - before["inference_stats"]["success"]["count"] == 2
    assert stats["fail"]["count"] - before["inference_stats"]["fail"]["count"] == 2
    assert stats["success"]["ns"] > stats["compute_infer"]["ns"] > 0
    assert stats["cache_hit"] == {"count": 0, "ns": 0}
    images = [one["batch_size"] * one["compute_infer"]["count"] for one in after["batch_stats"]]
    assert sum(images) == after["inference_count"]
    every = triton.get_inference_statistics()["model_stats"]
    assert [one["name"] for one in every] == ["bundled", "again"]
    with pytest.raises(InferenceServerException, match="no model 'other'"):
        triton.get_inference_statistics("other")


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_triton_compresses_requests(triton: Any, algorithm: str) -> None:
    answer = triton.infer(
        "bundled",
        [photos_tensor()],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_allclose(answer.as_numpy("prob"), ROWS, atol=1e-5)


def test_a_model_answers_with_the_name_it_is_served_under(served: Served) -> None:
    answer = post(served, "/v1/classify?model=again", content=PHOTOS[0]).json()
    assert answer["model"] == "again"
    assert [one["model"] for one in answer["predictions"]] == ["again"]


def test_triton_sends_photos_as_bytes_and_gets_bytes(triton: Any) -> None:
    answer = triton.infer("bundled", [photos_tensor()], request_id="seven")
    np.testing.assert_allclose(answer.as_numpy("prob"), ROWS, atol=1e-5)
    assert answer.get_response()["id"] == "seven"
    assert answer.get_response()["model_name"] == "bundled"


def test_triton_sends_photos_in_json_and_gets_json(triton: Any) -> None:
    from tritonclient.http import InferRequestedOutput

    texts = [base64.b64encode(photo) for photo in PHOTOS]
    answer = triton.infer(
        "bundled",
        [photos_tensor(texts, binary=False)],
        outputs=[InferRequestedOutput("prob", binary_data=False)],
    )
    np.testing.assert_allclose(answer.as_numpy("prob"), ROWS, atol=1e-5)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
@pytest.mark.parametrize("first", [True, False])
def test_triton_sends_crops(triton: Any, binary: bool, datatype: str, first: bool) -> None:
    crops = CROPS.transpose(0, 3, 1, 2) if first else CROPS
    kind = np.uint8 if datatype == "UINT8" else np.float32
    sent = tensor(np.ascontiguousarray(crops, kind)[:2], "data", datatype, binary=binary)
    answer = triton.infer("bundled", [sent], model_version="1")
    np.testing.assert_allclose(answer.as_numpy("prob"), ROWS[:2], atol=1e-5)


@pytest.mark.parametrize("binary", [True, False])
def test_triton_gets_classes_by_name(triton: Any, binary: bool) -> None:
    from tritonclient.http import InferRequestedOutput

    wanted = InferRequestedOutput("prob", binary_data=binary, class_count=2)
    named = triton.infer("bundled", [photos_tensor()], outputs=[wanted]).as_numpy("prob")
    assert named.shape == (len(PHOTOS), 2)
    for row, texts in zip(ROWS, named.tolist(), strict=True):
        best = np.argsort(-row)[:2]
        for index, text in zip(best, texts, strict=True):
            text = text.decode() if isinstance(text, bytes) else text
            probability, number, label = text.split(":", 2)
            assert (int(number), label) == (index, LABELS[index].name)
            assert float(probability) == pytest.approx(row[index], abs=1e-5)


def test_triton_lists_unloads_and_loads_models(triton: Any, served: Served) -> None:
    from tritonclient.utils import InferenceServerException

    states = {row["name"]: row["state"] for row in triton.get_model_repository_index()}
    assert states == {"bundled": "READY", "again": "READY"}
    triton.unload_model("again")
    assert not triton.is_model_ready("again")
    states = {row["name"]: row["state"] for row in triton.get_model_repository_index()}
    assert states == {"bundled": "READY", "again": "UNAVAILABLE"}
    with pytest.raises(InferenceServerException, match="there is no model 'again'"):
        triton.infer("again", [photos_tensor()])
    triton.load_model("again")
    assert triton.is_model_ready("again")
    with pytest.raises(InferenceServerException, match="there is no model"):
        triton.load_model("other.xml")
    with pytest.raises(InferenceServerException, match="by its name only"):
        triton.load_model("again", config='{"name": "again"}')
    assert [line["model"] for line in served.lines() if line["event"] == "loaded"] == ["again"]


def test_the_body_may_be_one_photo_without_any_json(served: Served) -> None:
    answer = post(
        served,
        "/v2/models/bundled/infer",
        content=PHOTOS[0],
        headers={"Inference-Header-Content-Length": "0"},
    )
    assert answer.json()["outputs"][0]["shape"] == [1, 200]
    np.testing.assert_allclose(answer.json()["outputs"][0]["data"], ROWS[0], atol=1e-5)


def binary(header: dict[str, Any], data: bytes, length: int | None = None) -> dict[str, Any]:
    text = json.dumps(header).encode()
    size = len(text) if length is None else length
    return {"content": text + data, "headers": {"Inference-Header-Content-Length": str(size)}}


def image(count: int = 1, **parameters: Any) -> dict[str, Any]:
    one = {"name": "image", "datatype": "BYTES", "shape": [count], "parameters": parameters}
    return {"inputs": [one]}


PIXELS = {"name": "data", "datatype": "UINT8", "shape": [1, 128, 128, 3]}
MALFORMED = {
    "no JSON": ({"content": b"{"}, 400, "the body is not JSON"),
    "nothing": ({"content": b""}, 400, "the body is not JSON"),
    "deep": ({"content": b"[" * 9000}, 400, "the body is not JSON"),
    "no object": ({"json": [1]}, 400, "is not an object"),
    "no inputs": ({"json": {}}, 400, "one input is wanted, not 0"),
    "two inputs": ({"json": {"inputs": [PIXELS | {"data": []}] * 2}}, 400, "one input is wanted"),
    "inputs of nothing": ({"json": {"inputs": [1]}}, 400, "must be a list"),
    "other input": (
        {"json": {"inputs": [PIXELS | {"name": "x", "data": []}]}}, 400, "no input is called 'x'",
    ),
    "other output": (
        {"json": {"inputs": [], "outputs": [{"name": "x"}]}}, 400, "the only output is prob",
    ),
    "bad id": ({"json": {"inputs": [], "id": 7}}, 400, "id=7 is not text"),
    "bad flag": (
        {"json": {"inputs": [], "parameters": {"binary_data_output": 1}}}, 400,
        "binary_data_output=1 must be true or false",
    ),
    "bad count": (
        {"json": {"outputs": [{"name": "prob", "parameters": {"classification": "2"}}]}}, 400,
        "classification='2' must be a number",
    ),
    "shared memory": (
        {"json": image(shared_memory_region="r") | {"id": ""}}, 400, "shared memory is not taken",
    ),
    "header length": (binary(image(), b"", 10**6), 400, "Content-Length='1000000'"),
    "header length text": (
        {"content": b"{}", "headers": {"Inference-Header-Content-Length": "-1"}}, 400, "not a num",
    ),
    "binary size over": (binary(image(binary_data_size=99), b"x"), 400, "does not fit"),
    "binary size negative": (binary(image(binary_data_size=-1), b"x"), 400, "does not fit"),
    "binary size under": (binary(image(binary_data_size=0), b"x"), 400, "are left over"),
    "element over": (
        binary(image(binary_data_size=4), struct.pack("<I", 2**32 - 1)), 400, "element 0 ends",
    ),
    "too few elements": (
        binary(image(2, binary_data_size=4), struct.pack("<I", 0)), 400, "2 elements, 1 came",
    ),
    "no base64": (
        {"json": {"inputs": [image()["inputs"][0] | {"data": ["?"]}]}}, 400, "is not base64",
    ),
    "no photo": (
        {"json": {"inputs": [image()["inputs"][0] | {"data": ["aGVsbG8="]}]}}, 422,
        "image 0: not an image",
    ),
    "huge shape": (
        binary({"inputs": [PIXELS | {"shape": [1, 2**30, 2**30, 3],
                                     "parameters": {"binary_data_size": 4}}]}, b"1234"),
        400, "the model's crop is [N, 128, 128, 3]",
    ),
    "huge batch": ({"json": image(65) | {"id": "x"}}, 400, "its data is not a list"),
    "huge batch in binary": (
        binary(image(65, binary_data_size=0), b""), 413, "65 images in one request are over",
    ),
    "negative shape": (
        binary({"inputs": [PIXELS | {"shape": [-1, 128, 128, 3],
                                     "parameters": {"binary_data_size": 0}}]}, b""),
        400, "sizes above 0",
    ),
    "too few numbers": (
        {"json": {"inputs": [PIXELS | {"data": [1, 2, 3]}]}}, 400, "takes 49152 numbers, 3 came",
    ),
    "texts as numbers": (
        {"json": {"inputs": [PIXELS | {"data": ["a"]}]}}, 400, "its data are not numbers",
    ),
    "out of range": (
        {"json": {"inputs": [PIXELS | {"data": [256] * 49152}]}}, 422, "pixels are 0..255",
    ),
    "more values than any batch": (
        {"content": b"[" + b"[]," * 5_000_000 + b"[]]"}, 413, "the JSON has more values",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_are_refused_with_the_reason(served: Served, name: str) -> None:
    options, status, said = MALFORMED[name]
    refused = post(served, "/v2/models/bundled/infer", **options)
    assert said in refused.json()["error"]
    assert refused.status_code == status
    assert refused.json()["id"] == refused.headers["x-request-id"]


def test_compare_finds_no_difference(served: Served, tmp_path: Path) -> None:
    found = CliRunner().invoke(
        build_app(["compare"]),
        ["compare", "bundled", f"{served.url}/v2/models/bundled", str(PATHS[0].parent), "--json"],
    )
    assert found.exit_code == 0, found.output
    record = json.loads(found.stdout)
    assert record["flips"] == []
    assert record["photos"] == len(PHOTOS)


def expected(path: Path, top_k: int = 5) -> dict[str, Any]:
    return Classifier(BUNDLED).classify(path, top_k=top_k).to_dict()


def same(found: dict[str, Any], path: Path, source: str, top_k: int = 5) -> None:
    """Check that a prediction is the one that the command line gives."""
    right = expected(path, top_k)
    assert found["source"] == source
    assert [one["label"] for one in found["predictions"]] == [
        one["label"] for one in right["predictions"]
    ]
    for one, other in zip(found["predictions"], right["predictions"], strict=True):
        assert one == other | {"probability": pytest.approx(other["probability"], abs=1e-5)}
    assert found | {"source": "", "predictions": []} == right | {"source": "", "predictions": []}


@pytest.mark.parametrize("kind", ["image/jpeg", "application/octet-stream", None])
def test_one_photo_is_the_body(served: Served, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    answer = post(served, "/v1/classify?top_k=3", content=PHOTOS[0], headers=headers)
    assert answer.status_code == 200
    found = answer.json()
    same(found["predictions"][0], PATHS[0], "image 0", top_k=3)
    assert found["model"] == "bundled"
    assert set(found["timing_ms"]) == {"decode", "queue", "infer", "total"}
    assert 0 < found["timing_ms"]["infer"] < found["timing_ms"]["total"]


def test_photos_are_the_files_of_a_form(served: Served) -> None:
    files = [("any", (path.name, photo)) for path, photo in zip(PATHS, PHOTOS, strict=True)]
    found = post(served, "/v1/classify?model=again", files=files).json()
    assert found["model"] == "again"
    for prediction, path in zip(found["predictions"], PATHS, strict=True):
        assert prediction["model"] == "again"
        same(prediction | {"model": "bundled"}, path, path.name)


PHOTO_FIELD = ("any", ("cat.jpg", PHOTOS[0]))


def test_fields_of_a_form_are_options(served: Served) -> None:
    fields = [("top_k", (None, "2")), PHOTO_FIELD, ("model", (None, "again"))]
    found = post(served, "/v1/classify?top_k=3&explain=true", files=fields).json()
    (prediction,) = found["predictions"]
    assert (found["model"], len(prediction["predictions"])) == ("again", 2)
    assert prediction["explanation"]


def test_a_part_that_says_it_is_a_photo_needs_no_name(served: Served) -> None:
    files = [("any", (None, PHOTOS[0], "image/jpeg")), PHOTO_FIELD]
    found = post(served, "/v1/classify", files=files).json()["predictions"]
    assert [one["source"] for one in found] == ["image 0", "cat.jpg"]
    assert found[0]["predictions"] == found[1]["predictions"]


FIELDS = {
    "another": ([PHOTO_FIELD, ("url", (None, "http://x/"))], 422, "field 'url' is not an option"),
    "a photo without a name": ([PHOTO_FIELD, ("a", (None, PHOTOS[0]))], 422, "field 'a' is no"),
    "malformed": ([PHOTO_FIELD, ("top_k", (None, "x"))], 400, "top_k='x' must be"),
    "twice": ([("top_k", (None, "1")), PHOTO_FIELD, ("top_k", (None, "2"))], 400, "given twice"),
    "of an unknown model": ([PHOTO_FIELD, ("model", (None, "none"))], 404, "no model 'none'"),
    "that the model lacks": ([PHOTO_FIELD, ("sets", (None, "true"))], 422, "is not calibrated"),
    "alone": ([("top_k", (None, "1"))], 400, "the form has no files"),
    "too many": ([PHOTO_FIELD, *[("a", (None, ""))] * 65], 400, "more than 64 fields"),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_a_form_that_are_none_are_refused_by_name(served: Served, name: str) -> None:
    files, status, said = FIELDS[name]
    refused = post(served, "/v1/classify", files=files)
    assert (refused.status_code, said in refused.json()["error"]) == (status, True), refused.text


def test_photos_are_a_list_in_json(served: Served) -> None:
    texts = [base64.b64encode(photo).decode() for photo in PHOTOS]
    found = post(served, "/v1/classify", json={"images": texts}).json()
    for number, (prediction, path) in enumerate(zip(found["predictions"], PATHS, strict=True)):
        same(prediction, path, f"image {number}")


def test_an_unreadable_photo_among_others_has_its_error(served: Served) -> None:
    files = [("a", ("cat.jpg", PHOTOS[0])), ("b", ("no.jpg", b"hello"))]
    answer = post(served, "/v1/classify", files=files)
    assert answer.status_code == 200
    good, bad = answer.json()["predictions"]
    assert good["error"] is None
    assert bad["predictions"] == []
    assert bad["error"].startswith("not an image of a known format")


def test_where_no_photo_can_be_read_the_status_says_so(served: Served) -> None:
    answer = post(served, "/v1/classify", content=b"hello")
    assert answer.status_code == 422
    found = answer.json()
    assert found["error"].startswith("no image could be read: not an image")
    assert found["predictions"][0]["error"].startswith("not an image")
    assert found["id"] == answer.headers["x-request-id"]


REFUSED = {
    "of another kind": ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 415, "text"),
    "a form without end": (
        {"content": b"--a\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=a"}},
        400, "ends too early",
    ),
    "a form without boundary": (
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "a boundary",
    ),
    "no list": ({"json": {"images": "x"}}, 400, "images='x' is not a list"),
    "an empty list": ({"json": {"images": []}}, 400, "the JSON lists no images"),
    "an unknown field": ({"json": {"image": []}}, 400, "unknown field 'image'"),
    "no base64": ({"json": {"images": ["!"]}}, 400, "image 0 is not base64"),
    "addresses": ({"json": {"urls": ["http://x/"]}}, 400, "fetch a photo yourself"),
    "too many": ({"json": {"images": [""] * 65}}, 413, "65 images in one request"),
    "too many files": (
        {"files": [("f", ("x", b""))] * 65}, 413, "more than 64 images in one request",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bodies_that_are_none_are_refused(served: Served, name: str) -> None:
    options, status, said = REFUSED[name]
    refused = post(served, "/v1/classify", **options)
    assert said in refused.json()["error"]
    assert refused.status_code == status


def test_embeddings_are_the_classifiers_beside_predictions(served: Served) -> None:
    expected = Classifier(BUNDLED).embed(PHOTOS)
    files = [("f", (path.name, path.read_bytes())) for path in PATHS]

    def asked(number: int) -> httpx.Response:
        return post(served, ("/v1/embed", "/v1/classify")[number % 2], files=files)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(asked, range(32)))
    for number, answer in enumerate(answers):
        assert answer.status_code == 200
        if number % 2 == 0:
            rows = answer.json()["embeddings"]
            assert [row["source"] for row in rows] == [path.name for path in PATHS]
            found = np.array([row["embedding"] for row in rows], np.float32)
            np.testing.assert_array_equal(found, expected)
            assert answer.json()["timing_ms"]["infer"] > 0
        else:
            for prediction, path in zip(answer.json()["predictions"], PATHS, strict=True):
                same(prediction, path, path.name)


def test_embedding_what_is_unreadable_or_not_asked_for(served: Served) -> None:
    files = [("a", ("cat.jpg", PHOTOS[0])), ("b", ("no.jpg", b"hello"))]
    good, bad = post(served, "/v1/embed?model=again", files=files).json()["embeddings"]
    assert (len(good["embedding"]), good["error"]) == (384, None)
    assert bad["embedding"] is None
    assert bad["error"].startswith("not an image of a known format")
    answer = post(served, "/v1/embed", content=b"hello")
    assert answer.status_code == 422
    assert answer.json()["embeddings"][0]["error"].startswith("not an image")
    answer = post(served, "/v1/embed?top_k=3", content=PHOTOS[0])
    assert answer.status_code == 400
    assert "unknown option 'top_k'; there are model" in answer.json()["error"]
    too_many = post(served, "/v1/embed", files=[("f", ("x", b""))] * 65)
    assert (too_many.status_code, too_many.json()["limit"]) == (413, "batch")


def test_sets_need_a_calibrated_model(served: Served) -> None:
    refused = post(served, "/v1/classify?sets=true", content=PHOTOS[0])
    assert refused.status_code == 422
    assert "bundled: is not calibrated" in refused.json()["error"]


def test_explanations_come_with_the_predictions(served: Served) -> None:
    found = post(served, "/v1/classify?explain=true", content=PHOTOS[0]).json()["predictions"][0]
    best, explained = found["predictions"][0], found["explanation"]
    assert explained["label"] == best["label"]
    maps = np.array(explained["map"])
    assert maps.ndim == 2
    assert maps.mean() + explained["bias"] == pytest.approx(explained["logit"], abs=1e-3)
    assert len(explained["box"]) == 4


def test_the_models_are_described(served: Served) -> None:
    found = httpx.get(f"{served.url}/v1/models").json()
    assert found["default"] == "bundled"
    assert found["models"][0] == {
        "name": "bundled",
        "classes": 200,
        "crop": 128,
        "protocol": "tiny-imagenet-128",
        "precision": "f32",
        "calibrated": False,
        "coverage": None,
        "explainable": True,
    }


def test_the_page_is_at_the_root(served: Served) -> None:
    page = httpx.get(served.url)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in page.headers["content-security-policy"]
