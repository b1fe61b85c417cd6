"""The records of a run: exact values, files that go on where a checkpoint left off."""

import csv
import io
import sys
from pathlib import Path

import pytest

from regnet.system.errors import OutputError, TrainingError
from regnet.training.history import EpochRecord, History, best_record, csv_text


def record(epoch: int, **values: object) -> EpochRecord:
    known = {
        "lr": 0.1 / epoch,
        "crop": 64,
        "loss": 5.0 / epoch,
        "train_top1": 0.01 * epoch,
        "val_loss": 4.0 / epoch,
        "val_top1": 0.02 * epoch,
        "val_top5": 0.03 * epoch,
        "images_per_s": 123.4,
        "seconds": 60.5,
        "skipped": 0,
    }
    return EpochRecord(epoch=epoch, **(known | values))  # type: ignore[arg-type]


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "metrics.csv").read_text())))


def scalars(folder: Path, run: str, tag: str) -> list[tuple[int, float]]:
    """Return what TensorBoard itself reads."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError
    )
    events = accumulator.EventAccumulator(str(folder / "tensorboard" / run))
    events.Reload()
    if tag not in events.Tags()["scalars"]:
        return []
    return [(one.step, one.value) for one in events.Scalars(tag)]


def near(points: list[tuple[int, float]]) -> list[tuple[int, object]]:
    """Return points to compare with what was stored in 32 bits."""
    return [(step, pytest.approx(value, rel=1e-6)) for step, value in points]


def test_a_record_is_read_back_from_a_checkpoint_to_the_last_bit(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    made = record(3, loss=1 / 3, crop=96, train_top1=None)
    torch.save({"history": [made.to_dict()]}, tmp_path / "c.pt")
    values = torch.load(tmp_path / "c.pt", weights_only=True)["history"][0]
    assert EpochRecord.from_dict(values) == made
    assert values["loss"] == 1 / 3


@pytest.mark.parametrize(
    "values", [{}, record(1).to_dict() | {"top2": 1.0}, record(1).to_dict() | {"loss": "low"}]
)
def test_a_record_of_another_version_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match=r"the field 'epoch' is missing|'top2'|not 'low'"):
        EpochRecord.from_dict(values)


def test_csv_has_a_line_an_epoch_with_exact_values(tmp_path: Path) -> None:
    history = History(tmp_path, tensorboard=False)
    assert rows(tmp_path) == []
    history.add(record(1, val_loss=None, val_top1=None, val_top5=None))
    history.add(record(2, loss=0.1 + 0.2))
    assert [one["epoch"] for one in rows(tmp_path)] == ["1", "2"]
    first, second = rows(tmp_path)
    assert first["val_top1"] == ""
    assert float(second["loss"]) == 0.1 + 0.2
    assert list(first) == list(record(1).to_dict())
    assert not (tmp_path / "tensorboard").exists()
    assert (tmp_path / "metrics.csv").read_text() == csv_text(history.records)


def test_epochs_follow_each_other(tmp_path: Path) -> None:
    history = History(tmp_path, [record(1)], tensorboard=False)
    for wrong in (1, 3):
        with pytest.raises(ValueError, match="after 1 epochs"):
            history.add(record(wrong))
    assert len(rows(tmp_path)) == 1


def test_the_best_of_tied_epochs_has_the_lowest_loss() -> None:
    tied = [
        record(n, val_top1=top1, val_loss=loss)
        for n, top1, loss in ((1, 0.9, 0.1), (2, 1.0, 0.8), (3, 1.0, 0.4), (4, 1.0, 0.4))
    ]
    assert best_record(tied) is tied[2]


def test_the_best_is_the_first_of_the_highest_validation() -> None:
    assert best_record([]) is None
    validated = [
        record(n, val_top1=top1, val_loss=1.0) for n, top1 in ((1, 0.5), (2, 0.6), (3, 0.6))
    ]
    best = best_record([*validated, record(4, val_top1=None, loss=0.0)])
    assert best is validated[1]
    blind = [record(n, val_top1=None, loss=loss) for n, loss in ((1, 2.0), (2, 1.0), (3, 1.5))]
    assert best_record(blind) is blind[1]


def test_a_resumed_run_goes_on_and_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    killed = History(tmp_path)
    for epoch in (1, 2, 3):
        for step in (10 * epoch - 10, 10 * epoch - 5):
            killed.step(step, 100.0 + step, 0.5)
        killed.add(record(epoch))
    kept = killed.records[:2]
    assert [step for step, _ in scalars(tmp_path, "steps", "step/loss")] == [0, 5, 10, 15, 20, 25]
    resumed = History(tmp_path, kept, next_step=20)
    assert len(rows(tmp_path)) == 2
    assert resumed.records == kept
    resumed.step(20, 7.0, 0.5)
    resumed.add(record(3, val_top1=0.75))
    assert best_record(resumed.records) is resumed.records[2]
    assert [one["val_top1"] for one in rows(tmp_path)] == ["0.02", "0.04", "0.75"]
    assert scalars(tmp_path, "epochs", "epoch/lr") == near([(1, 0.1), (2, 0.05), (3, 0.1 / 3)])
    assert scalars(tmp_path, "steps", "step/loss") == [
        (0, 100.0), (5, 105.0), (10, 110.0), (15, 115.0), (20, 7.0),
    ]  # fmt: skip


def test_a_run_begun_again_shows_nothing_of_the_one_before(tmp_path: Path) -> None:
    old = History(tmp_path)
    old.step(0, 1.0, 0.1)
    old.add(record(1))
    History(tmp_path)
    assert rows(tmp_path) == []
    assert scalars(tmp_path, "epochs", "loss/train") == []
    assert scalars(tmp_path, "steps", "step/loss") == []


def test_events_are_on_disk_at_once(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.step(0, 2.5, 0.1)
    history.add(record(1, train_top1=None))
    assert scalars(tmp_path, "steps", "step/lr") == near([(0, 0.1)])
    assert scalars(tmp_path, "epochs", "epoch/crop") == [(1, 64.0)]
    assert scalars(tmp_path, "epochs", "top1/train") == []


def test_without_tensorboard_there_is_the_csv_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regnet.training.history.find_spec", lambda name: None)
    history = History(tmp_path / "b")
    history.step(0, 1.0, 0.1)
    history.add(record(1))
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["metrics.csv"]


def test_a_folder_that_cannot_be_written_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*metrics.csv"):
        History(tmp_path / "file")
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*tensorboard"):
        History(tmp_path)


def test_a_full_disk_is_an_error_and_leaves_the_csv_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    history = History(tmp_path, [record(1)], tensorboard=False)
    monkeypatch.setattr("regnet.training.history.write_whole", full)
    with pytest.raises(OutputError, match="No space left on device"):
        history.add(record(2))
    assert len(rows(tmp_path)) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_tensorboard_is_an_error_at_once(tmp_path: Path) -> None:
    history = History(tmp_path)
    events = tmp_path / "tensorboard" / "steps" / "events.out.tfevents.000001"
    events.unlink()
    events.symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left on device"):
        history.step(0, 1.0, 0.1)


def test_events_torn_by_a_kill_do_not_hide_those_of_the_resumed_run(tmp_path: Path) -> None:
    killed = History(tmp_path)
    killed.add(record(1))
    killed.add(record(2))
    events = tmp_path / "tensorboard" / "epochs" / "events.out.tfevents.000001"
    events.write_bytes(events.read_bytes()[:-10])
    resumed = History(tmp_path, killed.records[:1])
    resumed.add(record(2, loss=1.5))
    assert scalars(tmp_path, "epochs", "loss/train") == [(1, 5.0), (2, 1.5)]


def test_other_processes_of_a_run_keep_records_in_memory_alone(tmp_path: Path) -> None:
    history = History(tmp_path / "run", [record(1)], on_disk=False)
    history.step(0, 1.0, 0.1)
    history.add(record(2))
    assert len(history.records) == 2
    assert not (tmp_path / "run").exists()


def test_the_module_needs_no_torch() -> None:
    import subprocess

    code = "import sys, regnet.training.history; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
