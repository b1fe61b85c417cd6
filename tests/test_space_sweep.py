"""Sweeps: one record a run, the same ones after any kill, and failures that are records."""

import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from photo_folders import write_photos

from regnet.network.complexity import complexity
from regnet.network.spec import AnyNetSpec, Spec, Stage, spec_to_dict
from regnet.space import sweep_run
from regnet.space.plans import Budget, Population
from regnet.space.records import RunRecord, read_records
from regnet.space.sampling import Window
from regnet.space.sweep import Swept, UnseenSweep, read_budget_recipe, sweep
from regnet.space.sweep_run import (
    Course,
    SweepRun,
    memory_limit,
    open_sweep_photos,
    recipe_hash,
    sweep_recipe,
    train_one,
)
from regnet.system.errors import SpaceError, TrainingError, UnknownModelError

SMALL = AnyNetSpec(stem_width=8, stem_stride=1, stages=(Stage(1, 8, 8), Stage(1, 16, 8)))
OTHER = replace(SMALL, stages=(Stage(1, 8, 4), Stage(2, 32, 8, 2)))
TOO_DEEP = AnyNetSpec(stages=tuple(Stage(1, 8, 8) for _ in range(8)))
BUDGET = Budget(epochs=2, resolution=16, batch=16)


def specs(folder: Path, *chosen: Spec, name: str = "mine.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(f"{json.dumps(spec_to_dict(spec))}\n" for spec in chosen))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder / "train", 20)
    write_photos(folder / "val", 5, seed=1)
    return folder


def run(photos: Path, source: Path, output: Path, budget: Budget = BUDGET, **values: Any) -> Swept:
    return sweep(Population(source=source, seed=3), budget, photos, output, **values)


def lasting(record: RunRecord) -> dict[str, Any]:
    """Return what of a record does not depend on when and how fast it ran."""
    return {k: v for k, v in record.to_dict().items() if k not in ("seconds", "started")}


def test_each_network_gets_a_record_and_is_run_once(tmp_path: Path, photos: Path) -> None:
    output, source = tmp_path / "r.jsonl", specs(tmp_path, SMALL, OTHER, SMALL)
    swept = run(photos, source, output)
    first, second = read_records([output])
    assert swept.records == (first, second)
    assert (first.space, first.seed, len(swept.new)) == ("mine", 3, 2)
    assert first.spec == SMALL.with_classes(3)
    cost = complexity(first.spec, image_size=16)
    assert (first.params, first.macs, first.acts) == (cost.params, cost.macs, cost.acts)
    assert (first.setting.train_photos, first.setting.val_photos) == (60, 15)
    assert (first.setting.classes, first.setting.image_size, first.setting.epochs) == (3, 16, 2)
    assert first.setting.data.startswith(f"{photos.name}@")
    assert len(first.errors) == len(first.losses) == 2
    assert all(round(15 * error, 6) == round(15 * error) for error in first.errors)
    before = output.read_bytes()
    assert len(run(photos, source, output).new) == 0
    assert output.read_bytes() == before


def test_networks_learn(tmp_path: Path, photos: Path) -> None:
    swept = run(photos, specs(tmp_path, SMALL), tmp_path / "r.jsonl", replace(BUDGET, epochs=8))
    assert swept.best is not None
    assert swept.best.error is not None
    assert swept.best.error < 0.4  # chance is 0.67
    assert swept.best.losses[-1] < 0.8 * swept.best.losses[0]


def test_a_sweep_goes_on_and_ends_with_the_same_records(tmp_path: Path, photos: Path) -> None:
    source, whole = specs(tmp_path, SMALL, OTHER), tmp_path / "whole.jsonl"
    run(photos, source, whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    part = tmp_path / "part.jsonl"
    part.write_bytes(lines[1] + lines[0][:100])  # the first one was killed while it was written
    assert len(run(photos, source, part).new) == 1
    again = {record.key: record for record in read_records([part])}
    for record in read_records([whole]):
        assert lasting(again[record.key]) == lasting(record)


def test_a_killed_process_loses_at_most_the_run_under_way(tmp_path: Path, photos: Path) -> None:
    names = [replace(SMALL, stages=(Stage(1, 8, 8), Stage(n, 16, 8))) for n in (1, 2, 3)]
    source, output = specs(tmp_path, *names), tmp_path / "r.jsonl"
    words = [sys.executable, "-m", "regnet", "space", "sweep", str(source), "--data", str(photos)]
    words += ["--epochs", "6", "--resolution", "16", "--batch", "16", "-o", str(output)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, env=os.environ)
    assert process.stderr is not None
    for line in process.stderr:
        if b"1/3" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = read_records([output])
    assert 1 <= len(kept) < 3
    done = sweep(Population(source=source), replace(BUDGET, epochs=6), photos, output)
    assert len(done.new) == 3 - len(kept)
    assert read_records([output])[: len(kept)] == kept
    assert [record.spec.stages[1].depth for record in read_records([output])] == [1, 2, 3]


def test_what_fails_is_a_record_with_its_reason(tmp_path: Path, photos: Path) -> None:
    output = tmp_path / "r.jsonl"
    source = specs(tmp_path, TOO_DEEP, SMALL)
    failed, done = run(photos, source, output).records
    assert failed.error is None
    assert failed.failure is not None
    assert failed.failure.startswith("crops of 16 pixels are one pixel before the last stage")
    assert done.failure is None
    assert len(run(photos, source, output).new) == 0
    assert len(run(photos, source, output, retry_failed=True).new) == 1
    assert output.read_text().count("\n") == 3
    assert len(read_records([output])) == 2


def test_a_network_that_diverges_is_a_failure(tmp_path: Path, photos: Path) -> None:
    recipe = read_budget_recipe("sweep").changed("optimizer", lr=900.0, weight_decay=1e30)
    swept = run(
        photos, specs(tmp_path, SMALL), tmp_path / "r.jsonl", replace(BUDGET, recipe=recipe)
    )
    assert [str(record.failure).partition(", in ")[0] for record in swept.records] == [
        "diverged: the loss is not a number any more"
    ]
    assert swept.best is None


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_a_network_too_large_for_the_memory_is_a_failure(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.setattr("regnet.space.sweep_run.free_memory", lambda: 200 << 20)
    large = replace(SMALL, stages=(Stage(1, 8192, 8192), Stage(1, 8192, 8192)))
    swept = run(photos, specs(tmp_path, large, SMALL), tmp_path / "r.jsonl")
    failed, done = swept.records
    assert str(failed.failure).startswith("out of memory")
    assert done.failure is None
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_free_memory_is_had() -> None:
    import numpy as np

    with memory_limit():
        assert np.ones(1 << 20).sum() == 1 << 20


def test_the_same_run_gives_the_same_errors_wherever_its_photos_came_from(photos: Path) -> None:
    recipe = read_budget_recipe("sweep").changed("schedule", epochs=2, batch=16)
    recipe = sweep_recipe(recipe.changed("input", resize=20, crop=16))
    course = Course(
        recipe=recipe, photos=open_sweep_photos(photos, None, recipe), precision="32-true"
    )
    chosen = SweepRun(space="s", spec=OTHER.with_classes(3), seed=5)
    one = train_one(chosen, course)
    other = train_one(chosen, pickle.loads(pickle.dumps(course)))
    assert lasting(one) == lasting(other)
    assert one.key == chosen.key(course.setting)
    assert train_one(replace(chosen, seed=6), course).losses != one.losses


def test_photos_are_decoded_once_for_all_runs(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from regnet.training import photos as module

    counts = {"decode_within": 0, "crop_pixels": 0}

    def counted(name: str, do: Any, *args: Any) -> Any:
        counts[name] += 1
        return do(*args)

    for name in counts:
        monkeypatch.setattr(module, name, partial(counted, name, getattr(module, name)))
    run(photos, specs(tmp_path, SMALL, OTHER), tmp_path / "r.jsonl")
    assert counts == {"decode_within": 60, "crop_pixels": 15}


def test_unreadable_photos_are_told_of_and_left_out(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 20)  # without splits: a tenth of each class validates
    (tmp_path / "photos" / "red" / "007.png").write_bytes(b"no photo")
    said: list[str] = []
    source, output = specs(tmp_path, SMALL), tmp_path / "r.jsonl"
    swept = run(tmp_path / "photos", source, output, say=said.append)
    assert len(said) == 1
    assert "1 photos cannot be read and are left out, such as " in said[0]
    assert swept.setting.train_photos + swept.setting.val_photos == 60
    assert swept.records[0].failure is None


def test_runs_of_another_setting_are_refused(tmp_path: Path, photos: Path) -> None:
    source, output = specs(tmp_path, SMALL), tmp_path / "r.jsonl"
    run(photos, source, output)
    with pytest.raises(SpaceError, match=r"another setting \(epochs 2, not 3\)"):
        run(photos, source, output, replace(BUDGET, epochs=3))


def test_the_recipes_hash_is_of_all_but_the_seed() -> None:
    recipe = read_budget_recipe("sweep")
    assert recipe_hash(recipe, "32-true") == recipe_hash(replace(recipe, seed=9), "32-true")
    others = [
        recipe_hash(recipe, "bf16-mixed"),
        recipe_hash(recipe.changed("optimizer", lr=0.2), "32-true"),
    ]
    assert len({recipe_hash(recipe, "32-true"), *others}) == 3


def test_photos_that_do_not_fit_are_an_error(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(TrainingError, match="do not fit into"):
        run(photos, specs(tmp_path, SMALL), tmp_path / "r.jsonl", replace(BUDGET, memory=5000))


def test_what_is_no_population_is_an_error(tmp_path: Path, photos: Path) -> None:
    output = tmp_path / "r.jsonl"
    with pytest.raises(UnknownModelError, match="neither a file of specs nor a design space"):
        sweep(Population(source="nothing"), BUDGET, photos, output)
    (tmp_path / "bad.jsonl").write_text('{"d": 3}\n')
    with pytest.raises(SpaceError, match=r"bad\.jsonl, line 1: not a network"):
        run(photos, tmp_path / "bad.jsonl", output)
    ranged = Population(source=specs(tmp_path, SMALL), window=Window(macs=(0, 9)))
    with pytest.raises(SpaceError, match="is a file"):
        sweep(ranged, BUDGET, photos, output)


def test_a_space_is_sampled_for_these_photos(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The networks are those of `regnet space sample`; they are not trained here."""

    def fail(*args: object) -> None:
        raise RuntimeError("not now")

    monkeypatch.setattr(sweep_run, "_train", fail)
    window = Window(macs=(500_000, 900_000))
    population = Population(source="AnyNetX-E", count=3, seed=1, window=window, small_stem=True)
    heard: list[tuple[str, int, int]] = []

    class Watcher(UnseenSweep):
        def planned(self, space: str, there: object, left: int) -> None:
            heard.append((space, len(list(there)), left))  # type: ignore[call-overload]

    swept = sweep(population, BUDGET, photos, tmp_path / "r.jsonl", watcher=Watcher())
    assert heard == [("anynetx-e", 0, 3)]
    assert {record.failure for record in swept.records} == {"RuntimeError: not now"}
    for record in swept.records:
        assert 500_000 <= record.macs <= 900_000
        assert (record.spec.stem_width, record.spec.stem_stride) == (16, 1)
        assert record.seed == 1
