"""Comparing pipelines: what differs is found, counted and named, and nothing else is."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_conversion_export import SMALL, TINY, confident, described
from typer.testing import CliRunner, Result

from regnet.checkpoints.weights import write_safetensors
from regnet.cli import build_app
from regnet.comparison.compare import ComparisonRecord, compare
from regnet.comparison.differences import PIXEL_STAGES, Gates, difference
from regnet.comparison.report import comparison_report
from regnet.comparison.sides import Answers, Side, Trace, open_pair, pair_up, predictor_side
from regnet.comparison.tally import ComparedPhoto, ComparedPhotos, ComparisonTally, open_photos
from regnet.comparison.verdict import share_text
from regnet.conversion.graph_preprocess import PIXELS, embed_preprocessing
from regnet.conversion.store import Library
from regnet.ir.assumptions import AssumptionWarning
from regnet.ir.engine import Outputs
from regnet.ir.graph import graph_metadata, read_graph, set_graph_metadata
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Label, Labels
from regnet.pages.html import report_html
from regnet.pixels.preprocess import crop_pixels, stages
from regnet.pixels.protocol import PYCLS
from regnet.pixels.samples import sample_photos
from regnet.system.errors import (
    DatasetError,
    ImageError,
    ModelError,
    OutputError,
    RegNetError,
    UnknownModelError,
)
from regnet.system.machine import this_machine
from regnet.system.runtime import ov
from regnet.zoo.catalogue import bundled_path, card_by_name

SAMPLES = sample_photos()
BUNDLED = bundled_path(card_by_name("bundled"))
LIBRARY = Library(folder=Path("unused"), offline=True)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(folder=tmp_path_factory.mktemp("cache"), offline=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    labels = described(SMALL).labels
    write_safetensors(
        path, confident(SMALL).state_dict(), spec=SMALL, labels=labels, preprocess=TINY
    )
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for photo in SAMPLES:
        shutil.copy(photo, folder)
    return folder


def record(a: str, b: str, dataset: Path, library: Library, **gates: Any) -> ComparisonRecord:
    return compare(a, b, dataset, cache_dir=library.folder, offline=True, gates=Gates(**gates))


class FakePredictor:
    """Gives rows of numbers that were told beforehand, whatever the pixels are."""

    def __init__(self, metadata: ModelMetadata, rows: Any = None) -> None:
        self.metadata = metadata
        self._row = sure_of(0) if rows is None else rows

    def pixels(self, image: Any) -> Any:
        return crop_pixels(image, self.metadata.preprocess)

    def outputs(self, pixels: Any) -> Outputs:
        rows = np.tile(self._row, (len(pixels), 1))
        return Outputs(rows, rows)


def fake_side(metadata: ModelMetadata | None = None, rows: Any = None) -> Side:
    metadata = metadata or described(SMALL)
    about = {"engine": "fake", "protocol": metadata.preprocess.to_dict()}
    return predictor_side(FakePredictor(metadata, rows), title=metadata.name, about=about)


class NumberSide:
    """A side whose photos are `b"3 5"`: the pixels are 3, the surest of seven classes is 5."""

    title, about = "numbers", {"engine": "fake"}
    labels: Labels | None = described(SMALL).labels
    hidden: ClassVar[dict[Any, str]] = {}

    def __init__(self, *, add: int = 0, sure: float = 0.9) -> None:
        self._add, self._sure = add, sure

    def trace(self, photo: bytes) -> Trace:
        if photo == b"bad":
            raise ImageError("is bad")
        level, chosen = map(int, photo.split())
        pixels = np.full((2, 2, 3), level + self._add, np.uint8)
        return Trace(dict.fromkeys(PIXEL_STAGES, pixels), chosen)

    def answers(self, given: Sequence[int]) -> Answers:
        rest = (1 - self._sure) / (SMALL.classes - 1)
        rows = np.full((len(given), SMALL.classes), rest, np.float32)
        rows[np.arange(len(given)), given] = self._sure
        return Answers(np.log(rows), rows)


class ShiftedSide(NumberSide):
    """Names the next class where the pixels are odd."""

    def trace(self, photo: bytes) -> Trace:
        trace = super().trace(photo)
        level, chosen = map(int, photo.split())
        return Trace(trace.pixels, (chosen + level % 2) % SMALL.classes)


def photos_of(*texts: str, truths: Sequence[int | None] | None = None) -> list[ComparedPhoto]:
    known = truths or [None] * len(texts)
    return [
        ComparedPhoto(f"{number}: {text}", truth, text.encode)
        for number, (text, truth) in enumerate(zip(texts, known, strict=True))
    ]


def tallied(
    a: Side, b: Side, photos: Sequence[ComparedPhoto], *, keep: int = 1000
) -> ComparisonRecord:
    pair = pair_up(a, b)
    tally = ComparisonTally(pair, keep=keep)
    tally.run(photos)
    about = ComparedPhotos("numbers", lambda: iter(photos), lambda: len(photos), None)
    return ComparisonRecord(pair=pair, photos=about, comparison=tally.result(), gates=Gates())


def test_the_same_twice_is_identical(samples: Path, library: Library) -> None:
    found = record("bundled", "bundled", samples, library)
    assert [stage.photos for stage in found.comparison.stages] == [3] * 5
    assert not any(stage.differs for stage in found.comparison.stages)
    assert found.verdict.kind == "identical"
    assert found.verdict.text == "no stage differs: identical"
    assert found.comparison.deltas == (3, *[0] * 9)


def test_protocols_part_at_the_resize_by_what_numpy_says(samples: Path, library: Library) -> None:
    found = record("bundled:omz", "bundled:pycls", samples, library)
    assert found.verdict.stage == "resize"
    assert "first to differ: resize (A: bicubic; B: opencv-linear), 98." in found.verdict.text
    own = open_pair("bundled:omz", "bundled:pycls", library=library)
    a, b = (side.about["protocol"] for side in (own.a, own.b))
    assert (a["interpolation"], b["interpolation"]) == ("bicubic", "opencv-linear")
    deltas = []
    for photo in SAMPLES:
        first, second = (
            stages(photo, replace(PYCLS, resize=128, crop=128, **rules)).resized.astype(float)
            for rules in ({"interpolation": "bicubic", "offset": "round"}, {})
        )
        deltas.append(np.abs(first - second).ravel())
    delta = np.concatenate(deltas)
    resize = found.comparison.stage("resize")
    assert resize.equal_values == np.count_nonzero(delta == 0)
    assert resize.values == delta.size
    assert resize.largest == pytest.approx(delta.max(), abs=1e-4)
    assert resize.mean == pytest.approx(delta.mean(), rel=1e-6)
    assert not found.comparison.stage("decode").differs
    assert found.comparison.stage("crop").differs


def test_engines_agree_within_rounding(checkpoint: Path, samples: Path, library: Library) -> None:
    """The pixels are the same; sums in another order differ in the last bits."""
    for engine in ("ir", "onnx"):
        found = record(f"{checkpoint}:torch", f"{checkpoint}:{engine}", samples, library)
        assert found.verdict.kind == "rounding"
        assert found.verdict.text.startswith("pixels are identical; logits differ by at most ")
        assert 0 < found.comparison.agreement.max_delta <= 1e-5
        assert found.comparison.agreement.flipped == 0


@pytest.mark.skipif(not this_machine().has_bf16, reason="a CPU without bf16 computes in f32")
def test_bf16_differs_in_the_logits(samples: Path, library: Library) -> None:
    found = record("bundled", "bundled:bf16", samples, library)
    assert found.verdict.stage == "logits"
    assert "pixels are identical; first to differ: logits (A: f32; B: bf16)" in found.verdict.text


def test_converted_models_do_not_flip_against_torch_on_real_photos(
    shared: Path, photos: list[Path], library: Library
) -> None:
    weights = shared / "weights" / "regnetx-400mf_tiny200.pyth"
    with pytest.warns(AssumptionWarning, match="names: its classes are numbered") as warned:
        found = record(f"{weights}:torch", f"{weights}:ir", photos[0].parent, library)
    assert len(warned) == 1
    assert found.comparison.agreement.images == len(photos) == 200
    assert found.comparison.agreement.flipped == 0
    assert found.comparison.agreement.max_delta <= 1e-5
    assert found.verdict.kind == "rounding"


def test_other_sizes_are_named_and_not_compared(
    checkpoint: Path, samples: Path, library: Library, tmp_path: Path
) -> None:
    path = tmp_path / "other.safetensors"
    larger = replace(TINY, resize=96)
    labels = described(SMALL).labels
    write_safetensors(
        path, confident(SMALL).state_dict(), spec=SMALL, labels=labels, preprocess=larger
    )
    found = record(f"{checkpoint}", f"{path}", samples, library)
    resize, crop = (found.comparison.stage(stage) for stage in ("resize", "crop"))
    assert (resize.other_size, resize.values, resize.equal_share) == (3, 0, None)
    assert resize.sizes == ((72, 108), (96, 144))
    assert (crop.other_size, crop.values) == (0, 3 * 64 * 64 * 3)
    assert "resize (A: short side 72; B: short side 96), other sizes in 3 of 3 photos (A 108 x 72, B 144 x 96, say)" in found.verdict.text  # fmt: skip  # noqa: E501


def test_channel_orders_are_compared_as_rgb_and_said() -> None:
    metadata = described(SMALL)
    turned = replace(
        metadata,
        preprocess=replace(
            TINY, channels="RGB", mean=TINY.mean[::-1], scale=TINY.scale[::-1]
        ),
    )  # fmt: skip
    photos = [ComparedPhoto(path.name, None, path.read_bytes) for path in SAMPLES]
    found = tallied(fake_side(metadata), fake_side(turned), photos)
    assert found.verdict.kind == "identical"
    assert "A takes BGR, B takes RGB: pixels are compared as RGB" in found.notes


def test_another_mean_is_named_as_the_cause() -> None:
    metadata = described(SMALL)
    other = replace(metadata, preprocess=replace(TINY, mean=(0.0, 1.0, 2.5)))
    rows = np.array([0.9, 0.1, 0, 0, 0, 0, 0], np.float32)
    photos = [ComparedPhoto(path.name, None, path.read_bytes) for path in SAMPLES]
    text = tallied(fake_side(metadata), fake_side(other, rows), photos).verdict.text
    assert "logits (A: mean 123.675/116.28/103.53 of RGB; B: mean 2.5/1/0 of RGB)" in text


def test_the_first_stage_is_found_wherever_it_is() -> None:
    photos = photos_of("10 1", "20 2", "30 3")
    decode = tallied(NumberSide(), NumberSide(add=2), photos)
    assert decode.verdict.stage == "decode"
    assert "first to differ: decode, 100 % of the values, by up to 2 levels" in decode.verdict.text
    sure = tallied(NumberSide(), NumberSide(sure=0.7), photos)
    assert sure.verdict.stage == "logits"
    assert "probabilities differ by up to 0.2, top-1 in 0 of 3 photos" in sure.verdict.text
    assert sure.comparison.deltas == (*[0] * 9, 3)
    assert tallied(NumberSide(), NumberSide(), photos).verdict.stage is None


def test_flips_come_with_both_classes_and_the_surest_are_kept() -> None:
    photos = photos_of("10 1", "11 2", "13 3", "12 4", "15 6", truths=[1, 2, 4, 0, 0])
    found = tallied(NumberSide(), ShiftedSide(sure=0.7), photos).comparison
    assert found.agreement.flipped == 3
    assert [flip.source for flip in found.flips] == ["1: 11 2", "2: 13 3", "4: 15 6"]
    flip = found.flips[0]
    assert (flip.a.label, flip.b.label, flip.truth) == ("thing 2", "thing 3", 2)
    assert flip.a.probability == pytest.approx(0.9)
    assert flip.b.probability == pytest.approx(0.7)
    assert flip.margin == pytest.approx(0.9 - 0.1 / 6)
    kept = tallied(NumberSide(), ShiftedSide(), photos, keep=2).comparison
    assert (len(kept.flips), kept.agreement.flipped) == (2, 3)


def test_accuracies_are_paired_photo_by_photo() -> None:
    photos = photos_of("10 1", "11 2", "13 3", "12 4", "15 6", truths=[1, 2, 4, 0, 0])
    accuracy = tallied(NumberSide(), ShiftedSide(), photos).comparison.accuracy
    assert accuracy is not None
    assert (accuracy.a.hits, accuracy.b.hits) == (2, 3)
    test = accuracy.test
    assert (test.both, test.only_a, test.only_b, test.neither) == (1, 1, 2, 1)
    assert test.p_value == 1.0
    unknown = tallied(NumberSide(), ShiftedSide(), photos_of("10 1")).comparison
    assert unknown.accuracy is None


def test_a_labelled_data_set_is_told_from_mere_photos(tmp_path: Path, library: Library) -> None:
    for photo, wnid in zip(SAMPLES, ("n02124075", "n07920052", "n02124075"), strict=True):
        (tmp_path / "labelled" / wnid).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, tmp_path / "labelled" / wnid)
    found = record("bundled", "bundled:pycls", tmp_path / "labelled", library)
    assert found.comparison.accuracy is not None
    assert (found.comparison.accuracy.a.hits, found.comparison.accuracy.a.images) == (2, 3)
    shutil.copytree(tmp_path / "labelled" / "n02124075", tmp_path / "mere" / "trip")
    mere = record("bundled", "bundled:pycls", tmp_path / "mere", library)
    assert mere.comparison.accuracy is None
    (note,) = mere.notes
    assert note.startswith("accuracy cannot be compared: ")
    with pytest.raises(DatasetError, match=r"missing\.txt"):
        compare("bundled", "bundled", tmp_path / "mere", truth=tmp_path / "missing.txt")


def test_an_address_of_photos_is_never_taken_for_a_data_set() -> None:
    photos = open_photos("http://127.0.0.1:9/cat.png", described(SMALL).labels)
    assert photos.unlabelled is not None
    assert "have no classes" in photos.unlabelled
    assert photos.count() == 1


def test_photos_that_cannot_be_read_are_counted_and_left_out() -> None:
    found = tallied(NumberSide(), NumberSide(), photos_of("1 1", "bad", "2 2")).comparison
    assert (found.agreement.images, found.unreadable) == (2, 1)
    assert found.errors == (("1: bad", "is bad"),)
    with pytest.raises(DatasetError, match=r"no photo could be compared: 0: bad: is bad"):
        tallied(NumberSide(), NumberSide(), photos_of("bad"))
    with pytest.raises(DatasetError, match=r"no photo could be compared$"):
        tallied(NumberSide(), NumberSide(), [])


class _Labelled(NumberSide):
    def __init__(self, labels: Labels | None, title: str = "other") -> None:
        super().__init__()
        self.labels, self.title = labels, title


def labels_of(*pairs: str) -> Labels:
    return tuple(Label(*reversed(pair.rpartition(" ")[::2])) for pair in pairs)


ANIMALS = tuple(Label(f"n0000000{i}", name) for i, name in enumerate(("cat, tabby", "dog", "fish")))


@pytest.mark.parametrize(
    ("order", "other", "by"),
    [
        ((2, 0, 1), "same", "wnid"),
        ((1, 2, 0), "no wnids", "name"),
        ((0, 2, 1), "other names", "wnid"),
        ((2, 1, 0), "short names", "name"),
    ],
)
def test_classes_in_another_order_are_matched(
    order: tuple[int, ...], other: str, by: str
) -> None:  # fmt: skip
    changes = {
        "same": lambda label: label,
        "no wnids": lambda label: replace(label, wnid=""),
        "other names": lambda label: replace(label, name=f"a {label.name}"),
        "short names": lambda label: Label("", label.name.split(",")[0].upper()),
    }
    shuffled = tuple(changes[other](ANIMALS[index]) for index in order)

    class Permuted(_Labelled):
        def answers(self, given: Sequence[int]) -> Answers:
            rows = np.array([[0.7, 0.2, 0.1]], np.float32)[:, list(order)]
            return Answers(rows, rows)

    pair = pair_up(_Labelled(ANIMALS), Permuted(shuffled))
    assert pair.labels == ANIMALS
    assert pair.answers_b([0]).probabilities.tolist()[0] == pytest.approx([0.7, 0.2, 0.1])
    assert pair.notes == (f"B has the classes in another order: matched by {by}",)


def test_names_that_mean_two_classes_are_clear_in_the_same_order() -> None:
    cranes = (Label("", "crane"), Label("", "crane"), Label("", "dog"))
    wnids = tuple(Label(f"n0000000{i}", label.name) for i, label in enumerate(cranes))
    assert pair_up(_Labelled(cranes), _Labelled(wnids)).places_b is None
    with pytest.raises(ModelError, match="have other classes: some classes of b name several"):
        pair_up(_Labelled(cranes, "a"), _Labelled(cranes[::-1], "b"))


def test_numbered_classes_are_taken_to_be_the_others() -> None:
    numbered = tuple(Label("", f"class {i}") for i in range(3))
    for a, b, named in ((ANIMALS, numbered, "B"), (numbered, ANIMALS, "A")):
        pair = pair_up(_Labelled(a), _Labelled(b))
        assert pair.labels == ANIMALS
        assert pair.notes[0].startswith(f"{named} only numbers its classes")


def test_other_classes_are_refused() -> None:
    with pytest.raises(ModelError, match="a has 3 classes, b 2: compare models"):
        pair_up(_Labelled(ANIMALS, "a"), _Labelled(ANIMALS[:2], "b"))
    horse = (*ANIMALS[:2], Label("n00000009", "horse"))
    with pytest.raises(
        ModelError, match=r"have other classes: .* 1 of the classes of b: n00000009"
    ):
        pair_up(_Labelled(ANIMALS, "a"), _Labelled(horse, "b"))
    twice = (*ANIMALS[:2], ANIMALS[0])
    with pytest.raises(ModelError, match="several of b mean the same one"):
        pair_up(_Labelled(ANIMALS, "a"), _Labelled(twice, "b"))
    with pytest.raises(ModelError, match="neither a nor b says"):
        pair_up(_Labelled(None, "a"), _Labelled(None, "b"))
    with pytest.raises(UnknownModelError, match="both sides are servers"):
        open_pair("http://a/v2/models/m", "https://b/v2/models/m", library=LIBRARY)


@pytest.fixture(scope="module")
def in_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bundled model with its preprocessing in the graph."""
    graph = read_graph(BUNDLED)
    metadata = graph_metadata(graph, source="bundled")
    whole = embed_preprocessing(graph, metadata.preprocess)
    set_graph_metadata(whole, replace(metadata, preprocessing="graph"))
    path = tmp_path_factory.mktemp("graph") / "whole.xml"
    ov.save_model(whole, path, compress_to_fp16=False)
    return path


def test_the_crop_inside_a_graph_is_looked_at(
    in_graph: Path, samples: Path, library: Library
) -> None:
    found = record("bundled", str(in_graph), samples, library)
    decode, resize, crop = (found.comparison.stage(stage) for stage in PIXEL_STAGES)
    assert (decode.equal_photos, resize.photos, resize.hidden) == (3, 0, "B: inside the graph")
    assert crop.values == 3 * 128 * 128 * 3
    assert crop.largest <= 1
    assert crop.equal_share is not None
    assert crop.equal_share >= 0.9999
    assert found.comparison.agreement.max_delta < 1e-3
    assert "not seen: resize (B: inside the graph)" in found.verdict.text


def test_a_graph_whose_crop_has_no_name_is_compared_all_the_same(
    in_graph: Path, samples: Path, library: Library, tmp_path: Path
) -> None:
    text = in_graph.read_text().replace(f'names="{PIXELS}"', "")
    assert text != in_graph.read_text()
    (tmp_path / "bare.xml").write_text(text)
    shutil.copy(in_graph.with_suffix(".bin"), tmp_path / "bare.bin")
    found = record("bundled", str(tmp_path / "bare.xml"), samples, library)
    assert [stage.stage for stage in found.comparison.stages if stage.hidden] == ["resize", "crop"]
    assert found.comparison.agreement.flipped == 0


@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=12),
    st.lists(st.integers(0, 255), min_size=12, max_size=12),
    st.booleans(),
)
def test_differences_are_those_of_whole_numbers(a: list[int], b: list[int], floats: bool) -> None:
    first = np.array(a, np.float32 if floats else np.uint8)
    second = np.array(b[: len(a)], np.uint8)
    found = difference(first, second)
    apart = [abs(x - y) for x, y in zip(a, b, strict=False)]
    assert (found.values, found.equal) == (len(a), apart.count(0))
    assert (found.largest, found.total) == (max(apart), sum(apart))
    assert found.is_none == (not any(apart))
    assert not difference(first, np.append(second, 0)).is_none


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 5, "0 %"),
        (5, 5, "100 %"),
        (931, 1000, "93.1 %"),
        (6, 100_000, "0.0060 %"),
        (99_999, 100_000, "99.9990 %"),
        (1, 10**9, "under 0.0001 %"),
        (10**9 - 1, 10**9, "over 99.9999 %"),
    ],
)
def test_only_all_is_100_percent(part: int, whole: int, text: str) -> None:
    assert share_text(part, whole) == text


def run(*words: str) -> Result:
    return CliRunner().invoke(build_app(("compare",)), ["compare", *words, "--offline"])


def test_the_command_prints_a_table_that_ends_with_the_verdict(samples: Path) -> None:
    done = run("bundled", "bundled:pycls", str(samples))
    assert done.exit_code == 0, done.output
    lines = done.stdout.strip().splitlines()
    assert lines[0] == "A bundled:ir:f32 and B bundled:ir:f32:pycls"
    assert lines[-1].startswith("first to differ: resize (A: bilinear; B: opencv-linear)")
    assert any(line.startswith("  decode") and "3 of 3" in line for line in lines)


def test_json_has_the_documented_fields(samples: Path) -> None:
    done = run("bundled", "bundled:pycls", str(samples), "--json")
    found = json.loads(done.stdout)
    assert list(found) == [
        "a", "b", "dataset", "complete", "photos", "unreadable", "errors", "stages", "top1_equal",
        "top1_equal_at_least", "flipped", "flips", "max_delta", "deltas", "kl", "accuracy",
        "notes", "gates", "verdict", "skipped",
    ]  # fmt: skip
    assert found["b"]["protocol"]["interpolation"] == "opencv-linear"
    assert [stage["stage"] for stage in found["stages"]] == [
        "decode", "resize", "crop", "logits", "probabilities",
    ]  # fmt: skip
    assert sum(count["photos"] for count in found["deltas"]) == found["photos"] == 3
    assert found["verdict"]["stage"] == "resize"


@pytest.mark.parametrize(
    ("gate", "status"),
    [
        (("--max-delta", "0.01"), 1),
        (("--max-delta", "0.5"), 0),
        (("--max-flips", "0"), 0),
        (("--max-flips", "0", "--max-delta", "0"), 1),
    ],
)
def test_gates_give_the_exit_status(gate: tuple[str, ...], status: int, samples: Path) -> None:
    done = run("bundled", "bundled:pycls", str(samples), *gate)
    assert done.exit_code == status
    assert ("gate exceeded: probabilities differ by" in done.stdout) == bool(status)


def sure_of(index: int) -> Any:
    return np.eye(SMALL.classes, dtype=np.float32)[index]


def test_the_report_shows_the_flips_and_escapes_every_text() -> None:
    evil = "<script>alert('&')</script>"
    labels = tuple(Label("", f"{evil} {i}") for i in range(SMALL.classes))
    metadata = replace(described(SMALL), labels=labels, name=evil)
    photos = [ComparedPhoto(f"{evil}/{path.name}", 1, path.read_bytes) for path in SAMPLES]
    photos.append(ComparedPhoto("bad", 1, lambda: b"no image"))
    sides = (fake_side(metadata), fake_side(metadata, sure_of(1)))
    found = tallied(*sides, photos)
    report = comparison_report(replace(found, gates=Gates(max_flips=1), complete=False))
    html = report_html(report)
    assert html.count('<img src="data:image/jpeg;base64,') == 3
    assert evil not in html
    assert "more than 1 flips" in html
    assert "first to differ: logits" in html
    assert "1 photo could not be read: left out." in html
    assert "interrupted" in html
    assert html.count("<svg") == 1


def test_the_report_is_written_or_refused_before_anything_runs(
    samples: Path, tmp_path: Path
) -> None:
    done = run("bundled", "bundled:pycls", str(samples), "--html", str(tmp_path / "r.html"))
    assert done.exit_code == 0, done.output
    assert "<title>A bundled:ir:f32 and B bundled:ir:f32:pycls" in (tmp_path / "r.html").read_text()
    done = run("no model", "bundled", str(samples), "--html", str(tmp_path / "none" / "r.html"))
    assert isinstance(done.exception, OutputError)


def test_flips_over_the_gate_are_counted() -> None:
    record = tallied(NumberSide(), ShiftedSide(), photos_of("1 1", "3 1", "4 1"))
    found = record.comparison.agreement
    assert Gates(max_flips=2).exceeded(found) == ()
    assert Gates(max_flips=1).exceeded(found) == ("2 top-1 flips, --max-flips allows 1",)


def test_an_unreadable_photo_gives_status_1_and_is_named(samples: Path, tmp_path: Path) -> None:
    shutil.copytree(samples, tmp_path / "photos")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    done = run("bundled", "bundled", str(tmp_path / "photos"))
    assert done.exit_code == 1
    assert "3 photos of photos" in done.stdout
    assert "1 photo could not be read" in done.stdout
    assert "broken.jpg  " in done.stdout


@pytest.mark.parametrize(
    ("name", "reason"), [("missing", "no such file or folder"), ("", "no photo could be compared")]
)
def test_nothing_to_compare_is_an_error(name: str, reason: str, tmp_path: Path) -> None:
    done = run("bundled", "bundled", str(tmp_path / name))
    assert isinstance(done.exception, RegNetError)
    assert reason in str(done.exception)


INTERRUPTED = """
import sys
from regnet.comparison import tally as comparison
from regnet.cli import build_app
opened = comparison.open_photos
def interrupted(*args, **kwargs):
    photos = opened(*args, **kwargs)
    def items():
        yield from list(photos.items()) * {times}
        raise KeyboardInterrupt
    return comparison.ComparedPhotos(photos.path, items, photos.count, None)
comparison.open_photos = interrupted
build_app(("compare",))(sys.argv[1:])
"""


@pytest.mark.parametrize("times", [0, 20])
def test_an_interrupted_comparison_shows_what_it_has(times: int, samples: Path) -> None:
    command = ["compare", "bundled", "bundled:pycls", str(samples), "--json"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", INTERRUPTED.format(times=times), *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130
    assert "interrupted" in done.stderr
    if times:
        found = json.loads(done.stdout)
        assert found["complete"] is False
        assert 0 < found["photos"] < 60
    else:
        assert done.stdout == ""


def test_photos_are_read_as_they_are_wanted() -> None:
    """However many there are, only some batches are in memory."""
    alive: list[int] = []

    def endless() -> Iterator[ComparedPhoto]:
        for number in range(2000):
            alive.append(number)
            yield ComparedPhoto(str(number), None, lambda: b"1 1")

    pair = pair_up(NumberSide(), NumberSide())
    tally = ComparisonTally(pair)
    most = 0

    def watched() -> Iterator[ComparedPhoto]:
        nonlocal most
        for photo in endless():
            most = max(most, len(alive) - tally.photos)
            yield photo

    tally.run(watched())
    assert tally.photos == 2000
    assert most < 500


def test_offline_no_server_of_another_machine_is_asked(samples: Path) -> None:
    for url in ("https://example.org/v2/models/m", "http://10.0.0.1:8000/v2/models/m"):
        for sides in (("bundled", url), (url, "bundled")):
            done = run(*sides, str(samples))
            assert isinstance(done.exception, RegNetError)
            assert str(done.exception) == f"{url}: not asked, because of --offline"
