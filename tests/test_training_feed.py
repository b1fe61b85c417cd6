"""The feed: whose photos are whose, nothing missing, and the same crops made ahead or not."""

import io
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_fabric.strategies import ModelParallelStrategy
from PIL import Image
from scipy.stats import beta, binomtest, kstest
from training_runs import items, job, recipe, run

from regnet.data.labelled import LabelledItem
from regnet.pixels.opencv_resize import linear_crop
from regnet.system.errors import TrainingError
from regnet.training.crops import TRIES, crop, random_boxes, uniforms
from regnet.training.devices import layout
from regnet.training.draws import Mixing
from regnet.training.feed import Feed, runs
from regnet.training.microbatch import Step
from regnet.training.photos import CentreCrops, LabelledPhotos
from regnet.training.recipe import Augmentation
from regnet.training.state import Job

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
    made = job(tmp_path, recipe(), workers=0)
    here = list(Feed(made, process(), CPU).steps(1, first=1))
    there = list(Feed(made, process(), torch.device("cuda")).steps(1, first=1))
    assert [step.number for step in here] == [step.number for step in there] == [1, 2]
    assert len(pinned) == 4
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one.parts[0].crops, other.parts[0].crops)
        assert torch.equal(one.parts[0].truths, other.parts[0].truths)


@pytest.fixture
def mixed(tmp_path: Path) -> Callable[..., Job]:
    """Return a function that makes a job with unreadable photos, in two parts."""

    def make(**values: object) -> Job:
        return job(tmp_path, recipe(), photos=items(80, broken=(3, 9)), accumulate=2, **values)

    return make


def assert_same(one: Step, other: Step) -> None:
    assert one.number == other.number
    assert one.unreadable == other.unreadable
    for part, same in zip(one.parts, other.parts, strict=True):
        assert part.place == same.place
        assert torch.equal(part.crops, same.crops)
        assert torch.equal(part.truths, same.truths)


def test_processes_make_the_crops_that_threads_make(mixed: Callable[..., Job]) -> None:
    here, there = (Feed(mixed(workers=count), process(), CPU) for count in (0, 2))
    assert (here.kind, there.kind) == ("threads", "processes")
    for epoch, first in ((0, 0), (1, 1)):
        steps = zip(here.steps(epoch, first), there.steps(epoch, first), strict=True)
        for one, other in steps:
            assert_same(one, other)
    stopped = there.steps(1)
    next(stopped)  # and left before its end
    assert_same(next(here.steps(2)), next(there.steps(2)))
    there.close()


def test_what_a_process_cannot_do_is_an_error_here(tmp_path: Path) -> None:
    values = job(tmp_path, recipe(), photos=items(32, broken=tuple(range(32))), workers=1)
    feed = Feed(values, process(), CPU)
    with pytest.raises(TrainingError, match="none of 32 photos of a step could be read"):
        next(feed.steps(0))
    feed.close()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "opencv-linear"])
def test_a_device_crops_its_own_photos(mixed: Callable[..., Job], interpolation: str) -> None:
    made = mixed(memory_device=1 << 20)
    changed = made.recipe.changed("input", interpolation=interpolation)
    here, there = (
        Feed(replace(made, recipe=changed, memory_device=memory), process(), CPU)
        for memory in (0, 1 << 20)
    )
    assert there.kind == "device"
    for one, other in zip(here.steps(1), there.steps(1), strict=True):
        assert one.unreadable == other.unreadable
        for part, same in zip(one.parts, other.parts, strict=True):
            assert torch.equal(part.truths, same.truths)
            away = (part.crops.float() - same.crops).abs()
            assert (away > 1).float().mean() < 0.02  # levels, of noise that is clipped
            assert away.mean() < 0.1


def test_a_device_makes_the_same_crops_of_boxes_that_processes_draw(
    mixed: Callable[..., Job],
) -> None:
    made = [mixed(memory_device=1 << 20, workers=count) for count in (0, 2)]
    here, there = (Feed(each, process(), CPU) for each in made)
    assert there.kind == "device"
    for one, other in zip(here.steps(1), there.steps(1), strict=True):
        assert_same(one, other)
    there.close()


SIDE = 120  # of photos whose pixels say where they are: 2 x in blue, 2 y in green
FEEDS: list[dict[str, int]] = [
    {"workers": 0},
    {"workers": 2},
    {"memory_device": 1 << 23},
    {"memory_device": 1 << 23, "workers": 1},
]


def ruler() -> bytes:
    """Return a photo (PNG) whose pixels say where they are."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[..., 2], pixels[..., 1] = 2 * np.arange(SIDE), 2 * np.arange(SIDE)[:, None]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def spans(crops: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return where crops (N, S, S, 3) begin in their photos, and their sizes: (N, 2), x and y."""
    side = crops.shape[1]
    first, last = side // 4, side - 1 - side // 4  # at the edges, filters are cut off
    blue, green = crops[..., 0].double(), crops[..., 1].double()
    ends = [(blue[:, 0, at], green[:, at, 0]) for at in (first, last)]
    low, high = (torch.stack(end, 1).numpy() / 2 for end in ends)
    sizes = (high - low) * side / (last - first)
    return low + 0.5 - (first + 0.5) * sizes / side, sizes


@pytest.fixture(params=FEEDS, ids=str)
def ruled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Feed]:
    """Return each feed, of 96 photos in batches of 4, one after the other."""
    drawn = {"rule": "torchvision", "area": (0.25, 0.5), "mixup": 1.0, "cutmix": 1.0}
    made = job(tmp_path, recipe(schedule={"batch": 4}, augmentation=drawn), **request.param)
    photos = [LabelledItem(f"{n}.png", n % 4, ruler) for n in range(96)]
    feed = Feed(replace(made, photos=LabelledPhotos(photos, short_side=SIDE)), process(), CPU)
    yield feed
    feed.close()


def test_every_feed_has_the_boxes_flips_and_mixing_of_the_recipe(ruled: Feed) -> None:
    steps = [step for epoch in range(6) for step in ruled.steps(epoch)]
    lefts, sizes = spans(torch.cat([part.crops for step in steps for part in step.parts]))
    assert_drawn_from(sizes.prod(1) / SIDE**2, uniform(0.25, 0.5))
    assert_drawn_from(np.log(sizes[:, 0] / sizes[:, 1]), uniform(math.log(3 / 4), math.log(4 / 3)))
    for begin in (lefts / (SIDE - sizes)).T:
        assert_drawn_from(begin, uniform(0, 1))
    draws = [each for step in steps for part in step.parts for each in part.draws]
    mirrored = np.concatenate([each.mirrored for each in draws])
    assert len(mirrored) == len(sizes) == 576
    assert binomtest(int(mirrored.sum()), len(mirrored), 0.5).pvalue > 0.01
    mixing = [mixing for each in draws for mixing in each.mixing]
    blends = [each.other for each in mixing if each.box is None]
    assert binomtest(len(blends), len(mixing), 0.5).pvalue > 0.01
    assert kstest(blends, beta(1, 1).cdf).pvalue > 0.01
    tops = [(box[0] + box[2]) / 2 for box in (each.box for each in mixing) if box]
    assert 8 < np.mean(tops) < 16  # of 24 rows


def test_every_feed_golden(ruled: Feed) -> None:
    """The first step's photos, boxes to a pixel, flips and mixing: the same whoever makes it."""
    step = next(iter(ruled.steps(0)))
    (part,) = step.parts
    (drawn,) = part.draws
    (mixing,) = drawn.mixing
    lefts, sizes = spans(part.crops)
    assert part.truths.tolist() == [0, 3, 1, 1]
    expected = [(36, 10, 115, 93), (35, 39, 105, 116), (12, 37, 98, 113), (1, 42, 68, 112)]
    np.testing.assert_allclose(np.column_stack([lefts, lefts + sizes]), expected, atol=1.1)
    assert drawn.mirrored.tolist() == [False, True, False, False]
    assert mixing == Mixing(4, 150 / 360, (9, 7, 24, 23))


def test_photos_that_do_not_fit_the_device_stay_here(mixed: Callable[..., Job]) -> None:
    bytes_ = mixed().photos.held_bytes
    assert bytes_ == 78 * 28 * 36 * 3
    assert Feed(mixed(memory_device=bytes_), process(), CPU).kind == "device"
    assert Feed(mixed(memory_device=bytes_ - 1), process(), CPU).kind == "threads"


def test_two_processes_on_devices_share_a_batch(mixed: Callable[..., Job]) -> None:
    made = mixed(memory_device=1 << 20)
    whole, *shares = (Feed(made, process(*place), CPU) for place in ((0, 1), (0, 2), (1, 2)))
    for step, *halves in zip(*(feed.steps(0) for feed in (whole, *shares)), strict=True):
        if step.unreadable:  # whose places others take
            continue
        for part, *own in zip(step.parts, *(half.parts for half in halves), strict=True):
            together = torch.cat([each.crops for each in own])
            torch.testing.assert_close(part.crops, together, atol=1, rtol=0)


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


RULES = ("pycls", "torchvision")
LAST = 1 - 2**-53  # the largest number that is drawn


def boxes(width, height, count, seed=0, **values):
    """Return random boxes: (count, 4)."""
    numbers = uniforms(np.random.default_rng(seed), count)
    return random_boxes(np.tile([width, height], (count, 1)), Augmentation(**values), numbers)


def random_box(width, height, augmentation, numbers):
    (box,) = random_boxes(np.array([[width, height]]), augmentation, numbers[None]).tolist()
    return tuple(box)


def sides(found):
    return found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]


def numbers(**values):
    """Return what a box is made from, the same in every try."""
    order = ("area", "aspect", "turn", "left", "top")
    return np.tile([values.get(name, 0.5) for name in order], (TRIES, 1))


def distance(values, distribution):
    """Return the largest difference between two distributions (Kolmogorov and Smirnov)."""
    values = np.sort(values)
    expected = distribution(values)
    steps = np.arange(len(values) + 1) / len(values)
    return max(np.abs(expected - steps[:-1]).max(), np.abs(expected - steps[1:]).max())


def uniform(low, high):
    return lambda x: np.clip((x - low) / (high - low), 0, 1)


def assert_drawn_from(values, distribution):
    assert distance(values, distribution) < 1.63 / math.sqrt(len(values))  # 99 of 100 times


BOXES_OF_SEED_20 = {
    "pycls": [
        *[(131, 49, 380, 303), (45, 27, 360, 319), (60, 2, 374, 372)],
        *[(38, 41, 279, 234), (108, 51, 354, 322), (85, 194, 248, 326)],
    ],
    "torchvision": [
        *[(131, 49, 380, 303), (52, 17, 339, 338), (44, 30, 409, 348)],
        *[(45, 30, 237, 273), (17, 2, 445, 348), (93, 169, 224, 333)],
    ],
}


@pytest.mark.parametrize("rule", RULES)
def test_boxes_of_a_seed_are_those_of_the_rules_own_code(rule):
    """Golden: what pycls's and torchvision's functions return when they are fed these numbers."""
    found = boxes(500, 375, 6, seed=20, rule=rule)
    assert found.tolist() == [list(box) for box in BOXES_OF_SEED_20[rule]]


def test_a_box_by_hand():
    """Half of an image's area at an aspect of 4/3, in its middle; then turned."""
    given = numbers(area=0.5, aspect=LAST, turn=0.5, left=0.5, top=0.5)
    even = Augmentation(area=(0.25, 0.75))
    width, height = round(math.sqrt(240_000 * 4 / 3)), round(math.sqrt(240_000 * 3 / 4))
    assert (width, height) == (566, 424)
    assert random_box(800, 600, even, given) == (117, 88, 117 + width, 88 + height)
    given[:, 2] = 0.49
    assert random_box(800, 600, even, given) == (188, 17, 188 + height, 17 + width)


@pytest.mark.parametrize("rule", RULES)
def test_shares_of_the_area_are_even(rule):
    across, down = sides(boxes(9000, 9000, 3000, rule=rule, area=(0.08, 0.5)))
    assert_drawn_from(across * down / 9000**2, uniform(0.08, 0.5))


def test_aspects_of_pycls_are_even_and_half_of_them_turned():
    across, down = sides(boxes(9000, 9000, 4000, rule="pycls", area=(0.08, 0.5)))

    def turned_half_the_time(x):
        return (uniform(3 / 4, 4 / 3)(x) + 1 - uniform(3 / 4, 4 / 3)(1 / x)) / 2

    assert_drawn_from(across / down, turned_half_the_time)
    assert distance(across / down, uniform(3 / 4, 4 / 3)) > 0.03  # the test can tell
    given = numbers(area=0, aspect=0.9)
    aspects = []
    for given[:, 2] in (0, 0.49, 0.5, LAST):
        left, top, right, bottom = random_box(9000, 9000, Augmentation(), given)
        aspects.append(right - left > bottom - top)
    assert aspects == [False, False, True, True]


def test_aspects_of_torchvision_are_even_in_the_logarithm():
    across, down = sides(boxes(9000, 9000, 4000, rule="torchvision", area=(0.08, 0.5)))
    assert_drawn_from(np.log(across / down), uniform(math.log(3 / 4), math.log(4 / 3)))
    assert distance(across / down, uniform(3 / 4, 4 / 3)) > 0.03


@pytest.mark.parametrize("rule", RULES)
def test_positions_are_even_and_independent(rule):
    found = boxes(9000, 9000, 4000, rule=rule, area=(0.08, 0.5))
    across, down = sides(found)
    left, top = found[:, 0] / (9000 - across), found[:, 1] / (9000 - down)
    assert_drawn_from(left, uniform(0, 1))
    assert_drawn_from(top, uniform(0, 1))
    drawn = np.stack([left, top, across * down, across / down])
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.06


@pytest.mark.parametrize(("rule", "last"), [("pycls", 49), ("torchvision", 50)])
def test_where_a_crop_may_begin(rule, last):
    """pycls draws below its room, torchvision up to it; both from 0 on."""
    square = {"pycls": 3 / 7, "torchvision": 0.5}[rule]
    given, quarter = numbers(aspect=square), Augmentation(rule=rule, area=(0.25, 0.25))
    given[:, 3:] = 0, LAST
    assert random_box(100, 100, quarter, given) == (0, last, 50, last + 50)
    given[:, 3:] = LAST, 0
    assert random_box(100, 100, quarter, given) == (last, 0, last + 50, 50)
    whole = Augmentation(rule=rule, area=(1.0, 1.0))
    assert random_box(100, 100, whole, given) == (0, 0, 100, 100)


@pytest.mark.parametrize(("rule", "mean"), [("pycls", 0.47739), ("torchvision", 0.47780)])
def test_the_mean_area_of_a_square_photo_is_known(rule, mean):
    """An area a fits an aspect r where a <= min(r, 1/r) =: m, so that of n tries that fit

    the mean is (E[m^2] - 0.08^2) / 2 / (E[m] - 0.08). For r even in 3/4..4/3, E[m] = 0.868169 and
    E[m^2] = 0.758929; for log r even, 0.869017 and 0.760388.
    """
    across, down = sides(boxes(2000, 2000, 12_000, rule=rule))
    assert np.mean(across * down) / 2000**2 == pytest.approx(mean, abs=0.006)


@pytest.mark.parametrize(("rule", "central"), [("pycls", 0.12379), ("torchvision", 0.12384)])
def test_the_share_of_central_crops_of_a_long_photo_is_known(rule, central):
    """Of a photo four times as wide as high a try fits where a <= r/4: (E[r]/4 - 0.08) / 0.92.

    E[r] is 1.014006 by pycls (half of them turned), 1.013856 by torchvision. All ten fail with
    probability (1 - that)^10.
    """
    found = boxes(4000, 1000, 12_000, rule=rule)
    across = 1000 if rule == "pycls" else 1333
    left = (4000 - across) // 2
    share = np.mean((found == (left, 0, left + across, 1000)).all(1))
    assert share == pytest.approx(central, abs=0.012)


def test_what_fits_nowhere_is_cropped_at_its_centre():
    pycls, torchvision = (Augmentation(rule=rule, area=(1, 1)) for rule in RULES)
    given = numbers()
    assert random_box(900, 100, pycls, given) == (400, 0, 500, 100)
    assert random_box(100, 901, pycls, given) == (0, 400, 100, 500)
    assert random_box(900, 100, torchvision, given) == (383, 0, 516, 100)
    assert random_box(100, 900, torchvision, given) == (0, 383, 100, 516)
    given[:, 1] = 0.0
    assert random_box(110, 100, torchvision, given) == (0, 0, 110, 100)


@settings(max_examples=200)
@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.sampled_from(RULES),
    st.floats(1e-6, 1).flatmap(lambda low: st.tuples(st.just(low), st.floats(low, 1))),
    st.integers(0, 2**32),
)
def test_a_box_lies_in_the_photo_and_holds_a_pixel(width, height, rule, area, seed):
    for left, top, right, bottom in boxes(width, height, 5, seed, rule=rule, area=area).tolist():
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


def test_numbers_of_a_photo_do_not_depend_on_how_many_follow():
    few, many = (uniforms(np.random.default_rng(3), count) for count in (4, 9))
    np.testing.assert_array_equal(few, many[:4])
    assert few.min() >= 0
    assert few.max() < 1
    assert len(np.unique(many)) == many.size


def photo(width=150, height=113, seed=0):
    """Return smooth colours with noise, as of a photo: (H, W, 3)."""
    random = np.random.default_rng(seed)
    rough = random.integers(0, 256, (height // 10 + 2, width // 10 + 2, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(rough).resize((width, height)), np.int16)
    return (smooth + random.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8)


BOXES = [(0, 0, 150, 113), (10, 7, 90, 99), (3, 5, 4, 6), (149, 0, 150, 113), (20, 20, 84, 84)]


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("side", [1, 32, 64, 97])
def test_linear_crops_are_opencvs(box, side):
    """Within 0.01 of 255: OpenCV with Intel's library differs from its own code by as much."""
    left, top, right, bottom = box
    part = photo()[top:bottom, left:right]
    found = crop(photo(), box, side=side, interpolation="opencv-linear")
    assert (found.shape, found.dtype) == ((side, side, 3), np.float32)
    assert found.flags.c_contiguous
    resized = cv2.resize(part.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    assert np.abs(found - resized).max() < 0.01


@settings(max_examples=50)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 250))
def test_linear_crops_are_the_exact_ones_but_for_rounding(width, height, side):
    pixels = photo(width, height)
    found = crop(pixels, (0, 0, width, height), side=side, interpolation="opencv-linear")
    exact = linear_crop(pixels, size=(side, side), box=(0, 0, side, side)) * np.float32(255)
    assert np.abs(found - exact).max() <= 1e-4
    assert found.min() >= 0
    assert found.max() <= 255


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("box", BOXES)
def test_other_crops_are_pillows(interpolation, box):
    found = crop(photo(), box, side=48, interpolation=interpolation)
    how = Image.Resampling[interpolation.upper()]
    resized = np.asarray(Image.fromarray(photo()).crop(box).resize((48, 48), how))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert np.abs(found.astype(int) - resized).max() <= 1  # Pillow 13 turns the passes of some


@pytest.mark.parametrize("interpolation", ["opencv-linear", "bilinear"])
def test_a_crop_does_not_touch_the_photo(interpolation):
    pixels = photo()
    pixels.flags.writeable = False
    for box in BOXES:
        found = crop(pixels, box, side=20, interpolation=interpolation)
        assert not np.shares_memory(found, pixels)


@pytest.mark.parametrize("interpolation", ["opencv-linear", "bilinear"])
def test_a_box_of_the_wanted_size_is_cut_out_as_it_is(interpolation):
    found = crop(photo(), (20, 30, 84, 94), side=64, interpolation=interpolation)
    np.testing.assert_array_equal(found, photo()[30:94, 20:84])
