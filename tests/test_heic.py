"""HEIC photos in every command: with the extra `heif` as their JPEGs, without it named and said."""

import io
import json
from functools import cache
from pathlib import Path

import httpx
import pytest
from command_line import run_main
from PIL import Image
from serving_process import serving

import regnet
from regnet.pixels.samples import sample_photos

CLASSES = ("n02124075", "n07920052")  # a cat, a cup


@cache
def encoded(path: Path, *, turn: int = 0) -> bytes:
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    image = Image.open(path).convert("RGB").rotate(turn)
    heif.from_pillow(image).save(file, quality=-1, chroma=444)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a data set of HEIC photos alone, in two splits of two classes."""
    for turn, split in ((0, "val"), (20, "train")):
        for name, sample in zip(CLASSES, sample_photos(), strict=False):
            place = tmp_path / "data" / split / name
            place.mkdir(parents=True)
            for number, suffix in enumerate(("heic", "HEIF")):
                data = encoded(sample, turn=turn + 40 * number)
                (place / f"{number}.{suffix}").write_bytes(data)
    return tmp_path / "data"


@pytest.fixture
def without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Take the extra away; return the variables that take it from another process."""
    (tmp_path / "hidden").mkdir()
    hides = "import sys\nsys.modules['pi_heif'] = sys.modules['pillow_heif'] = None\n"
    (tmp_path / "hidden" / "sitecustomize.py").write_text(hides)
    monkeypatch.setattr("regnet.pixels.formats.find_spec", lambda name: None)
    source = Path(regnet.__file__).parents[1]
    return {"PYTHONPATH": f"{tmp_path / 'hidden'}:{source}"}


def test_twenty_heic_photos_have_the_classes_of_their_jpegs(photos: list[Path]) -> None:
    classifier = regnet.load("bundled")
    chosen = photos[:: len(photos) // 20][:20]
    assert len(chosen) == 20
    for path in chosen:
        assert classifier.classify(encoded(path)).top.label == classifier.classify(path).top.label


def test_commands_read_them(folder: Path, tmp_path: Path) -> None:
    rows = run_main("classify", "--model", "bundled", "-f", "jsonl", folder)
    assert rows.returncode == 0
    assert len(rows.stdout.splitlines()) == 8
    for command in (("evaluate", "bundled", folder / "val", "--subset"), ("doctor", folder)):
        done = run_main(*command, "--json")
        found = json.loads(done.stdout)
        assert found["unreadable"] == 0
    with serving(tmp_path, "bundled") as served:
        data = (folder / "val" / CLASSES[0] / "0.heic").read_bytes()
        answer = httpx.post(f"{served.url}/v1/classify", content=data)
    assert answer.json()["predictions"][0]["predictions"][0]["label"] == "Egyptian cat"


COMMANDS = {
    "classify": (1, ["--model", "bundled", "val"]),
    "evaluate": (1, ["bundled", "val", "--subset"]),
    "doctor": (1, ["."]),
    "train": (2, [".", "--recipe", "finetune", "--epochs", "1", "-o", "../run"]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_without_the_extra_they_are_counted_and_the_extra_is_named(
    command: str, folder: Path, without: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    status, words = COMMANDS[command]
    done = run_main(command, *words)
    said, shown = done.stderr.decode(), done.stdout.decode()
    assert done.returncode == status, said
    assert "a HEIC photo, which is not read: install the extra 'heif'" in said + shown
    assert said.count("HEIC photos need the extra 'heif': ") == 1
    counts = {
        "classify": shown.count("a HEIC photo") == 4,
        "evaluate": "4 photos could not be read" in shown,
        "doctor": "8 photos (100 %) cannot be read" in shown,
        "train": "none of the 4 photos can be read" in said,
    }
    assert counts[command], said + shown


def test_the_extra_is_named_before_a_model_is_fetched(
    folder: Path, without: dict[str, str], tmp_path: Path
) -> None:
    photo = folder / "val" / CLASSES[0] / "0.heic"
    done = run_main("classify", "--offline", "--cache-dir", tmp_path / "cache", photo)
    assert done.returncode == 2
    assert done.stderr.startswith(b"regnet: HEIC photos need the extra 'heif': ")
    assert b"regnetx-3.2gf is not in the cache" in done.stderr


def test_the_server_names_the_extra_and_no_path_of_its_own(
    folder: Path, without: dict[str, str], tmp_path: Path
) -> None:
    data = (folder / "val" / CLASSES[0] / "0.heic").read_bytes()
    with serving(tmp_path, "bundled", environ=without) as served:
        answer = httpx.post(f"{served.url}/v1/classify", content=data)
    assert answer.status_code == 422
    assert "install the extra 'heif', or save it as JPEG" in answer.json()["error"]
    assert "pip" not in answer.text
