import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy.stats import beta, kstest

from regnet.training import augment, draws
from regnet.training.augment import Augment
from regnet.training.draws import (
    CHUNK,
    Mixing,
    draw,
    draw_chunks,
    draw_mixing,
    draw_operations,
    random_numbers,
)
from regnet.training.recipe import Augmentation
from regnet.training.trivial_augment import BINS, OPERATIONS, trivial_augment

NOTHING = {"flip": 0.0, "lighting": 0.0}
EVERYTHING = {"trivial_augment": True, "erasing": 0.5, "mixup": 0.2, "cutmix": 1.0}
CLASSES = 10


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def photos(count, height=16, width=16):
    return torch.randint(256, (count, 3, height, width), generator=generator(7)).float()


def classes(count):
    return torch.randint(CLASSES, (count,), generator=generator(8))


def augmented(images, seed=0, **values):
    """Augment images as one run, whatever their number."""
    recipe = Augmentation(**(NOTHING | values))
    soft = torch.nn.functional.one_hot(classes(len(images)), CLASSES).float()
    drawn = draw(recipe, len(images), *images.shape[2:], random_numbers(seed))
    return Augment(classes=CLASSES).apply(images, soft, drawn)


def in_chunks(recipe, images, targets, seeds, **options):
    """Augment images as a run does, with a seed for each chunk."""
    size = images.shape[2:]
    drawn = draw_chunks(recipe, len(images), *size, lambda place: seeds[place // CHUNK])
    return Augment(classes=CLASSES, **options)(images, targets, drawn)


def test_without_augmentation_the_images_come_back_bit_for_bit():
    images = photos(8)
    result, soft = augmented(images, mix=0.5)
    assert result is images
    assert torch.equal(soft, torch.nn.functional.one_hot(classes(8), CLASSES).float())


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_mixing_of_no_batch_changes_none(share):
    images = photos(8)
    result, soft = augmented(images, mixup=0.2, cutmix=1.0, mix=share)
    assert torch.equal(result, images) == (share == 0)
    assert (soft.amax(1) == 1).all() == (share == 0)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_shape_type_layout_and_the_passed_images_are_kept(seed, layout):
    images = photos(32).to(memory_format=layout)
    before = images.clone()
    result, soft = augmented(images, seed, **EVERYTHING, flip=0.5, lighting=0.1)
    assert torch.equal(images, before)
    assert (result.shape, result.dtype) == (images.shape, images.dtype)
    assert result.is_contiguous(memory_format=layout)
    assert (soft.shape, soft.dtype) == ((32, CLASSES), torch.float32)
    torch.testing.assert_close(soft.sum(1), torch.ones(32), atol=1e-6, rtol=0)
    assert (soft >= 0).all()
    other, _ = augmented(before.contiguous(), seed, **EVERYTHING, flip=0.5, lighting=0.1)
    torch.testing.assert_close(result, other, atol=1e-3, rtol=0)


def test_a_seed_repeats_its_batch_and_another_does_not():
    first, soft = augmented(photos(16), 3, **EVERYTHING, flip=0.5, lighting=0.1)
    again, same = augmented(photos(16), 3, **EVERYTHING, flip=0.5, lighting=0.1)
    other, _ = augmented(photos(16), 4, **EVERYTHING, flip=0.5, lighting=0.1)
    assert torch.equal(first, again)
    assert torch.equal(soft, same)
    assert not torch.equal(first, other)


def test_a_batch_is_flipped_recoloured_lit_erased_and_mixed_in_this_order():
    recipe = Augmentation(**EVERYTHING, flip=0.5, lighting=0.1)
    images, targets = photos(32), classes(32)
    result, soft = in_chunks(recipe, images, targets, [6])
    drawn = draw(recipe, 32, 16, 16, random_numbers(6))
    expected = trivial_augment(
        augment.flip(images, drawn.mirrored), drawn.operations, drawn.strengths
    )
    expected = expected + torch.from_numpy(drawn.shifts)[:, :, None, None]
    expected = augment.erase(expected, drawn.erased)
    labels = torch.nn.functional.one_hot(targets, CLASSES).float()
    expected, labels = augment.mix(expected, labels, drawn.mixing[0])
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(soft, labels)


GOLDEN = Augmentation(**EVERYTHING, flip=0.5, lighting=0.1)
MIRRORED = [9, 57, 89, 39]
OPERATION_NUMBERS = [7, 6, 4, 2, 2, 2, 3, 7]
STRENGTHS = [-0.693, -0.462, 32 / 3, 0.693, 0.759, -0.759, 32 / 15, -0.693]
SHIFT = [-2.9583, -3.1164, -3.2231]
ERASED = [[12, 0, 16, 12], [0] * 4, [8, 4, 12, 16], [0] * 4, [4, 1, 10, 10], [2, 10, 9, 16]]
BOX = (10, 3, 16, 13)


def test_draws_golden():
    """What version 0.4 drew for 32 images of 16 x 16 pixels from this seed: runs stay the same."""
    drawn = draw(GOLDEN, 32, 16, 16, random_numbers(2))
    assert np.packbits(drawn.mirrored).tolist() == MIRRORED
    assert drawn.operations[:8].tolist() == OPERATION_NUMBERS
    assert drawn.strengths[:8].tolist() == pytest.approx(STRENGTHS)
    assert drawn.shifts[0].tolist() == pytest.approx(SHIFT, abs=1e-4)
    assert drawn.erased[:6].tolist() == ERASED
    assert drawn.mixing[0].box == BOX


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("values", [{}, {"mixup": 0.0}, {"cutmix": 0.0}, {"mix": 0.5}])
def test_a_whole_batch_at_once_is_the_same_but_for_rounding(seed, values):
    recipe = Augmentation(**EVERYTHING | {"flip": 0.5, "lighting": 0.1} | values)
    images, targets = photos(3 * CHUNK + 9), classes(3 * CHUNK + 9)
    seeds = [seed, seed + 10, seed + 20, seed + 30]
    chunked = in_chunks(recipe, images, targets, seeds)
    whole = in_chunks(recipe, images, targets, seeds, whole=True)
    for one, other in zip(chunked, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


def test_a_chunk_does_not_depend_on_the_others():
    images, targets, seeds = photos(80), classes(80), [1, 2, 3]
    for whole in (False, True):
        result, soft = in_chunks(GOLDEN, images, targets, seeds, whole=whole)
        alone, label = in_chunks(GOLDEN, images[32:64], targets[32:64], seeds[1:2])
        torch.testing.assert_close(result[32:64], alone, atol=1e-3, rtol=0)
        torch.testing.assert_close(soft[32:64], label)


@pytest.mark.parametrize("probability", [0.2, 0.5, 1.0])
def test_flip_mirrors_that_share_of_the_images(probability):
    images = photos(4000, 2, 3)
    result, _ = augmented(images, flip=probability)
    mirrored = (result == images.flip(3)).flatten(1).all(1)
    kept = (result == images).flatten(1).all(1)
    assert (mirrored | kept).all()
    deviation = (probability * (1 - probability) / 4000) ** 0.5
    assert mirrored.float().mean() == pytest.approx(probability, abs=5 * deviation)


# PCA lighting


def test_lighting_of_one_component_by_hand():
    added = draws.lighting(np.array([[0.1, 0, 0], [0, -0.2, 0], [0, 0, 1.0]]))
    by_hand = 255 * np.array(
        [
            [-0.5675 * 0.1 * 0.2175, -0.5808 * 0.1 * 0.2175, -0.5836 * 0.1 * 0.2175],
            [0.7192 * -0.2 * 0.0188, -0.0045 * -0.2 * 0.0188, -0.6948 * -0.2 * 0.0188],
            [0.4009 * 0.0045, -0.8140 * 0.0045, 0.4203 * 0.0045],
        ]
    )
    np.testing.assert_allclose(added, by_hand, rtol=1e-12)


def test_lighting_follows_the_formula_on_images_of_0_to_1():
    """As the paper's training code has it: RGB component 2 - i is added to channel i of BGR."""
    images = photos(5)
    result, _ = augmented(images, seed=11, lighting=0.1)
    weights = random_numbers(11).normal(0, 0.1, (5, 3))
    for image, lit, weight in zip(images.numpy() / 255, result.numpy() / 255, weights, strict=True):
        values = np.repeat([draws.EIGENVALUES], 3, axis=0)
        rgb = np.sum(np.array(draws.EIGENVECTORS) * np.repeat([weight], 3, axis=0) * values, 1)
        expected = np.stack([image[i] + rgb[2 - i] for i in range(3)])
        np.testing.assert_allclose(lit, expected, atol=1e-6)


def test_lighting_golden():
    """B, G, R added by the paper's recipe to the first batch of seed 0."""
    black, _ = augmented(torch.zeros(3, 3, 2, 2), lighting=0.1)
    expected = [[-1.6291, -1.3835, -1.4742], [3.2919, 2.3894, 1.4324], [1.4738, 2.0496, 2.8119]]
    torch.testing.assert_close(black[:, :, 1, 0], torch.tensor(expected), atol=1e-4, rtol=0)


def test_lighting_has_the_deviation_of_the_recipe():
    black, _ = augmented(torch.zeros(20_000, 3, 1, 1), lighting=0.1)
    added = black.flatten(1).numpy()[:, ::-1] / 255
    components = added @ np.linalg.inv(np.transpose(draws.EIGENVECTORS)) / draws.EIGENVALUES
    np.testing.assert_allclose(components.std(0), 0.1, rtol=0.03)
    np.testing.assert_allclose(components.mean(0), 0, atol=0.004)


def test_lighting_of_rgb_is_the_mirror_of_that_of_bgr():
    images = photos(6)
    lit = augmented(images, seed=1, lighting=0.1)[0] - images
    rgb = draws.lighting(random_numbers(1).normal(0, 0.1, (6, 3)))
    for channel in range(3):
        expected = torch.from_numpy(rgb[:, 2 - channel]).float()
        torch.testing.assert_close(lit[:, channel, 0, 0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("values", [{"flip": 0.5}, {"mixup": 0.2}, {"cutmix": 1.0}])
def test_channels_in_another_order_change_nothing_else(values):
    images = photos(16)
    bgr, soft = augmented(images, 5, **values)
    rgb, same = augmented(images.flip(1), 5, **values)
    assert torch.equal(bgr.flip(1), rgb)
    assert torch.equal(soft, same)


# Erasing


def test_erasing_fills_rectangles_with_what_normalises_to_zero():
    mean = torch.tensor([103.53, 116.28, 123.675])[:, None, None]
    images = photos(300, 20, 24)
    result, _ = augmented(images, erasing=0.4)
    erased = (result == mean).all(1)
    torch.testing.assert_close(torch.where(erased[:, None], images, result), images, atol=0, rtol=0)
    share = erased.flatten(1).any(1).float().mean()
    assert share == pytest.approx(0.4, abs=5 * (0.4 * 0.6 / 300) ** 0.5)
    for mask in erased[erased.flatten(1).any(1)]:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)
        assert mask.sum() == _extent(rows) * _extent(columns)  # no holes


def test_erased_rectangles_have_the_mean_of_the_recipe():
    mean = (128.0, 127.0, 126.0)
    recipe = Augmentation(**NOTHING | {"erasing": 1.0})
    images = photos(8)
    result, _ = in_chunks(recipe, images, classes(8), [0], mean=mean)
    changed = (result != images).any(1)
    assert changed.flatten(1).any(1).all()
    assert torch.equal(result.permute(0, 2, 3, 1)[changed].unique(dim=0), torch.tensor([mean]))


def _extent(line):
    places = line.nonzero()
    return int(places.max() - places.min()) + 1


@pytest.mark.parametrize("size", [(224, 224), (100, 300)])
def test_erased_rectangles_have_the_areas_aspects_and_places_of_the_paper(size):
    height, width = size
    found = draws.rectangles(20_000, height, width, np.random.default_rng(2))
    top, left, bottom, right = found.T
    assert (top >= 0).all() and (left >= 0).all()  # noqa: PT018
    assert (bottom <= height).all() and (right <= width).all()  # noqa: PT018
    area = (bottom - top) * (right - left) / (height * width)
    assert area.mean() == pytest.approx(0.175, abs=0.004)
    assert area.min() == pytest.approx(0.02, abs=0.002)
    assert area.max() == pytest.approx(0.33, abs=0.004)
    assert (top + bottom).mean() / 2 == pytest.approx(height / 2, rel=0.01)
    assert (left + right).mean() / 2 == pytest.approx(width / 2, rel=0.01)
    if height == width:
        aspect = np.log((bottom - top) / (right - left))
        assert aspect.mean() == pytest.approx((np.log(0.3) + np.log(3.3)) / 2, abs=0.02)
        assert np.abs(aspect).max() < np.log(3.3) + 0.1


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 1), (3, 3)])
def test_erased_rectangles_fit_into_the_smallest_images(size):
    top, left, bottom, right = draws.rectangles(500, *size, np.random.default_rng(0)).T
    assert ((top >= 0) & (top < bottom) & (bottom <= size[0])).all()
    assert ((left >= 0) & (left < right) & (right <= size[1])).all()


# Mixup and cutmix


def own_share(soft, targets):
    """The weight of each image's own label; the batch must have every class once."""
    return soft[torch.arange(len(soft)), targets]


def batch_of_all_classes():
    images, targets = photos(CLASSES), torch.arange(CLASSES)
    return images, targets, torch.eye(CLASSES)


def test_mixup_blends_images_and_labels_alike():
    images, targets, soft = batch_of_all_classes()
    share = 0.7
    mixed, labels = augment.mix(images, soft, Mixing(CLASSES, 1 - share))
    assert own_share(labels, targets).tolist() == pytest.approx([share] * CLASSES, abs=1e-6)
    assert own_share(labels, targets.roll(1)).tolist() == pytest.approx([1 - share] * CLASSES)
    expected = share * images + (1 - share) * images.roll(1, 0)
    torch.testing.assert_close(mixed, expected, atol=1e-3, rtol=0)


def mixings(count, size=8, seed=0, **values):
    """Draw for `count` batches of 4 images."""
    recipe, random = Augmentation(**NOTHING | values), np.random.default_rng(seed)
    return [draw_mixing(recipe, 4, size, size, random) for _ in range(count)]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_mixup_has_the_beta_distribution(alpha):
    shares = [each.other for each in mixings(4000, mixup=alpha)]
    assert kstest(shares, beta(alpha, alpha).cdf).pvalue > 0.01
    variance = 1 / (4 * (2 * alpha + 1))
    assert np.mean(shares) == pytest.approx(0.5, abs=5 * (variance / 4000) ** 0.5)
    assert np.var(shares) == pytest.approx(variance, rel=0.06)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("size", [(16, 16), (9, 14)])
def test_the_label_of_cutmix_is_the_share_of_pixels(seed, size):
    images = torch.arange(CLASSES).float()[:, None, None, None].expand(-1, 3, *size)
    targets, soft = torch.arange(CLASSES), torch.eye(CLASSES)
    recipe = Augmentation(**NOTHING, cutmix=1.0)
    mixing = draw_mixing(recipe, CLASSES, *size, np.random.default_rng(seed))
    mixed, labels = augment.mix(images, soft, mixing)
    pasted = mixed == images.roll(1, 0)
    assert torch.equal(mixed[~pasted], images[~pasted])
    pixels = int(pasted[0, 0].sum())
    assert (pasted.sum((2, 3)) == pixels).all()
    share = np.float32(pixels / (size[0] * size[1]))
    assert own_share(labels, targets.roll(1)).tolist() == [share] * CLASSES
    assert own_share(labels, targets).tolist() == pytest.approx([1 - share] * CLASSES, abs=1e-7)


def test_cutmix_has_the_areas_of_the_paper():
    """A square of side s at any centre covers (s - s^2 / 4)^2 on average, s^2 uniform: 77 / 240."""
    shares = [each.other for each in mixings(3000, size=64, cutmix=1.0)]
    assert np.mean(shares) == pytest.approx(77 / 240, abs=0.02)
    assert max(shares) > 0.9


def test_a_share_of_the_batches_is_mixed_half_of_them_by_each_rule():
    drawn = mixings(2000, size=64, mixup=0.2, cutmix=1.0, mix=0.6)
    cut = sum(each.box is not None for each in drawn)
    mixed = sum(each.box is None and each.other > 0 for each in drawn)
    assert cut / 2000 == pytest.approx(0.3, abs=0.055)
    assert mixed / 2000 == pytest.approx(0.3, abs=0.055)


@pytest.mark.parametrize("rule", ["mixup", "cutmix"])
def test_one_rule_alone_is_the_only_one(rule):
    drawn = mixings(50, **{rule: 1.0})
    assert all((each.box is None) == (rule == "mixup") for each in drawn)


def test_a_batch_of_one_mixes_with_itself():
    images = photos(1)
    result, soft = augmented(images, mixup=1.0, cutmix=1.0)
    torch.testing.assert_close(result, images)
    assert float(soft.max()) == pytest.approx(1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gets_the_same_draws():
    images, targets = photos(32), classes(32)
    recipe = Augmentation(**EVERYTHING)
    for seed in range(4):
        expected, labels = in_chunks(recipe, images, targets, [seed])
        result, soft = in_chunks(recipe, images.cuda(), targets.cuda(), [seed], whole=True)
        torch.testing.assert_close(result.cpu(), expected, atol=1e-2, rtol=0)
        torch.testing.assert_close(soft.cpu(), labels)


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
    drawn = draw_operations(200, np.random.default_rng(0))
    assert trivial_augment(images, *drawn).shape == images.shape


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


def test_operations_bins_and_signs_are_equally_likely():
    chosen, strengths = draw_operations(43_400, np.random.default_rng(0))
    for number, operation in enumerate(OPERATIONS):
        drawn = strengths[chosen == number]
        assert abs(len(drawn) - 3100) < 280
        assert set(np.abs(drawn)) <= set(operation.strengths)
        if operation.signed:
            ladder = np.rint(np.abs(drawn) / operation.strengths[1]).astype(int)
            assert (np.abs(np.bincount(ladder, minlength=BINS) - 100) < 60).all()
            assert (drawn < 0).mean() == pytest.approx(0.5 * (1 - 1 / BINS), abs=0.05)


def test_every_image_gets_its_own_operation():
    """A batch's images are what its operations give for each of them alone."""
    images = torch.stack([to_bgr(pictures()[0])] * 60)
    result = trivial_augment(images, *draw_operations(60, np.random.default_rng(4)))
    random = np.random.default_rng(4)
    chosen, bins = random.integers(14, size=60), random.integers(BINS, size=60)
    signs = 2 * random.integers(2, size=60) - 1
    for image, number, step, sign, ours in zip(images, chosen, bins, signs, result, strict=True):
        operation = OPERATIONS[number]
        strength = operation.strengths[step] * (sign if operation.signed else 1)
        alone = operation.apply(image[None], np.array([strength]))[0]
        torch.testing.assert_close(ours, alone, atol=1e-3, rtol=0)
    assert not torch.equal(result[0], result[1])
