"""Evaluation: figures, unreadable images, resuming after a kill, memory, the card, the command."""

import csv
import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from regnet.conversion.store import Library
from regnet.data.labelled import LabelledItem
from regnet.evaluation.evaluate import compare_with_card, evaluate
from regnet.evaluation.journal import open_journal
from regnet.evaluation.predictions_file import open_predictions
from regnet.evaluation.scoring import FAILURES, WORST, ScoredBatch, Scores, score
from regnet.inference.predictors import Choice, open_predictor
from regnet.ir.engine import Outputs
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Label
from regnet.pixels.samples import sample_photos
from regnet.statistics.metrics import Tally
from regnet.system.errors import DatasetError, ImageError, OutputError
from regnet.system.row_writers import ROW_GROUP
from regnet.zoo.catalogue import card_by_name

CLASSES = 10
LABELS = tuple(Label(f"n{i:08}", f"thing {i}") for i in range(CLASSES))
CAT, ESPRESSO, HOPPER = sample_photos()
WNIDS = {CAT: "n02124075", ESPRESSO: "n07920052", HOPPER: "n02669723"}


@pytest.fixture(scope="module")
def metadata() -> ModelMetadata:
    bundled = open_predictor(Choice(model="bundled"), library=Library(offline=True)).metadata
    spec = replace(bundled.spec, classes=CLASSES)
    return replace(bundled, spec=spec, labels=LABELS, card="")


@dataclass
class Fake:
    """A model whose answer is a function of the image's number, written in its bytes."""

    metadata: ModelMetadata
    batch: int = 8
    outruns_decoding: bool = False
    seen: list[int] = field(default_factory=list)

    def pixels(self, image: bytes) -> np.ndarray:
        self.seen.append(int(image))
        return np.array([int(image)])

    def outputs(self, pixels: list[np.ndarray]) -> Outputs:
        return Outputs(*(np.stack([answer(int(p[0])) for p in pixels]) for _ in range(2)))


def answer(number: int) -> np.ndarray:
    row = np.random.default_rng(number).random(CLASSES).astype(np.float32) ** 4
    row[number % CLASSES] += 0.3
    return row / row.sum()


@dataclass
class Numbers:
    """As many images as wanted, none of which is kept; `bad` ones cannot be read."""

    count: int
    bad: Collection[int] = ()
    path: str = "numbers"
    classes: tuple[int, ...] = tuple(range(CLASSES))
    missing: tuple[int, ...] = ()
    fingerprint: str = "f"

    def items(self, start: int = 0) -> Iterator[LabelledItem]:
        for number in range(start, self.count):
            yield LabelledItem(f"{number}.jpg", number % CLASSES, partial(self._read, number))

    def _read(self, number: int) -> bytes:
        if number in self.bad:
            raise ImageError(f"image {number} is damaged")
        return str(number).encode()

    def find(self, sources: Collection[str]) -> dict[str, LabelledItem]:
        return {item.source: item for item in self.items() if item.source in sources}


def figures(scores: Scores) -> Scores:
    return replace(scores, resumed=0, images=0, seconds=0.0)


def test_the_figures_are_those_of_the_tally(metadata: ModelMetadata) -> None:
    scores = score(Fake(metadata), Numbers(1000))
    rows = np.stack([answer(n) for n in range(1000)])
    tally = Tally(CLASSES)
    tally.update(rows, np.arange(1000) % CLASSES)
    whole = tally.result()
    assert scores.metrics.classes == whole.classes
    assert (scores.metrics.top1, scores.metrics.top5) == (whole.top1, whole.top5)
    assert scores.metrics.confused[:50] == whole.confused[:50]
    assert scores.metrics.nll == pytest.approx(whole.nll, rel=1e-12)
    assert scores.metrics.ece == pytest.approx(whole.ece, rel=1e-12)
    assert (scores.images, scores.resumed, scores.unreadable) == (1000, 0, 0)
    assert scores.images_per_s is not None


def test_the_worst_mistakes_are_the_surest_wrong_answers(metadata: ModelMetadata) -> None:
    worst = score(Fake(metadata), Numbers(500)).worst
    rows = [answer(n) for n in range(500)]
    wrong = [n for n in range(500) if rows[n].argmax() != n % CLASSES]
    wrong.sort(key=lambda n: (-rows[n].max(), n))
    assert [m.source for m in worst] == [f"{n}.jpg" for n in wrong[:WORST]]
    first = rows[wrong[0]]
    assert worst[0].probability == first.max()
    assert worst[0].of_truth == first[wrong[0] % CLASSES]
    assert (worst[0].predicted, worst[0].truth) == (first.argmax(), wrong[0] % CLASSES)


@pytest.mark.parametrize("strict", [False, True])
def test_an_unreadable_image_is_wrong_only_if_asked(metadata: ModelMetadata, strict: bool) -> None:
    bad = {3, 8, 9, 10, 11, 12, 13, 14, 15, 40}  # one batch has none that can be read
    scores = score(Fake(metadata), Numbers(100, bad), strict=strict)
    good = [n for n in range(100) if n not in bad]
    hits = sum(answer(n).argmax() == n % CLASSES for n in good)
    assert scores.unreadable == len(bad)
    assert scores.failures[0].source == "3.jpg"
    assert scores.failures[0].error == "image 3 is damaged"
    assert scores.metrics.top1.hits == hits
    assert scores.metrics.images == (100 if strict else 90)


def test_many_unreadable_images_are_counted_and_the_first_named(metadata: ModelMetadata) -> None:
    scores = score(Fake(metadata), Numbers(300, range(300)))
    assert (scores.unreadable, len(scores.failures)) == (300, FAILURES)
    assert scores.metrics.images == 0
    assert scores.metrics.ece is None


class Held:
    """Hears batches; keeps the bytes held when it has heard of so many images, and the peaks."""

    def __init__(self, *counts: int) -> None:
        self.counts = counts
        self.held: list[int] = []
        self.peaks: list[int] = []
        self._images = 0

    def __call__(self, batch: ScoredBatch) -> None:
        before, self._images = self._images, self._images + len(batch.sources)
        if any(before < count <= self._images for count in self.counts):
            gc.collect()
            held, peak = tracemalloc.get_traced_memory()
            self.held.append(held)
            self.peaks.append(peak)


def test_memory_does_not_grow_with_the_number_of_images(
    metadata: ModelMetadata, tmp_path: Path
) -> None:
    fake = Fake(metadata)
    fake.pixels = lambda image: np.array([int(image)])  # type: ignore[method-assign]
    heard = Held(2 * ROW_GROUP, 8 * ROW_GROUP)
    with (
        open_journal(tmp_path / "j", {}, fresh=False, say=print) as journal,
        open_predictions(tmp_path / "p.parquet", LABELS) as predictions,
    ):
        tracemalloc.start()
        score(fake, Numbers(8 * ROW_GROUP + 1), record=journal, listeners=[predictions, heard])
        tracemalloc.stop()
    few, many = heard.held  # each time right after a group of rows was written
    assert many - few < 16 * 6 * ROW_GROUP, heard.held  # less than two numbers an image
    first, last = (peak - few for peak in heard.peaks)
    assert last < 1.5 * first, (first, last)


class StoppedError(Exception):
    """Stands for whatever ends a run."""


def stopping(after: int):
    batches = iter(range(after))

    def listen(batch: ScoredBatch) -> None:
        if next(batches, None) is None:
            raise StoppedError

    return listen


def test_an_interrupted_run_goes_on_and_ends_the_same(
    metadata: ModelMetadata, tmp_path: Path
) -> None:
    images = Numbers(997, {3, 500, 996})
    path, said = tmp_path / "e" / "j.journal", list[str]()
    journal = partial(open_journal, path, {"of": "this"}, fresh=False, say=said.append)
    whole = score(Fake(metadata), images)
    for batches in (30, 90):
        with pytest.raises(StoppedError), journal() as record:
            score(Fake(metadata), images, record=record, listeners=[stopping(batches)])
    fake, rows = Fake(metadata), list[str]()
    with journal() as record:
        resumed = score(
            fake, images, record=record, listeners=[lambda batch: rows.extend(batch.sources)]
        )
    assert figures(resumed) == figures(whole)
    assert resumed.resumed == 91 * 8  # the batch at which it stopped was kept
    assert resumed.images == 997 - 91 * 8
    assert min(fake.seen) >= resumed.resumed
    assert len(fake.seen) == len(set(fake.seen)) == resumed.images - 1  # 996 cannot be read
    assert rows == [f"{n}.jpg" for n in range(997)]
    assert list(path.parent.iterdir()) == []
    assert said == []


@pytest.mark.parametrize("torn", [1, 7, 30, 200])
def test_a_torn_record_is_dropped(metadata: ModelMetadata, tmp_path: Path, torn: int) -> None:
    path, images = tmp_path / "j.journal", Numbers(200)
    with (
        pytest.raises(StoppedError),
        open_journal(path, {}, fresh=False, say=print) as record,
    ):
        score(Fake(metadata), images, record=record, listeners=[stopping(9)])
    os.truncate(path, path.stat().st_size - torn)
    with open_journal(path, {}, fresh=False, say=print) as record:
        resumed = score(Fake(metadata), images, record=record)
    assert resumed.resumed == 72
    assert figures(resumed) == figures(score(Fake(metadata), images))


def test_a_damaged_journal_is_used_up_to_the_damage(
    metadata: ModelMetadata, tmp_path: Path
) -> None:
    path, images = tmp_path / "j.journal", Numbers(200)
    with pytest.raises(StoppedError), open_journal(path, {}, fresh=False, say=print) as record:
        score(Fake(metadata), images, record=record, listeners=[stopping(9)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with open_journal(path, {}, fresh=False, say=print) as record:
        resumed = score(Fake(metadata), images, record=record)
    assert 0 < resumed.resumed < 80
    assert figures(resumed) == figures(score(Fake(metadata), images))


def interrupted(path: Path, metadata: ModelMetadata, identity: dict[str, str]) -> None:
    with (
        pytest.raises(StoppedError),
        open_journal(path, identity, fresh=False, say=print) as record,
    ):
        score(Fake(metadata), Numbers(200), record=record, listeners=[stopping(9)])


def test_another_model_or_other_images_start_over(metadata: ModelMetadata, tmp_path: Path) -> None:
    path, said = tmp_path / "j.journal", list[str]()
    interrupted(path, metadata, {"images": "old"})
    with open_journal(path, {"images": "new"}, fresh=False, say=said.append) as record:
        assert score(Fake(metadata), Numbers(200), record=record).resumed == 0
    assert "changed since the interrupted run: starting over" in said[0]
    interrupted(path, metadata, {})
    with open_journal(path, {}, fresh=True, say=said.append) as record:
        assert score(Fake(metadata), Numbers(200), record=record).resumed == 0


def test_fewer_images_than_were_scored_are_an_error(
    metadata: ModelMetadata, tmp_path: Path
) -> None:
    interrupted(tmp_path / "j.journal", metadata, {})
    with (
        pytest.raises(DatasetError, match="--fresh"),
        open_journal(tmp_path / "j.journal", {}, fresh=False, say=print) as record,
    ):
        score(Fake(metadata), Numbers(50), record=record)


def test_without_a_place_for_the_journal_it_goes_on_without(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = list[str]()
    with open_journal(tmp_path / "file" / "j", {}, fresh=False, say=said.append) as journal:
        assert journal is None
    with open_journal(tmp_path / "j", {}, fresh=False, say=said.append) as journal:
        assert journal is not None
        with open_journal(tmp_path / "j", {}, fresh=False, say=said.append) as second:
            assert second is None
    assert "cannot be resumed" in said[0]
    assert "running already" in said[1]


def test_predictions_have_a_row_an_image(metadata: ModelMetadata, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    with open_predictions(path, LABELS) as listener:
        score(Fake(metadata), Numbers(20, {4}), listeners=[listener])
    rows = pq.read_table(path).to_pylist()
    assert [row["source"] for row in rows] == [f"{n}.jpg" for n in range(20)]
    assert rows[4] == dict.fromkeys(rows[4]) | {
        "source": "4.jpg",
        "truth": 4,
        "truth_label": "thing 4",
        "error": "image 4 is damaged",
    }
    row = answer(7)
    order = np.argsort(-row, kind="stable")[:5]
    assert [score["index"] for score in rows[7]["top5"]] == order.tolist()
    assert rows[7]["top5"][0]["probability"] == row.max()
    assert rows[7]["probability_of_truth"] == row[7]
    assert rows[7]["correct"] == (order[0] == 7)


def test_predictions_that_are_not_complete_leave_nothing(
    metadata: ModelMetadata, tmp_path: Path
) -> None:
    (tmp_path / "p.parquet").write_text("older")
    with pytest.raises(StoppedError), open_predictions(tmp_path / "p.parquet", LABELS) as listener:
        score(Fake(metadata), Numbers(100), listeners=[listener, stopping(3)])
    assert [p.read_text() for p in tmp_path.iterdir()] == ["older"]
    with (
        pytest.raises(OutputError, match="cannot write"),
        open_predictions(tmp_path / "no" / "p.parquet", LABELS),
    ):
        pass


def test_the_card_is_compared_only_where_it_fits(metadata: ModelMetadata) -> None:
    bundled = replace(metadata, card="bundled")
    right = Tally(CLASSES)
    right.update(np.eye(CLASSES), np.arange(CLASSES))
    card = card_by_name("bundled")
    tally = Tally(CLASSES)
    for number in range(2000):
        tally.update(np.eye(CLASSES)[[0]], [0 if number % 100 < card.headline.top1 else 1])
    other = compare_with_card(bundled, Numbers(9_999), right.result())
    assert other.accuracy is None
    assert "9,999 images" in str(other.reason)
    some = replace_missing(Numbers(10_000))
    assert compare_with_card(bundled, some, right.result()).accuracy is None
    found = compare_with_card(bundled, Numbers(10_000), tally.result())
    assert found.accuracy == card.accuracies[0]
    assert found.top1_within is True
    assert found.top5_within is False
    named = replace(bundled, preprocess=replace(bundled.preprocess, name="omz"))
    assert compare_with_card(named, Numbers(10_000), tally.result()).accuracy == found.accuracy
    changed = replace(bundled, preprocess=replace(named.preprocess, interpolation="bicubic"))
    assert "protocol" in str(compare_with_card(changed, Numbers(10_000), tally.result()).reason)
    assert "no card" in str(compare_with_card(metadata, Numbers(5), right.result()).reason)


def replace_missing(numbers: Numbers) -> Numbers:
    return replace(numbers, missing=(3,))


def test_each_protocol_has_its_own_figure_of_the_card(metadata: ModelMetadata) -> None:
    card = card_by_name("regnetx-3.2gf")
    tally = Tally(CLASSES)
    tally.update(np.eye(CLASSES), np.arange(CLASSES))
    for protocol, top1 in (("omz", 78.15), ("pycls", 78.264)):
        preprocess = replace(card.preprocess, name=protocol)
        model = replace(metadata, card="regnetx-3.2gf", preprocess=preprocess)
        found = compare_with_card(model, Numbers(50_000), tally.result())
        assert found.accuracy is not None
        assert found.accuracy.top1 == top1


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return class folders with 240 small photos of three classes of the bundled model."""
    top = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for photo, wnid in WNIDS.items():
        (top / wnid).mkdir()
        with Image.open(photo) as image:
            small = image.convert("RGB").resize((140, 140))
        for number in range(80):
            noise = random.integers(-60, 60, (140, 140, 3))
            pixels = np.clip(np.asarray(small) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(top / wnid / f"{number:02}.jpg")
    return top


def command(*arguments: object, cache: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "regnet",
        "evaluate",
        *map(str, arguments),
        "--cache-dir",
        str(cache),
    ]


def run(*arguments: object, cache: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments, cache=cache), capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_process_is_taken_up_again(
    photos: Path, tmp_path: Path, end: signal.Signals
) -> None:
    names = ("bundled", photos, "--subset", "--json", "--predictions")
    process = subprocess.Popen(
        command(*names, tmp_path / "killed.parquet", cache=tmp_path / "cache"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not has_batches(tmp_path / "cache", 3):
        time.sleep(0.002)
    process.send_signal(end)
    assert process.wait() in (-signal.SIGKILL, 130)
    assert not (tmp_path / "killed.parquet").exists()
    again = json.loads(run(*names, tmp_path / "again.parquet", cache=tmp_path / "cache").stdout)
    whole = json.loads(run(*names, tmp_path / "whole.parquet", cache=tmp_path / "other").stdout)
    speed = again.pop("speed")
    assert speed["resumed"] >= 24
    assert speed["resumed"] + speed["images"] == whole.pop("speed")["images"] == 240
    assert json.dumps(again) == json.dumps(whole)
    tables = [pq.read_table(tmp_path / f"{name}.parquet") for name in ("again", "whole")]
    assert tables[0].equals(tables[1])
    assert list((tmp_path / "cache" / "evaluations").iterdir()) == []


def has_batches(cache: Path, count: int) -> bool:
    """Tell whether the journal has that many batches of 8 rows of 200 probabilities."""
    sizes = [p.stat().st_size for p in (cache / "evaluations").glob("*.journal")]
    return any(size > 40_000 + count * 8 * 800 for size in sizes)


def test_the_command_reports_what_is_unreadable(photos: Path, tmp_path: Path) -> None:
    top = tmp_path / "mine"
    for wnid, name in (("n02124075", "cat"), ("n07920052", "cup")):
        (top / wnid).mkdir(parents=True)
        photo = next((photos / wnid).iterdir())
        (top / wnid / f"{name}.jpg").write_bytes(photo.read_bytes())
    (top / "n02124075" / "torn\x1b[31m.jpg").write_bytes(b"\xff\xd8\xff")
    done = run("bundled", top, "--subset", cache=tmp_path / "c", code=1)
    assert "2 images of 2 classes" in done.stdout
    assert "1 photo could not be read: not counted." in done.stdout
    assert "198 of the model's 200 classes have no images here" in done.stdout
    assert "none is masked" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    done = run("bundled", top, "--subset", "--strict", "--json", cache=tmp_path / "c", code=1)
    found = json.loads(done.stdout)
    assert (found["images"], found["unreadable"]) == (3, 1)
    assert found["unreadable_images"][0]["source"].endswith("torn\x1b[31m.jpg")
    assert found["top1"]["images"] == 3


def test_what_cannot_be_evaluated_is_said(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cases = {
        ("bundled", tmp_path / "empty"): "has no images",
        ("bundled", tmp_path / "none"): "no such file or folder",
        ("bundled", photos): "no photos of 197 of the model's 200 classes",
        ("bundled", photos, "--subset", "--html", tmp_path / "no" / "r.html"): "cannot write",
        ("bundled", photos, "--subset", "--predictions", tmp_path): "it is a folder",
        ("no-such-model", photos): "no model is called",
        ("bundled", photos, "--subset", "--engine", "torch"): "converted already",
    }
    for arguments, message in cases.items():
        done = run(*arguments, cache=tmp_path / "c", code=2)
        assert message in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c", "empty"]


def test_evaluate_from_python(photos: Path, tmp_path: Path) -> None:
    found = evaluate("bundled", photos, subset=True, cache_dir=tmp_path, offline=True)
    assert found.scores.metrics.images == 240
    values = json.loads(json.dumps(found.to_dict()))
    assert values["top1"]["value"] == found.scores.metrics.top1.value
    assert values["protocol"]["name"] == "tiny-imagenet-128"
    assert (values["engine"], values["precision"]) == ("ir", "f32")
    assert len(values["classes"]) == 200
    assert values["card"]["compared"] is False
    assert values["dataset"]["classes"] == 3
    with pytest.raises(DatasetError):
        evaluate("bundled", photos, cache_dir=tmp_path, offline=True)


def test_progress_shows_the_running_accuracy(
    metadata: ModelMetadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    from regnet.cli import progress as module
    from regnet.cli.evaluate import _running_top1

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    console = Console(file=terminal, force_terminal=True, width=100)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(module, "stderr", lambda: console)
    with module.counter("evaluating", 40, "images") as advance:
        scores = score(Fake(metadata), Numbers(40, {1}), listeners=[_running_top1(advance)])
    assert f"top-1 {100 * scores.metrics.top1.value:.2f} %" in terminal.getvalue()
    assert "40/40" in terminal.getvalue()


def rows_in(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file of JSON, one object per image."""
    text = path.read_text("utf-8")
    if path.suffix == ".json":
        return list(json.loads(text))
    return [json.loads(line) for line in text.splitlines()]


def test_predictions_have_the_format_of_their_ending(
    metadata: ModelMetadata, tmp_path: Path
) -> None:
    for name in ("p.parquet", "p.json", "p.JSONL", "p.ndjson", "p.csv"):
        with open_predictions(tmp_path / name, LABELS) as listener:
            score(Fake(metadata), Numbers(20, {4}), listeners=[listener])
    rows = pq.read_table(tmp_path / "p.parquet").to_pylist()
    for name in ("p.json", "p.JSONL", "p.ndjson"):
        assert rows_in(tmp_path / name) == rows
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        flat = list(csv.DictReader(file))
    assert [row["source"] for row in flat] == [row["source"] for row in rows]
    assert (flat[4]["truth"], flat[4]["correct"], flat[4]["error"]) == ("4", "", rows[4]["error"])
    assert flat[7]["correct"] == str(rows[7]["correct"]).lower()
    for rank, one in enumerate(rows[7]["top5"], 1):
        assert flat[7][f"top{rank}_label"] == one["label"]
        assert float(flat[7][f"top{rank}_probability"]) == one["probability"]


def test_another_ending_is_refused_before_any_work(photos: Path, tmp_path: Path) -> None:
    for name in ("p.xlsx", "p.txt", "p"):
        done = run(
            "bundled",
            photos,
            "--subset",
            "--predictions",
            tmp_path / name,
            cache=tmp_path / "c",
            code=2,
        )
        assert ".json, .jsonl, .ndjson, .csv or .parquet" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_reader_of_predictions_who_leaves_is_no_error_of_the_file(
    metadata: ModelMetadata, tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with (
        pytest.raises(BrokenPipeError),
        open_predictions(Path(f"/dev/fd/{writing}"), LABELS) as listener,
    ):
        score(Fake(metadata), Numbers(3), listeners=[listener])
    os.close(writing)


def test_predictions_go_to_a_stream(metadata: ModelMetadata, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        text = pool.submit(pipe.read_text)
        with open_predictions(pipe, LABELS) as listener:
            score(Fake(metadata), Numbers(3), listeners=[listener])
        assert [json.loads(line)["truth"] for line in text.result(10).splitlines()] == [0, 1, 2]
    assert pipe.is_fifo()
