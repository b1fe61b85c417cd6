"""`regnet doctor --apply`: reviewed labels, corrected by moves or in a new label file."""

import json
import os
import random
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import pytest
from command_line import run_main

from regnet.doctor.fixes import AppliedFixes, apply_fixes, read_fix_list
from regnet.doctor.tree import open_tree
from regnet.inference.result import ClassScore, Prediction
from regnet.inference.sorting import LIST, Sorter, undo
from regnet.network.labels import Label
from regnet.system.errors import DatasetError, OutputError

HEAD = "file,split,class,suggested,probability_class,probability_suggested\n"


def write_photos(folder: Path, *names: str) -> Path:
    """Write files whose content is their name."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def apply(folder: Path, *fixes: tuple[str, str], truth: Path | None = None) -> AppliedFixes:
    """Apply a list of photos below a folder and their suggested classes."""
    rows = (f"{folder / file},,,{suggested},0.1,0.9\n" for file, suggested in fixes)
    fix_list = folder.parent / "fix.csv"
    fix_list.write_text(HEAD + "".join(rows))
    return apply_fixes(folder, fix_list, truth=truth)


def contents(folder: Path) -> dict[str, str]:
    """Return the photos below a folder with their contents."""
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*.jpg")}


def test_photos_go_to_the_suggested_folders_and_back(tmp_path: Path) -> None:
    names = ("train/cat/1.jpg", "train/cat/sub/2.jpg", "train/dog/1.jpg", "train/cow/3.jpg")
    folder = write_photos(tmp_path / "photos", *names, "val/Cat/4.jpg", "val/dog/5.jpg")
    before = contents(folder)
    fixes = (
        *((names[0], "dog"), (names[1], "dog"), (names[2], ""), ("val/dog/5.jpg", "cat")),
        *(("val/Cat/4.jpg", "cow"), (names[3], "cow")),
    )
    done = apply(folder, *fixes)
    assert (done.changed, done.before, done.left, done.failed) == (4, 1, 1, ())
    assert contents(folder) == {
        "train/dog/1.jpg": names[2],  # not overwritten
        "train/dog/1 (2).jpg": names[0],
        "train/dog/2.jpg": names[1],
        names[3]: names[3],
        "val/Cat/5.jpg": "val/dog/5.jpg",
        "val/cow/4.jpg": "val/Cat/4.jpg",  # which val had no folder for
    }
    again = apply(folder, *fixes)
    assert (again.changed, again.before, again.failed) == (0, 5, ())
    assert undo(folder) == (4, [])
    assert contents(folder) == before


@pytest.mark.parametrize("same", [False, True])
def test_swapped_photos_of_one_name_stay_swapped_when_the_list_is_applied_again(
    same: bool, tmp_path: Path
) -> None:
    folder = write_photos(tmp_path / "photos", "cat/1.jpg", "dog/1.jpg", "dog/2.jpg")
    for name in ("cat/1.jpg", "dog/1.jpg") if same else ():
        (folder / name).write_text("the same")
        os.utime(folder / name, (1, 1))
    before = contents(folder)
    fixes = (("cat/1.jpg", "dog"), ("dog/1.jpg", "cat"))
    assert apply(folder, *fixes).changed == 2
    swapped = contents(folder)
    assert swapped == {
        "dog/1 (2).jpg": before["cat/1.jpg"],
        "cat/1.jpg": before["dog/1.jpg"],
        "dog/2.jpg": "dog/2.jpg",
    }
    again = apply(folder, *fixes)
    assert (again.changed, again.before, again.failed) == (0, 2, ())
    assert contents(folder) == swapped
    assert undo(folder, relabelled=True) == (2, [])
    assert contents(folder) == before


def test_sorted_photos_are_relabelled_and_only_that_is_undone(tmp_path: Path) -> None:
    photos, folder = write_photos(tmp_path / "in", "1.jpg", "2.jpg"), tmp_path / "sorted"

    def sort() -> int:
        sorter = Sorter(folder, "copy", (Label("", "cat"), Label("", "dog")))
        for name, index in (("1.jpg", 0), ("2.jpg", 1)):
            if sorter.takes(str(photos / name)):
                best = ClassScore(index, "", "", 0.9)
                sorter.place(str(photos / name), Prediction(name, (best,), None, "m"))
        return sorter.counts.total()

    assert sort() == 2
    assert apply(folder, ("cat/1.jpg", "dog")).changed == 1
    assert sort() == 0  # it is known where it went
    assert contents(folder) == {"dog/1.jpg": "1.jpg", "dog/2.jpg": "2.jpg"}
    assert undo(folder, relabelled=True) == (1, [])
    assert contents(folder) == {"cat/1.jpg": "1.jpg", "dog/2.jpg": "2.jpg"}
    assert apply(folder, ("cat/1.jpg", "dog")).changed == 1
    assert apply(folder, ("dog/1.jpg", "cat")).changed == 1
    undo(folder)
    assert contents(tmp_path) == {"in/1.jpg": "1.jpg", "in/2.jpg": "2.jpg"}


def test_a_photo_that_cannot_leave_its_folder_is_not_in_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_photos(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    before, unlink = contents(folder), Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == folder / "cat/1.jpg":
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        assert [one.error for one in apply(folder, ("cat/1.jpg", "dog")).failed] == [
            "Permission denied"
        ]
    assert contents(folder) == before
    assert apply(folder, ("cat/1.jpg", "dog")).changed == 1
    (folder / ".sorting.lock").unlink(missing_ok=True)
    (folder / ".sorting.lock").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*photos: "):
        apply(folder, ("dog/2.jpg", "cat"))


def test_a_bad_line_is_a_sentence_and_the_others_go_on(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", "cat/1.jpg", "cat/2.jpg", "dog/3.jpg", "4.jpg")
    write_photos(tmp_path, "other/5.jpg")
    done = apply(
        folder,
        *(("cat/1.jpg", "dgo"), ("cat/2.jpg", "../other"), ("../other/5.jpg", "dog")),
        *(("cat/9.jpg", "dog"), ("cat/2.jpg", "dog"), ("4.jpg", "dog"), ("dog/3.jpg", "Cat")),
    )
    assert [(one.line, one.error) for one in done.failed] == [
        (2, "there is no class folder 'dgo': make it, or name one of these: cat, dog"),
        (3, "there is no class folder '../other': make it, or name one of these: cat, dog"),
        (4, f"is not a photo of {folder} now"),
        (5, f"is not a photo of {folder} now"),
        (6, "is in line 3, too"),
        (7, "lies in no class folder"),
    ]
    assert done.changed == 1
    assert (folder / "cat" / "3.jpg").is_file()
    impossible = apply(folder, ("a\0b", "dog"), ("x" * 5000, "dog"))
    assert len(impossible.failed) == 2
    fix_list = tmp_path / "fix.csv"
    fix_list.write_text("suggested,file\ndog,\ndog\n")
    assert [one.line for one in apply_fixes(folder, fix_list).failed] == [2, 3]
    fix_list.write_text("sep=;\nsuggested;file\ndog;\ndog\n")
    assert [one.line for one in apply_fixes(folder, fix_list).failed] == [3, 4]
    assert "was moved to cat/3.jpg before" in apply(folder, ("dog/3.jpg", "dog")).failed[0].error


def test_label_files_are_corrected_beside(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", "1.jpg", "sub/2.jpg", "sub/3.jpg")
    truth = tmp_path / "truth.csv"
    truth.write_text("image;label;note\n1.jpg;cat;x\nsub/2.jpg;cat;y\nsub/3.jpg;dog;z\n")
    done = apply(folder, ("sub/2.jpg", "dog"), ("1.jpg", "cow"), ("sub/3.jpg", "dog"), truth=truth)
    assert (done.changed, done.before, len(done.failed)) == (1, 1, 1)
    assert done.failed[0].error == "there is no class 'cow'; there are cat, dog"
    corrected = tmp_path / "truth-corrected.csv"
    assert (done.corrected, contents(folder).keys()) == (
        str(corrected),
        {"1.jpg", "sub/2.jpg", "sub/3.jpg"},
    )
    assert open_tree(folder, truth=corrected).counts == {"": {"cat": 1, "dog": 2}}
    with pytest.raises(OutputError, match=r"truth-corrected\.csv exists"):
        apply(folder, truth=truth)
    flat = write_photos(tmp_path / "flat", "1.jpg", "2.jpg")
    (flat / "metadata.csv").write_text("file_name,label\n1.jpg,a\n2.jpg,b\n")
    assert apply(flat, ("1.jpg", "b")).corrected == str(flat / "metadata-corrected.csv")


def test_a_photo_in_two_lines_has_the_class_of_the_first(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", "1.jpg", "2.jpg")
    (folder / "metadata.csv").write_text("file_name,label\n1.jpg,cat\n2.jpg,dog\n")
    done = apply(folder, ("1.jpg", "dog"), ("../photos/1.jpg", "cat"))
    assert [one.error for one in done.failed] == ["is in line 2, too"]
    assert (done.changed, done.before) == (1, 0)


def test_rows_that_a_spreadsheet_left_empty_are_none(tmp_path: Path) -> None:
    for code in ("utf-8", "utf-16"):  # as Windows PowerShell writes it
        (tmp_path / "fix.csv").write_text(f"{HEAD},,,,,\n,,,dog,,\n,,,,,\n", code)
        found = [(fix.line, fix.suggested) for fix in read_fix_list(tmp_path / "fix.csv")]
        assert found == [(3, "dog")]


def test_lists_that_cannot_be_applied_are_refused(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    fix_list = tmp_path / "fix.csv"
    for content, reason in (
        (b"name,class\n", "has no column file"),
        (b"file,class\n", "has no column suggested"),
        (b"\xff\xfe\x00", "is not a CSV file in UTF-8"),
        (b'file,suggested\n"' + b"x" * 200_000 + b'",cat\n', "is not a CSV file in UTF-8"),
    ):
        fix_list.write_bytes(content)
        with pytest.raises(DatasetError, match=reason):
            apply_fixes(folder, fix_list)
    with pytest.raises(DatasetError, match=r"cannot read .*No such file"):
        apply_fixes(folder, tmp_path / "none.csv")
    with pytest.raises(DatasetError, match="no such folder"):
        apply_fixes(tmp_path / "photos.zip", fix_list)
    with pytest.raises(DatasetError, match="is not a folder; unpack it"):
        apply_fixes(fix_list, fix_list)


def test_the_command(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", "cat/1.jpg", "dog/2.jpg")
    fix_list = tmp_path / "fix.csv"
    fix_list.write_text(f"\ufefffile;suggested\n{folder}/cat/1.jpg;dog\nx\x1b.jpg;dog\n")
    done = run_main("doctor", folder, "--apply", fix_list, "--json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout) == {
        "dataset": str(folder),
        "fix_list": str(fix_list),
        "changed": 1,
        "before": 0,
        "left": 0,
        "corrected": "",
        "failed": [{"line": 3, "file": "x\x1b.jpg", "error": f"is not a photo of {folder} now"}],
    }
    assert rf"{fix_list}, line 3: x\x1b.jpg: is not a photo".encode() in done.stderr
    assert (folder / "dog" / "1.jpg").is_file()
    assert b"skipped" not in run_main("doctor", folder).stderr  # the list is not worth a word
    done = run_main("doctor", folder, "--undo")
    assert (done.returncode, (folder / "cat" / "1.jpg").is_file()) == (0, True), done.stderr
    for wrong, reason in (
        (("--apply", fix_list, "--undo"), b"contradict each other"),
        (("--apply", fix_list, "--model", "bundled"), b"leave out --model"),
        (("--apply", fix_list, "--html", "x.html"), b"leave out --val and --html"),
    ):
        done = run_main("doctor", folder, *wrong)
        assert (done.returncode, reason in done.stderr) == (2, True)


def test_killed_at_random_nothing_is_lost_and_nothing_twice(tmp_path: Path) -> None:
    files = 300
    names = [f"{'cat' if n % 2 else 'dog'}/{n // 2}.jpg" for n in range(files)]  # pairs, swapped
    folder = write_photos(tmp_path / "photos", *names)
    rows = "".join(f"{folder / n},,,{'dog' if n[0] == 'c' else 'cat'},0,1\n" for n in names)
    fix_list = tmp_path / "fix.csv"
    fix_list.write_text(HEAD + rows)
    code = (
        "from pathlib import Path; from regnet.doctor.fixes import apply_fixes; "
        f"done = apply_fixes({str(folder)!r}, Path({str(fix_list)!r})); "
        f"assert (done.changed + done.before, done.failed) == ({files}, ()), done"
    )
    draw = random.Random(0)
    for _ in range(int(os.environ.get("REGNET_SORTING_KILLS", "4"))):
        before = (folder / LIST).stat().st_size if (folder / LIST).exists() else 0
        with subprocess.Popen([sys.executable, "-c", code]) as process:
            for _ in count():  # it has begun to move photos
                grown = (folder / LIST).exists() and (folder / LIST).stat().st_size > before
                if grown or process.poll() is not None:
                    break
                time.sleep(0.001)
            time.sleep(draw.random() * 0.01)
            process.kill()
        assert set(contents(folder).values()) == set(names)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert len(contents(folder)) == files
    assert all(Path(path).parent != Path(name).parent for path, name in contents(folder).items())
    assert undo(folder) == (files, [])
    assert contents(folder) == {name: name for name in names}
