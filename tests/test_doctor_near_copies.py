"""Near copies among many pictures: those that are, and none of those that are not."""

import io

import numpy as np
import pytest
from doctored_photos import cropped, jpeg, picture, resized

from regnet.data.sources import Item
from regnet.doctor.near_copies import ALIKE, Links, likeness, near_pairs
from regnet.doctor.photos import SIDE, Glance, glances

EACH = 40


def look(*files: bytes) -> list[Glance]:
    return list(glances([Item(f"{i}", lambda data=data: data) for i, data in enumerate(files)]))


def greys(files: list[bytes]) -> np.ndarray:
    return np.stack([glance.grey for glance in look(*files)])


@pytest.fixture(scope="module")
def originals() -> np.ndarray:
    return greys([jpeg(picture(seed)) for seed in range(200)])


COPIES = {
    "recompressed": (1.0, lambda image, seed: jpeg(image, quality=30)),
    "half the size": (1.0, lambda image, seed: jpeg(resized(image, 0.5), quality=80)),
    "larger": (1.0, lambda image, seed: jpeg(resized(image, 1.7))),
    "squeezed": (1.0, lambda image, seed: jpeg(image.resize((150, 150)))),
    "brighter": (0.95, lambda image, seed: jpeg(image.point(lambda v: min(255, round(v * 1.15))))),
    "cropped by 4 %": (0.95, lambda image, seed: jpeg(cropped(image, 0.04, seed=seed))),
    "cropped by 8 %": (0.8, lambda image, seed: jpeg(cropped(image, 0.08, seed=seed))),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_nothing_else(kind: str, originals: np.ndarray) -> None:
    least, copy = COPIES[kind]
    copies = greys([copy(picture(seed), seed) for seed in range(EACH)])
    pairs = near_pairs(np.concatenate([originals, copies]))
    wanted = {(seed, len(originals) + seed) for seed in range(EACH)}
    found = {(int(a), int(b)) for a, b in pairs}
    assert found <= wanted
    assert len(found) >= least * EACH


def test_no_pictures_have_no_pairs() -> None:
    for count in (0, 1):
        assert near_pairs(np.zeros((count, SIDE, SIDE), np.uint8)).shape == (0, 2)


def test_many_that_are_all_alike_are_connected_by_few_pairs(originals: np.ndarray) -> None:
    chance = np.random.default_rng(0)
    noise = chance.integers(-2, 3, (500, SIDE, SIDE))
    alike = np.clip(originals[:1].astype(int) + noise, 0, 255).astype(np.uint8)
    pairs = near_pairs(alike)
    links = Links(len(alike))
    links.join(pairs)
    assert {links.root(i) for i in range(len(alike))} == {0}
    assert len(pairs) < 20 * len(alike)


def test_the_order_does_not_matter(originals: np.ndarray) -> None:
    copies = greys([jpeg(picture(seed), quality=40) for seed in range(EACH)])
    whole = np.concatenate([originals, copies])
    turned = len(whole) - 1 - near_pairs(whole[::-1])
    assert {tuple(sorted(pair)) for pair in turned.tolist()} == {
        tuple(pair) for pair in near_pairs(whole).tolist()
    }


def test_likeness_lays_pictures_over_each_other() -> None:
    image = picture(3)
    part = image.crop((14, 9, 190, 155))
    a, b, other = greys([jpeg(image), jpeg(part), jpeg(picture(4))])[:, None]
    assert likeness(a, a)[0] == pytest.approx(1, abs=1e-3)
    assert min(likeness(a, b)[0], likeness(b, a)[0]) > ALIKE
    plain = np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1]
    assert plain < 0.85
    assert likeness(a, other)[0] < 0.5


def test_links() -> None:
    links = Links(6)
    links.join(np.array([[4, 5], [1, 4], [2, 3]]))
    assert [links.root(i) for i in range(6)] == [0, 1, 2, 2, 1, 1]
    assert links.apart(np.array([[1, 5], [3, 4]])).tolist() == [False, True]


def test_a_glance_at_photos_of_any_kind() -> None:
    image = picture(5, width=400, height=300)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    turned = image.rotate(90, expand=True)
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif, quality=95)
    png = io.BytesIO()
    image.save(png, "PNG")
    plain, rotated, lossless = look(jpeg(image, quality=95), buffer.getvalue(), png.getvalue())
    for glance in (plain, rotated, lossless):
        assert (glance.width, glance.height, glance.error) == (400, 300, "")
        # JPEGs are decoded at a fraction of their size, which rounds differently.
        assert np.abs(glance.grey.astype(int) - plain.grey.astype(int)).max() <= 8
    assert len({glance.digest for glance in (plain, rotated, lossless)}) == 3


def test_a_glance_at_what_is_no_photo() -> None:
    torn, empty, text = look(jpeg(picture(1))[:900], b"", b"<html>")
    for glance in (torn, empty, text):
        assert glance.error
        assert (glance.width, glance.height) == (0, 0)
    assert look(jpeg(picture(1)))[0].digest == look(jpeg(picture(1)))[0].digest


def test_real_photos_give_no_false_alarms(photos: list) -> None:
    files = [photo.read_bytes() for photo in photos]
    assert len(near_pairs(greys(files))) == 0
