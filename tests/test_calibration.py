"""`regnet calibrate`, and what it changes in `regnet classify`: from photos to files."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from labelled_photos import CLASSES, write_labelled_photos
from typer.testing import CliRunner, Result

from regnet.calibration import temperature
from regnet.calibration.calibrate import CalibrationReport, calibrate, learn
from regnet.calibration.temperature import calibrated_name
from regnet.cli import build_app
from regnet.conversion.graph_preprocess import embed_preprocessing
from regnet.inference.classify import Classifier
from regnet.ir.engine import Engine, read_model
from regnet.ir.graph import graph_metadata, read_graph, set_graph_metadata, write_ir
from regnet.network.labels import Label
from regnet.pixels.samples import sample_photos
from regnet.statistics.conformal import Fit, fit_temperature, photos_wanted, set_sizes, softmax
from regnet.system.errors import (
    ConversionError,
    DatasetError,
    ModelError,
    NoGainError,
    RegNetError,
    UnknownModelError,
)
from regnet.system.runtime import core, ov
from regnet.zoo.catalogue import bundled_path, card_by_name

BUNDLED = bundled_path(card_by_name("bundled"))
EACH = 16


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of labelled photos."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    write_labelled_photos(folder, each=EACH)
    return folder


@pytest.fixture(scope="module")
def report(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> CalibrationReport:
    # So few photos make held-out ones less likely.
    folder = tmp_path_factory.mktemp("out")
    return calibrate("bundled", photos, subset=True, folder=folder, force=True)


def logits_and_probabilities(path: Path) -> tuple[np.ndarray, np.ndarray]:
    engine = Engine(read_model(path, logits=True))
    found = engine.outputs(np.stack([engine.pixels(photo) for photo in sample_photos()]))
    return found.logits, found.probabilities


def drawn(photos: int, *, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities that are too sure for a temperature over 1, and truths."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(0, 3, (photos, 10))
    sums = softmax(logits, temperature).cumsum(axis=1)
    truths = (chance.random((photos, 1)) > sums).sum(axis=1)
    return softmax(logits), np.minimum(truths, 9)


def test_what_is_learnt_is_what_was_drawn() -> None:
    found = learn(*drawn(8000, temperature=2.0), Fit())
    held, calibration = found.held_out, found.calibration
    assert calibration.temperature == found.step == pytest.approx(2, rel=0.05)
    assert (found.temperature_photos, found.threshold_photos) == (2000, 2000)
    assert (calibration.photos, calibration.held_out) == (4000, 4000) == (4000, sum(held.sizes))
    assert held.holds
    assert held.expected[0] <= held.coverage.value <= held.expected[1]
    assert held.coverage.value == calibration.measured_coverage
    assert held.after.ece < 0.03 < 0.1 < held.before.ece
    assert held.after.nll < held.before.nll
    assert held.after.top1 == held.before.top1
    assert held.mean_size == pytest.approx(np.dot(held.sizes, range(11)) / 4000)
    assert held.single.hits == held.sizes[1] == held.right.images
    assert held.wrong.hits == held.sizes[1] - held.right.hits
    assert held.wrong.value <= 1 - held.coverage.value


def test_the_seed_alone_splits_the_photos() -> None:
    rows, truths = drawn(400, temperature=2.0)
    first, again, other = (
        learn(rows, truths, Fit(coverage=0.8, method="lac", seed=seed)) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_a_temperature_of_chance_is_left_out_where_photos_are_enough() -> None:
    rows, truths = drawn(600, temperature=1.0)
    assert fit_temperature(np.log(rows), truths) != 1
    found = learn(rows, truths, Fit())
    assert len(truths) >= photos_wanted(0.9) == 576
    assert found.step == found.calibration.temperature == 1
    assert found.held_out.after.nll == pytest.approx(found.held_out.before.nll, abs=1e-6)
    few = learn(rows[:500], truths[:500], Fit())
    assert few.step != 1
    certain = learn(*drawn(600, temperature=2.0), Fit())
    assert certain.step == pytest.approx(2, rel=0.3)


def test_a_temperature_that_makes_photos_less_likely_is_not_written(
    photos: Path, empty: Path
) -> None:
    with pytest.raises(NoGainError) as refused:
        calibrate("bundled", photos, subset=True, folder=empty)
    assert re.fullmatch(
        r"bundled: a temperature of 0\.\d+, fitted on 12 photos, makes 24 held-out photos less "
        r"likely: .* is \d\.\d+ before and \d\.\d+ after\. Nothing was written: calibrate with "
        r"more labelled photos \(576 are enough as a rule, here are 48\), or write it with --force",
        str(refused.value),
    )
    assert list(empty.iterdir()) == []
    command = [sys.executable, "-m", "regnet", "calibrate", "bundled", str(photos), "--subset"]
    done = subprocess.run(command, cwd=empty, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"regnet: {refused.value}\n"
    assert list(empty.iterdir()) == []


def test_sets_that_hold_too_little_are_called_so() -> None:
    """As when the photos that check are not like the others, here by force."""
    found = learn(*drawn(400, temperature=1.0), Fit()).held_out
    low = replace(found, coverage=replace(found.coverage, value=found.expected[0] - 0.01))
    assert found.holds
    assert not low.holds


def test_names_are_found_by_the_rule_of_int8() -> None:
    names = ("m.xml", "m-fp16.xml", "m-int8.xml", "m-calibrated.xml", "m-calibrated-int8.xml")
    assert [calibrated_name(Path("in", name)) for name in names] == [
        "m-calibrated.xml",
        "m-calibrated-fp16.xml",
        "m-calibrated-int8.xml",
        "m-calibrated.xml",
        "m-calibrated-int8.xml",
    ]


def test_the_file_gives_calibrated_probabilities(report: CalibrationReport) -> None:
    step = report.learnt.calibration.temperature
    logits, before = logits_and_probabilities(BUNDLED)
    divided, after = logits_and_probabilities(report.path)
    assert np.abs(after - softmax(logits, step)).max() <= 1e-5
    assert np.abs(divided - logits / step).max() <= 1e-4
    assert np.abs(after - before).max() > 0.01
    assert report.written.max_delta <= 1e-5
    assert report.written.photos == 3 + 3 * EACH


def test_all_else_in_the_file_is_as_it_was(report: CalibrationReport, tmp_path: Path) -> None:
    metadata = graph_metadata(read_graph(report.path), source="m")
    original = graph_metadata(read_graph(BUNDLED), source="m")
    assert metadata.calibration == report.learnt.calibration
    assert replace(metadata, calibration=None) == original
    plain = tmp_path / "plain.xml"  # as regnet reads it: for crops alone
    write_ir(read_graph(BUNDLED), original, plain)
    sizes = [path.with_suffix(".bin").stat().st_size for path in (plain, report.path)]
    assert sizes[1] == sizes[0] + 4  # the temperature
    assert sorted(path.name for path in report.path.parent.iterdir()) == list(report.written.files)


def test_calibrating_again_replaces_the_temperature(
    report: CalibrationReport, photos: Path, tmp_path: Path
) -> None:
    again = calibrate(report.path, photos, subset=True, folder=tmp_path)
    assert again.path.name == report.path.name
    first, second = report.learnt.calibration, again.learnt.calibration
    assert again.learnt.step == pytest.approx(1, abs=1e-3)
    assert second.temperature == pytest.approx(first.temperature, abs=1e-3)
    assert second.threshold == pytest.approx(first.threshold, abs=1e-3)
    ops = [op for op in read_graph(again.path).get_ordered_ops() if op.get_type_name() == "Divide"]
    assert len(ops) == 1 + sum(
        op.get_type_name() == "Divide" for op in read_graph(BUNDLED).get_ordered_ops()
    )
    found, expected = (logits_and_probabilities(path)[1] for path in (again.path, report.path))
    assert np.abs(found - expected).max() < 1e-3


def test_a_temperature_whose_record_was_dropped_still_counts(
    report: CalibrationReport, photos: Path, tmp_path: Path
) -> None:
    """As by a step that makes another model of it, for which the sets are not known to hold."""
    graph = core.read_model(report.path)
    del graph.get_rt_info()["regnet"]
    path = saved(graph, tmp_path / "m.xml", precision="fp16")
    assert Classifier(path).metadata.calibration is None
    again = calibrate(path, photos, subset=True, force=True, folder=tmp_path)
    expected = report.learnt.calibration.temperature
    assert again.learnt.calibration.temperature == pytest.approx(expected, abs=1e-3)


def test_a_model_may_be_calibrated_in_its_own_folder(
    report: CalibrationReport, photos: Path, tmp_path: Path
) -> None:
    for name in report.written.files:
        shutil.copy(report.path.with_name(name), tmp_path)
    path = tmp_path / report.path.name
    again = calibrate(path, photos, subset=True, force=True, folder=tmp_path, coverage=0.8)
    assert Classifier(path).metadata.calibration == again.learnt.calibration


def saved(model: ov.Model, path: Path, **changes: object) -> Path:
    metadata = replace(graph_metadata(read_graph(BUNDLED), source="bundled"), **changes)
    set_graph_metadata(model, metadata)
    ov.save_model(model, path, compress_to_fp16=False)
    return path


def test_a_graph_that_makes_the_crop_is_calibrated_too(photos: Path, tmp_path: Path) -> None:
    preprocess = Classifier(BUNDLED).metadata.preprocess
    graph = embed_preprocessing(read_graph(BUNDLED), preprocess)
    path = saved(graph, tmp_path / "m.xml", preprocessing="graph")
    found = calibrate(path, photos, subset=True, force=True, coverage=0.8, folder=tmp_path)
    assert found.metadata.preprocessing == "graph"
    top = Classifier(found.path).classify(sample_photos()[1]).top
    assert top.probability > Classifier(path).classify(sample_photos()[1]).top.probability


def test_the_int8_model_beside_is_found_and_stays_findable(photos: Path, tmp_path: Path) -> None:
    saved(read_graph(BUNDLED), tmp_path / "m.xml")
    saved(read_graph(BUNDLED), tmp_path / "m-int8.xml", precision="int8")
    found = calibrate(
        tmp_path / "m.xml", photos, subset=True, force=True, precision="int8", folder=tmp_path
    )
    assert found.path == tmp_path / "m-calibrated-int8.xml"
    assert Classifier(found.path, precision="int8").metadata.precision == "int8"


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """Return a folder in which nothing may appear."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("coverage", [0.0, 1.0, -1.0, float("nan")])
def test_impossible_coverages(coverage: float, photos: Path, empty: Path) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        calibrate("bundled", photos, coverage=coverage, subset=True, folder=empty)


def test_too_few_photos_for_the_coverage(photos: Path, empty: Path) -> None:
    with pytest.raises(DatasetError, match=r"has 48 readable photos.*0\.95 needs at least 76"):
        calibrate("bundled", photos, coverage=0.95, subset=True, folder=empty)
    assert list(empty.iterdir()) == []


def test_unreadable_photos_do_not_count(photos: Path, tmp_path: Path, empty: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    for path in sorted((tmp_path / "photos" / CLASSES[0]).iterdir())[:3]:
        path.write_bytes(b"")
    found = calibrate("bundled", tmp_path / "photos", subset=True, force=True, folder=empty)
    assert (found.images, found.unreadable, len(found.failures)) == (48, 3, 3)
    assert found.learnt.calibration.photos + found.learnt.calibration.held_out == 45
    for path in sorted((tmp_path / "photos" / CLASSES[1]).iterdir())[:10]:
        path.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"has 35 readable photos.*at least 36"):
        calibrate("bundled", tmp_path / "photos", subset=True, folder=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_labels_of_other_photos_are_noticed(tmp_path: Path, photos: Path, empty: Path) -> None:
    for wnid in CLASSES:
        shutil.copytree(photos / CLASSES[1], tmp_path / "photos" / wnid)
    shutil.rmtree(tmp_path / "photos" / CLASSES[1])
    with pytest.raises(DatasetError, match="see whether the labels"):
        calibrate("bundled", tmp_path / "photos", subset=True, coverage=0.8, folder=empty)
    assert list(empty.iterdir()) == []


def test_models_and_photos_that_do_not_fit(photos: Path, tmp_path: Path, empty: Path) -> None:
    (tmp_path / "nothing").mkdir()
    cases: list[tuple[str, Path, type[RegNetError], str]] = [
        ("bundled", photos, DatasetError, "--subset"),
        ("bundled", tmp_path / "nothing", DatasetError, "no images"),
        ("bundled", tmp_path / "none", DatasetError, "no such file"),
        ("m.onnx", photos, UnknownModelError, "no such file"),
        ("none.xml", photos, ModelError, "no such file"),
    ]
    for model, dataset, error, reason in cases:
        with pytest.raises(error, match=reason):
            calibrate(model, dataset, folder=empty)
    assert list(empty.iterdir()) == []


def test_models_without_names_and_labels_out_of_range(
    photos: Path, tmp_path: Path, empty: Path
) -> None:
    numbered = tuple(Label("", f"class {index}") for index in range(200))
    path = saved(read_graph(BUNDLED), tmp_path / "m.xml", labels=numbered)
    with pytest.raises(DatasetError, match="does not name its 200 classes"):
        calibrate(path, photos, subset=True, folder=empty)
    truth = tmp_path / "val.txt"
    truth.write_text("".join(f"{number:02}.png 200\n" for number in range(EACH)))
    with pytest.raises(DatasetError, match="are 0 to 199"):
        calibrate("bundled", photos / CLASSES[0], truth=truth, subset=True, folder=empty)
    assert list(empty.iterdir()) == []


def test_nothing_is_written_unless_the_copy_does_what_it_should(
    photos: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = temperature._set_temperature
    monkeypatch.setattr(
        temperature,
        "_set_temperature",
        lambda graph, t: right(graph, 1.1 * t),
    )
    with pytest.raises(ConversionError, match=r"softmax\(logits / T\).*nothing was written"):
        calibrate("bundled", photos, subset=True, folder=empty, force=True)
    assert list(empty.iterdir()) == []


def run(*arguments: object, command: str = "calibrate") -> Result:
    return CliRunner().invoke(build_app([command]), [command, *map(str, arguments)])


def test_the_command_prints_what_was_measured(
    photos: Path, report: CalibrationReport, empty: Path
) -> None:
    text = run("bundled", photos, "--subset", "--force", "-o", empty)
    assert text.exit_code == 0, text.output
    held = report.learnt.held_out
    assert str(empty / "bundled-calibrated-fp16.xml") in text.stdout
    assert f"{report.learnt.calibration.temperature:.4f}" in text.stdout
    assert f"{100 * held.coverage.value:.2f} %  contain the true class" in text.stdout
    values = json.loads(run("bundled", photos, "--subset", "--force", "-o", empty, "--json").stdout)
    expected = report.to_dict()
    for name in set(expected) - {"path", "files", "max_delta"}:
        assert values[name] == expected[name], name


def test_unreadable_photos_show_in_the_exit_status(photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / CLASSES[0] / "00.png").write_bytes(b"")
    found = run("bundled", tmp_path / "photos", "--subset", "--force", "-o", tmp_path)
    assert found.exit_code == 1
    assert "1 photo could not be read: left out" in found.stdout
    assert "the file is empty" in found.stdout


def test_options_that_make_no_sense(photos: Path, empty: Path) -> None:
    for options in (("--coverage", 1), ("--coverage", 0), ("--method", "raps")):
        assert run("bundled", photos, *options, "-o", empty).exit_code == 2
    assert list(empty.iterdir()) == []


def test_the_page_shows_both_diagrams(photos: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run("bundled", photos, "--subset", "--force", "-o", tmp_path, "--html", page)
    assert done.exit_code == 0, done.output
    html = page.read_text()
    assert html.count("<svg") == 3
    assert "Reliability diagram before" in html
    assert "Reliability diagram after" in html
    assert run("bundled", photos, "--html", tmp_path / "none" / "page.html").exit_code != 0


def classified(report: CalibrationReport, *options: str, format: str = "jsonl") -> str:
    arguments = ["-m", str(report.path), "-f", format, *options, *map(str, sample_photos())]
    done = run(*arguments, command="classify")
    assert done.exit_code == 0, done.output
    return done.stdout


def test_classify_prints_sets(report: CalibrationReport) -> None:
    calibration = report.learnt.calibration
    rows = logits_and_probabilities(report.path)[1]
    sizes = set_sizes(rows, calibration.method, calibration.threshold).tolist()
    plain = [json.loads(line) for line in classified(report).splitlines()]
    found = [json.loads(line) for line in classified(report, "--sets").splitlines()]
    for before, after, size in zip(plain, found, sizes, strict=True):
        assert list(after) == ["source", "predictions", "error", "model", "set", "coverage"]
        assert {name: after[name] for name in before} == before
        assert len(after["set"]) == size
        assert after["set"][:5] == before["predictions"][:size]
        assert after["coverage"] == 0.9
    assert len(set(sizes)) > 1
    table = classified(report, "--sets", format="table")
    for size in sizes:
        word = "class" if size == 1 else "classes"
        assert f"  set of {size} {word} contains the true class with probability 90 %\n" in table
    assert len(table.splitlines()) == 3 + sum(sizes) + 3


def test_classify_says_unknown_where_no_class_is_sure(report: CalibrationReport) -> None:
    found = [json.loads(line) for line in classified(report, "--unknown", "--sets").splitlines()]
    assert [one["unknown"] for one in found] == [len(one["set"]) != 1 for one in found]
    assert [one["unknown"] for one in found].count(True) >= 1
    table = classified(report, "--unknown", format="table")
    assert "cat.png\n  unknown: no single class is the true one with probability 90 %\n" in table
    assert "Egyptian cat" not in table


def test_sets_in_csv_have_a_row_for_each_class(report: CalibrationReport) -> None:
    found = [json.loads(line) for line in classified(report, "--sets").splitlines()]
    text = classified(report, "--sets", "--unknown", "--top-k", "2", format="csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    for one in found:
        mine = [row for row in rows if row["source"] == one["source"]]
        inside = [int(row["index"]) for row in mine if row["set"] == "true"]
        assert inside == [score["index"] for score in one["set"]]
        assert len(mine) == max(2, len(one["set"]))
        assert {row["unknown"] for row in mine} == {"false" if len(inside) == 1 else "true"}


def test_python_gives_sets_too(report: CalibrationReport, tmp_path: Path) -> None:
    classifier = Classifier(report.path)
    found = classifier.classify(sample_photos()[1], sets=True, unknown=True)
    assert found.set is not None
    assert found.coverage == 0.9
    assert found.unknown is (len(found.set) != 1)
    assert found.set[0] == found.top
    (broken,) = classifier.classify([b""], sets=True, unknown=True)
    assert (broken.set, broken.coverage, broken.unknown) == ((), 0.9, True)
    plain = classifier.classify(sample_photos()[1])
    assert (plain.set, plain.coverage, plain.unknown) == (None, None, None)


@pytest.mark.parametrize("option", ["--sets", "--unknown"])
def test_a_model_that_is_not_calibrated_has_no_sets(option: str, tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    done = run("-m", "bundled", option, sample_photos()[0], "-o", output, command="classify")
    assert isinstance(done.exception, ModelError)
    assert "regnet calibrate MODEL DATASET" in str(done.exception)
    assert list(tmp_path.iterdir()) == []
