"""`regnet doctor`: data sets that are wrong in every way, from files to findings and pages."""

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from doctored_photos import cropped, jpeg, picture, write_tree
from PIL import Image
from typer.testing import CliRunner, Result

from regnet.cli import build_app
from regnet.doctor.examine import Examination, examine
from regnet.doctor.findings import Finding
from regnet.doctor.photo_findings import kept_shares
from regnet.doctor.report import SIDE, doctor_report, frame, shots
from regnet.doctor.tree import open_tree
from regnet.pages.html import report_html
from regnet.pages.terminal import report_lines
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import ProtocolError

GOOD = {"train/cat": 12, "train/dog": 12, "val/cat": 4, "val/dog": 4}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set that nothing is wrong with."""
    folder = tmp_path_factory.mktemp("data") / "good"
    write_tree(folder, GOOD)
    return folder


@pytest.fixture
def data(good: Path, tmp_path: Path) -> Path:
    """Return a copy of it to spoil."""
    return Path(shutil.copytree(good, tmp_path / "data"))


def findings(folder: Path, **options) -> dict[str, Finding]:
    found = examine(open_tree(folder), **{"resize": 128, "crop": 112, **options}).findings
    assert len({finding.code for finding in found}) == len(found)
    return {finding.code: finding for finding in found}


def names(finding: Finding) -> set[str]:
    return {"/".join(Path(file.source).parts[-2:]) for file in finding.files}


def regnet(*arguments: object) -> Result:
    return CliRunner().invoke(build_app(["doctor"]), ["doctor", *map(str, arguments)])


SIZES = ("--resize", "128", "--crop", "112")


def test_nothing_wrong(good: Path) -> None:
    assert findings(good) == {}
    done = regnet(good, *SIZES)
    assert done.exit_code == 0
    assert [" ".join(line.split()) for line in done.stdout.splitlines()][:11] == [
        "good, examined",
        "32 photos of 2 classes, train 24, val 8",
        "",
        "Errors 0 0 warnings, 0 notes; ready to train",
        "Photos 32 0 unreadable",
        "Classes 2 16 photos each",
        "Kept by the centre crop 61 % of a photo, median; at least 61 %",
        "",
        "How this was examined",
        f"Data set {good}",
        "Unreadable 0 (0.00 %)",
    ]
    assert "160 x 200 pixels (medians), shortest 160, longest 200" in done.stdout
    assert done.stdout.endswith("\n\nnothing wrong\n")


def test_the_same_file_in_a_class_a_split_and_another_class(data: Path) -> None:
    shutil.copy(data / "train/cat/000.jpg", data / "train/cat/again.jpg")
    shutil.copy(data / "train/cat/001.jpg", data / "val/cat/leak.jpg")
    shutil.copy(data / "train/cat/002.jpg", data / "train/dog/cat.jpg")
    found = findings(data)
    assert {code: finding.severity for code, finding in found.items()} == {
        "duplicates": "warning",
        "duplicates-across-splits": "error",
        "duplicates-across-classes": "error",
    }
    assert names(found["duplicates"]) == {"cat/000.jpg", "cat/again.jpg"}
    assert found["duplicates"].count == 1
    assert names(found["duplicates-across-splits"]) == {"cat/001.jpg", "cat/leak.jpg"}
    assert "11 % of val" in found["duplicates-across-splits"].text
    assert names(found["duplicates-across-classes"]) == {"cat/002.jpg", "dog/cat.jpg"}
    assert {file.group for file in found["duplicates-across-classes"].files} == {1}
    assert regnet(data, *SIZES).exit_code == 1


def test_nearly_the_same_picture(data: Path) -> None:
    def copy(source: str, target: str, seed: int) -> None:
        image = cropped(Image.open(data / source), 0.04, seed=seed)
        (data / target).write_bytes(jpeg(image, quality=60))

    copy("train/cat/000.jpg", "train/cat/again.jpg", 0)
    copy("train/cat/001.jpg", "val/cat/leak.jpg", 1)
    copy("train/cat/002.jpg", "train/dog/cat.jpg", 2)
    found = findings(data)
    assert {code: finding.severity for code, finding in found.items()} == {
        "near-duplicates": "note",
        "near-duplicates-across-splits": "error",
        "near-duplicates-across-classes": "warning",
    }
    assert names(found["near-duplicates"]) == {"cat/000.jpg", "cat/again.jpg"}
    assert names(found["near-duplicates-across-splits"]) == {"cat/001.jpg", "cat/leak.jpg"}
    assert findings(data, near=False) == {}


def test_photos_that_cannot_be_read(data: Path) -> None:
    (data / "train/cat/torn.jpg").write_bytes((data / "train/cat/000.jpg").read_bytes()[:800])
    (data / "train/dog/empty.png").write_bytes(b"")
    found = findings(data)
    assert found.keys() == {"unreadable"}
    assert found["unreadable"].severity == "warning"
    assert {file.detail for file in found["unreadable"].files} == {
        "the JPEG is truncated",
        "the file is empty",
    }
    for photo in (data / "val/dog").iterdir():
        photo.write_bytes(b"gone")
    found = findings(data)
    assert found["unreadable"].severity == "error"
    assert "all of val/dog" in found["unreadable"].text


def test_pictures_of_kinds_that_are_not_read_are_named(data: Path) -> None:
    (data / "train/cat/layers.psd").write_bytes(b"8BPS\0\1" + bytes(600))
    shutil.copy(data / "train/cat/000.jpg", data / "train/cat/new.jfif")
    found = findings(data)
    (file,) = found["unreadable"].files
    assert file.detail == "a Photoshop document, which is not read: export it as PNG or JPEG"
    assert names(found["duplicates"]) == {"cat/000.jpg", "cat/new.jfif"}  # so JFIF is read


def test_tiny_blank_and_cut_photos(data: Path) -> None:
    picture(90, width=40, height=30).save(data / "train/cat/icon.png")
    Image.new("RGB", (300, 300), "white").save(data / "train/cat/white.png")
    Image.new("RGB", (300, 300), "black").save(data / "train/dog/black.png")
    picture(91, width=900, height=150).save(data / "train/dog/wide.png")
    found = findings(data)
    assert {code: finding.severity for code, finding in found.items()} == {
        "tiny": "note",
        "cropped": "note",
        "blank": "warning",
    }
    assert [file.detail for file in found["tiny"].files] == ["40 x 30"]
    assert [file.detail for file in found["cropped"].files] == ["keeps 13 % of 900 x 150"]
    assert names(found["blank"]) == {"cat/white.png", "dog/black.png"}
    assert findings(data, resize=28, crop=24).keys() == {"blank", "cropped"}
    assert findings(data, resize=512, crop=448)["tiny"].severity == "warning"


def test_the_share_that_the_crop_keeps_is_the_protocol_s() -> None:
    preprocess = Preprocess(name="test", resize=256, crop=224)
    sizes = np.array([[500, 375], [375, 500], [64, 64], [1000, 200]], np.uint32)
    for (width, height), kept in zip(
        sizes.tolist(), kept_shares(sizes, preprocess).tolist(), strict=True
    ):
        resized = preprocess.resized(width, height)
        assert kept == pytest.approx(224**2 / (resized[0] * resized[1]))
        left, top, right, bottom = frame(width, height, preprocess)
        assert (right - left) * (bottom - top) == pytest.approx(kept)
    whole = Preprocess(name="test", resize=64, crop=64)
    assert kept_shares(np.array([[64, 64]], np.uint32), whole).tolist() == [1.0]


def test_json_says_all(data: Path) -> None:
    for number in range(3):
        shutil.copy(data / f"train/cat/00{number}.jpg", data / f"val/cat/leak{number}.jpg")
    (data / "@eaDir").mkdir()
    for name in ("@eaDir/000.jpg", "notes.txt", "train/cat/.010.jpg.icloud"):
        (data / name).write_bytes(b"x")
    done = regnet(data, *SIZES, "--json", "--files", "4")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["photos"] == 35
    assert found["skipped"] == {".icloud (not downloaded)": 1, ".txt": 1, "@eaDir/": 1}
    assert found["splits"] == {"train": {"cat": 12, "dog": 12}, "val": {"cat": 7, "dog": 4}}
    assert found["classes"] == ["cat", "dog"]
    assert (found["resize"], found["crop"]) == (128, 112)
    assert found["short_side"] == {"least": 160, "median": 160, "most": 160}
    assert found["kept"]["median"] == pytest.approx(112**2 / (128 * 160))
    (leak,) = found["findings"]
    assert (leak["code"], leak["severity"]) == ("duplicates-across-splits", "error")
    assert leak["count"] == 6
    assert len(leak["files"]) == 4
    assert {file["split"] for file in leak["files"]} == {"train", "val"}
    assert [file["group"] for file in leak["files"]] == [1, 1, 2, 2]


def test_strict_counts_warnings(data: Path) -> None:
    (data / "train/cat/torn.jpg").write_bytes(b"gone")
    assert regnet(data, *SIZES).exit_code == 0
    assert regnet(data, *SIZES, "--strict").exit_code == 1


def test_flat_and_empty_folders_and_what_cannot_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = regnet(tmp_path / "empty")
    assert done.exit_code == 1
    assert "no photos to train on" in done.stdout
    write_tree(tmp_path, {"flat": 2})
    assert "not in a folder a class" in regnet(tmp_path / "flat").stdout
    assert regnet(tmp_path / "missing").exit_code != 0
    with pytest.raises(ProtocolError):
        examine(open_tree(tmp_path / "flat"), resize=100, crop=200)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "regnet", "doctor", *map(str, arguments)]


def test_the_command_as_a_process(data: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = subprocess.run(command(data, *SIZES, "--html", report), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, f"{report}: written\n")
    assert report.read_text().startswith("<!doctype html>")
    for wrong in (("missing",), (data, "--crop", "300"), (data, "--html", tmp_path)):
        done = subprocess.run(command(*wrong), capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("regnet: ")
        assert "Traceback" not in done.stderr


def test_torch_and_openvino_are_not_needed() -> None:
    code = (
        "import sys, regnet.doctor.examine, regnet.doctor.quick, regnet.doctor.report; "
        "print([m for m in ('torch', 'openvino', 'scipy', 'nncf') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


SLOW = """
import os, sys, time
import regnet.doctor.examine as examine
from regnet.cli import main

def glances(items):
    os.write(1, b"looking\\n")  # at once: each thread says so
    time.sleep(60)

examine.glances = glances
sys.argv = ["regnet", "doctor", sys.argv[1]]
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_ends_with_130(good: Path) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(good)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "looking\n"
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=30)
    assert (run.returncode, said) == (130, "regnet: interrupted\n")


@pytest.fixture
def spoilt(data: Path) -> tuple[Examination, Path]:
    shutil.copy(data / "train/cat/000.jpg", data / "val/cat/leak.jpg")
    (data / "train/cat/<b>.jpg").write_bytes(b"gone")
    picture(91, width=900, height=150).save(data / "train/dog/wide.png")
    return examine(open_tree(data), resize=128, crop=112), data


def test_the_report_shows_the_photos_and_escapes_their_names(spoilt) -> None:
    found, data = spoilt
    html = report_html(doctor_report(found, open_tree(data)))
    assert "Error: duplicates across splits" in html
    assert "&lt;b&gt;.jpg" in html
    assert "<b>" not in html
    # Two copies, the photo that is cut, and two sheets of at most 12 previews.
    assert html.count("data:image/webp;base64,") == 2 + 1 + 2 * 12
    assert "not readable any more" not in html
    assert "Here are the first" not in html


def test_the_report_shows_the_first_of_many(data: Path) -> None:
    for number in range(12):
        shutil.copy(data / f"train/cat/{number:03}.jpg", data / f"train/cat/x{number}.jpg")
    tree = open_tree(data)
    html = report_html(doctor_report(examine(tree, resize=128, crop=112), tree))
    assert "Here are the first 8 of 12; --json lists more." in html


def test_the_report_of_nothing(tmp_path: Path) -> None:
    tree = open_tree(tmp_path)
    html = report_html(doctor_report(examine(tree), tree))
    assert "Error: no images" in html


def test_previews_are_whole_and_framed(good: Path) -> None:
    tree = open_tree(good)
    source = next(tree.items()).source
    shot = shots(tree, {source}, Preprocess(name="test", resize=128, crop=112))[source]
    assert shot.whole is not None
    assert shot.framed is not None
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))))
        for address in (shot.whole, shot.framed)
    ]
    whole, framed = (p.astype(int) for p in pictures)
    assert whole.shape == framed.shape == (SIDE, SIDE, 4)
    assert whole[0, 128, 3] == 0  # a wide photo does not fill the square
    assert whole[128, 128, 3] == 255
    assert np.abs(whole[128, 128] - framed[128, 128]).max() < 40  # inside the frame
    assert framed[128, 8, :3].mean() < 0.75 * whole[128, 8, :3].mean()  # cut off


def test_lines_for_people_list_few_files(data: Path) -> None:
    for number in range(9):
        shutil.copy(data / f"train/cat/00{number}.jpg", data / f"train/cat/x{number}.jpg")
    tree = open_tree(data)
    lines = list(report_lines(doctor_report(examine(tree, resize=128, crop=112), tree)))
    assert sum(" = " in line for line in lines) == 8
    assert any(line.endswith("Here are the first 8 of 9; --json lists more.") for line in lines)
    assert lines[-1] == "1 warning"
    for number in range(9):
        shutil.copy(data / "train/cat/000.jpg", data / f"train/cat/y{number}.jpg")
    tree = open_tree(data)
    lines = list(report_lines(doctor_report(examine(tree, resize=128, crop=112), tree)))
    assert any(line.endswith("... (11 in all)") and line.count(" = ") == 3 for line in lines)
