"""The engine and the classifier: exactness, order, errors, what is imported."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from local_server import LocalServer, stalls_after
from PIL import Image

import regnet
from regnet.inference.classify import Classifier
from regnet.inference.result import Prediction, top_classes
from regnet.ir.engine import Engine, read_model, require_probabilities
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ImageError, ModelError
from regnet.system.runtime import core, ov
from regnet.zoo.catalogue import bundled_path, card_by_name

BUNDLED = bundled_path(card_by_name("bundled"))


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(BUNDLED)


def test_the_samples_are_what_they_are(classifier: Classifier) -> None:
    cat, espresso, hopper = classifier.classify(list(sample_photos()))
    assert (cat.top.label, cat.top.wnid) == ("Egyptian cat", "n02124075")
    assert espresso.top.label == "espresso"
    assert espresso.top.probability == pytest.approx(0.98, abs=0.01)
    assert {"academic gown", "military uniform"} <= {
        score.label.split(",")[0] for score in hopper.predictions
    }


def test_every_way_to_give_an_image_is_the_same(classifier: Classifier) -> None:
    path = sample_photos()[0]
    image = Image.open(path).convert("RGB")
    scores = {
        classifier.classify(given).predictions
        for given in (path, str(path), path.read_bytes(), np.array(image), image)
    }
    assert len(scores) == 1


def test_one_image_gives_one_prediction_and_a_list_gives_a_list(classifier: Classifier) -> None:
    path = sample_photos()[0]
    one = classifier.classify(path, top_k=3)
    assert isinstance(one, Prediction)
    assert len(one.predictions) == 3
    assert one.source == str(path)
    assert [p.source for p in classifier.classify([path.read_bytes(), path])] == [
        "image 0",
        str(path),
    ]
    assert classifier.classify([]) == []


def test_bad_images_have_an_error_and_the_others_go_on(classifier: Classifier) -> None:
    good = sample_photos()[0]
    found = classifier.classify([b"", good, b"GIF89a", "no/such.jpg", np.zeros(5), good])
    assert [p.error is None for p in found] == [False, True, False, False, False, True]
    assert all(p.model == "bundled" for p in found)
    assert found[0].predictions == ()
    with pytest.raises(ImageError, match="image 0: "):
        _ = found[0].top


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_results_keep_the_order_of_the_sources(classifier: Classifier, batch_size: int) -> None:
    samples = sample_photos() * 7
    found = list(classifier.stream(samples, batch_size=batch_size))
    assert [p.source for p in found] == [str(path) for path in samples]
    for a, b in zip(found, found[3:], strict=False):
        assert a.top.label == b.top.label
        assert a.top.probability == pytest.approx(b.top.probability, abs=1e-5)


def test_probabilities_are_the_models(classifier: Classifier, photos: list[Path]) -> None:
    """Compare with a plain loop over the IR's documented contract: float BGR pixels in."""
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    plain = core.compile_model(BUNDLED, "CPU", hints)
    protocol = classifier.metadata.preprocess
    for path, found in zip(photos, classifier.stream(photos, top_k=200), strict=True):
        pixels = crop_pixels(path, protocol).transpose(2, 0, 1)[None].astype(np.float32)
        expected = plain(pixels)["prob"][0]
        ours = np.zeros(200)
        for score in found.predictions:
            ours[score.index] = score.probability
        assert np.abs(ours - expected).max() <= 1e-5
        assert ours.sum() == pytest.approx(1, abs=1e-5)


def test_memory_does_not_grow_with_the_number_of_images(classifier: Classifier) -> None:
    """However many there are, only a few are read before their results are taken."""
    read = 0
    photo = sample_photos()[0].read_bytes()

    def jobs() -> Iterator[tuple[str, object]]:
        nonlocal read
        for number in range(10_000):
            read += 1
            yield str(number), lambda: photo

    stream = classifier._rows(jobs(), 8, classifier._classifying)  # type: ignore[arg-type]
    for taken in range(1, 40):
        next(stream)
        assert read <= taken + 100 * os.cpu_count()
    stream.close()


def test_nonsense_is_refused_at_once(classifier: Classifier) -> None:
    for options in ({"top_k": 0}, {"top_k": -1}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            list(classifier.stream([sample_photos()[0]], **options))
    with pytest.raises(ModelError, match=r"f64.*f32"):
        Classifier(BUNDLED, precision="f64").classify(sample_photos()[0])  # type: ignore[arg-type]


def test_a_single_source_is_a_source(classifier: Classifier) -> None:
    assert [p.top.label for p in classifier.stream(str(sample_photos()[1]))] == ["espresso"]


def test_an_address_may_be_classified(classifier: Classifier) -> None:
    with LocalServer() as server:
        server.files = {"cup.png": sample_photos()[1].read_bytes()}
        assert classifier.classify(server.url("cup.png")).top.label == "espresso"


def test_results_that_are_no_probabilities_are_an_error() -> None:
    """As a damaged compiled model gives them."""
    for rows in (np.full((1, 200), np.nan), np.full((1, 200), 0.1), np.zeros((1, 200))):
        with pytest.raises(ModelError, match="m: its results are not probabilities; damaged"):
            require_probabilities(rows.astype(np.float32), "m", "damaged")


def test_a_damaged_compiled_copy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons: list[str] = []
    names = Engine._run.__globals__
    monkeypatch.setitem(names, "require_probabilities", lambda *given: reasons.append(given[2]))
    engine = Engine(read_model(BUNDLED), compiled_cache=tmp_path)
    engine.infer([engine.pixels(sample_photos()[0])])
    assert any(f"remove {tmp_path} and try again" in reason for reason in reasons)


def test_stopping_early_does_not_wait_for_a_silent_server(classifier: Classifier) -> None:
    with LocalServer() as server:
        server.files = {"cup.png": sample_photos()[1].read_bytes()}
        server.script = [stalls_after(100)] * 8
        sources = [sample_photos()[0], *[server.url("cup.png")] * 6]
        stream = classifier.stream(sources)
        next(stream)
        start = time.monotonic()
        stream.close()
        assert time.monotonic() - start < 10


def test_threads_may_share_a_classifier(classifier: Classifier) -> None:
    found: list[Prediction] = []

    def work() -> None:
        found.extend(classifier.classify(path) for path in sample_photos())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    assert len({(p.source, p.predictions) for p in found}) == 3


def test_an_engine_takes_batches_of_any_size() -> None:
    model = read_model(BUNDLED)
    engine = Engine(model, streams=2)
    crops = np.stack([crop_pixels(p, model.metadata.preprocess) for p in sample_photos()])
    together = engine.infer(crops)
    assert together.shape == (3, 200)
    for row, crop in zip(together, crops, strict=True):
        assert np.abs(engine.infer(crop[None])[0] - row).max() <= 1e-5


def test_bf16_is_close_and_labels_agree_on_the_samples() -> None:
    exact, fast = Classifier(BUNDLED), Classifier(BUNDLED, precision="bf16")
    for path in sample_photos():
        a, b = exact.classify(path), fast.classify(path)
        assert a.top.index == b.top.index
        assert a.top.probability == pytest.approx(b.top.probability, abs=0.05)


def test_top_classes_are_sorted_and_ties_go_by_index() -> None:
    labels = regnet.imagenet_labels()[:4]
    scores = top_classes(np.array([0.25, 0.4, 0.25, 0.1], np.float32), labels, 3)
    assert [s.index for s in scores] == [1, 0, 2]
    assert [s.label for s in top_classes(np.ones(4, np.float32), labels, 9)] == [
        label.name for label in labels
    ]


def test_an_ir_without_metadata_is_refused(tmp_path: Path) -> None:
    from openvino import opset13 as opset

    data = opset.parameter([-1, 3, 8, 8], dtype=np.float32)
    ov.save_model(ov.Model([opset.relu(data)], [data]), tmp_path / "other.xml")
    with pytest.raises(ModelError, match=r"no regnet metadata.*regnet convert"):
        Classifier(tmp_path / "other.xml")


def test_a_graph_that_belies_its_metadata_is_refused(tmp_path: Path) -> None:
    model = core.read_model(BUNDLED)
    model.reshape({0: [-1, 3, 160, 160]})
    ov.save_model(model, tmp_path / "other.xml", compress_to_fp16=False)
    with pytest.raises(ModelError, match=r"3,160,160.*metadata says.*3,128,128"):
        Classifier(tmp_path / "other.xml")


def test_neither_the_package_nor_classifying_imports_torch() -> None:
    code = (
        "import sys, regnet\n"
        "assert not {'numpy', 'torch', 'openvino', 'PIL'} & set(sys.modules)\n"
        f"regnet.load('bundled').classify({str(sample_photos()[0])!r})\n"
        "assert not {'torch', 'onnx', 'httpx', 'pyarrow', 'rich', 'typer'} & set(sys.modules)\n"
        "print('done')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"


def test_nothing_is_reported_to_anyone_or_left_in_the_home_folder(tmp_path: Path) -> None:
    code = (
        "import regnet, sys, threading\n"
        f"regnet.load('bundled').classify([{str(sample_photos()[0])!r}] * 3)\n"
        "assert 'openvino_telemetry' not in sys.modules\n"
        "assert not [t for t in threading.enumerate() if t is not threading.main_thread()]\n"
    )
    home = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=home, check=True)
    assert list(tmp_path.iterdir()) == []


def test_two_threads_may_make_the_first_call_at_once(tmp_path: Path) -> None:
    """OpenVINO alone waits for itself for ever here, most of the times."""
    command = [sys.executable, "-m", "regnet", "classify", "-m", "bundled", *sample_photos()[:2]]
    for number in range(4):
        cold = {**os.environ, "REGNET_CACHE": str(tmp_path / str(number))}
        subprocess.run(command, env=cold, check=True, capture_output=True, timeout=60)


def test_the_json_fields_are_the_contract(classifier: Classifier) -> None:
    found = json.loads(json.dumps(classifier.classify(sample_photos()[1], top_k=1).to_dict()))
    assert list(found) == ["source", "predictions", "error", "model"]
    assert list(found["predictions"][0]) == ["index", "wnid", "label", "probability"]
