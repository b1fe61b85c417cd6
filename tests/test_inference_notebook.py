"""A classifier in Python and in notebooks: calls, probabilities, floats, files, frames, HTML."""

import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from labelled_photos import write_labelled_photos
from numpy.typing import NDArray
from PIL import Image

import regnet
from regnet.inference.load import _download_bar
from regnet.pages.notebook import framed, photo_card
from regnet.pages.report import Report
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ImageError, RegNetError
from regnet.zoo.events import Event

CAT, ESPRESSO, _ = sample_photos()


@pytest.fixture(scope="module")
def classifier() -> regnet.Classifier:
    return regnet.load("bundled")


def pixels(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def test_values_are_one_line(classifier: regnet.Classifier) -> None:
    cat, bad = classifier([CAT, b""])
    assert repr(classifier) == "<Classifier bundled: 200 classes, 128 x 128 pixels>"
    assert repr(cat).startswith(f"<Prediction {CAT}: Egyptian cat ")
    assert repr(bad) == "<Prediction image 1: error: the file is empty>"
    assert classifier.labels is classifier.metadata.labels
    assert pickle.loads(pickle.dumps(cat)) == cat


def test_a_call_is_classify(classifier: regnet.Classifier) -> None:
    assert classifier(CAT, top_k=2) == classifier.classify(CAT, top_k=2)


def test_probabilities_are_those_of_the_predictions(classifier: regnet.Classifier) -> None:
    rows = classifier.probabilities([CAT, pixels(ESPRESSO)])
    assert rows.shape == (2, 200)
    assert rows.dtype == np.float32
    for row, prediction in zip(rows, classifier([CAT, ESPRESSO]), strict=True):
        assert row[prediction.top.index] == pytest.approx(prediction.top.probability, abs=1e-6)
    assert classifier.probabilities(CAT).shape == (1, 200)
    assert classifier.probabilities([]).shape == (0, 200)
    with pytest.raises(ImageError, match="image 1: the file is empty"):
        classifier.probabilities([CAT, b""])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_are_scaled_if_that_is_asked(classifier: regnet.Classifier, kind: type) -> None:
    floats = (pixels(CAT) / 255).astype(kind)
    assert classifier(floats, scale=True).predictions == classifier(pixels(CAT)).predictions
    assert "with scale=True floats in [0, 1]" in (classifier(floats).error or "")
    for value in (1.5, -0.1, np.nan):
        wrong = floats.copy()
        wrong[0, 0, 0] = value
        assert classifier(wrong, scale=True).error == "an array of floats must be in [0, 1]"


def test_a_batch_in_one_array_is_asked_for_as_a_list(classifier: regnet.Classifier) -> None:
    batch = np.zeros((2, 8, 8, 3), np.uint8)
    assert (classifier(batch).error or "").endswith("or a list of such arrays")
    assert classifier.probabilities(list(batch)).shape == (2, 200)


def test_open_files_are_read(classifier: regnet.Classifier, tmp_path: Path) -> None:
    with CAT.open("rb") as file:
        assert classifier(file).top.label == classifier(CAT).top.label
    assert classifier(io.BytesIO(CAT.read_bytes())).top == classifier(CAT).top
    assert "open it with mode" in (classifier(io.StringIO("text")).error or "")
    closed = io.BytesIO(b"x")
    closed.close()
    assert "cannot be read" in (classifier(closed).error or "")


def test_progress_is_shown_if_asked_only(
    classifier: regnet.Classifier, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier([CAT, ESPRESSO])
    list(classifier.stream([CAT]))
    assert capsys.readouterr().out == ""
    assert len(classifier([CAT, ESPRESSO], progress=True)) == 2
    assert len(list(classifier.stream([CAT], progress=True))) == 1
    assert capsys.readouterr().out.count("classifying") == 2


def test_a_download_shows_a_bar_from_its_start_on(capsys: pytest.CaptureFixture[str]) -> None:
    with _download_bar() as on_event:
        on_event(Event(event="done", model="cached", bytes=5, total=5))
    assert "cached" not in capsys.readouterr().out
    with _download_bar() as on_event:
        for event, size in (("start", 0), ("progress", 500_000), ("done", 1_000_000)):
            on_event(Event(event=event, model="one", bytes=size, total=1_000_000))
    shown = capsys.readouterr().out
    assert (shown.count("one"), "100%" in shown, "1.0/1.0 MB" in shown) == (1, True, True)


def test_predictions_become_a_data_frame(
    classifier: regnet.Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pandas")
    frame = regnet.to_frame(classifier([CAT, b""]))
    assert list(frame.columns)[:5] == ["source", "label", "probability", "index", "wnid"]
    assert frame["label"][0].startswith("Egyptian cat")
    assert frame["error"][1] == "the file is empty"
    assert list(regnet.to_frame([]).columns) == list(frame.columns)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RegNetError, match="pip install pandas"):
        regnet.to_frame([])


def test_a_notebook_shows_the_photo_and_bars(classifier: regnet.Classifier) -> None:
    cat, bad = classifier([CAT, b"<b>"])
    html = cat._repr_html_()
    assert html.count("data:image/jpeg;base64") == 1
    assert html.count("<tr>") == 5
    assert "Egyptian cat" in html
    assert "<img" not in bad._repr_html_()
    assert "&lt;b&gt;" in photo_card("<b>", [("<b>", 0.5)], "<b>")
    assert "<b>" not in photo_card("<b>", [("<b>", 0.5)], "<b>")


def test_results_are_one_line_and_a_framed_report(tmp_path: Path) -> None:
    write_labelled_photos(tmp_path / "photos", each=4)
    evaluation = regnet.evaluate("bundled", tmp_path / "photos", subset=True)
    assert repr(evaluation).startswith("<Evaluation bundled on photos: top-1 ")
    assert "12 images" in repr(evaluation)
    comparison = regnet.compare("bundled", "bundled", tmp_path / "photos")
    assert repr(comparison).startswith("<Comparison of bundled")
    for result in (evaluation, comparison):
        html = result._repr_html_() or ""
        assert html.startswith('<iframe srcdoc="&lt;!doctype html&gt;')
        assert html.count("<") == 2  # the page is text of an attribute


def test_without_the_report_extra_notebooks_show_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regnet.pages.notebook.find_spec", lambda name: None)
    assert framed(lambda: Report("title", [])) is None
