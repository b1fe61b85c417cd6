"""The examples run: three scripts, and the notebook as Jupyter runs it."""

import csv
import runpy
import zipfile
from pathlib import Path
from typing import Any

import pytest
from labelled_photos import write_labelled_photos

import regnet
from regnet.pixels.samples import sample_photos

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> dict[str, Any]:
    """Return the names that a script defines."""
    return runpy.run_path(str(EXAMPLES / name))


def test_a_folder_becomes_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for photo in sample_photos():
        (tmp_path / "photos" / photo.name).write_bytes(photo.read_bytes())
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"")
    example("folder_to_csv.py")["main"](tmp_path / "photos", tmp_path / "labels.csv")
    lines = (tmp_path / "labels.csv").read_text("utf-8").splitlines()
    rows = list(csv.DictReader(lines))
    assert Path(rows[0]["photo"]).name == "broken.jpg"
    assert rows[0]["error"] == "the file is empty"
    assert rows[1]["label"].startswith("Egyptian cat")
    assert 0.4 < float(rows[1]["probability"]) < 0.8


def test_a_fastapi_app_serves_a_model() -> None:
    pytest.importorskip("fastapi")
    from starlette.testclient import TestClient

    client = TestClient(example("web_app.py")["app"])
    cat, *_ = sample_photos()
    answer = client.post("/classify", files={"photo": ("cat.png", cat.read_bytes())})
    label, *others = answer.json()
    assert label.startswith("Egyptian cat")
    assert len(others) == 2
    answer = client.post("/classify", files={"photo": ("cat.png", b"no photo")})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("cat.png: ")


def test_a_model_is_fine_tuned_and_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    write_labelled_photos(tmp_path / "photos", each=8)
    monkeypatch.chdir(tmp_path)
    example("finetune_and_ship.py")["main"]("photos", epochs=1, crop=32)
    assert "<Training in runs/photos-finetune: 1 of 1 epochs" in capsys.readouterr().out
    with zipfile.ZipFile("my-model.zip") as archive:
        archive.extractall("there")
    assert sorted(p.name for p in Path("there").iterdir()) == [
        "my-model.bin",
        "my-model.xml",
        "report.html",
    ]
    assert len(regnet.load("there/my-model.xml").labels) == 3


def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(Path(regnet.__file__).parent.parent))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    book = nbformat.read(EXAMPLES / "first_steps.ipynb", as_version=4)
    nbclient.NotebookClient(book, timeout=200).execute()
    outputs = [o.get("data", {}) for cell in book.cells for o in cell.get("outputs", [])]
    pages = "".join(output.get("text/html", "") for output in outputs)
    assert "data:image/jpeg;base64" in pages  # the photo of a prediction
    assert "<th>probability</th>" in pages  # the data frame
    assert pages.count("<iframe srcdoc=") == 2  # evaluation and comparison
    texts = [output.get("text/plain", "") for output in outputs]
    assert "<Classifier bundled: 200 classes, 128 x 128 pixels>" in texts
