import io
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from regnet.data.labelled import LabelledItem
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.protocol import OMZ, PYCLS, Preprocess
from regnet.system.errors import ImageError
from regnet.training import photos as module
from regnet.training.crops import crop, random_boxes, training_batch, uniforms
from regnet.training.feed import Order
from regnet.training.photos import CentreCrops, LabelledPhotos
from regnet.training.recipe import Recipe

SIDE = 24
RECIPE = Recipe()


def image(number, width=40, height=30):
    random = np.random.default_rng(number)
    return random.integers(0, 256, (height, width, 3), np.uint8)


def encoded(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0, **options)
    return file.getvalue()


class Shelf:
    """Photos of noise, and how often each was read; some cannot be."""

    def __init__(self, count, *, classes=4, broken=(), size=(40, 30)):
        self.reads = [0] * count
        self._broken, self._size, self._lock = frozenset(broken), size, threading.Lock()
        self.items = [
            LabelledItem(f"{n}.png", n % classes, partial(self._read, n)) for n in range(count)
        ]

    def _read(self, number):
        with self._lock:
            self.reads[number] += 1
        if number in self._broken:
            raise ImageError("the PNG is truncated")
        return encoded(image(number, *self._size))


BYTES = 40 * 30 * 3


def shown(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[:, :, ::-1]


@pytest.fixture
def pool():
    with ThreadPoolExecutor(3) as made:
        yield made


# Photos in memory


def one(data, short_side):
    return LabelledPhotos([LabelledItem("a", 0, lambda: data)], short_side=short_side).pixels(0)


def test_a_photo_no_larger_than_the_short_side_is_kept_as_it_is():
    for short_side in (30, 31, 1000):
        found = one(encoded(image(1)), short_side)
        np.testing.assert_array_equal(found, image(1)[:, :, ::-1])
        assert found.flags.c_contiguous
        assert found.base is None or found.base.nbytes == found.nbytes  # nothing larger is kept


@pytest.mark.parametrize(
    ("size", "shrunk"),
    [
        ((400, 300), (80, 60)),
        ((300, 400), (60, 80)),
        ((61, 61), (60, 60)),
        ((1000, 61), (984, 60)),
        ((61, 1001), (60, 985)),
    ],
)
def test_a_larger_photo_is_shrunk_to_the_short_side(size, shrunk):
    pixels = np.ascontiguousarray(image(2, *size))
    expected = Image.fromarray(pixels).resize(shrunk, Image.Resampling.BILINEAR)
    found = one(encoded(pixels), 60)
    assert found.shape == (shrunk[1], shrunk[0], 3)
    assert np.abs(found.astype(int) - np.asarray(expected)[:, :, ::-1]).max() <= 1


def test_a_photo_that_lies_on_its_side_is_turned_before_it_is_shrunk():
    exif = Image.Exif()
    exif[0x0112] = 6
    found = one(encoded(image(3, 400, 300), exif=exif), 60)
    assert found.shape == (80, 60, 3)
    upright = one(encoded(np.rot90(image(3, 400, 300), -1).copy()), 60)
    np.testing.assert_array_equal(found, upright)


def test_photos_that_fit_are_read_once():
    shelf = Shelf(20)
    photos = LabelledPhotos(shelf.items, short_side=100)
    assert photos.in_memory
    assert len(photos) == 20
    np.testing.assert_array_equal(photos.truths, np.arange(20) % 4)
    for number in (*range(20), *range(20)):
        np.testing.assert_array_equal(photos.pixels(number), image(number)[:, :, ::-1])
    assert shelf.reads == [1] * 20


@pytest.mark.parametrize(("memory", "held"), [(10 * BYTES, 10), (11 * BYTES - 1, 10), (BYTES, 1)])
def test_the_limit_of_memory_is_kept_and_other_photos_read_each_time(memory, held):
    photos = LabelledPhotos(Shelf(20).items, short_side=100, memory=memory)
    assert not photos.in_memory
    for number in range(20):
        np.testing.assert_array_equal(photos.pixels(number), image(number)[:, :, ::-1])
    again = [photos.pixels(number) is not photos.pixels(number) for number in range(20)]
    assert again == [False] * held + [True] * (20 - held)


def test_the_limit_is_of_shrunk_photos():
    shelf = Shelf(6, size=(400, 300))
    photos = LabelledPhotos(shelf.items, short_side=30, memory=6 * 40 * 30 * 3)
    assert photos.in_memory


@pytest.mark.parametrize("memory", [0, -1])
def test_without_memory_no_photo_is_read_before_it_is_wanted(memory):
    shelf = Shelf(5)
    photos = LabelledPhotos(shelf.items, short_side=100, memory=memory)
    assert shelf.reads == [0] * 5
    assert photos.pixels(3).shape == (30, 40, 3)
    assert shelf.reads == [0, 0, 0, 1, 0]


def test_few_photos_are_read_beyond_the_limit(monkeypatch):
    """Those under way are held as well, so they must not be many: thousands have come before."""
    monkeypatch.setattr(module, "cores", lambda: 4)
    shelf = Shelf(2000, size=(8, 8))
    photos = LabelledPhotos(shelf.items, short_side=100, memory=300 * 8 * 8 * 3)
    assert len(photos) == 2000
    assert 300 <= sum(shelf.reads) <= 300 + (2 * 4 + 6) * 8


def test_reading_is_watched():
    seen = []

    def watch(items, what, count):
        seen.append((what, count))
        for item in items:
            seen.append(item.shape)
            yield item

    LabelledPhotos(Shelf(3).items, short_side=100, watch=watch)
    assert seen == [("reading photos", 3), *3 * [(30, 40, 3)]]


def test_unreadable_photos_are_named_with_the_reason_and_take_no_memory():
    shelf = Shelf(6, broken=(1, 4))
    photos = LabelledPhotos(shelf.items, short_side=100, memory=4 * BYTES)
    assert photos.in_memory
    assert [(u.source, u.error) for u in photos.unreadable] == [
        ("1.png", "the PNG is truncated"),
        ("4.png", "the PNG is truncated"),
    ]
    assert photos.pixels(4) == photos.unreadable[1]
    assert LabelledPhotos(shelf.items, short_side=100, memory=0).pixels(4) == photos.unreadable[1]


def test_bytes_that_are_no_image_are_unreadable_too():
    for data in (b"", b"hello", encoded(image(1))[:200]):
        found = one(data, 100)
        assert found.source == "a"
        assert found.error


# Orders


def truths(*counts):
    """Return the classes of a set with so many photos of each, mixed."""
    whole = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(0).permutation(whole)


@pytest.mark.parametrize("balanced", [False, True])
def test_an_order_is_the_same_for_a_seed_and_another_in_each_epoch(balanced):
    order = Order(truths(50, 30, 20), 10, 3, balanced)
    again = Order(truths(50, 30, 20), 10, 3, balanced)
    other = Order(truths(50, 30, 20), 10, 4, balanced)
    drawn = [order.batches(epoch).tolist() for epoch in range(5)]
    assert drawn == [again.batches(epoch).tolist() for epoch in range(5)]
    orders = [*drawn, *(other.batches(epoch).tolist() for epoch in range(5))]
    assert len({str(batches) for batches in orders}) == 10


def test_golden_orders():
    """Another version must draw the same, or runs could not be repeated."""
    assert Order(truths(5, 3), 4, 7).batches(1).tolist() == [[6, 3, 1, 0], [2, 4, 7, 5]]
    assert Order(truths(5, 3), 4, 7, True).batches(1).tolist() == [[4, 1, 3, 7], [2, 0, 5, 4]]


def test_an_epoch_takes_every_photo_once_but_for_the_last_that_fill_no_batch():
    order = Order(truths(50, 53), 10, 0)
    assert order.steps == 10
    left_out = set()
    for epoch in range(20):
        batches = order.batches(epoch)
        assert batches.shape == (10, 10)
        assert batches.dtype == np.int64
        numbers = set(batches.ravel().tolist())
        assert len(numbers) == 100
        left_out |= set(range(103)) - numbers
    assert len(left_out) > 30  # not always the same ones


@pytest.mark.parametrize("balanced", [False, True])
def test_a_set_smaller_than_a_batch_is_one(balanced):
    order = Order(truths(3, 4), 64, 0, balanced)
    assert order.steps == 1
    assert order.batches(0).shape == (1, 7)


def test_a_balanced_order_takes_as_many_photos_of_every_class():
    classes = truths(700, 200, 90, 9, 1)
    order = Order(classes, 10, 0, True)
    for epoch in range(3):
        numbers = order.batches(epoch).ravel()
        assert len(numbers) == 1000
        assert np.bincount(classes[numbers]).tolist() == [200] * 5
        used = np.bincount(numbers, minlength=1000)
        for number, count in enumerate((700, 200, 90, 9, 1)):
            times = used[classes == number]
            assert times.sum() == 200
            assert times.max() - times.min() <= 1, "some photos come more often than others"
            assert len(times) == count


def test_a_balanced_order_is_mixed():
    """A batch of 50 of 5 classes has about 10 of each, not 50 of one."""
    classes = truths(700, 200, 90, 9, 1)
    batches = Order(classes, 50, 0, True).batches(0)
    counts = np.stack([np.bincount(classes[batch], minlength=5) for batch in batches])
    assert counts.max() < 25
    assert counts.mean(0).tolist() == [10] * 5
    assert abs(np.corrcoef(np.arange(1000), classes[batches.ravel()])[0, 1]) < 0.1


def test_a_balanced_order_shows_all_of_a_large_class_in_time():
    classes = truths(90, 10)
    order = Order(classes, 10, 0, True)
    seen = {number for epoch in range(20) for number in order.batches(epoch).ravel().tolist()}
    assert seen == set(range(100))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 70), st.integers(0, 99))
def test_any_balanced_order_is_even_to_one_photo(classes, batch, epoch):
    classes = np.array(classes, np.int64)  # gaps in the classes are as good
    order = Order(classes, batch, 0, True)
    batches = order.batches(epoch)
    assert batches.shape == (order.steps, min(batch, len(classes)))
    assert batches.min() >= 0
    assert batches.max() < len(classes)
    whole = Order(classes, 1, 0, True).batches(epoch).ravel()
    counts = np.bincount(classes[whole])[np.unique(classes)]
    assert counts.max() - counts.min() <= 1


# Training batches


def seeded():
    return np.random.default_rng(5)


def test_a_batch_has_the_crops_of_its_photos(pool):
    photos = LabelledPhotos(Shelf(12).items, short_side=100)
    numbers = np.array([7, 3, 3, 11, 0])
    batch = training_batch(photos, numbers, RECIPE, seeded(), side=SIDE, pool=pool)
    assert batch.crops.shape == (5, SIDE, SIDE, 3)
    assert batch.crops.dtype == np.float32
    assert batch.truths.tolist() == [3, 3, 3, 3, 0]
    assert batch.unreadable == ()
    boxes = random_boxes(np.array([[40, 30]] * 5), RECIPE.augmentation, uniforms(seeded(), 5))
    for found, number, box in zip(batch.crops, numbers, boxes.tolist(), strict=True):
        pixels = photos.pixels(number)
        expected = crop(pixels, tuple(box), side=SIDE, interpolation="opencv-linear")
        np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(batch.crops[1], batch.crops[2])  # a photo twice is two crops


def test_crops_by_pillow_are_8_bit(pool):
    recipe = Recipe().changed("input", interpolation="bilinear")
    photos = LabelledPhotos(Shelf(3).items, short_side=100)
    batch = training_batch(photos, np.arange(3), recipe, seeded(), side=8, pool=pool)
    assert batch.crops.dtype == np.uint8


@pytest.mark.parametrize("cores", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("memory", [0, 5 * BYTES, 1 << 20])
def test_a_batch_does_not_depend_on_cores_or_memory(cores, memory, pool, monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: cores)
    shelf = Shelf(11, broken=(2, 9))
    whole = LabelledPhotos(shelf.items, short_side=100)
    other = LabelledPhotos(shelf.items, short_side=100, memory=memory)
    numbers = np.arange(11)[::-1]
    one, two = (
        training_batch(photos, numbers, RECIPE, seeded(), side=SIDE, pool=pool)
        for photos in (whole, other)
    )
    np.testing.assert_array_equal(one.crops, two.crops)
    assert one.truths.tolist() == two.truths.tolist() == [n % 4 for n in numbers if n not in (2, 9)]
    assert [u.source for u in one.unreadable] == ["9.png", "2.png"]
    assert one.unreadable == two.unreadable


@pytest.mark.parametrize("parts", [1, 2, 3, 5, 8])
def test_parts_are_slices_of_the_whole_batch(parts, pool):
    shelf = Shelf(16, broken=(4, 5))
    photos = LabelledPhotos(shelf.items, short_side=100)
    numbers = np.random.default_rng(1).permutation(16)[:13]
    make = partial(training_batch, photos, numbers, RECIPE, side=SIDE, pool=pool)
    whole = make(seeded())
    share = -(-13 // parts)
    pieces = [make(seeded(), part=slice(n * share, (n + 1) * share)) for n in range(parts)]
    np.testing.assert_array_equal(np.concatenate([piece.crops for piece in pieces]), whole.crops)
    np.testing.assert_array_equal(np.concatenate([piece.truths for piece in pieces]), whole.truths)
    assert sum((piece.unreadable for piece in pieces), ()) == whole.unreadable
    assert len(whole.unreadable) == 2


@pytest.mark.parametrize("broken", [(), (0, 1, 2)])
def test_a_batch_of_nothing_has_the_shape_of_one(broken, pool):
    """Where no photo can be read, and for a process whose part of a small batch is empty."""
    photos = LabelledPhotos(Shelf(3, broken=broken).items, short_side=100)
    part = slice(None) if broken else slice(3, 6)
    batch = training_batch(photos, np.arange(3), RECIPE, seeded(), side=SIDE, part=part, pool=pool)
    assert batch.crops.shape == (0, SIDE, SIDE, 3)
    assert batch.truths.shape == (0,)
    assert batch.truths.dtype == np.int64
    assert len(batch.unreadable) == len(broken)


def test_an_error_in_the_code_is_no_unreadable_photo(pool):
    def read():
        raise RuntimeError("a bug")

    photos = LabelledPhotos([LabelledItem("a", 0, read)], short_side=100, memory=0)
    with pytest.raises(RuntimeError, match="a bug"):
        training_batch(photos, np.arange(1), RECIPE, seeded(), side=SIDE, pool=pool)


# Centre crops

SMALL = Preprocess(name="small", resize=28, crop=SIDE)


@pytest.mark.parametrize("interpolation", [OMZ.interpolation, PYCLS.interpolation])
def test_centre_crops_are_those_of_the_protocol(interpolation):
    protocol = Preprocess(name="small", resize=28, crop=SIDE, interpolation=interpolation)
    shelf = Shelf(10)
    crops = CentreCrops(shelf.items, protocol, batch=4)
    batches = list(crops.batches())
    assert (len(crops), crops.count, len(batches)) == (10, 3, 3)
    assert [len(batch.truths) for batch in batches] == [4, 4, 2]
    found = np.concatenate([batch.crops for batch in batches])
    for number, pixels in enumerate(found):
        expected = crop_pixels(encoded(image(number)), protocol)
        np.testing.assert_array_equal(pixels, expected)
        assert pixels.dtype == expected.dtype


@pytest.mark.parametrize(
    ("interpolation", "memory", "reads"),
    [
        ("bicubic", 10 * 3 * SIDE**2, 1),
        ("bicubic", 10 * 3 * SIDE**2 - 1, 3),
        ("opencv-linear", 10 * 4 * 3 * SIDE**2, 1),
        ("opencv-linear", 10 * 4 * 3 * SIDE**2 - 1, 3),
    ],
)
def test_centre_crops_are_kept_where_they_fit(interpolation, memory, reads):
    protocol = Preprocess(name="small", resize=28, crop=SIDE, interpolation=interpolation)
    shelf = Shelf(10)
    crops = CentreCrops(shelf.items, protocol, batch=4, memory=memory)
    next(crops.batches())  # a look at the first batch keeps nothing
    shelf.reads[:] = [0] * 10
    passes = [np.concatenate([batch.crops for batch in crops.batches()]) for _ in range(3)]
    assert shelf.reads == [reads] * 10
    np.testing.assert_array_equal(passes[0], passes[2])


def test_unreadable_centre_crops_are_left_out_and_named():
    crops = CentreCrops(Shelf(6, broken=(0, 1, 5)).items, SMALL, batch=2)
    for _ in range(2):
        batches = list(crops.batches())
        assert [batch.truths.tolist() for batch in batches] == [[], [2, 3], [0]]
        assert [batch.crops.shape[1:] for batch in batches] == [(SIDE, SIDE, 3)] * 3
        lost = [photo.source for batch in batches for photo in batch.unreadable]
        assert lost == ["0.png", "1.png", "5.png"]


def test_no_photos_are_no_batches():
    crops = CentreCrops([], SMALL, batch=2)
    assert (len(crops), crops.count, list(crops.batches())) == (0, 0, [])
