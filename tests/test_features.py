"""Files of embeddings and search: exact, resumed, updated, damaged files, the commands."""

import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import run_main

from regnet.data.sources import Item, Video
from regnet.features.draft import open_draft
from regnet.features.embed import Form, Summary, embed_to, features_id, normalised
from regnet.features.embeddings_file import Description, Embeddings, open_embeddings, sidecar
from regnet.features.search import nearest
from regnet.inference.classify import Classifier
from regnet.inference.result import Embedding
from regnet.pixels.protocol import OMZ
from regnet.pixels.samples import sample_photos
from regnet.system.errors import DatasetError, ModelError, OutputError
from regnet.zoo.catalogue import bundled_path, card_by_name

BUNDLED = bundled_path(card_by_name("bundled"))
CAT, ESPRESSO, HOPPER = sample_photos()
FORM = Form(model="fake")


class FakeClassifier:
    """A classifier whose embedding of a file is four of its bytes; it counts what it embeds."""

    width = 4
    metadata = SimpleNamespace(weights_sha384="", precision="fp32", preprocess=OMZ)

    def __init__(self, dies_after: int | None = None, device: str = "CPU") -> None:
        self.read: list[str] = []
        self.device = device
        self._dies_after = dies_after

    def embed_items(self, items: Iterator[Item], **options: Any) -> Iterator[Embedding]:
        for item in items:
            if len(self.read) == self._dies_after:
                raise KeyboardInterrupt
            data = item.read()
            self.read.append(Path(item.source).name)
            if isinstance(item, Video):
                rows = np.frombuffer(data, np.uint8).astype(np.float32).reshape(-1, 4)
                for second, row in enumerate(rows):
                    yield Embedding(item.source, row, None, float(second))
            elif len(data) == 4:
                yield Embedding(item.source, np.frombuffer(data, np.uint8).astype(np.float32))
            else:
                yield Embedding(item.source, None, "not four bytes")


def items(folder: Path) -> Iterator[Item]:
    return iter([Item(str(path), path.read_bytes) for path in sorted(folder.glob("*"))])


def run(folder: Path, path: Path, form: Form = FORM, **options: Any) -> tuple[Summary, list[str]]:
    """Embed a folder; return the summary and which photos were read."""
    classifier = FakeClassifier(**options)
    return embed_to(path, classifier, items(folder), form), classifier.read  # type: ignore[arg-type]


def names(embeddings: Embeddings) -> list[str]:
    photos = embeddings.photos(range(embeddings.description.rows))
    return [Path(photo.source).name for photo in photos.values()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.jpg").write_bytes(bytes((number, 1, 2, 3)))
    (folder / "4.jpg").write_bytes(b"bad")
    return folder


def test_rows_sources_and_errors_are_written(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    summary, _ = run(folder, path)
    assert (summary.rows, summary.failed, summary.embedded, summary.reused) == (9, 1, 9, 0)
    rows = np.load(path)
    assert rows.dtype == np.float32
    assert rows[:, 0].tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    head, *lines = map(json.loads, sidecar(path).read_text().splitlines())
    assert (head["rows"], head["failed"], head["width"]) == (9, 1, 4)
    assert [line["row"] for line in lines] == [0, 1, 2, 3, None, 4, 5, 6, 7, 8]
    assert lines[4]["error"] == "not four bytes"
    assert names(open_embeddings(path))[4] == "5.jpg"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "a.npy.jsonl", "photos"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parquet_has_the_same(folder: Path, tmp_path: Path, dtype: Any) -> None:
    form = Form(model="fake", dtype=dtype, normalise=True)
    run(folder, tmp_path / "a.npy", form)
    run(folder, tmp_path / "a.parquet", form)
    rows = np.load(tmp_path / "a.npy")
    assert np.linalg.norm(rows.astype(float), axis=1) == pytest.approx(1, abs=1e-3)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["embedding"][4].as_py() is None
    assert table["error"][4].as_py() == "not four bytes"
    file = open_embeddings(tmp_path / "a.parquet")
    ((numbers, block),) = file.blocks()
    assert block.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(block, rows)
    assert numbers.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert file.photos([5])[5].source.endswith("5.jpg")


@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_an_interrupted_run_resumes_as_if_it_had_not_been(
    folder: Path, tmp_path: Path, suffix: str
) -> None:
    run(folder, tmp_path / f"whole.{suffix}")
    path = tmp_path / f"a.{suffix}"
    for count in (3, 2):
        with pytest.raises(KeyboardInterrupt):
            run(folder, path, dies_after=count)
    summary, read = run(folder, path)
    assert read == [f"{number}.jpg" for number in range(5, 10)]
    assert (summary.rows, summary.embedded, summary.reused) == (9, 5, 4)
    assert path.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes()


def test_a_draft_that_was_torn_anywhere_resumes(folder: Path, tmp_path: Path) -> None:
    path, part = tmp_path / "a.npy", tmp_path / "a.npy.part"
    run(folder, tmp_path / "whole.npy")
    for torn, cut in itertools.product((part, sidecar(part)), (1, 7, 40, 150, 10_000)):
        with pytest.raises(KeyboardInterrupt):
            run(folder, path, dies_after=6)
        os.truncate(torn, max(0, torn.stat().st_size - cut))
        run(folder, path)
        for ours, whole in ((path, "whole.npy"), (sidecar(path), "whole.npy.jsonl")):
            assert ours.read_bytes() == (tmp_path / whole).read_bytes()
            ours.unlink()


def test_what_changed_since_the_interrupt_is_embedded(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "a.npy", dies_after=6)
    (folder / "2.jpg").write_bytes(bytes((99, 1, 2, 3, 4))[:4])
    os.utime(folder / "2.jpg", (1, 1))
    _, read = run(folder, tmp_path / "a.npy")
    assert read[0] == "2.jpg"
    assert np.load(tmp_path / "a.npy")[2, 0] == 99


def test_an_existing_file_is_updated(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    run(folder, path)
    os.utime(folder / "0.jpg", (1, 1))  # touched: its content is the same
    (folder / "7.jpg").rename(folder / "77.jpg")
    (folder / "8.jpg").write_bytes(bytes((88, 1, 2, 3)))
    os.utime(folder / "8.jpg", (1, 1))
    (folder / "new.jpg").write_bytes(bytes((9, 9, 9, 9)))
    (folder / "1.jpg").unlink()
    summary, read = run(folder, path)
    assert read == ["4.jpg", "8.jpg", "new.jpg"]  # a failure is tried again
    assert (summary.embedded, summary.reused, summary.failed) == (2, 7, 1)
    assert np.load(path)[:, 0].tolist() == [0, 2, 3, 5, 6, 7, 88, 9, 9]
    assert names(open_embeddings(path))[5] == "77.jpg"
    _, read = run(folder, path, Form(model="fake", dtype="float16"))
    assert len(read) == 10


def test_videos_have_a_row_for_each_frame(folder: Path, tmp_path: Path) -> None:
    (folder / "clip").write_bytes(bytes(range(12)))
    clip = Video(str(folder / "clip"), (folder / "clip").read_bytes, "clip")
    path = tmp_path / "a.npy"
    for _ in range(2):
        photos = list(items(folder))[:2]
        given = iter([photos[0], clip, photos[1]])
        embed_to(path, FakeClassifier(), given, FORM)  # type: ignore[arg-type]
        assert np.load(path)[:, 0].tolist() == [0, 0, 4, 8, 1]
        found = open_embeddings(path).photos(range(5))
        assert [found[row].timestamp for row in range(5)] == [None, 0, 1, 2, None]


def test_bad_files_are_refused_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    run(folder, path)
    rows, lines = path.read_bytes(), sidecar(path).read_bytes()
    path.write_bytes(rows[:-5])
    with pytest.raises(DatasetError, match=r"a\.npy: is damaged \(.*\); embed the photos again"):
        open_embeddings(path)
    path.write_bytes(rows)
    sidecar(path).write_bytes(lines[:-30])
    with pytest.raises(DatasetError, match="ends too early"):
        open_embeddings(path).photos([3])
    sidecar(path).write_bytes(b"{}\n")
    with pytest.raises(ModelError, match=r"jsonl: does not describe embeddings"):
        open_embeddings(path)
    sidecar(path).unlink()
    with pytest.raises(DatasetError, match=r"its sources a\.npy\.jsonl are missing"):
        open_embeddings(path)
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match="not a whole Parquet file"):
        open_embeddings(tmp_path / "b.parquet")
    for wrong in (tmp_path / "a.csv", tmp_path):
        with pytest.raises(OutputError):
            run(folder, wrong)


@pytest.mark.parametrize(
    "line",
    [
        "[1]",
        "x" * 99,
        '{"row": 0, "sauce": 1}',
        '{"row": 0, "source": 1}',
        '{"row": 1, "source": "a"}',
        r'{"row": 0, "source": "\ud800"}',
        "\n" * 99,
    ],
)
def test_sidecars_that_lie_are_damaged_files(folder: Path, tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.npy"
    run(folder, path)
    first, *others = sidecar(path).read_text().splitlines()
    sidecar(path).write_text("\n".join([first, line, *others[1:]]) + "\n")
    with pytest.raises(DatasetError, match=r"a\.npy: is damaged \(.*\); embed the photos again"):
        open_embeddings(path).photos(range(3))


def test_rows_of_another_kind_are_damaged_files(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    run(folder, path)
    rows = np.load(path)
    archive, whole = io.BytesIO(), path.read_bytes()
    np.savez(archive, rows)
    np.save(path, rows.astype(np.float64))
    for content in (
        path.read_bytes(),
        archive.getvalue(),
        b"",
        b"\x93NUMPY\x01\0" + whole[8:90],
        whole.replace(b"4), }", b"4, }\x9f"),
    ):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"a\.npy: is damaged"):
            open_embeddings(path)
        run(folder, path)  # makes it again
        assert path.read_bytes() == whole


def test_the_device_is_named_and_files_that_name_none_are_of_the_cpu(
    folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.npy"
    assert run(folder, path, device="cuda")[0].reused == 0
    assert run(folder, path, device="cuda")[0].reused == 9
    assert open_embeddings(path).description.device == "cuda"
    assert run(folder, path)[0].reused == 0
    head, rest = sidecar(path).read_bytes().split(b"\n", 1)
    old = head.replace(b'"device": "CPU", ', b"")
    assert old != head
    sidecar(path).write_bytes(old + b"\n" + rest)
    assert open_embeddings(path).description.device == "CPU"
    assert run(folder, path)[0].reused == 9


def test_rows_that_are_not_finite_are_not_taken_again(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    run(folder, path)
    whole = path.read_bytes()
    rows = np.load(path, mmap_mode="r+")
    rows[3] = np.inf
    rows.flush()
    assert run(folder, path)[0].reused == 8
    assert path.read_bytes() == whole


def test_a_parquet_file_of_other_columns_is_damaged(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    run(folder, path)
    table = pq.read_table(path)
    rows = [row.as_py() for row in table["embedding"]]
    ragged = [rows[0] + rows[1][:1], rows[1][1:], *rows[2:]]
    others: list[pa.Array] = [
        pa.array(ragged, pa.list_(pa.float32())),
        pa.array([row and row * 2 for row in rows], pa.list_(pa.float32())),
        pa.array([row and list("abcd") for row in rows]),
    ]
    for wrong in (
        table.drop_columns(["embedding"]),
        table.slice(1),
        *(table.set_column(2, "embedding", column) for column in others),
    ):
        pq.write_table(wrong, path)
        with pytest.raises(DatasetError, match=r"a\.parquet: is damaged"):
            list(open_embeddings(path).blocks())


def test_damaged_pages_of_a_parquet_file_are_damage(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    run(folder, path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(4, len(whole) - 8, 200).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with suppress(DatasetError, ModelError):
            embeddings = open_embeddings(path)
            nearest(np.ones((1, 4), np.float32), embeddings.blocks(), 2, within="a.parquet")
            embeddings.photos({0, 1})


def test_vectors_that_are_not_finite_are_refused() -> None:
    rows = np.eye(3, dtype=np.float32)
    rows[1, 2] = 3e38  # its square is not
    with pytest.raises(DatasetError, match=r"a\.npy: .* row 1 is not finite"):
        nearest(np.ones((1, 3), np.float32), [(np.arange(3), rows)], 2, within="a.npy")


def test_values_beyond_float16_are_refused_and_huge_ones_are_normalised(tmp_path: Path) -> None:
    form = Description(
        model="m", features="", precision="f32", width=2, dtype="float16", normalised=False
    )
    with open_draft(tmp_path / "a.npy", form) as draft:
        draft.add({"source": "a.jpg"}, np.array([65504, 1e-9], np.float32))
        with pytest.raises(OutputError, match=r"b\.jpg: .* beyond float16: take --dtype float32"):
            draft.add({"source": "b.jpg"}, np.array([1e5, 1], np.float32))
    assert normalised(np.array([[3e30, 4e30]], np.float32)) == pytest.approx(np.array([[0.6, 0.8]]))


def test_no_readable_photo_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"bad")
    with pytest.raises(DatasetError, match=r"no photo could be read: .*a\.jpg: not four bytes"):
        run(tmp_path / "photos", tmp_path / "a.npy")
    assert [p.name for p in tmp_path.iterdir()] == ["photos"]


def test_the_nearest_are_those_of_a_plain_sort() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 16)).astype(np.float32)
    rows[[7, 3000, 4999]] = rows[12]  # equal ones, in several blocks
    rows[20] = 0
    queries = np.concatenate([rows[12:13], rng.normal(size=(5, 16)).astype(np.float32)])
    blocks = [(np.arange(n, n + 512)[: 5000 - n], rows[n : n + 512]) for n in range(0, 5000, 512)]
    found, cosines = nearest(queries, iter(blocks), 10, within="a.npy")
    exact = normalised(queries).astype(float) @ normalised(rows).astype(float).T
    expected = np.argsort(-exact, axis=1, kind="stable")[:, :10]
    assert found[0, :4].tolist() == [7, 12, 3000, 4999]
    np.testing.assert_array_equal(found[1:], expected[1:])
    assert cosines == pytest.approx(np.take_along_axis(exact, found, axis=1), abs=1e-6)
    assert nearest(queries, iter(blocks[:1]), 1000, within="a.npy")[0].shape == (6, 512)


def test_float16_embeddings_are_compared_as_their_float32() -> None:
    rng = np.random.default_rng(0)
    halves = np.float16(10.0) ** rng.uniform(-7, 4, (100, 8)).astype(np.float16)
    halves *= rng.choice(np.float16([-1, 0, 1]), (100, 8))
    numbers = np.arange(100)
    for order in "CF":
        rows = np.asarray(halves, order=order)
        both = ([(numbers, rows)], [(numbers, rows.astype(np.float32))])
        half, single = (nearest(halves[:5], blocks, 10, within="a.npy") for blocks in both)
        np.testing.assert_array_equal(half[0], single[0])
        np.testing.assert_allclose(half[1], single[1], atol=1e-6)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of photos, below the current folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in sample_photos():
        shutil.copy(photo, folder)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REGNET_CACHE", str(tmp_path / "cache"))
    return folder


def test_the_commands(photos: Path, tmp_path: Path) -> None:
    done = run_main("embed", "-m", "bundled", "photos", "-o", "a.npy", "--json")
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["failed"], summary["width"]) == (3, 1, 384)
    expected = Classifier(BUNDLED).embed([photos / p.name for p in (CAT, ESPRESSO, HOPPER)])
    np.testing.assert_array_equal(np.load("a.npy"), expected)
    done = run_main("search", "photos/cat.png", CAT, "none.png", "--in", "a.npy", "--json")
    assert done.returncode == 1
    itself, copy, absent = json.loads(done.stdout)["matches"]
    assert len(itself["neighbours"]) == 2
    assert copy["neighbours"][0]["source"] == "photos/cat.png"
    assert copy["neighbours"][0]["similarity"] == pytest.approx(1, abs=1e-6)
    assert absent["error"] == "no such file or folder"
    table = run_main("search", CAT, "--in", "a.npy", "-k", "1", "--html", "found.html")
    assert b"1.0000  photos/cat.png" in table.stdout
    assert Path("found.html").read_text().count("data:image/jpeg") == 2


def test_a_folder_is_embedded_once(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").unlink()
    words = ("search", "-m", "bundled", CAT, "--in", "photos", "--json", "-k", "9")
    first = run_main(*words)
    (file,) = (tmp_path / "cache" / "embeddings").glob("*.npy")
    before = sidecar(file).read_text()
    shutil.copy(CAT, photos / "copy.png")
    again = run_main(*words)
    assert (first.returncode, again.returncode) == (0, 0), again.stderr
    old, new = (json.loads(done.stdout)["matches"][0]["neighbours"] for done in (first, again))
    assert [n["source"] for n in new[:2]] == ["photos/cat.png", "photos/copy.png"]
    assert [n["source"] for n in new[2:]] == [n["source"] for n in old[1:]]
    assert set(before.splitlines()[1:2]) <= set(sidecar(file).read_text().splitlines())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["embed", "none", "-o", "a.npy"], "no such file or folder: none"),
        (["embed", "photos", "-o", "a.csv"], "embeddings are written to .npy or .parquet"),
        (["embed", "photos/broken.jpg", "-o", "a.npy"], "no photo could be read: photos/broken"),
        (["search", "photos", "--in", "none.npy"], "none.npy: no such file"),
        (["search", "photos", "--in", "other.npy"], "are of another model, other in f32"),
        (["search", "photos", "--in", "narrow.npy"], "are of another model, bundled in f32"),
        (["search", "photos", "--in", "photos/broken.jpg"], "no photo could be read"),
    ],
)
def test_bad_input_is_one_sentence(photos: Path, words: list[str], reason: str) -> None:
    other = Description(
        model="other", features="", precision="f32", width=4, dtype="float32", normalised=False
    )
    own = features_id(Classifier(BUNDLED).metadata)
    for path, form in (
        (Path("other.npy"), other),
        (Path("narrow.npy"), replace(other, model="bundled", features=own)),
    ):
        path.write_bytes(form.npy_head())
        sidecar(path).write_bytes(form.line())
    done = run_main(words[0], "-m", "bundled", *words[1:])
    assert done.returncode == 2
    assert reason in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


def test_runs_that_are_killed_at_random_end_as_one_that_was_not(tmp_path: Path) -> None:
    """Kill the command a few times; the file is the same, byte by byte."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(120):
        shutil.copy((CAT, ESPRESSO)[number % 2], folder / f"{number:03}.png")
    command = [sys.executable, "-m", "regnet", "embed", "-m", "bundled", str(folder), "-o"]
    subprocess.run([*command, str(tmp_path / "whole.npy")], check=True, capture_output=True)
    path, kills = tmp_path / "a.npy", 0
    part = sidecar(tmp_path / "a.npy.part")
    while not path.exists():
        before = part.stat().st_size if part.exists() else 0
        process = subprocess.Popen([*command, str(path)], stderr=subprocess.DEVNULL)
        while process.poll() is None and kills < 3:
            if part.exists() and part.stat().st_size > before + 2000:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.01)
        process.wait()
    assert kills == 3
    assert path.read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert sidecar(path).read_bytes() == sidecar(tmp_path / "whole.npy").read_bytes()
