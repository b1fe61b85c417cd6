"""The feed: whose photos are whose, nothing missing, and the same crops made ahead or not."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric.strategies import ModelParallelStrategy
from training_runs import items, job, recipe, run

from regnet.system.errors import TrainingError
from regnet.training.devices import layout
from regnet.training.feed import Feed, runs
from regnet.training.photos import CentreCrops

CPU = torch.device("cpu")


def process(rank: int = 0, count: int = 1) -> SimpleNamespace:
    return SimpleNamespace(rank=rank, count=count)


@pytest.mark.parametrize(("batch", "parts", "count"), [(64, 1, 2), (128, 2, 2), (33, 3, 4)])
def test_the_processes_share_each_part_of_a_batch(batch: int, parts: int, count: int) -> None:
    shares = [runs(batch, parts, process(rank, count)) for rank in range(count)]
    places = np.arange(batch)
    for part, expected in enumerate(np.array_split(places, parts)):
        together = np.concatenate([places[share[part]] for share in shares])
        assert together.tolist() == expected.tolist()


def test_too_many_processes_for_a_batch_are_refused() -> None:
    with pytest.raises(TrainingError, match="a batch of 7 photos is too small for 4 processes"):
        runs(7, 2, process(0, 4))


def test_unreadable_photos_make_room_for_others(tmp_path: Path) -> None:
    feed = Feed(job(tmp_path, recipe(), photos=items(32, broken=(3, 9))), process(), CPU)
    (step,) = feed.steps(0)
    (part,) = step.parts
    assert {photo.source for photo in step.unreadable} == {"photo-3.png", "photo-9.png"}
    assert len(part.crops) == len(part.truths) == 32
    assert torch.equal(part.crops[:2], part.crops[30:])


def test_a_gpu_gets_the_same_crops_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(1) or self)
    made = job(tmp_path, recipe())
    here = list(Feed(made, process(), CPU).steps(1, first=1))
    there = list(Feed(made, process(), torch.device("cuda")).steps(1, first=1))
    assert [step.number for step in here] == [step.number for step in there] == [1, 2]
    assert len(pinned) == 4
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.parts[0].crops, other.parts[0].crops)
        assert torch.equal(one.parts[0].truths, other.parts[0].truths)


def test_the_processes_share_each_batch_to_validate_with() -> None:
    whole = CentreCrops(items(9), recipe().input.protocol("test"), batch=4)
    shares = [list(whole.shared(rank, 2).batches()) for rank in range(2)]
    for batch, *parts in zip(whole.batches(), *shares, strict=True):
        for rank, part in enumerate(parts):
            assert np.array_equal(part.crops, batch.crops[rank::2])
            assert np.array_equal(part.truths, batch.truths[rank::2])
    assert len(shares[1][-1].truths) == 0


def test_torchruns_numbers_go_before(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"TORCHELASTIC_RUN_ID": "a", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    placed = layout("auto", 1, "auto", on_cpu=True)
    assert placed == {"devices": 4, "num_nodes": 2, "strategy": "auto"}


def test_strategies_by_name() -> None:
    assert layout("auto", 1, "auto", on_cpu=True)["devices"] == 1
    assert layout("auto", 1, "auto", on_cpu=False)["devices"] == "auto"
    assert isinstance(layout(2, 1, "fsdp", on_cpu=True)["strategy"], ModelParallelStrategy)
    assert layout(2, 1, "ddp_spawn", on_cpu=True)["strategy"] == "ddp_spawn"


def test_a_compiled_network_is_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []

    def note(network: torch.nn.Module, **options: object) -> torch.nn.Module:
        compiled.append(options)
        return network

    plain = run(job(tmp_path / "plain", recipe()))
    assert not compiled  # on a CPU it does not pay
    monkeypatch.setattr(torch, "compile", note)
    other = run(job(tmp_path / "compiled", recipe(), compile=True))
    assert compiled == [{"dynamic": False}]
    for name, tensor in plain.weights.items():
        assert torch.equal(tensor, other.weights[name])
