"""Sorting photos into folders: nothing is lost, overwritten or placed twice, whatever happens."""

import errno
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from command_line import run_main

from regnet.cli.classify import at_the_end
from regnet.data.sources import Item, iter_items
from regnet.inference import sorting
from regnet.inference.result import ClassScore, Prediction
from regnet.inference.sorting import LIST, UNKNOWN, Sorter, Sorting, folder_names, undo
from regnet.network.labels import Label, imagenet_labels
from regnet.pixels.samples import sample_photos
from regnet.system import placing
from regnet.system.errors import OutputError
from regnet.system.files import is_scratch
from regnet.system.placing import Action, put

LABELS = (Label("", "cat"), Label("", "dog/wolf"), Label("", "unknown"))


def predict(items: Iterator[Item]) -> Iterator[Prediction]:
    """Say that the first letter of a photo's name is its class; a dash is none."""
    for item in items:
        letter = Path(item.source).name[0]
        scores = () if letter == "-" else (ClassScore("cdu".index(letter), "", letter, 0.9),)
        yield Prediction(item.source, scores, None, "m")


def sort(source: Path, folder: Path, action: Action = "copy") -> Sorter:
    sorter = Sorter(folder, action, LABELS)
    items = (item for item in iter_items([source]) if item.source.endswith(".jpg"))
    for prediction in sorter.sort(items, predict):
        assert prediction.error is None
    return sorter


def contents(folder: Path) -> Counter[str]:
    """Return how often each content lies below a folder."""
    files = (p for p in folder.rglob("*.jpg") if p.is_file())
    return Counter(p.read_text() for p in files if not is_scratch(p.parent))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    for number, name in enumerate(("c1.jpg", "d1.jpg", "sub/c1.jpg", "u1.jpg", "-1.jpg")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"photo {number}")
    return folder


@pytest.mark.parametrize("action", ["copy", "link", "move"])
def test_photos_get_into_their_folders_once_and_back(
    action: Action, photos: Path, tmp_path: Path
) -> None:
    folder, before = tmp_path / "out", contents(photos)
    sorter = sort(photos, folder, action)
    names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.suffix == ".jpg"}
    assert names == {
        *("cat/c1.jpg", "cat/c1 (2).jpg", "dog-wolf/d1.jpg", "unknown 2/u1.jpg"),
        f"{UNKNOWN}/-1.jpg",
    }
    assert "5 photos" in sorter.summary()
    assert contents(photos) == (Counter() if action == "move" else before)
    assert contents(folder) == before
    assert sort(photos, folder, action).counts.total() == 0
    assert contents(folder) == before
    assert undo(folder) == (5, [])
    assert contents(photos) == before
    assert list(folder.iterdir()) == []


def test_a_folder_is_sorted_into_itself(photos: Path) -> None:
    (photos / "cat").mkdir()
    (photos / "cat" / "c7.jpg").write_text("there already")
    before = contents(photos)
    sort(photos, photos, "move")
    assert contents(photos) == before
    assert (photos / "cat" / "c7.jpg").read_text() == "there already"
    assert sort(photos, photos, "move").counts.total() == 1  # c7, which is where it belongs
    assert contents(photos) == before


def test_other_files_of_the_same_name_are_never_overwritten(photos: Path, tmp_path: Path) -> None:
    taken = tmp_path / "out" / "cat" / "c1.jpg"
    taken.parent.mkdir(parents=True)
    taken.write_text("mine")
    sort(photos, tmp_path / "out", "move")
    assert taken.read_text() == "mine"
    assert (taken.parent / "c1 (3).jpg").is_file()
    (photos / "c1.jpg").write_text("another photo of that name")
    sort(photos, tmp_path / "out", "move")
    assert (taken.parent / "c1 (4).jpg").read_text() == "another photo of that name"


def test_what_was_changed_stays_when_undone(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    sort(photos, folder, "copy")
    (folder / "cat" / "c1.jpg").write_text("edited here")
    (photos / "d1.jpg").unlink()  # so that the copy is the only one
    done, left = undo(folder)
    assert (done, left) == (4, [str(folder / "cat" / "c1.jpg")])
    assert (photos / "d1.jpg").read_text() == "photo 1"
    assert (folder / "cat" / "c1.jpg").read_text() == "edited here"
    assert (folder / LIST).read_text().count("\n") == 1


def test_a_copy_that_failed_is_made_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("in/a/c.jpg", "in/b/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(name)
    folder = tmp_path / "out"

    def refuse(source: Path, *others: object) -> None:
        if source == tmp_path / "in/a/c.jpg":
            raise OSError(28, "No space left on device")
        put(source, *others)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(sorting, "put", refuse)
        sorter = Sorter(folder, "copy", LABELS)
        errors = [one.error for one in sorter.sort(iter_items([tmp_path / "in"]), predict)]
    assert errors == ["cannot be sorted: No space left on device", None]
    assert "1 photo copied into 1 class folder" in sorter.summary()
    assert contents(folder) == Counter(["in/b/c.jpg"])
    sort(tmp_path / "in", folder, "copy")
    assert contents(folder) == contents(tmp_path / "in")


def test_moving_to_another_file_system_copies_first(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(photos)
    monkeypatch.setattr(placing, "_linked", lambda source, target: False)
    sort(photos, tmp_path / "out", "move")
    assert (contents(photos), contents(tmp_path / "out")) == (Counter(), before)


def test_links_are_moved_as_links_and_back(photos: Path, tmp_path: Path) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / "c1.jpg").symlink_to("../in/c1.jpg")
    (links / "d1.jpg").symlink_to(photos / "d1.jpg")
    sort(links, tmp_path / "out", "move")
    moved = tmp_path / "out" / "cat" / "c1.jpg"
    assert (moved.is_symlink(), moved.read_text()) == (True, "photo 0")
    assert list(links.iterdir()) == []
    (links / "c1.jpg").symlink_to("../in/c1.jpg")  # as a run that was killed leaves it
    assert sort(links, tmp_path / "out", "move").done_before == 1
    assert list(links.iterdir()) == []
    assert undo(tmp_path / "out") == (2, [])
    assert (links / "c1.jpg").readlink() == Path("../in/c1.jpg")
    assert (links / "d1.jpg").readlink() == photos / "d1.jpg"
    assert len(contents(photos)) == 5


RUN = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_inference_sorting import sort
sort(Path({photos!r}), Path({folder!r}), {action!r})
"""


@pytest.mark.parametrize("action", ["copy", "move"])
def test_killed_at_random_nothing_is_lost_and_nothing_twice(action: str, tmp_path: Path) -> None:
    photos, folder = tmp_path / "in", tmp_path / "out"
    photos.mkdir()
    files = int(os.environ.get("REGNET_SORTED_FILES", "600"))
    kills = int(os.environ.get("REGNET_SORTING_KILLS", "6"))
    for number in range(files):
        name = f"{'cdu-'[number % 4]}{number}.jpg"
        (photos / name).write_text(f"{number}")
    code = RUN.format(
        tests=str(Path(__file__).parent), photos=str(photos), folder=str(folder), action=action
    )
    draw = random.Random(0)
    for _ in range(kills):
        before = (folder / LIST).stat().st_size if (folder / LIST).exists() else 0
        with subprocess.Popen([sys.executable, "-c", code]) as process:
            for _ in count():  # it has begun to place photos
                grown = (folder / LIST).exists() and (folder / LIST).stat().st_size > before
                if grown or process.poll() is not None:
                    break
                time.sleep(0.001)
            time.sleep(draw.random() * 0.02)
            process.kill()
        sources, targets = contents(photos), contents(folder)
        assert (sources | targets).keys() == set(map(str, range(files)))
        assert max(targets.values()) == 1
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert contents(folder) == Counter(map(str, range(files)))
    assert contents(photos) == ({} if action == "move" else contents(folder))
    assert not any(map(is_scratch, folder.iterdir()))
    assert undo(folder) == (files, [])
    assert contents(photos) == Counter(map(str, range(files)))


def test_names_of_folders_are_safe_and_differ() -> None:
    names = folder_names(imagenet_labels())
    assert len({name.casefold() for name in names}) == 1000
    assert names[134] == "crane n02012849"
    odd = ("../x", ".hidden", "CON:\n", "", "é" * 200, "unknown", LIST)
    names = folder_names(tuple(Label("", name) for name in odd))
    assert names == ["-x", "hidden", "CON-", "3", "é" * 60, "unknown 5", f"{LIST} 6"]
    odd = ("crane", "crane", "crane 0", "AUX", "com1", "a\ud800b")
    names = folder_names(tuple(Label("", name) for name in odd))
    assert names == ["crane 0 0", "crane 1", "crane 0 2", "AUX 3", "com1 4", "a-b"]


@pytest.mark.parametrize("action", ["copy", "link", "move"])
def test_a_photo_named_twice_is_placed_once(action: Action, photos: Path, tmp_path: Path) -> None:
    sorter = Sorter(tmp_path / "out", action, LABELS)
    named = [str(photos / "c1.jpg"), str(photos), str(photos / "sub" / ".." / "c1.jpg")]
    done = list(sorter.sort(iter_items(named), predict))
    assert [one.error for one in done] == [None] * 5
    assert len([p for p in (tmp_path / "out").rglob("*.jpg") if p.is_file()]) == 5


def test_photos_that_could_not_be_placed_are_not_counted(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sorting, "put", full)
    sorter = Sorter(tmp_path / "out", "copy", LABELS)
    (done,) = sorter.sort(iter_items([photos / "c1.jpg"]), predict)
    assert done.error == "cannot be sorted: No space left on device"
    assert "0 photos copied into 0 class folders" in sorter.summary()


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": "../c1.jpg"},
        {"target": "/c1.jpg"},
        {"target": 5},
        {"source": "a\0b"},
        {"source": "\ud800"},
    ],
)
def test_lists_that_lead_elsewhere_are_refused(
    wrong: dict[str, object], photos: Path, tmp_path: Path
) -> None:
    folder, before = tmp_path / "out", contents(tmp_path)
    sort(photos, folder, "move")
    first, *others = (folder / LIST).read_text().splitlines(keepends=True)
    (folder / LIST).write_text(json.dumps(json.loads(first) | wrong) + "\n" + "".join(others))
    with pytest.raises(OutputError, match="is not a list of sorted photos"):
        undo(folder)
    assert contents(tmp_path) == before


def test_what_contradicts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="--link and --move contradict each other"):
        Sorting(sort_into=tmp_path, link=True, move=True)
    with pytest.raises(OutputError, match="--undo needs --sort-into DIR"):
        Sorting(undo=True)
    (tmp_path / LIST).write_text("{}\n")
    with pytest.raises(OutputError, match="is not a list of sorted photos"):
        Sorter(tmp_path, "copy", LABELS)


def test_failures_of_an_interrupted_sorting_are_shown() -> None:
    failed = Prediction("a.jpg", (), "cannot be read", "m")

    def interrupted() -> Iterator[Prediction]:
        yield failed
        raise KeyboardInterrupt

    shown = at_the_end(interrupted())
    assert next(shown) == failed
    with pytest.raises(KeyboardInterrupt):
        next(shown)


def test_the_command_sorts_lists_and_restricts(tmp_path: Path) -> None:
    run = partial(run_main, "classify", "-m", "bundled")
    listed, classes = tmp_path / "list", tmp_path / "classes.txt"
    photos = [*map(str, sample_photos()), str(tmp_path / "bad.jpg")]
    Path(photos[-1]).write_bytes(b"no photo")
    listed.write_bytes(b"\0".join(map(os.fsencode, photos)))
    classes.write_text("\ufeffn02124075\r\nespresso\r\n")
    out = tmp_path / "out"
    options = ("--classes", classes, "--min-probability", "0.9", "--sort-into", out)
    done = run("-T", listed, *options)
    assert (done.returncode, b"bad.jpg\n    error" in done.stdout) == (1, True), done.stderr
    assert b"3 photos copied into 2 class folders" in done.stderr
    assert {p.name for p in out.iterdir()} >= {"Egyptian cat", "espresso", LIST}
    rows = run("-T", listed, "--min-probability", "0.9", "-f", "csv").stdout.decode().splitlines()
    assert len(rows) == 1 + 4  # one row for each photo, without a class where none is probable
    refused = run(photos[0], "--classes", classes, "--sets")
    assert (refused.returncode, b"among all classes" in refused.stderr) == (2, True)
    no_folder = run(photos[0], "--sort-into", listed)
    assert (no_folder.returncode, b"cannot make the folder" in no_folder.stderr) == (2, True)
