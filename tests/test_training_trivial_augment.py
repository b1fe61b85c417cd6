import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from regnet.training import augment as module
from regnet.training.augment import BINS, OPERATIONS, Operation, trivial_augment

BY_NAME = {operation.name: operation for operation in OPERATIONS}


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


PILLOW = {
    "identity": lambda image, s: image,
    "shear_x": lambda image, s: affine(image, 1, s, 0, 0, 1, 0),
    "shear_y": lambda image, s: affine(image, 1, 0, 0, s, 1, 0),
    "translate_x": lambda image, s: affine(image, 1, 0, s, 0, 1, 0),
    "translate_y": lambda image, s: affine(image, 1, 0, 0, 0, 1, s),
    "rotate": lambda image, s: image.rotate(s),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + s),
    "color": lambda image, s: ImageEnhance.Color(image).enhance(1 + s),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + s),
    "posterize": lambda image, s: ImageOps.posterize(image, int(s)),
    "solarize": lambda image, s: ImageOps.solarize(image, s),
    "autocontrast": lambda image, s: ImageOps.autocontrast(image),
    "equalize": lambda image, s: ImageOps.equalize(image),
}

# How far a value may be from Pillow's. All others are equal: Pillow cuts off fractions (under 1)
# after it rounded gray values and smoothed ones (0.5 times at most 0.99) or these and the mean gray
# (1 times at most 0.99); ours keep fractions.
TOLERANCE = {"brightness": 1, "autocontrast": 1, "color": 1.5, "sharpness": 1.5, "contrast": 2}


def pictures():
    """Noise, a blurred picture of few levels, a dark one, and a flat one; RGB."""
    draws = np.random.default_rng(3)
    noise = Image.fromarray(draws.integers(256, size=(40, 56, 3), dtype=np.uint8))
    blurred = noise.filter(ImageFilter.GaussianBlur(4))
    dark = noise.point(lambda value: 20 + value // 5)
    flat = Image.new("RGB", (40, 40), (12, 130, 250))
    square = Image.fromarray(draws.integers(256, size=(33, 33, 3), dtype=np.uint8))
    return [noise, blurred, dark, flat, square]


def to_bgr(image):
    return torch.from_numpy(np.asarray(image)[:, :, ::-1].copy()).permute(2, 0, 1).float()


def all_strengths(operation):
    if not operation.signed:
        return np.unique(operation.strengths)
    return np.unique(np.concatenate([operation.strengths, -operation.strengths]))


@pytest.mark.parametrize("name", PILLOW)
def test_every_operation_at_every_strength_is_pillows(name):
    strengths = all_strengths(BY_NAME[name])
    for image in pictures():
        batch = to_bgr(image)[None].repeat(len(strengths), 1, 1, 1)
        ours = BY_NAME[name].apply(batch, strengths)
        expected = torch.stack([to_bgr(PILLOW[name](image, s)) for s in strengths])
        furthest = float((ours - expected).abs().max())
        if name in TOLERANCE:
            assert furthest < TOLERANCE[name] + 1e-3
        else:
            assert furthest == 0


@pytest.mark.parametrize("name", PILLOW)
def test_fractions_of_levels_stay_in_range_and_the_images_unchanged(name):
    operation = BY_NAME[name]
    strengths = all_strengths(operation)
    images = 255 * torch.rand(len(strengths), 3, 9, 9, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    result = operation.apply(images, strengths)
    assert torch.equal(images, before)
    assert float(result.min()) >= 0
    assert float(result.max()) <= 255


@pytest.mark.parametrize("name", [name for name in PILLOW if name not in ("color", "contrast")])
def test_operations_without_gray_treat_channels_alike(name):
    strengths = all_strengths(BY_NAME[name])
    images = to_bgr(pictures()[0])[None].repeat(len(strengths), 1, 1, 1)
    bgr, rgb = (BY_NAME[name].apply(x, strengths) for x in (images, images.flip(1)))
    assert torch.equal(bgr.flip(1), rgb)


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_noise_of_floats_in_a_flat_image_is_not_stretched(name):
    images = torch.full((1, 3, 32, 32), 100.0)
    images += 1e-3 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(BY_NAME[name].apply(images, np.zeros(1)), images)


def test_autocontrast_measures_in_whole_levels():
    images = torch.tensor([10.4, 55.0, 109.6]).expand(1, 3, 1, 3)
    stretched = BY_NAME["autocontrast"].apply(images, np.zeros(1))[0, 0, 0]
    torch.testing.assert_close(stretched, torch.tensor([1.02, 114.75, 253.98]))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_smallest_images_pass(size):
    images = torch.full((200, 3, size, size), 7.0)
    assert trivial_augment(images, np.random.default_rng(0)).shape == images.shape


def test_the_strengths_are_those_of_the_wide_space():
    greatest = {name: float(np.abs(op.strengths).max()) for name, op in BY_NAME.items()}
    assert greatest == {
        **dict.fromkeys(("identity", "autocontrast", "equalize"), 0),
        **dict.fromkeys(("shear_x", "shear_y"), 0.99),
        **dict.fromkeys(("translate_x", "translate_y"), 32),
        **dict.fromkeys(("brightness", "color", "contrast", "sharpness"), 0.99),
        "rotate": 135,
        "posterize": 8,
        "solarize": 255,
    }
    bits = [8] * 3 + [7] * 5 + [6] * 5 + [5] * 5 + [4] * 5 + [3] * 5 + [2] * 3
    assert BY_NAME["posterize"].strengths.tolist() == bits
    assert BY_NAME["solarize"].strengths[[0, 2, 30]].tolist() == [255, 238, 0]
    assert BY_NAME["rotate"].strengths[[0, 1, 20]].tolist() == [0, 4.5, 90]
    assert {op.name for op in OPERATIONS if op.signed} == {
        *("shear_x", "shear_y", "translate_x", "translate_y", "rotate"),
        *("brightness", "color", "contrast", "sharpness"),
    }
    assert all(len(op.strengths) == BINS for op in OPERATIONS)


def test_operations_bins_and_signs_are_equally_likely(monkeypatch):
    drawn = {}

    def recorder(name):
        return lambda images, strengths: (drawn.__setitem__(name, strengths), images)[1]

    ladder = np.arange(BINS) + 1.0
    spies = [Operation(op.name, recorder(op.name), ladder, op.signed) for op in OPERATIONS]
    monkeypatch.setattr(module, "OPERATIONS", spies)
    trivial_augment(torch.zeros(43_400, 3, 1, 1), np.random.default_rng(0))
    assert all(abs(len(strengths) - 3100) < 280 for strengths in drawn.values())
    assert len(drawn) == len(OPERATIONS)
    everything = np.concatenate(list(drawn.values()))
    bins = np.bincount(np.abs(everything).astype(int), minlength=BINS + 1)[1:]
    assert (np.abs(bins - 1400) < 190).all()
    for operation in spies:
        negative = (drawn[operation.name] < 0).mean()
        assert negative == (pytest.approx(0.5, abs=0.05) if operation.signed else 0)


def test_every_image_gets_its_own_operation():
    """A batch's images are what its operations give for each of them alone."""
    images = torch.stack([to_bgr(pictures()[0])] * 60)
    result = trivial_augment(images, np.random.default_rng(4))
    draws = np.random.default_rng(4)
    chosen, bins = draws.integers(14, size=60), draws.integers(BINS, size=60)
    signs = 2 * draws.integers(2, size=60) - 1
    for image, number, step, sign, ours in zip(images, chosen, bins, signs, result, strict=True):
        operation = OPERATIONS[number]
        strength = operation.strengths[step] * (sign if operation.signed else 1)
        alone = operation.apply(image[None], np.array([strength]))[0]
        torch.testing.assert_close(ours, alone, atol=1e-3, rtol=0)
    assert not torch.equal(result[0], result[1])
