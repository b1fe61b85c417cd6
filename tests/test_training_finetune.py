"""`regnet.finetune`: from the bundled model and a few photos to a classifier of them."""

import json
import re
from pathlib import Path

import pytest
import torch
from labelled_photos import write_labelled_photos
from photo_folders import write_photos

import regnet
from regnet.conversion.ir_weights import read_ir_weights
from regnet.conversion.store import Library
from regnet.pixels.samples import sample_photos
from regnet.system.errors import TrainingError
from regnet.training import session
from regnet.training.recipe import read_recipe
from regnet.training.task import Training


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return parts of the three sample photos, whose classes the bundled model knows."""
    folder = tmp_path_factory.mktemp("photos") / "parts"
    write_labelled_photos(folder, each=16)
    for wnid, name in (("n02124075", "cat"), ("n07920052", "coffee"), ("n03763968", "uniform")):
        (folder / wnid).rename(folder / name)
    return folder


@pytest.fixture(scope="module")
def tuned(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "parts"
    return regnet.finetune(photos, epochs=2, crop=48, freeze=2, folder=folder)


def test_the_default_model_is_named_with_the_reason(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, said = list[object](), list[str]()

    def open_start(model: object, *arguments: object, **options: object) -> None:
        opened.append(model)
        raise TrainingError("that is enough")

    monkeypatch.setattr(session, "open_start", open_start)
    with pytest.raises(TrainingError, match="enough"):
        regnet.train(photos, recipe="finetune", folder=tmp_path / "run", say=said.append)
    assert opened == ["bundled"]
    assert "the bundled model, which needs no download" in said[-1]


def test_the_sample_photos_are_told_apart(tuned: Training) -> None:
    classifier = tuned.classifier()
    found = [classifier.classify(path).top.label for path in sample_photos()]
    assert found == ["cat", "coffee", "uniform"]
    assert regnet.load(tuned.model).metadata == classifier.metadata
    assert (tuned.train_photos, tuned.val_photos) == (42, 6)
    assert tuned.top1 is not None
    assert tuned.top1 > 0.5


def test_the_models_own_input_at_another_size(tuned: Training) -> None:
    own = read_ir_weights(Library().ir("bundled")).metadata.preprocess
    used = tuned.classifier().metadata.preprocess
    assert (used.crop, used.resize) == (48, 48)
    assert used.interpolation == own.interpolation
    assert (used.mean, used.scale, used.channels) == (own.mean, own.scale, own.channels)
    recipe = read_recipe("finetune")
    assert recipe.input.crop == 224  # which would be taken with --from-scratch


def test_frozen_parts_stay_as_they_were(tuned: Training) -> None:
    """The stem and the first stage, folded again, are the bundled model's."""
    before = read_ir_weights(Library().ir("bundled")).state
    after = read_ir_weights(tuned.model).state
    for name, array in before.items():
        if not name.startswith("head"):
            same = abs(after[name] - array).max() < 1e-4 * abs(array).max()
            assert same == name.startswith(("stem", "s1.")), name


def test_the_report_shows_the_run_and_what_came_out(tuned: Training) -> None:
    assert tuned.report is not None
    text = re.sub(r"<[^>]+>", "|", tuned.report.read_text()).replace("\N{NO-BREAK SPACE}", " ")
    for expected in (
        "How it learnt",
        "Every epoch",
        "bundled",
        "Its probabilities are not calibrated",
    ):
        assert expected in text
    values = json.loads(json.dumps(tuned.to_dict()))
    assert values["report"] == str(tuned.report)
    assert values["remarks"] == list(tuned.remarks)


def test_other_models_and_options_pass_through(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", 3)
    with pytest.raises(regnet.RegNetError, match=r"nothing\.xml"):
        regnet.finetune(tmp_path / "p", model=tmp_path / "nothing.xml", folder=tmp_path / "r")
    with pytest.raises(regnet.RegNetError, match="freeze = 6 leaves nothing to train"):
        regnet.finetune(tmp_path / "p", freeze=6, crop=32, folder=tmp_path / "r")
