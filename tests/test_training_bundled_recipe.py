"""How the bundled model is trained: its recipe, its network, and the growing of the weights."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.nn import functional
from training_runs import Recorder, items, job, run

from regnet.network.modules import RegNet
from regnet.network.spec import RegNetSpec, read_spec, spec_by_name
from regnet.training.recipe import read_recipe
from regnet.zoo.catalogue import card_by_name

ROOT = Path(__file__).parent.parent
SHALLOW = RegNetSpec(d=4, w0=8, wa=8.0, wm=2.0, g=8, classes=5)
PARTS = ("first", "second")
DEEP = RegNetSpec(d=8, w0=8, wa=4.0, wm=2.0, g=8, classes=5)


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def grow() -> ModuleType:
    return tool("grow")


def test_a_grown_network_computes_the_same(grow: ModuleType) -> None:
    torch.manual_seed(1)
    small, large = RegNet(SHALLOW).eval(), RegNet(DEEP).eval()
    for buffer in small.buffers():  # as after training: no block is the identity by chance
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    large.load_state_dict(grow.grown(small.state_dict(), DEEP))
    photos = torch.randn(2, 3, 64, 64)
    assert len(large.state_dict()) > len(small.state_dict())
    torch.testing.assert_close(large(photos), small(photos))


def test_a_network_grows_deeper_only(grow: ModuleType) -> None:
    with pytest.raises(ValueError, match="the deeper network has no"):
        grow.grown(RegNet(DEEP).state_dict(), SHALLOW)
    with pytest.raises(ValueError, match="has shape"):
        grow.grown(RegNet(SHALLOW).state_dict(), RegNetSpec(d=8, w0=16, wa=8.0, wm=2.0, g=8))


def test_a_small_stem_answers_as_the_other_to_an_enlarged_photo(grow: ModuleType) -> None:
    torch.manual_seed(2)
    kernel, photo = torch.randn(4, 3, 3, 3), torch.randn(1, 3, 16, 16)
    enlarged = functional.interpolate(photo, scale_factor=2.0, mode="bilinear")
    expected = functional.conv2d(enlarged, kernel, stride=2, padding=1)
    found = functional.conv2d(photo, grow.at_half_size(kernel), padding=1)
    inside = (..., slice(1, -1), slice(1, -1))  # photos end differently
    torch.testing.assert_close(found[inside], expected[inside])
    found = grow.at_half_size(grow.at_twice_the_size(grow.at_half_size(kernel)))
    torch.testing.assert_close(found, grow.at_half_size(kernel), rtol=0, atol=0.05)


def test_a_temperature_divides_the_logits() -> None:
    torch.manual_seed(3)
    network, photos = RegNet(SHALLOW).eval(), torch.randn(2, 3, 32, 32)
    logits = network(photos)
    network.load_state_dict(tool("temper").tempered(network.state_dict(), 0.5))
    torch.testing.assert_close(network(photos), 2 * logits)
    with pytest.raises(ValueError, match="over 0"):
        tool("temper").tempered(network.state_dict(), 0.0)


def test_the_recipe_and_the_network_are_those_of_the_card(grow: ModuleType) -> None:
    card, recipe = card_by_name("bundled"), read_recipe(ROOT / "recipes" / "bundled.toml")
    half = recipe.input.protocol(card.preprocess.name)  # for the small stem
    assert card.preprocess == replace(half, resize=2 * half.resize, crop=2 * half.crop)
    assert card.preprocess == grow.resized(half, 1, 2)
    assert half == grow.resized(card.preprocess, 2, 1)
    earlier = [read_recipe(ROOT / "recipes" / f"bundled-{part}.toml") for part in PARTS]
    epochs = [part.schedule.epochs for part in (*earlier, recipe)]
    assert card.recipe.epochs == sum(epochs)
    network = read_spec(ROOT / "recipes" / "bundled.json")
    assert card.build_spec() == network
    small = read_spec(ROOT / "recipes" / "bundled-small.json")
    assert small == network.with_small_stem(network.stem_width)


def test_recipes_for_a_gpu_make_models_of_one_protocol_the_small_one_of_at_most_12_mb() -> None:
    large, small = (
        read_recipe(ROOT / "recipes" / f"gpu-{size}.toml") for size in ("3.2gf", "600mf")
    )
    assert small.input == large.input
    spec = spec_by_name("regnetx-600mf").with_classes(200)
    values = sum(tensor.numel() for tensor in RegNet(spec).state_dict().values())
    assert 2 * values < 12e6


@pytest.mark.parametrize("size", ["3.2gf", "600mf"])
def test_a_recipe_for_a_gpu_trains(tmp_path: Path, size: str) -> None:
    made = read_recipe(ROOT / "recipes" / f"gpu-{size}.toml").changed("schedule", batch=16)
    made = made.changed("input", resize=24, crop=24, progressive=((0.0, 16), (0.5, 24)))
    watcher = Recorder(stop_after=3)
    run(job(tmp_path, made, photos=items(32)), watcher)
    assert len(watcher.heard) == 3
    assert all(news.loss < 2 for news in watcher.heard)
