"""Runs from a folder of photos to a model: what they leave, go on from, refuse and skip."""

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from photo_folders import COLOURS, write_photos

import regnet
from regnet.checkpoints.weights import read_checkpoint, write_safetensors
from regnet.conversion.store import Library
from regnet.data.labelled import Unreadable
from regnet.network.labels import Label, Labels
from regnet.network.modules import RegNet, to_tensors
from regnet.network.spec import AnyNetSpec, Stage
from regnet.pixels.protocol import Preprocess
from regnet.system.errors import (
    DatasetError,
    MismatchError,
    OutputError,
    RecipeError,
    TrainingError,
    UnknownModelError,
)
from regnet.training import deploy
from regnet.training.devices import batch_by_photos, fitting
from regnet.training.history import News, Unseen
from regnet.training.initial_network import begin, open_start
from regnet.training.photo_sets import open_photo_sets
from regnet.training.recipe import Changes, read_recipe, recipe_from_toml, resolved
from regnet.training.run_folder import read_run, write_checkpoint
from regnet.training.task import Devices, Training
from regnet.training.train import train

SPEC = AnyNetSpec(
    stages=(Stage(depth=1, width=8, group_width=8), Stage(depth=1, width=16, group_width=8)),
    stem_width=16,
)
RECIPE = recipe_from_toml(
    """
name = "small"
[optimizer]
lr = 0.4
[schedule]
epochs = 4
batch = 16
warmup_epochs = 1
every = "step"
[input]
resize = 24
crop = 24
interpolation = "bilinear"
offset = "round"
[augmentation]
area = [0.4, 1.0]
[averages]
ema = 0.8
precise_bn = 0
""",
    source="test",
)
LABELS: Labels = tuple(Label("", name) for name in COLOURS)


class Recorder(Unseen):
    """Remembers what it hears; stops after a number of steps."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.steps = 0
        self.lost: list[Unreadable] = []
        self.records: list[Any] = []
        self._stop_after = stop_after

    def news(self, news: News) -> None:
        self.steps += 1

    def epoch(self, record: Any) -> None:
        self.records.append(record)

    def skipped(self, photo: Unreadable) -> None:
        self.lost.append(photo)

    def stop(self) -> bool:
        return self.steps == self._stop_after


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave out the report, which takes longer than the training, and run in an empty folder."""
    monkeypatch.setattr(deploy._Deployment, "report", lambda self: None)
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set with splits: 90 photos to learn from, 30 to validate with."""
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder / "train", 30)
    write_photos(folder / "val", 10, seed=1)
    return folder


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Training:
    """Return a finished run on them, on one thread as all here: more of them round otherwise."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy._Deployment, "report", lambda self: None)
        return a_run(photos, tmp_path_factory.mktemp("runs") / "first")


def a_run(dataset: Path, folder: Path | None, **options: Any) -> Training:
    exact = Devices(accelerator="cpu", precision="32-true")
    options = {"model": SPEC, "recipe": RECIPE, "devices": exact} | options
    return train(dataset, folder=folder, **options)


def weights(training: Training) -> dict[str, torch.Tensor]:
    assert training.weights is not None
    return to_tensors(read_checkpoint(training.weights).state)


def test_a_run_leaves_a_model_that_works(learnt: Training, photos: Path) -> None:
    assert learnt.finished
    assert (learnt.train_photos, learnt.val_photos, learnt.unreadable) == (90, 30, ())
    assert learnt.top1 is not None
    assert learnt.top1 > 0.9
    assert learnt.top1 == learnt.records[-1].val_top1  # the IR is as right as the network was
    assert (learnt.epoch, len(learnt.records)) == (4, 4)
    names = {path.name for path in learnt.folder.iterdir()}
    assert {"recipe.toml", "last.ckpt", "metrics.csv", "weights.safetensors"} <= names
    assert {"first.xml", "first.bin"} <= names
    classifier = learnt.classifier()
    assert classifier.metadata.labels == LABELS
    assert classifier.metadata.preprocess == RECIPE.input.protocol("small")
    assert classifier.classify(photos / "val" / "red" / "000.png").top.label == "red"
    values = json.loads(json.dumps(learnt.to_dict()))
    assert values["evaluation"]["top1"]["value"] == learnt.top1
    assert values["records"][3]["epoch"] == 4
    assert values["recipe"]["schedule"]["batch"] == 16
    assert not learnt.calibrated
    assert "needs 200 photos to validate with, and there are 30" in learnt.remarks[-1]


def test_the_recipe_that_was_followed_gives_the_same_weights(
    learnt: Training, photos: Path, tmp_path: Path
) -> None:
    assert read_recipe(learnt.folder / "recipe.toml") == learnt.recipe
    again = a_run(photos, tmp_path / "again", recipe=learnt.folder / "recipe.toml")
    assert all(torch.equal(a, weights(again)[name]) for name, a in weights(learnt).items())


@pytest.mark.parametrize("steps", [1, 5, 8])
def test_a_stopped_run_ends_as_one_never_stopped(
    steps: int, learnt: Training, photos: Path, tmp_path: Path
) -> None:
    stopped = a_run(photos, tmp_path / "run", watcher=Recorder(steps))
    assert not stopped.finished
    assert stopped.model is None
    with pytest.raises(TrainingError, match=r"not over, so it has no model yet.*resume=True"):
        stopped.classifier()
    resumed = a_run(photos, tmp_path / "run", resume=True)
    assert resumed.finished
    assert all(torch.equal(a, weights(resumed)[name]) for name, a in weights(learnt).items())
    assert [r.loss for r in resumed.records] == pytest.approx([r.loss for r in learnt.records])


def test_teachers_have_their_share(learnt: Training, photos: Path, tmp_path: Path) -> None:
    model = str(learnt.model)
    one = a_run(photos, tmp_path / "one", teacher=model)
    assert any(not torch.equal(a, weights(learnt)[name]) for name, a in weights(one).items())
    stopped = a_run(photos, tmp_path / "two", teacher=[model, model], watcher=Recorder(5))
    assert not stopped.finished
    twice = a_run(photos, tmp_path / "two", teacher=[model, model], resume=True)
    assert all(torch.equal(a, weights(one)[name]) for name, a in weights(twice).items())


def test_a_run_that_ended_can_be_resumed_to_the_same_end(photos: Path, tmp_path: Path) -> None:
    patient = replace(RECIPE.changed("schedule", patience=1, epochs=30), name="patient")
    first = a_run(photos, tmp_path / "run", recipe=patient)
    assert first.finished
    assert 2 <= len(first.records) < 30
    best = min(first.records, key=lambda record: (-record.val_top1, record.val_loss))
    assert (first.epoch, first.top1) == (best.epoch, best.val_top1)
    before = weights(first)
    again = a_run(photos, tmp_path / "run", recipe=patient, resume=True)
    assert len(again.records) == len(first.records)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(again).items())


def test_a_run_is_resumed_only_as_it_was_started(
    learnt: Training, photos: Path, tmp_path: Path
) -> None:
    def resumed(dataset: Path, **options: Any) -> Training:
        return a_run(dataset, learnt.folder, resume=True, **options)

    with pytest.raises(
        TrainingError, match=r"with another recipe \(optimizer.momentum 0.9, now 0.8"
    ):
        resumed(photos, recipe=RECIPE.changed("optimizer", momentum=0.8))
    with pytest.raises(
        TrainingError, match=r"on other photos \(90 of .*train and 30 .*; now 81 of"
    ):
        resumed(photos / "train")
    with pytest.raises(TrainingError, match=r"another network \(stem_width 16; now 24\)") as caught:
        resumed(photos, model=replace(SPEC, stem_width=24))
    run = learnt.folder
    assert f"To resume it as it was: regnet train -o {run} --resume." in str(caught.value)
    assert f"give --weights {run}/weights.safetensors instead of --model" in str(caught.value)
    with pytest.raises(TrainingError, match=r"with other teachers \(none; now bundled:bf16 \["):
        resumed(photos, teacher="bundled:bf16")
    with pytest.raises(
        TrainingError, match=r"from other weights \(none; now .*weights.safetensors"
    ):
        resumed(photos, model=None, weights=learnt.weights)
    with pytest.raises(TrainingError, match="already holds a run: go on with it"):
        a_run(photos, learnt.folder)


def test_what_has_no_checkpoint_yet_starts_from_the_beginning(
    learnt: Training, photos: Path, tmp_path: Path
) -> None:
    """As a supervisor asks that always says --resume; what a killed run left is in no way."""
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / ".lock").touch()
    (killed / "metrics.csv").write_text("epoch")
    (killed / ".regnet-12345678.tmp").write_bytes(b"half a checkpoint")
    for folder in (tmp_path / "none", killed):
        with pytest.raises(TrainingError, match=f"{folder}: there is no run to resume. Name its"):
            train(folder=folder, resume=True)
        said: list[str] = []
        done = a_run(photos, folder, resume=True, say=said.append)
        assert said == [
            f"{folder}: no checkpoint was written yet: the run starts from the beginning"
        ]
        assert all(torch.equal(a, weights(done)[name]) for name, a in weights(learnt).items())
        assert [r.loss for r in done.records] == [r.loss for r in learnt.records]
        assert not list(folder.glob(".regnet-*"))


def test_folders_are_named_and_numbered(photos: Path) -> None:
    name = f"runs/{photos.name}-small"
    assert a_run(photos, None, epochs=1).folder == Path(name)
    assert a_run(photos, None, watcher=Recorder(3)).folder == Path(f"{name}-2")
    last = a_run(photos, None, resume=True)
    assert (last.folder, last.finished) == (Path(f"{name}-2"), True)
    other = replace(RECIPE, name="other")
    Path(f"runs/{photos.name}-other").mkdir()  # of a run that was killed before its first step
    begun = a_run(photos, None, resume=True, recipe=other, watcher=Recorder(3))
    assert begun.folder == Path(f"runs/{photos.name}-other")


def test_a_folder_in_use_or_not_writable_is_found_out_at_once(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    with (
        FileLock(tmp_path / "used" / ".lock"),
        pytest.raises(TrainingError, match="another run is using it"),
    ):
        a_run(photos, tmp_path / "used")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write to"):
        a_run(photos, tmp_path / "file" / "run")


def test_a_full_disk_is_found_out_at_once(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Recorder()
    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    with pytest.raises(OutputError, match="are free, checkpoints need"):
        a_run(photos, tmp_path / "run", watcher=watcher)
    assert watcher.steps == 0


def test_a_photo_that_breaks_in_epoch_3_is_skipped_and_named(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 20)
    victim = tmp_path / "photos" / "red" / "003.png"

    class Breaks(Recorder):
        def epoch(self, record: Any) -> None:
            super().epoch(record)
            if record.epoch == 2:
                victim.write_bytes(victim.read_bytes()[:40])

    watcher = Breaks()
    found = a_run(tmp_path / "photos", tmp_path / "run", watcher=watcher, memory=0, batch=9)
    assert found.finished
    assert [Path(photo.source) for photo in found.unreadable] == [victim]
    assert [photo.source for photo in watcher.lost] == [str(victim)]
    assert [record.skipped for record in watcher.records] == [0, 0, 1, 1]
    assert found.to_dict()["unreadable"] == 1


def test_photos_that_cannot_be_read_are_counted_in_every_split(tmp_path: Path) -> None:
    write_photos(tmp_path / "p" / "train", 12)
    write_photos(tmp_path / "p" / "val", 4, seed=1)
    broken = [tmp_path / "p" / split / "blue" / "000.png" for split in ("train", "val")]
    for path in broken:
        path.write_bytes(b"no photo")
    found = a_run(tmp_path / "p", tmp_path / "run", epochs=1)
    assert {Path(photo.source) for photo in found.unreadable} == set(broken)


def test_photos_none_of_which_can_be_read(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", 3)
    for path in (tmp_path / "p").rglob("*.png"):
        path.write_bytes(b"no photo")
    with pytest.raises(TrainingError, match="none of the 9 photos can be read, such as"):
        a_run(tmp_path / "p", tmp_path / "run")


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _one_class(folder: Path) -> Path:
    return write_photos(folder / "one", 3, classes=["red"])


def _splits_as_classes(folder: Path) -> Path:
    return write_photos(folder / "splits", 3, classes=["test", "holdout", "dev"])


def _copies(folder: Path) -> Path:
    write_photos(folder / "copies" / "train", 6)
    write_photos(folder / "copies" / "val", 6)
    return folder / "copies"


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (_empty, DatasetError, "has no class folders: put the photos of each class in a folder"),
        (_one_class, TrainingError, "one class, red: there is nothing to tell apart. Put the"),
        (_splits_as_classes, DatasetError, "holds the splits"),
        (_copies, TrainingError, "would waste the training.*Validate on other photos"),
        (lambda folder: folder / "absent", DatasetError, "no such file or folder"),
    ],
)
def test_photos_that_are_no_data_set(
    make: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        a_run(make(tmp_path), tmp_path / "run")


def test_what_the_doctor_warns_of_is_said_and_remembered(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", 4)
    said: list[str] = []
    found = a_run(tmp_path / "p", tmp_path / "run", epochs=1, say=said.append)
    assert said[0].startswith("warning: 3 classes have fewer than 10 training photos")
    assert "fewer than 10 training photos" in found.remarks[0]


def test_a_tenth_of_each_class_is_held_out_where_there_is_no_split(photos: Path) -> None:
    one, same, other = (
        open_photo_sets(photos / "train", None, None, seed=seed) for seed in (0, 0, 1)
    )
    assert one.held_out
    assert one.validation is not None
    held = [item.source for item in one.validation.items()]
    assert one.validation.count == len(held) == 9
    assert [item.truth for item in one.validation.items()] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(one.train) == 81
    assert not set(held) & {item.source for item in one.train}
    assert same.validation is not None
    assert other.validation is not None
    assert held == [item.source for item in same.validation.items()]
    assert held != [item.source for item in other.validation.items()]
    assert list(one.validation.find([held[3], "nothing"])) == [held[3]]
    assert [item.source for item in one.validation.items(7)] == held[7:]


def test_named_photos_validate_instead_of_a_split(photos: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "others", 5, seed=5)
    sets = open_photo_sets(photos, tmp_path / "others", None, seed=0)
    assert (len(sets.train), sets.validation and sets.validation.count) == (90, 15)
    assert not sets.held_out


def test_a_pretrained_network_keeps_its_input_and_gets_a_new_head(
    learnt: Training, tmp_path: Path
) -> None:
    write_photos(tmp_path / "p", 16, classes=["rose", "tulip"])
    recipe = RECIPE.changed("transfer", pretrained=True, head="fitted")
    recipe = replace(recipe, input=read_recipe("paper").input)
    said: list[str] = []
    found = a_run(tmp_path / "p", tmp_path / "run", model=learnt.model, recipe=recipe,
                  say=said.append)  # fmt: skip
    assert found.recipe.input == RECIPE.input
    assert [label.name for label in found.classifier().metadata.labels] == ["rose", "tulip"]
    assert any(line.startswith("the new head starts from the features of 28") for line in said)
    with pytest.raises(TrainingError, match=r"knows 3 classes.*2 of the photos.*--recipe finetune"):
        a_run(tmp_path / "p", tmp_path / "run2", model=learnt.model)


def test_a_head_that_knows_the_classes_keeps_them_in_their_order(learnt: Training) -> None:
    start = open_start(learnt.model, None, pretrained=True, library=Library())
    images = torch.randn(6, 3, 24, 24, generator=torch.Generator().manual_seed(0))

    def logits(labels: Labels) -> torch.Tensor:
        network = begin(start, labels, seed=0, new_head=False, images=lambda: [images])
        with torch.no_grad():
            found: torch.Tensor = network.eval()(images)
        return found

    whole = logits(LABELS)
    assert torch.allclose(logits(LABELS[::-1]), whole.flip(1), atol=1e-5)
    assert torch.allclose(logits((LABELS[2], LABELS[0])), whole[:, [2, 0]], atol=1e-5)


def test_weights_start_the_same_from_an_ir_and_from_its_checkpoint(learnt: Training) -> None:
    images = torch.randn(16, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    starts = [
        open_start(source, None, pretrained=True, library=Library())
        for source in (learnt.model, learnt.weights)
    ]
    assert [start.folded for start in starts] == [True, False]
    assert starts[0].protocol == starts[1].protocol == RECIPE.input.protocol("small")
    one, other = (
        begin(start, LABELS, seed=0, new_head=False, images=lambda: [images]).eval()
        for start in starts
    )
    with torch.no_grad():
        assert torch.allclose(one(images), other(images), atol=1e-4)


def test_a_new_head_and_a_random_network_come_from_the_seed(learnt: Training) -> None:
    start = open_start(learnt.weights, None, pretrained=True, library=Library())
    other = (Label("", "rose"), Label("", "tulip"))

    def made(seed: int) -> dict[str, torch.Tensor]:
        return begin(start, other, seed=seed, new_head=True, images=list).state_dict()

    before = torch.random.get_rng_state()
    head = "head.fc.weight"
    assert made(0)[head].shape == (2, 16)
    assert torch.equal(made(0)[head], made(0)[head])
    assert not torch.equal(made(0)[head], made(1)[head])
    assert torch.equal(made(0)["stem.conv.weight"], made(1)["stem.conv.weight"])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_rgb_protocol_is_turned_with_the_weights(tmp_path: Path) -> None:
    rgb = Preprocess(name="x", resize=24, crop=24, channels="RGB", mean=(1, 2, 3), scale=(4, 5, 6))
    path = tmp_path / "x.safetensors"
    state = RegNet(SPEC.with_classes(3)).state_dict()
    write_safetensors(path, state, spec=SPEC.with_classes(3), preprocess=rgb, labels=LABELS)
    start = open_start(path, None, pretrained=True, library=Library())
    assert start.protocol is not None
    assert start.protocol.channels == "BGR"
    assert (start.protocol.mean, start.protocol.scale) == ((3, 2, 1), (6, 5, 4))
    recipe = resolved(RECIPE.changed("transfer", pretrained=True), Changes(), start.protocol)
    assert (recipe.input.mean, recipe.input.crop) == ((3, 2, 1), 24)
    assert recipe.input.protocol("x") == start.protocol


def test_what_a_name_stands_for(learnt: Training, tmp_path: Path) -> None:
    def start(model: Any, weights: Any = None, *, pretrained: bool = False) -> Any:
        library = Library(folder=tmp_path, offline=True)
        return open_start(model, weights, pretrained=pretrained, library=library)

    assert start("regnetx-200mf").state is None
    assert start("regnetx_002").spec == start("regnetx-200mf").spec
    assert start("bundled").source == "bundled"
    assert start(None, learnt.weights).state is not None
    assert start(SPEC, learnt.weights).state is not None
    with pytest.raises(UnknownModelError, match="did you mean regnetx-200mf"):
        start("regnetx-20mf")
    with pytest.raises(regnet.RegNetError, match="is not in the cache"):
        start("regnetx-200mf", pretrained=True)
    with pytest.raises(MismatchError, match="not regnetx-200mf; name that network"):
        start("regnetx-200mf", learnt.weights)
    with pytest.raises(TrainingError, match="which network"):
        start(None)
    with pytest.raises(TrainingError, match="has weights of its own"):
        start("bundled", learnt.weights)
    with pytest.raises(TrainingError, match=r"checkpoint of a run.*weights\.safetensors"):
        start(learnt.folder / "last.ckpt")
    (tmp_path / "x.pyth").write_bytes(b"nothing")
    with pytest.raises(regnet.RegNetError, match=r"x\.pyth"):
        start(tmp_path / "x.pyth")


def test_from_scratch_and_small_stems(learnt: Training, photos: Path, tmp_path: Path) -> None:
    recipe = RECIPE.changed("transfer", pretrained=True)
    options = {"model": learnt.model, "recipe": recipe, "epochs": 1}
    found = a_run(photos, tmp_path / "a", from_scratch=True, small_stem=True, **options)
    assert found.classifier().metadata.spec.stem_stride == 1
    with pytest.raises(TrainingError, match=r"weights for its own stem.*--from-scratch"):
        a_run(photos, tmp_path / "b", small_stem=True, **options)


def test_changes_to_a_recipe() -> None:
    modern = read_recipe("modern")
    same = resolved(modern, Changes(), RECIPE.input.protocol("x"))
    assert same == modern  # a protocol counts for pretrained models only
    made = resolved(modern, Changes(epochs=60, lr=0.1, seed=3, crop=112, batch=0, freeze=2), None)
    assert (made.schedule.epochs, made.schedule.warmup_epochs) == (60, 0.5)
    assert (made.optimizer.lr, made.seed, made.transfer.freeze) == (0.1, 3, 2)
    assert (made.input.crop, made.input.resize) == (112, 116)
    assert made.input.progressive == ((0.0, 64), (0.3, 80), (0.6, 88), (0.9, 112))
    assert made.schedule.batch == 0
    small = resolved(modern, Changes(crop=40), None)
    assert small.input.progressive == ((0.0, 32), (0.3, 32), (0.6, 32), (0.9, 40))
    with pytest.raises(RecipeError, match=r"resize must be .* not 5179"):
        resolved(modern, Changes(crop=5000), None)


@pytest.mark.parametrize(
    ("photos", "gpu", "processes", "batch"),
    [
        (20, False, 1, 16),
        (1_000, False, 1, 32),
        (2_000, False, 1, 64),
        (1_000_000, False, 1, 64),
        (1_000_000, True, 1, 256),
        (1_000_000, True, 8, 2048),
        (2_000, True, 2, 64),
        (20, True, 4, 64),
    ],
)
def test_batches_by_the_number_of_photos(
    photos: int, gpu: bool, processes: int, batch: int
) -> None:
    assert batch_by_photos(photos, gpu=gpu, processes=processes) == batch


def test_batches_that_do_not_fit_are_halved() -> None:
    tried: list[int] = []

    def attempt(batch: int) -> None:
        tried.append(batch)
        if batch > 50:
            raise torch.OutOfMemoryError("full")

    assert fitting(256, attempt) == 32
    assert tried == [256, 128, 64, 32]

    def never(batch: int) -> None:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(TrainingError, match="not even one image fits"):
        fitting(4, never)


def test_the_chosen_batch_is_written_down_and_resumed(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", 20)
    stopped = a_run(tmp_path / "p", tmp_path / "run", batch=0, watcher=Recorder(2))
    assert stopped.recipe.schedule.batch == 16
    assert read_recipe(stopped.folder / "recipe.toml") == stopped.recipe
    assert a_run(tmp_path / "p", tmp_path / "run", batch=0, resume=True).finished


def test_models_are_calibrated_where_photos_suffice(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy, "CALIBRATION", 36)
    val = write_photos(tmp_path / "val", 15, seed=1)
    for name, other in (("red", "blue"), ("blue", "green"), ("green", "red")):
        for number in range(5):  # in the wrong folder: no model gets them all right
            (val / name / f"{number:03}.png").rename(val / other / f"wrong{number}.png")
    found = a_run(photos, tmp_path / "run", val=val)
    assert found.calibrated
    assert found.model == tmp_path / "run" / "run-calibrated.xml"
    calibration = found.classifier().metadata.calibration
    assert calibration is not None
    assert found.to_dict()["calibration"]["calibration"] == calibration.to_dict()


def test_no_devices_of_that_kind(photos: Path, tmp_path: Path) -> None:

    with pytest.raises(TrainingError, match=r"cannot use these devices: .*nonsense"):
        a_run(photos, tmp_path / "run", devices=Devices(accelerator="nonsense"))
    assert not (tmp_path / "run").exists()


def test_unknown_keys_of_a_recipe_are_refused_first(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[schedule]\nepoks = 3\n")
    with pytest.raises(RecipeError, match=r"unknown field 'epoks'; known: epochs, batch"):
        a_run(photos, tmp_path / "run", recipe=path)
    assert not (tmp_path / "run").exists()


def test_crops_that_are_one_pixel_before_the_last_stage(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"crops of 16 pixels .*: take 17 or more \(--crop"):
        a_run(photos, tmp_path / "run", model="regnetx-200mf", crop=16)


def test_stems_that_torch_cannot_train_in_bf16(photos: Path, tmp_path: Path) -> None:
    narrow, bf16 = replace(SPEC, stem_width=8), Devices(accelerator="cpu", precision="bf16-mixed")
    with pytest.raises(TrainingError, match=r"a stem of 8 channels .*Use --precision 32-true"):
        a_run(photos, tmp_path / "run", model=narrow, devices=bf16)
    whole = replace(bf16, precision="32-true")
    assert a_run(photos, tmp_path / "run", model=narrow, devices=whole, epochs=1).finished


def test_nothing_stays_of_a_run_that_could_not_begin(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError):
        a_run(photos, tmp_path / "run", model="nonsense")
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed_by_its_folder_alone(
    learnt: Training, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = a_run(photos, tmp_path / "run", watcher=Recorder(5))
    assert not stopped.finished
    monkeypatch.chdir(learnt.folder)
    resumed = train(folder=tmp_path / "run", resume=True)
    assert resumed.finished
    assert (resumed.train_photos, resumed.val_photos) == (90, 30)
    assert all(torch.equal(a, weights(resumed)[name]) for name, a in weights(learnt).items())
    with pytest.raises(TrainingError, match=r"name the folder of the run to resume"):
        train(resume=True)
    with pytest.raises(TrainingError, match=r"name the photos to train on, or a run to resume"):
        train(model=SPEC)


def test_options_of_the_run_are_found_again_however_it_was_started(
    learnt: Training, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths, classes of a list, a start with weights, teachers, a name."""
    monkeypatch.chdir(photos.parent)
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    options = {
        "val": f"{photos.name}/val",
        "labels": tmp_path / "classes.txt",
        "model": None,
        "weights": learnt.weights,
        "teacher": str(learnt.model),
        "name": "mine",
        "accumulate": 2,
        "epochs": 2,
    }
    whole = a_run(Path(photos.name, "train"), tmp_path / "whole", **options)
    a_run(Path(photos.name, "train"), tmp_path / "parts", watcher=Recorder(2), **options)
    monkeypatch.chdir(tmp_path)
    found = train(folder=tmp_path / "parts", resume=True)
    assert found.model == tmp_path / "parts" / "mine.xml"
    assert [label.name for label in found.classifier().metadata.labels] == ["red", "green", "blue"]
    assert all(torch.equal(a, weights(found)[name]) for name, a in weights(whole).items())
    text = (tmp_path / "parts" / "recipe.toml").read_text()
    assert f'teachers = ["{learnt.model}"]' in text


def test_the_recipe_of_a_run_names_its_teachers(
    learnt: Training, photos: Path, tmp_path: Path
) -> None:
    first = a_run(photos, tmp_path / "a", teacher=str(learnt.model), epochs=1)
    assert read_recipe(tmp_path / "a" / "recipe.toml").teachers == (str(learnt.model),)
    again = a_run(photos, tmp_path / "b", recipe=tmp_path / "a" / "recipe.toml")
    assert all(torch.equal(a, weights(again)[name]) for name, a in weights(first).items())


def test_a_run_is_not_resumed_with_other_teachers(
    learnt: Training, photos: Path, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher.safetensors"
    teacher.write_bytes(learnt.weights.read_bytes())  # type: ignore[union-attr]
    a_run(photos, tmp_path / "run", teacher=str(teacher), watcher=Recorder(1))

    def resumed(**options: Any) -> Training:
        return a_run(photos, tmp_path / "run", resume=True, watcher=Recorder(1), **options)

    with pytest.raises(
        TrainingError, match=r"other teachers \(.*teacher.safetensors \[.*; now none"
    ):
        resumed()
    with pytest.raises(TrainingError, match=r"with other teachers"):
        resumed(teacher=f"{teacher}:bf16")
    with pytest.raises(TrainingError, match=r"let it end, then give --weights"):
        resumed(teacher=[str(teacher), str(teacher)])
    moved = teacher.rename(tmp_path / "moved.safetensors")  # the same teacher
    assert not resumed(teacher=str(moved)).finished
    moved.write_bytes(moved.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(TrainingError, match=r"with other teachers"):
        resumed(teacher=str(moved))


def test_a_resumed_run_may_have_more_epochs_and_another_rate(
    learnt: Training, photos: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    a_run(photos, tmp_path / "run", watcher=Recorder(7))
    more = train(folder=tmp_path / "run", resume=True, epochs=6, lr=0.1, say=said.append)
    assert more.finished
    assert [record.epoch for record in more.records] == [1, 2, 3, 4, 5, 6]
    assert more.recipe == RECIPE.changed("schedule", epochs=6).changed("optimizer", lr=0.1)
    assert said[-1].startswith(
        "warning: From epoch 2 on: optimizer.lr 0.4 -> 0.1, schedule.epochs 4 -> 6; the learning"
    )
    assert said[-1].removeprefix("warning: ") in more.remarks
    assert (tmp_path / "run" / "recipe.toml").read_text().startswith("# From epoch 2 on: ")
    assert read_recipe(tmp_path / "run" / "recipe.toml") == more.recipe
    longer = train(folder=tmp_path / "run", resume=True, epochs=7)  # it had ended
    assert len(longer.records) == 7
    assert longer.remarks[: len(more.remarks) - 1] == more.remarks[:-1]
    same = a_run(photos, tmp_path / "run", resume=True, epochs=7, lr=0.1)
    assert len(same.records) == 7


def test_changes_that_would_have_no_effect_are_refused(photos: Path, tmp_path: Path) -> None:
    patient = RECIPE.changed("schedule", patience=1, epochs=30)
    done = len(a_run(photos, tmp_path / "run", recipe=patient).records)

    def resumed(**options: Any) -> Training:
        return train(folder=tmp_path / "run", resume=True, **options)

    with pytest.raises(TrainingError, match=r"1 epochs without a better validation.*--recipe"):
        resumed(epochs=40)
    with pytest.raises(TrainingError, match=rf"--epochs must be at least {done}"):
        resumed(epochs=done - 1)
    with pytest.raises(
        TrainingError, match=rf"optimizer.lr would change nothing, as all {done} ep"
    ):
        resumed(epochs=done, lr=0.01)
    patience = RECIPE.changed("schedule", patience=30, epochs=done + 1)
    assert len(resumed(recipe=patience).records) == done + 1


def test_checkpoints_of_other_versions_are_refused(photos: Path, tmp_path: Path) -> None:
    a_run(photos, tmp_path / "run", watcher=Recorder(1))
    values = read_run(tmp_path / "run" / "last.ckpt")
    for key in ("command", "about", "notes"):
        write_checkpoint(
            tmp_path / "run" / "last.ckpt", {k: v for k, v in values.items() if k != key}
        )
        with pytest.raises(TrainingError, match=r"was written by another version"):
            train(folder=tmp_path / "run", resume=True)


def test_a_run_that_diverges_goes_on_at_the_rate_that_it_advises(
    photos: Path, tmp_path: Path
) -> None:
    a_run(photos, tmp_path / "run", watcher=Recorder(12))
    rates = [1000.0]
    while rates[-1] > 1:
        try:
            found = train(folder=tmp_path / "run", resume=True, lr=rates[-1])
            break
        except TrainingError as exc:
            advised = re.search(rf"regnet train -o {tmp_path}/run --resume --lr (\S+)$", str(exc))
            rates.append(float(advised[1]) if advised else 0.0)
    assert len(rates) > 1
    assert found.finished
    assert found.records[-1].val_loss < 10  # type: ignore[operator]


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ({"batch": 1}, "--batch 2 or more"),
        ({"batch": 4, "accumulate": 4}, "--accumulate 2 or less"),
        ({"batch": 5, "accumulate": 3}, "--accumulate 2 or less"),
    ],
)
def test_one_image_at_a_time_at_a_small_crop(
    options: dict[str, int], how: str, photos: Path, tmp_path: Path
) -> None:
    one_pixel = {"model": replace(SPEC, stages=SPEC.stages * 2), "crop": 32}
    with pytest.raises(TrainingError, match=rf"one value per channel: take {how}, or crops of 33"):
        a_run(photos, tmp_path / "run", **one_pixel, **options)
    spec = replace(SPEC, stages=SPEC.stages * 2)
    few = {"batch": 30, "accumulate": 15} if "accumulate" in options else {"batch": 45}
    assert a_run(photos, tmp_path / "run", model=spec, crop=32, epochs=1, **few).finished


@pytest.mark.parametrize(
    "error",
    [MemoryError("out"), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")],
)
def test_memory_that_is_refused(
    error: Exception, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refuses(Recorder):
        def __init__(self, after: int) -> None:
            super().__init__()
            self._after = after

        def news(self, news: News) -> None:
            super().news(news)
            if self.steps > self._after:
                raise error

    first = r"too little memory for a batch of 16\. Start again with --accumulate 2 or --batch 8"
    with pytest.raises(TrainingError, match=first):
        a_run(photos, tmp_path / "run", watcher=Refuses(1))
    later = r"too little memory .* parts: regnet train -o \S+ --resume --accumulate 2$"
    with pytest.raises(TrainingError, match=later):
        a_run(photos, tmp_path / "run", watcher=Refuses(6))
    assert train(folder=tmp_path / "run", resume=True, accumulate=2, epochs=2).finished

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("regnet.training.session.LabelledPhotos", refuse)
    with pytest.raises(
        TrainingError, match=r"too little memory .*lower --memory, then: regnet train"
    ):
        train(folder=tmp_path / "run", resume=True)


def test_other_errors_of_torch_stay_as_they_are(photos: Path, tmp_path: Path) -> None:
    class Fails(Recorder):
        def news(self, news: News) -> None:
            raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        a_run(photos, tmp_path / "run", watcher=Fails())


@pytest.mark.parametrize("limit", [100, 21_000])
def test_a_disk_that_fills_while_the_model_is_written(
    limit: int, photos: Path, tmp_path: Path
) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(items: Any, what: str, count: int) -> Any:
        if what.startswith("converting"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        return items

    try:
        with pytest.raises(regnet.RegNetError) as caught:
            a_run(photos, tmp_path / "run", epochs=1, watch=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot write" in str(caught.value)
    assert str(caught.value).endswith(f"mended: regnet train -o {tmp_path / 'run'} --resume")
    assert "\n" not in str(caught.value)
    found = train(folder=tmp_path / "run", resume=True)
    assert (found.finished, len(found.records)) == (True, 1)


def _break(paths: Any) -> None:
    for path in paths:
        path.write_bytes(b"no photo")


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_validation_photos_that_cannot_be_read_do_not_count(
    tmp_path: Path, learnt: Training, memory: int
) -> None:
    write_photos(tmp_path / "p" / "train", 12)
    val = write_photos(tmp_path / "p" / "val", 4, seed=1)
    _break([val / "blue" / "000.png", *(val / "red").iterdir()])
    said: list[str] = []
    found = a_run(
        tmp_path / "p",
        tmp_path / "run",
        say=said.append,
        model=None,
        recipe=RECIPE.changed("transfer", pretrained=True),
        weights=learnt.weights,
        memory=memory,
    )
    assert (found.val_photos, found.val_read, len(found.unreadable)) == (12, 7, 5)
    assert (found.to_dict()["val_read"], found.top1) == (7, 1.0)
    assert all(record.val_top1 == 1.0 for record in found.records)
    for remark in (
        "7 of 12 validation photos can be read; the others do not count.",
        "1 class has no validation photo that can be read: red.",
    ):
        assert said.count(f"warning: {remark}") == 1
        assert remark in found.remarks


@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_validation_photos_none_of_which_can_be_read(tmp_path: Path, memory: int) -> None:
    write_photos(tmp_path / "p" / "train", 12)
    _break(write_photos(tmp_path / "p" / "val", 4, seed=1).rglob("*.png"))
    watcher = Recorder()
    with pytest.raises(
        TrainingError, match="none of the 12 validation photos can be read, such as"
    ):
        a_run(tmp_path / "p", tmp_path / "run", watcher=watcher, memory=memory)
    assert watcher.steps == 0
    assert not (tmp_path / "run").exists()


def test_a_class_without_a_training_photo_that_can_be_read_is_named(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "p", 12)
    _break((photos / "green").iterdir())
    with pytest.raises(
        TrainingError, match=r"1 class has no training photo .* be read: green \(such"
    ):
        a_run(tmp_path / "p", tmp_path / "run")


def test_classes_too_small_to_hold_out_a_tenth_are_said(tmp_path: Path) -> None:
    write_photos(tmp_path / "p", 12, classes=["red", "blue"])
    write_photos(tmp_path / "p", 2, classes=["green"])
    sets = open_photo_sets(tmp_path / "p", None, None, seed=0)
    (found,) = [f for f in sets.findings if f.code == "too-few-to-hold-out"]
    assert found.severity == "warning"
    assert found.text.startswith(
        "1 class is too small to hold out a tenth (under 5 photos): green."
    )
    assert "no photo of them validates" in found.text
    write_photos(tmp_path / "q", 2)
    sets = open_photo_sets(tmp_path / "q", None, None, seed=0)
    assert sets.validation is None
    assert any("no photo validates, so nothing tells" in f.text for f in sets.findings)


def _zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for photo in sorted(folder.rglob("*.png")):
            archive.write(photo, photo.relative_to(folder))
    return path


def test_photos_that_train_and_validate_are_found_by_content(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "a", 6)
    archive = _zipped(photos, tmp_path / "a.zip")
    renamed = tmp_path / "renamed"
    for place, photo in enumerate(sorted(photos.rglob("*.png"))):
        other = renamed / photo.parent.name / f"other{place}.png"
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(photo.read_bytes())
    for train_on, val in ((archive, archive), (photos, archive), (photos, renamed)):
        with pytest.raises(
            TrainingError, match=r"18 of 18 validation photos \(100 %\).*byte by byte"
        ):
            open_photo_sets(train_on, val, None, seed=0)
    fresh = write_photos(tmp_path / "fresh", 6, seed=1)
    assert not _codes(open_photo_sets(photos, fresh, None, seed=0)) & {"same-files"}
    (fresh / "red" / "copy.png").write_bytes((photos / "red" / "000.png").read_bytes())
    sets = open_photo_sets(photos, fresh, None, seed=0)
    (found,) = [f for f in sets.findings if f.code == "same-files"]
    assert (found.severity, found.count) == ("warning", 1)
    assert found.files[0].source.endswith("red/copy.png")


def _codes(sets: Any) -> set[str]:
    return {finding.code for finding in sets.findings}
