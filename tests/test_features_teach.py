"""A head in closed form: the model that is written, what it is honest about, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run_main
from labelled_photos import CLASSES, write_labelled_photos
from test_conversion_export import SMALL
from test_conversion_export import convert as convert_small
from test_inference_embed import _all_convolutional, _written

import regnet
from regnet.conversion.ir_weights import read_ir_weights
from regnet.explanation.activation_maps import Explainer
from regnet.features import taught_model
from regnet.inference.classify import Classifier
from regnet.ir.graph import graph_metadata, read_graph
from regnet.pixels.samples import sample_photos
from regnet.statistics.discriminant import head
from regnet.system.errors import (
    ConversionError,
    DatasetError,
    ModelError,
    OutputError,
    RegNetError,
    WeightsError,
)
from regnet.zoo.catalogue import bundled_path, card_by_name

BUNDLED = bundled_path(card_by_name("bundled"))
PHOTOS = list(sample_photos())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three classes of 16 photos."""
    folder = tmp_path_factory.mktemp("teach") / "photos"
    write_labelled_photos(folder)
    return folder


@pytest.fixture(scope="module")
def taught(folder: Path) -> Path:
    """Return a model of these classes."""
    return regnet.teach(folder, folder.parent / "mine.xml").path


def test_every_command_reads_it_as_a_model(folder: Path, taught: Path, tmp_path: Path) -> None:
    metadata = graph_metadata(read_graph(taught), source="")
    assert [label.wnid for label in metadata.labels] == sorted(CLASSES)
    source = graph_metadata(read_graph(BUNDLED), source="")
    assert metadata.weights_sha384 == source.weights_sha384
    assert metadata.preprocess == source.preprocess
    assert (metadata.name, metadata.card, metadata.spec) == ("mine", "", None)
    result = regnet.evaluate(taught, folder)
    assert result.scores.metrics.top1.value > 0.9
    assert run_main("info", taught).returncode == 0
    assert run_main("convert", taught, "--format", "onnx", "-o", tmp_path).returncode == 0
    np.testing.assert_array_equal(  # so that `search` may compare them
        Classifier(taught).embed(PHOTOS), Classifier(BUNDLED).embed(PHOTOS)
    )


def test_maps_add_up_to_the_logits_of_roots(taught: Path) -> None:
    explained = Explainer(taught).explain(PHOTOS[0], top_k=3)
    for one in explained:
        assert one.map.mean() + one.bias == pytest.approx(one.logit, abs=1e-4)


def test_the_expected_accuracy_is_by_leave_one_out(folder: Path, tmp_path: Path) -> None:
    result = regnet.teach(folder, tmp_path / "m.xml")
    assert result.accuracy is not None
    assert result.accuracy.images == 48
    assert sum(one.accuracy.hits for one in result.classes) == result.accuracy.hits
    assert result.calibration is None
    assert "need 200 photos" in result.remarks[0]
    assert json.loads(json.dumps(result.to_dict()))["head"]["root"] == "root"


def test_one_photo_per_class_is_enough_and_says_what_is_not_known(tmp_path: Path) -> None:
    write_labelled_photos(tmp_path / "photos", each=1)
    result = regnet.teach(tmp_path / "photos", tmp_path / "m.xml")
    assert result.accuracy is None
    assert "are a guess" in result.remarks[0]
    assert regnet.load(result.path).classify(PHOTOS[0]).top.wnid == CLASSES[0]


def test_a_class_is_added_without_the_old_photos(
    folder: Path, taught: Path, tmp_path: Path
) -> None:
    old = Classifier(taught)
    new = tmp_path / "gown"
    new.mkdir()
    for number, photo in enumerate(sorted((folder / CLASSES[2]).iterdir())):
        (new / f"{number}.png").write_bytes(photo.read_bytes())
    result = regnet.teach(new, tmp_path / "more.xml", add=taught)
    assert result.added is not None
    assert 0 <= result.added.changes <= 1
    more = Classifier(result.path)
    assert [label.name for label in more.labels] == [*(la.name for la in old.labels), "gown"]
    before, after = old.probabilities(PHOTOS), more.probabilities(PHOTOS)
    ratio = after[:, :3] / after[:, :3].sum(axis=1, keepdims=True)
    assert np.abs(ratio - before).max() <= 1e-5  # the old classes' logits stay
    with pytest.raises(DatasetError, match=r"has a class gown already: rename the folder"):
        regnet.teach(new, tmp_path / "m.xml", add=result.path)
    with pytest.raises(DatasetError, match="has class folders: add one class at a time"):
        regnet.teach(folder, tmp_path / "m.xml", add=taught)
    with pytest.raises(ModelError, match="was not made by `regnet teach`"):
        regnet.teach(new, tmp_path / "m.xml", add=BUNDLED)


def test_unreadable_photos_are_counted_and_others_go_on(tmp_path: Path) -> None:
    write_labelled_photos(tmp_path / "photos", each=3)
    bad = tmp_path / "photos" / CLASSES[0] / "bad.jpg"
    bad.write_bytes(b"no photo")
    done = run_main("teach", tmp_path / "photos", "-o", tmp_path / "m.xml", "--json")
    result = json.loads(done.stdout)
    assert (done.returncode, result["photos"], result["unreadable"]) == (1, 10, 1)
    assert result["unreadable_images"][0]["source"] == str(bad)
    for photo in (tmp_path / "photos" / CLASSES[0]).glob("*.png"):
        photo.unlink()
    with pytest.raises(DatasetError, match=r"no photo of .* can be read .*bad\.jpg: not an image"):
        regnet.teach(tmp_path / "photos", tmp_path / "other.xml")


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ((), DatasetError, "no images in|no class folders"),
        ((".",), DatasetError, r"has no class folders: .* in another file \(--truth FILE\)$"),
        (("cat",), DatasetError, "has a single class, cat: a classifier needs two or more"),
    ],
)
def test_too_few_classes(
    names: tuple[str, ...], error: type[RegNetError], message: str, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for name in names:
        (tmp_path / "photos" / name).mkdir(exist_ok=True)
        (tmp_path / "photos" / name / "a.png").write_bytes(PHOTOS[0].read_bytes())
    with pytest.raises(error, match=message):
        regnet.teach(tmp_path / "photos", tmp_path / "m.xml")


def test_files_are_replaced_only_by_force(folder: Path, taught: Path) -> None:
    before = taught.read_bytes()
    with pytest.raises(OutputError, match=r"exists: name another file, or replace it with --force"):
        regnet.teach(folder, taught)
    with pytest.raises(OutputError, match=r"ends in \.xml"):
        regnet.teach(folder, taught.with_suffix(".onnx"))
    assert taught.read_bytes() == before
    assert regnet.teach(folder, taught, force=True).path == taught


def test_models_without_features_and_wrong_heads_are_refused(
    folder: Path, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _written(_all_convolutional, tmp_path / "other.xml")
    with pytest.raises(ModelError, match="has no pooled features"):
        regnet.teach(folder, tmp_path / "m.xml", model=other)
    with pytest.raises(WeightsError, match="made by `regnet teach`, not trained"):
        read_ir_weights(taught)
    monkeypatch.setattr(taught_model, "MAX_DELTA", -1.0)
    with pytest.raises(ConversionError, match="nothing was written"):
        regnet.teach(folder, tmp_path / "m.xml")
    assert not list(tmp_path.glob("m.*"))


def test_features_of_any_model_are_taken(folder: Path, tmp_path: Path) -> None:
    convert_small(SMALL, tmp_path / "small.xml")
    first = regnet.teach(folder, tmp_path / "first.xml", model=tmp_path / "small.xml")
    again = regnet.teach(folder, tmp_path / "again.xml", model=first.path)
    assert again.taught.moments == first.taught.moments


def test_damaged_moments_are_refused(taught: Path) -> None:
    from dataclasses import replace

    metadata = graph_metadata(read_graph(taught), source="")
    assert metadata.taught is not None
    moments, tuning = taught_model.read_moments(metadata, 384, source=taught)
    assert np.isfinite(head(moments, tuning).weights).all()
    for text, message in (("AAAA", "are damaged"), ("", "too large to travel")):
        damaged = replace(metadata, taught=replace(metadata.taught, moments=text))
        with pytest.raises(ModelError, match=message):
            taught_model.read_moments(damaged, 384, source=taught)
    for wrong in ({"photos": (10**20, 1)}, {"degrees": 10**400}):
        with pytest.raises(RegNetError, match="must be"):
            replace(metadata.taught, **wrong)  # type: ignore[arg-type]
