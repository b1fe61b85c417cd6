"""The studies in the repository: their records are whole, and their reports are of them."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from regnet.network.complexity import complexity
from regnet.space.records import read_records
from regnet.space.sampling import Frame, Window, sample, space_by_name

FOLDER = Path(__file__).parent.parent / "studies" / "imagenette-48"


@pytest.fixture(scope="module")
def records():
    return read_records([FOLDER / "records.jsonl"])


def test_each_space_has_networks_enough(records) -> None:
    counts = Counter(record.space for record in records if record.error is not None)
    assert len(records) >= 60
    assert len(counts) == 7
    assert min(counts.values()) >= 8


def test_records_have_the_costs_of_their_networks(records) -> None:
    for record in records:
        cost = complexity(record.spec, image_size=record.setting.image_size)
        assert (record.params, record.macs, record.acts) == (cost.params, cost.macs, cost.acts)
        assert len(record.errors) == record.setting.epochs


def test_the_networks_are_those_that_the_command_draws(records) -> None:
    by_space: dict[str, list] = {}
    for record in records:
        by_space.setdefault(record.space, []).append(record.spec)
    for name, specs in by_space.items():
        window = Window(macs=(3_000_000, 3_400_000))
        frame = Frame(image_size=48, classes=10)
        drawn = sample(space_by_name(name), len(specs), seed=0, window=window, frame=frame)
        assert specs == [one.spec for one in drawn]


def test_the_report_is_of_the_records() -> None:
    digest = hashlib.sha256((FOLDER / "records.jsonl").read_bytes()).hexdigest()
    assert digest in (FOLDER / "report.html").read_text("utf-8")


def test_the_photos_are_named(records) -> None:
    names = (FOLDER / "photos.txt").read_text("utf-8").split()
    setting = records[0].setting
    counts = Counter(name.partition("/")[0] for name in names)
    assert counts == {"train": setting.train_photos, "val": setting.val_photos}
