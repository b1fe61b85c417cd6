"""The page of a training run, with and without an evaluation."""

import json
import re
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import plots, text_of, titles, words

from regnet.calibration.calibrate import FittedCalibration, learn
from regnet.data.dataset import open_dataset
from regnet.evaluation.evaluate import Evaluation, evaluate
from regnet.network.complexity import complexity
from regnet.network.spec import spec_by_name
from regnet.pages.html import report_html
from regnet.pages.report import Report
from regnet.pixels.samples import sample_photos
from regnet.statistics.conformal import Fit
from regnet.system.errors import MissingExtraError
from regnet.training.history import EpochRecord
from regnet.training.recipe import read_recipe
from regnet.training.report import duration, training_report
from regnet.training.task import Training

SPEC = spec_by_name("regnety-200mf", classes=200)
EVIL = "<script>alert('&')</script>"


def record(epoch: int, **values: object) -> EpochRecord:
    known = {
        "lr": 0.1 / epoch,
        "crop": 64 if epoch < 4 else 96,
        "loss": 5.0 - 0.25 * epoch,
        "train_top1": 0.01 * epoch,
        "val_loss": 4.0 - 0.25 * epoch,
        "val_top1": 0.04 * epoch,
        "val_top5": 0.09 * epoch,
        "images_per_s": 500.0,
        "seconds": 90.0,
        "skipped": 0,
    }
    return EpochRecord(epoch=epoch, **(known | values))  # type: ignore[arg-type]


def a_report(epochs: int = 6, **values: object) -> Report:
    """Return the report of a finished run; the deployed epoch is the last one."""
    known: dict[str, Any] = {
        "folder": Path("runs/cats"),
        "recipe": read_recipe("finetune").changed("schedule", batch=64),
        "records": tuple(record(epoch + 1) for epoch in range(epochs)),
        "train_photos": 45_000,
        "val_photos": 5_000,
    }
    page: dict[str, Any] = {"spec": SPEC, "dataset": "photos/cats", "machine": "a machine"}
    of_training = {f.name for f in fields(Training)}
    known |= {name: value for name, value in values.items() if name in of_training}
    page |= {name: value for name, value in values.items() if name not in of_training}
    known = {"epoch": len(known["records"])} | known
    return training_report(Training(finished=True, **known), **page)


def a_page(epochs: int = 6, **values: object) -> str:
    return report_html(a_report(epochs, **values))


def text_without_plots(epochs: int = 6, **values: object) -> str:
    report = a_report(epochs, **values)
    sections = [section for section in report.sections if section.title != "How it learnt"]
    return text_of(report_html(replace(report, sections=sections)))


@pytest.fixture(scope="module")
def html() -> str:
    """Return the page of six epochs, drawn once."""
    return a_page()


def test_a_page_without_an_evaluation(html: str) -> None:
    text = text_of(html)
    assert titles(html) == ["How it learnt", "Every epoch", "What was trained", "The recipe"]
    assert "ended after 6 of 10 epochs" in text
    assert "|Training loss|3.500|of epoch 6|" in text
    assert "|Training time|9 min|6 epochs, validation not counted|" in text
    assert "|Speed|500 /s|" in text
    assert "default-src 'none'" in html


def test_the_best_epoch_is_told_from_the_last() -> None:
    html = a_page(records=(record(1, val_top1=0.5), record(2, val_top1=0.4)))
    text = text_of(html)
    assert "|1, best|" in text
    assert "|2, deployed|" in text
    top1 = plots(html)["Share of right answers by epoch"]
    assert "50.0 %" in words(top1)


def test_a_run_without_validation() -> None:
    nothing = {"val_loss": None, "val_top1": None, "val_top5": None}
    records = (record(1, **nothing), record(2, train_top1=None, **nothing))
    html = a_page(records=records)
    text = text_of(html)
    assert "there was no validation" in text
    assert "|Training loss|4.500|of epoch 2|" in text
    assert "best" not in text
    assert "validation" not in words(plots(html)["Loss by epoch"])


def test_the_axis_of_one_epoch_has_no_fractions() -> None:
    shown = words(plots(a_page(1))["Images a second by epoch"])
    assert "1" in shown
    assert not any(re.fullmatch(r"[01]\.\d+", word) for word in shown)


def test_crops_are_drawn_where_they_change(html: str) -> None:
    assert "crop, pixels" in words(plots(html)["Learning rate and crop size by epoch"])
    html = a_page(3)
    assert "crop, pixels" not in words(plots(html)["Learning rate and crop size by epoch"])
    assert "its training crops have 64 pixels a side" in text_of(html)


def test_a_run_that_validation_ended() -> None:
    text = text_without_plots(epoch=4, records=tuple(record(e, val_top1=0.3) for e in range(1, 6)))
    assert "ended after 5 of 10 epochs" in text
    assert "Validation did not improve in 5 epochs" in text
    assert "weights of epoch 4, chosen by validation" in text
    assert "|4, deployed|" in text
    whole = text_without_plots(10)
    assert "chosen by validation" not in whole
    assert "did not improve" not in whole
    assert "|10, best, deployed|" in whole


def test_what_was_trained_is_counted() -> None:
    recipe = replace(read_recipe("finetune"), teachers=("regnety-16gf",))
    text = text_without_plots(recipe=recipe, started_from="bundled", remarks=("Nine are twins.",))
    cost = complexity(SPEC, image_size=224)
    assert f"{cost.params:,} parameters, {cost.macs / 1e9:.4g} GMACs at 224 x 224" in text
    assert "|Network|regnety-200mf|" in text
    assert "squeeze-excite of 0.25" in text
    assert "|Started from|bundled|" in text
    assert "|Teacher|regnety-16gf|" in text
    assert "45,000 to train, 5,000 to validate" in text
    assert "Nine are twins." in text
    assert "|Unreadable|" not in text
    assert "|Skipped|" not in text
    torn = text_without_plots(records=(record(1), record(2, skipped=3)))
    assert "|Unreadable|at most 3 in an epoch, skipped|" in torn
    assert "|Skipped|" in torn


def test_every_value_of_the_recipe_is_there(html: str) -> None:
    text = text_of(html).replace("&#34;", '"')
    recipe = read_recipe("finetune").changed("schedule", batch=64)
    for part, values in asdict(recipe).items():
        assert f"|{part}|" in text
        if isinstance(values, dict):
            for name, value in values.items():
                assert f"{name} {json.dumps(value)}" in text
    assert "A learning rate of 0.04 after the warm-up, for 64 images a step." in text


def test_all_texts_are_escaped() -> None:
    recipe = replace(read_recipe("modern"), name=EVIL, teachers=(EVIL,))
    texts = {"dataset": EVIL, "machine": EVIL, "started_from": EVIL, "remarks": (EVIL,)}
    assert "<script>alert" not in a_page(1, folder=Path(EVIL), recipe=recipe, **texts)


def test_many_epochs_make_a_page_of_bearable_size() -> None:
    html = a_page(records=tuple(record(n, loss=1 / n) for n in range(1, 601)))
    assert len(html) < 700_000
    assert "|600, best, deployed|" in text_of(html)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (99.4, "99 s"), (100, "2 min"), (5940, "99 min"), (6000, "1 h 40 min"),
     (5999, "1 h 40 min"), (3600 * 30 + 300, "30 h 05 min")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the sample photos under classes, one of them wrong, and a torn one."""
    top = tmp_path_factory.mktemp("photos")
    cat, espresso, hopper = (photo.read_bytes() for photo in sample_photos())
    for wnid, name, data in (
        ("n02124075", "cat.png", cat),
        ("n07920052", "cup.png", espresso),
        ("n07920052", "man.jpg", hopper),
        ("n07920052", "torn.png", cat[:100]),
    ):
        (top / wnid).mkdir(exist_ok=True)
        (top / wnid / name).write_bytes(data)
    return top


@pytest.fixture(scope="module")
def found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    cache = tmp_path_factory.mktemp("cache")
    return evaluate("bundled", folder, subset=True, cache_dir=cache, offline=True)


def test_the_deployed_models_evaluation(folder: Path, found: Evaluation) -> None:
    photos = open_dataset(folder, found.labels, subset=True)
    html = a_page(10, evaluation=found, photos=photos)
    assert titles(html) == [
        "How it learnt",
        "Calibration, and how classes differ",
        "Confused classes",
        "Worst mistakes",
        "Every class, weakest first",
        "Unreadable photos",
        "Every epoch",
        "What was trained",
        "The recipe",
        "How the model was measured",
    ]
    text = text_of(html)
    share = found.scores.metrics.top1
    assert (
        f"|Top-1|{100 * share.value:.2f} %|{100 * share.low:.2f} to {100 * share.high:.2f} %"
        in text
    )
    assert "|Training loss|" not in text
    assert "Calibration error" in text
    assert html.count("<img") == len(found.scores.worst) > 0
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    without = a_page(10, evaluation=found)
    assert "Worst mistakes" not in titles(without)
    assert "Every class, weakest first" in titles(without)


def test_an_evaluation_of_nothing_readable(tmp_path: Path) -> None:
    (tmp_path / "n02124075").mkdir()
    (tmp_path / "n02124075" / "torn.png").write_bytes(b"no photo")
    nothing = evaluate("bundled", tmp_path, subset=True, cache_dir=tmp_path / "c", offline=True)
    html = a_page(1, evaluation=nothing)
    assert "Every class, weakest first" not in titles(html)
    assert "Unreadable photos" in titles(html)


def learnt() -> FittedCalibration:
    """Return a calibration on drawn answers that are too sure of themselves."""
    random = np.random.default_rng(0)
    truths = random.integers(0, 8, 400)
    logits = random.normal(size=(400, 8)) * 4
    logits[np.arange(400), truths] += 4
    odds = np.exp(logits)
    probabilities = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return learn(probabilities, truths, Fit())


def test_a_calibration_has_its_sentence() -> None:
    taught = learnt()
    text = text_without_plots(1, calibration=taught)
    after, before = (f"{100 * (m.ece or 0):.2f} %" for m in (
        taught.held_out.after, taught.held_out.before
    ))  # fmt: skip
    assert after != before
    assert f"|Calibration error|{after}|{before} before calibration|" in text
    assert (
        f"Calibrated with temperature {taught.calibration.temperature:.3f}: on 200 held-out" in text
    )
    assert "sets meant to hold the true class for 90 % do" in text


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from regnet.pages import html

    html._environment.cache_clear()
    monkeypatch.setattr(html, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="extra 'report'"):
        a_page()
