"""The command `regnet train`: what it prints, writes and returns, and how it is stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import run_main
from photo_folders import write_photos

from regnet.cli.runs import Stopping, TrainingDisplay
from regnet.data.labelled import Unreadable
from regnet.training.history import EpochRecord, News
from regnet.training.task import Command, Devices

SMALL = ("--model", "regnetx-200mf", "--small-stem", "--crop", "16", "--batch", "16")


def start(*arguments: object, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "regnet", "train", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def run(*arguments: object, folder: Path, code: int = 0) -> tuple[str, str]:
    process = start(*arguments, folder=folder)
    out, errors = process.communicate(timeout=200)
    assert process.returncode == code, errors
    return out, errors


def test_a_run_says_what_came_out(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos" / "train", 20)
    write_photos(tmp_path / "photos" / "val", 2, seed=1)
    broken = tmp_path / "photos" / "train" / "red" / "007.png"
    broken.write_bytes(b"no photo")
    out, errors = run("photos", *SMALL, "--epochs", 2, "-o", "first", folder=tmp_path, code=1)
    lines = out.splitlines()
    assert lines[0] == "first/first.xml"
    assert lines[2] == "Photos      60 to train on, 6 to validate on"
    assert lines[3] == "Epochs      2 of 2; the model is of epoch 2"
    assert re.fullmatch(r"Validation  top-1 \d+\.\d\d %, top-5 100\.00 %", lines[4])
    assert lines[5] == "Calibrated  no"
    assert lines[6] == "Report      first/report.html"
    assert lines[8] == "Unreadable photos"
    assert re.search(r"red/007\.png +\w+", lines[11])
    assert (tmp_path / "first" / "report.html").is_file()
    assert "epoch" not in errors  # quiet where there is no terminal
    assert "AMP" not in errors
    assert len(re.findall("skipped", errors)) == 1


def test_a_run_to_resume_knows_its_file_of_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    command = Command(dataset="train", truth="train.csv", devices=Devices())
    values = json.loads(json.dumps(command.to_dict()))
    assert Command.from_dict(values).truth == "/train.csv"
    del values["truth"]  # of a run that an older version started
    assert Command.from_dict(values).truth is None


def test_json_has_all_figures(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 12)
    out, _ = run("photos", *SMALL, "--epochs", 1, "--json", folder=tmp_path)
    values = json.loads(out)
    assert values["folder"] == "runs/photos-modern"
    assert values["finished"] is True
    assert values["recipe"]["input"]["crop"] == 16
    assert Path(tmp_path, values["model"]).is_file()


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 20)
    process = start("photos", *SMALL, "--epochs", 4000, folder=tmp_path)
    checkpoint = tmp_path / "runs" / "photos-modern" / "last.ckpt"
    deadline = time.monotonic() + 100
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    written = checkpoint.stat().st_mtime_ns
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert out == ""
    assert "stopping after this step; once more stops at once" in errors
    assert checkpoint.stat().st_mtime_ns > written
    command = re.search(r"go on with: regnet train (.*)\n", errors)
    assert command is not None
    assert command[1].endswith("-o runs/photos-modern --resume")
    written, deadline = checkpoint.stat().st_mtime_ns, time.monotonic() + 100
    process = start(*command[1].split(), folder=tmp_path)  # it goes on, and takes SIGTERM, too
    while checkpoint.stat().st_mtime_ns == written and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert (tmp_path / "runs" / "photos-modern" / "metrics.csv").read_text().count("\n") > 1


def test_what_cannot_run_ends_with_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_main("train", "absent")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"regnet: no such file or folder: absent\n"
    assert not list(tmp_path.iterdir())


def news(**values: float) -> News:
    known = {"epoch": 2, "epochs": 9, "step": 3, "steps": 7, "loss": 1.5, "top1": 0.25}
    known |= {"lr": 0.1, "images_per_s": 1234.5, "seconds_left": 3725.0}
    return News(**(known | values))  # type: ignore[arg-type]


def test_the_first_signal_asks_and_the_second_ends() -> None:
    stopping = Stopping()
    display = TrainingDisplay(stopping)
    before = signal.getsignal(signal.SIGTERM)
    with stopping.listening():
        with pytest.raises(KeyboardInterrupt):  # nothing is lost yet
            signal.raise_signal(signal.SIGINT)
        display.news(news())
        assert not display.stop()
        signal.raise_signal(signal.SIGTERM)
        assert display.stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_after_training_the_first_signal_ends() -> None:
    stopping = Stopping()
    display = TrainingDisplay(stopping)
    with stopping.listening():
        display.news(news())
        assert list(display.watch([1, 2], "measuring", 2)) == [1, 2]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_on_a_terminal_a_line_moves_and_an_epoch_stays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    display = TrainingDisplay(Stopping())
    display.news(news())
    display.epoch(
        EpochRecord(
            epoch=2,
            lr=0.1,
            crop=64,
            loss=1.25,
            train_top1=0.5,
            val_loss=1.0,
            val_top1=0.625,
            val_top5=0.9,
            images_per_s=1000.0,
            seconds=9.0,
            skipped=0,
        )
    )
    display.close()
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "epoch    2  loss 1.250  validation top-1 62.50 %  1,000 images/s" in shown
    assert "epoch 2 of 9" in shown
    assert "3/7 loss 1.500  top-1 25.0 %" in shown
    assert "1,234 images/s  1:02:05 left" in shown


def test_only_the_first_unreadable_photos_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    display = TrainingDisplay(Stopping())
    for number in range(20):
        display.skipped(Unreadable(f"{number}.png", "truncated"))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "skipped 0.png: truncated"
    assert lines[9:] == ["skipped 9.png: truncated", "skipped more; the end says how many"]
