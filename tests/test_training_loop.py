"""The training loop: it learns, and a stopped run goes on as if it had never stopped."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators.cpu import CPUAccelerator
from lightning_fabric.plugins.precision.amp import MixedPrecision
from training_runs import CLASSES, SPEC, Recorder, items, job, recipe, resume, run, trainer

from regnet.network.modules import RegNet
from regnet.system.errors import OutputError, TrainingError
from regnet.training.history import History, News, best_record
from regnet.training.loop import Trainer
from regnet.training.run_folder import LAST, read_run
from regnet.training.state import Best, has_exploded, is_off
from regnet.training.teacher import Teacher
from regnet.training.validation import Score

STEPS = 3  # of 96 photos in batches of 32


def weights_of(made: Trainer) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in made.weights.items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def go_on(folder: Path, *, watcher: Recorder | None = None) -> Trainer:
    made = trainer(job(folder, recipe()))
    made.run(resume(made, folder), watcher or Recorder())
    return made


def test_it_learns(tmp_path: Path) -> None:
    watcher = Recorder()
    run(job(tmp_path, recipe(schedule={"epochs": 8})), watcher)
    first, last = watcher.records[0], watcher.records[-1]
    assert last.loss < 0.7 * first.loss
    assert last.val_top1 is not None
    assert last.val_top1 > 0.8  # chance is 0.25
    assert [record.epoch for record in watcher.records] == list(range(1, 9))


def test_the_rate_follows_the_schedule(tmp_path: Path) -> None:
    made, watcher = recipe(), Recorder()
    run(job(tmp_path, made), watcher)
    expected = [made.lr_at(step / STEPS) for step in range(3 * STEPS)]
    heard = [news.lr for news in watcher.heard]
    assert heard == pytest.approx(expected)


@pytest.mark.parametrize("steps", [1, STEPS, STEPS + 2])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path, steps: int) -> None:
    whole = run(job(tmp_path / "whole", recipe()))
    run(job(tmp_path / "parts", recipe()), Recorder(stop_after=steps))
    ended = go_on(tmp_path / "parts")
    assert_same(weights_of(whole), weights_of(ended))
    assert (tmp_path / "whole/metrics.csv").read_text().count("\n") == 4
    records = [read_run(tmp_path / name / LAST)["records"] for name in ("whole", "parts")]
    for one, other in zip(*records, strict=True):
        timeless = {"seconds", "images_per_s"}
        assert {k: one[k] for k in one.keys() - timeless} == {
            k: other[k] for k in other.keys() - timeless
        }


@pytest.mark.parametrize(
    "feed", [{"workers": 2}, {"memory_device": 1 << 20}, {"memory_device": 1 << 20, "workers": 1}]
)
def test_it_does_so_whoever_makes_the_crops(feed: dict[str, int], tmp_path: Path) -> None:
    mixing = recipe(augmentation={"trivial_augment": True, "cutmix": 1.0, "erasing": 0.3})
    whole = run(job(tmp_path / "whole", mixing, **feed))
    run(job(tmp_path / "parts", mixing, **feed), Recorder(stop_after=4))
    made = trainer(job(tmp_path / "parts", mixing, **feed))
    made.run(resume(made, tmp_path / "parts"), Recorder())
    assert_same(weights_of(whole), weights_of(made))
    threads = run(job(tmp_path / "threads", mixing))
    if "memory_device" not in feed:
        assert_same(weights_of(whole), weights_of(threads))


class NeverRead:
    """A watcher that stops after so many steps; nothing is read from the device for it."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def stop(self) -> bool:
        self._left -= 1
        return not self._left


@pytest.fixture
def meta(monkeypatch: pytest.MonkeyPatch) -> Fabric:
    """Return Fabric on torch's device of shapes without values, any read of which is an error."""
    monkeypatch.setattr(CPUAccelerator, "setup_device", lambda self, device: None)
    refusal = "lightning_fabric.fabric._has_meta_device_parameters_or_buffers"
    monkeypatch.setattr(refusal, lambda optimizer: False)
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")
    fabric.strategy._root_device = torch.device("meta")
    assert fabric.device.type == "meta"
    return fabric


@pytest.mark.parametrize("feed", [{}, {"memory_device": 1 << 20}])
def test_nothing_is_read_from_a_device_between_two_news(
    feed: dict[str, int], meta: Fabric, tmp_path: Path
) -> None:
    everything = recipe(
        schedule={"batch": 4},
        optimizer={"clip_norm": 1.0},
        loss={"balanced": True},
        augmentation={
            "trivial_augment": True,
            "cutmix": 1.0,
            "mixup": 0.2,
            "erasing": 0.3,
            "noise_bits": 8.0,
            "stochastic_depth": 0.2,
        },
    )
    protocol = everything.input.protocol("test")
    known = SimpleNamespace(preprocess=protocol)
    teacher = Teacher(RegNet(SPEC).to("meta"), known, range(CLASSES))
    values = job(tmp_path, everything, teachers=(teacher,), **feed)
    history = History(tmp_path, tensorboard=False)
    made = trainer(values, meta)
    assert not made.run_epoch(history, NeverRead(19))
    assert made.state.position.step == 19
    with pytest.raises(RuntimeError, match="meta"):  # the loss is read at step 20
        made.run_epoch(history, NeverRead(1))


@pytest.mark.parametrize(("rarely", "saves"), [(False, [1, 2, 3]), (True, [1, 3])])
def test_a_fast_device_does_not_wait_for_a_checkpoint_of_every_epoch(
    rarely: bool, saves: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    made = trainer(job(tmp_path, recipe()))
    made._saves_rarely = rarely

    def write(path: Path, values: dict[str, Any]) -> None:
        written.append(values["position"]["epoch"])
        time.sleep(0.1)  # 20 times that is longer than two epochs

    monkeypatch.setattr("regnet.training.loop.write_checkpoint", write)
    made.run(History(tmp_path, tensorboard=False), Recorder())
    assert written == saves


def test_what_limits_the_speed_is_said_before_the_second_epoch(tmp_path: Path) -> None:
    watcher = Recorder()
    run(job(tmp_path, recipe()), watcher)
    (text,) = watcher.limits
    assert text.startswith("what limits the speed is the ")


@pytest.mark.parametrize("disturbance", [{"noise_bits": 4.0}, {"stochastic_depth": 0.5}])
def test_what_disturbs_a_network_is_drawn_again_by_a_run_that_goes_on(
    disturbance: dict[str, float], tmp_path: Path
) -> None:
    noisy = recipe(augmentation=disturbance)
    whole = run(job(tmp_path / "whole", noisy))
    run(job(tmp_path / "parts", noisy), Recorder(stop_after=2))
    made = trainer(job(tmp_path / "parts", noisy))
    made.run(resume(made, tmp_path / "parts"), Recorder())
    assert_same(weights_of(whole), weights_of(made))
    quiet = run(job(tmp_path / "quiet", recipe()))
    assert not torch.equal(weights_of(whole)["head.fc.weight"], weights_of(quiet)["head.fc.weight"])


def _train_slowly(folder: Path) -> None:
    torch.set_num_threads(1)

    class Slow(Recorder):
        def stop(self) -> bool:
            time.sleep(0.05)
            return False

    run(job(folder, recipe(schedule={"epochs": 40}), checkpoint_seconds=0.0), Slow())


def test_a_run_killed_at_any_moment_leaves_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_train_slowly, args=(tmp_path,))
    process.start()
    deadline = time.monotonic() + 120
    written = set[int]()
    while len(written) < 5 and time.monotonic() < deadline:
        if (tmp_path / LAST).exists():
            written.add((tmp_path / LAST).stat().st_mtime_ns)
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    values = read_run(tmp_path / LAST)
    stopped = values["position"]["epoch"] * STEPS + values["position"]["step"]
    assert stopped > 0
    made = trainer(job(tmp_path, recipe(schedule={"epochs": 40})))
    made.run(resume(made, tmp_path), Recorder(stop_after=STEPS))
    reference = trainer(job(tmp_path / "other", recipe(schedule={"epochs": 40})))
    reference.run(
        History(tmp_path / "other", tensorboard=False), Recorder(stop_after=stopped + STEPS)
    )
    assert_same(weights_of(reference), weights_of(made))


def fp16() -> Fabric:
    """Return Fabric as on a GPU without bf16; the scale of gradients doubles every two steps."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=2)
    plugin = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
    return Fabric(accelerator="cpu", devices=1, plugins=[plugin])


def test_in_fp16_gradients_are_scaled_but_not_when_they_are_clipped(tmp_path: Path) -> None:
    clipped, watchers = recipe(optimizer={"clip_norm": 0.5}), [Recorder(), Recorder()]
    exact = trainer(job(tmp_path / "32", clipped))
    exact.run(History(tmp_path / "32", tensorboard=False), watchers[0])
    scaled = trainer(job(tmp_path / "16", clipped), fp16())
    scaled.run(History(tmp_path / "16", tensorboard=False), watchers[1])
    losses = [[record.loss for record in watcher.records] for watcher in watchers]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert losses[1][-1] < 0.95 * losses[1][0]
    stopped = trainer(job(tmp_path / "parts", clipped), fp16())
    stopped.run(History(tmp_path / "parts", tensorboard=False), Recorder(stop_after=5))
    ended = trainer(job(tmp_path / "parts", clipped), fp16())
    ended.run(resume(ended, tmp_path / "parts"), Recorder())
    assert_same(weights_of(scaled), weights_of(ended))
    scales = [made.fabric.strategy.precision.state_dict()["scale"] for made in (scaled, ended)]
    assert scales == [2.0**12, 2.0**12]  # 2^8, doubled four times in nine steps


def test_unreadable_photos_are_left_out_counted_and_told(tmp_path: Path) -> None:
    watcher = Recorder()
    run(job(tmp_path, recipe(), photos=items(96, broken=(5, 40))), watcher)
    assert {photo.source for photo in watcher.lost} == {"photo-5.png", "photo-40.png"}
    assert [record.skipped for record in watcher.records] == [2, 2, 2]


def test_a_batch_of_which_nothing_can_be_read_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"none of 32 photos .* such as photo-\d+.png: truncated"
    ):
        run(job(tmp_path, recipe(), photos=items(broken=tuple(range(96)))))


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(tmp_path: Path) -> None:
    wild = recipe(optimizer={"lr": 1e3, "weight_decay": 1e30}, schedule={"warmup_epochs": 0.0})
    with pytest.raises(TrainingError, match=r"epoch 1, step \d+ of 3, at a learning rate of"):
        run(job(tmp_path, wild))
    assert not (tmp_path / LAST).exists()


def test_patience_ends_a_run_that_gets_no_better(tmp_path: Path) -> None:
    still = recipe(optimizer={"lr": 1e-12}, schedule={"epochs": 50, "patience": 2})
    watcher = Recorder()
    made = run(job(tmp_path, still), watcher)
    assert len(watcher.records) == made.state.best.epoch + 2 < 50


def test_of_epochs_that_tie_the_best_has_the_lowest_validation_loss(tmp_path: Path) -> None:
    scores = [(0.5, 1.0), (1.0, 0.9), (1.0, 0.4), (1.0, 0.6), (1.0, 0.5)]
    made = trainer(job(tmp_path, recipe(schedule={"epochs": 9, "patience": 2})))
    made._validate = lambda: Score(loss=scores[made.state.position.epoch][1],  # type: ignore[method-assign]
                                   top1=scores[made.state.position.epoch][0], top5=1.0)  # fmt: skip
    history = History(tmp_path, tensorboard=False)
    made.run(history, Recorder())
    assert made.state.best.epoch == 3
    assert len(history.records) == 5  # a lower loss is better: patience counts from epoch 3
    assert best_record(history.records) == history.records[2]


def test_erased_rectangles_have_the_mean_of_the_input(tmp_path: Path) -> None:
    mean = (10.0, 20.0, 30.0)
    made = trainer(job(tmp_path, recipe(input={"mean": mean}, augmentation={"erasing": 1.0})))
    step = next(made.feed.steps(0))
    images, _ = made._augmented(step.parts[0], 0)
    assert (images == torch.tensor(mean).view(1, 3, 1, 1)).all(1).flatten(1).any(1).all()


def test_parts_of_a_batch_give_the_gradient_of_the_whole(tmp_path: Path) -> None:
    head_alone = recipe(
        transfer={"freeze": 3}, averages={"ema": 0.0, "precise_bn": 0}, schedule={"batch": 96}
    )
    photos = items(192)
    whole = run(job(tmp_path / "1", head_alone, photos=photos), Recorder(stop_after=2))
    parts = run(
        job(tmp_path / "3", head_alone, photos=photos, accumulate=3), Recorder(stop_after=2)
    )
    a, b = whole.weights["head.fc.weight"], parts.weights["head.fc.weight"]
    start = trainer(job(tmp_path / "0", head_alone)).weights["head.fc.weight"]
    assert (a - start).norm() > 0.01
    torch.testing.assert_close(a, b)  # BN does not see the parts: its layers are frozen


def test_frozen_parts_stay_as_they_are(tmp_path: Path) -> None:
    made = run(
        job(tmp_path, recipe(transfer={"freeze": 2}, averages={"precise_bn": 0, "ema": 0.0}))
    )
    fresh = trainer(job(tmp_path / "other", recipe())).weights
    for name, tensor in made.weights.items():
        frozen = name.startswith(("stem.", "s1."))
        if name.endswith(("conv.weight", ".f.a.weight", "running_mean", "fc.weight")):
            assert torch.equal(tensor, fresh[name]) == frozen, name


def test_an_unwritable_folder_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write to"):
        trainer(job(tmp_path / "file", recipe()))


def test_weights_that_are_not_finite_are_seen_before_a_checkpoint(tmp_path: Path) -> None:
    """The last step of an epoch spoils the weights: no loss has told of it yet."""

    class Spoils(Recorder):
        def news(self, news: News) -> None:
            super().news(news)
            if (news.epoch, news.step) == (2, STEPS):
                made.state.bare.head.fc.bias.data[1] = float("inf")

    made = trainer(job(tmp_path, recipe(averages={"ema": 0.0})))
    with pytest.raises(TrainingError) as caught:
        made.run(History(tmp_path, tensorboard=False), Spoils())
    message = str(caught.value)
    assert "weights are not finite any more, in epoch 2, step 3 of 3" in message
    assert message.endswith(f"rate: regnet train -o {tmp_path} --resume --lr 0.04")
    values = read_run(tmp_path / LAST)
    assert values["position"] == {"epoch": 1, "step": 0}
    assert all(torch.isfinite(t).all() for t in values["network"].values())


def test_a_validation_loss_that_is_no_number_is_seen_before_a_checkpoint(tmp_path: Path) -> None:
    made = trainer(job(tmp_path, recipe()))
    losses = iter([1.0, float("nan")])
    made._validate = lambda: Score(next(losses), 0.5, 1.0)  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="the validation loss is nan, in epoch 2"):
        made.run(History(tmp_path, tensorboard=False), Recorder())
    assert read_run(tmp_path / LAST)["position"] == {"epoch": 1, "step": 0}


def test_a_loss_that_explodes_is_seen_before_a_checkpoint(tmp_path: Path) -> None:
    made = trainer(job(tmp_path, recipe(optimizer={"lr": 40.0}, averages={"ema": 0.0})))
    made.state.bare.head.fc.weight.data *= 1e6
    with pytest.raises(TrainingError, match=r"the loss has grown to \S+, in .* No checkpoint was"):
        made.run(History(tmp_path, tensorboard=False), Recorder(stop_after=2))
    assert not (tmp_path / LAST).exists()


def test_a_loss_may_be_as_much_larger_as_its_weights(tmp_path: Path) -> None:
    plain = job(tmp_path, recipe())
    rare = [item for item in items(96) if item.truth or item.source == "photo-0.png"]
    balanced = job(tmp_path, recipe(loss={"balanced": True}), photos=rare)
    assert [has_exploded(loss, plain) for loss in (2.0, 70.0, 80.0, float("nan"))] == [
        *(False, False),
        *(True, True),
    ]
    assert not has_exploded(1000.0, balanced)  # one photo of 73 counts as much as 24
    assert has_exploded(1500.0, balanced)


@pytest.mark.parametrize(
    ("loss", "best", "off"), [(1e9, 0.0, False), (1e9, 2.0, True), (60.0, 2.0, False)]
)
def test_the_first_validation_sets_no_limit(
    loss: float, best: float, off: bool, tmp_path: Path
) -> None:
    known = Best(top1=0.5, loss=best, epoch=1) if best else Best()
    assert is_off(Score(loss, 0.5, 1.0), known, job(tmp_path, recipe())) is off
