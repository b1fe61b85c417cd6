"""`regnet doctor --model`: wrong labels, exposure, and the photos to label next."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import run_main
from labelled_photos import CLASSES, write_labelled_photos
from PIL import Image, ImageFilter
from test_inference_embed import _all_convolutional, _written

from regnet.doctor.examine import examine
from regnet.doctor.labels import judge
from regnet.doctor.next_photos import next_photos
from regnet.doctor.tree import open_tree
from regnet.inference.classify import Classifier
from regnet.pixels.samples import sample_photos
from regnet.system.errors import DatasetError, ModelError
from regnet.zoo.catalogue import bundled_path, card_by_name

BUNDLED = bundled_path(card_by_name("bundled"))


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(BUNDLED)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return three classes of 16 photos, one of which lies in the wrong folder."""
    write_labelled_photos(tmp_path / "photos")
    shutil.move(
        tmp_path / "photos" / CLASSES[0] / "00.png", tmp_path / "photos" / CLASSES[1] / "x.png"
    )
    return tmp_path / "photos"


def test_wrong_labels_are_ranked_and_listed(folder: Path, tmp_path: Path) -> None:
    done = run_main(
        "doctor", folder, "--model", "bundled", "--fix-list", tmp_path / "fix.csv", "--json"
    )
    result = json.loads(done.stdout)
    (finding,) = (f for f in result["findings"] if f["code"] == "wrong-labels")
    wrong = str(folder / CLASSES[1] / "x.png")
    assert finding["severity"] == "warning"
    assert finding["files"][0]["source"] == wrong
    assert result["suspects"][0]["suggested"] == CLASSES[0]
    with (tmp_path / "fix.csv").open() as file:
        first = next(csv.DictReader(file))
    assert (first["file"], first["class"], first["suggested"]) == (wrong, CLASSES[1], CLASSES[0])
    assert 0 <= float(first["probability_class"]) < float(first["probability_suggested"]) <= 1


def test_dark_bright_and_alike(folder: Path, classifier: Classifier) -> None:
    for name, ends in (("dark", (2, 22)), ("bright", (237, 255))):
        levels = np.tile(np.linspace(*ends, 96).astype(np.uint8), (96, 1))
        Image.fromarray(levels).save(folder / CLASSES[0] / f"{name}.png")
    photo = Image.open(sample_photos()[0]).convert("RGB")
    photo.filter(ImageFilter.GaussianBlur(0.03 * min(photo.size))).save(folder / "blurred.png")
    shutil.move(folder / "blurred.png", folder / CLASSES[0])
    for path in (folder / CLASSES[2]).iterdir():
        twin = folder / "twin" / path.name
        twin.parent.mkdir(exist_ok=True)
        Image.open(path).rotate(3).save(twin)
    found = {f.code: f for f in examine(open_tree(folder), classifier=classifier).findings}
    assert [Path(f.source).name for f in found["dark"].files] == ["dark.png"]
    assert [Path(f.source).name for f in found["bright"].files] == ["bright.png"]
    assert Path(found["blurred"].files[0].source).name == "blurred.png"
    assert f"{CLASSES[2]} and twin" in found["classes-alike"].text
    without = {f.code for f in examine(open_tree(folder)).findings}
    assert without.isdisjoint({"dark", "bright", "blurred", "classes-alike", "wrong-labels"})


def test_an_odd_photo_is_found(folder: Path, classifier: Classifier) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    Image.fromarray(noise).save(folder / CLASSES[0] / "odd.png")
    findings = {f.code: f for f in judge(open_tree(folder), classifier).findings}
    assert "odd.png" in {Path(f.source).name for f in findings["odd-ones-out"].files}


def test_the_next_photos_are_doubtful_and_unlike_each_other(
    folder: Path, classifier: Classifier
) -> None:
    result = next_photos(classifier, str(folder), 5)
    assert (len(result.next), result.photos, result.unreadable) == (5, 48, 0)
    assert len({one.source for one in result.next}) == 5
    assert result.next[0].lead == min(one.lead for one in result.next)
    done = run_main("doctor", folder, "--next", "50", "--json")
    assert (done.returncode, len(json.loads(done.stdout)["next"])) == (0, 48)


def test_what_cannot_be_judged_is_a_sentence(
    folder: Path, classifier: Classifier, tmp_path: Path
) -> None:
    other = Classifier(_written(_all_convolutional, tmp_path / "other.xml"))
    with pytest.raises(ModelError, match="has no pooled features"):
        examine(open_tree(folder), classifier=other)
    for name in CLASSES[1:]:
        shutil.rmtree(folder / name)
    with pytest.raises(DatasetError, match="with two classes or more"):
        examine(open_tree(folder), classifier=classifier)
    for photo in (folder / CLASSES[0]).iterdir():
        photo.write_bytes(b"")
    with pytest.raises(DatasetError, match="no photo could be read"):
        next_photos(classifier, str(folder), 3)
