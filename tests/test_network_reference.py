"""The numpy reference: it equals torch in float64, and needs nothing but numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from regnet.checkpoints.shapes import network_shapes
from regnet.network.modules import RegNet
from regnet.network.reference import ReferenceNetwork
from regnet.network.spec import PUBLISHED_NAMES, AnyNetSpec, Spec, Stage, spec_by_name

ODD = AnyNetSpec(
    stages=(Stage(2, 16, 4, 2), Stage(1, 24, 24)), stem_width=8, stem_stride=1, se_ratio=0.3
)


def random_weights(spec: Spec) -> dict[str, NDArray[Any]]:
    """Return weights of a network, float64, whose outputs are neither zero nor beyond numbers."""
    draws = np.random.default_rng(0).standard_normal(1_000_003)
    weights = {}
    for number, (name, shape) in enumerate(network_shapes(spec).items()):
        draw = np.resize(draws[number:], shape)
        if len(shape) > 1:
            draw *= np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            draw = np.exp(0.1 * draw)
        else:
            draw = 0.1 * draw + name.endswith("bn.weight")
        weights[name] = draw
    return weights


def torch_logits(spec: Spec, weights: dict[str, Any], images: NDArray[Any]) -> NDArray[Any]:
    with torch.device("meta"):
        network = RegNet(spec)
    state = {name: torch.from_numpy(np.asarray(values)) for name, values in weights.items()}
    network.load_state_dict(state, assign=True)
    with torch.inference_mode():
        return network.eval()(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("spec", [*PUBLISHED_NAMES, ODD])
def test_the_reference_equals_torch_in_float64(spec: Spec | str) -> None:
    spec = spec if isinstance(spec, AnyNetSpec) else spec_by_name(spec)
    weights = random_weights(spec)
    images = np.random.default_rng(1).standard_normal((2, 3, 48, 33))
    found, expected = ReferenceNetwork(spec, weights).logits(images), None
    expected = torch_logits(spec, weights, images)
    assert found.dtype == np.float64
    assert found.shape == expected.shape == (2, spec.classes)
    assert np.ptp(expected) > 0.1
    assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


def test_in_float32_it_rounds_about_as_torch_does() -> None:
    spec = spec_by_name("regnety-400mf")
    weights = random_weights(spec)
    images = np.random.default_rng(1).standard_normal((2, 3, 64, 64))
    exact = ReferenceNetwork(spec, weights).logits(images)
    single = {name: values.astype(np.float32) for name, values in weights.items()}
    images = images.astype(np.float32)
    ours = ReferenceNetwork(spec, single, np.float32).logits(images)
    theirs = torch_logits(spec, single, images)
    assert ours.dtype == np.float32
    errors = [np.abs(logits - exact).max() / np.ptp(exact) for logits in (ours, theirs)]
    assert errors[1] / 4 < errors[0] < 4 * errors[1]


def test_trained_weights(shared: Path, photos: list[Path]) -> None:
    from regnet.checkpoints.weights import load_into, read_checkpoint
    from regnet.pixels.preprocess import crop_pixels
    from regnet.pixels.protocol import OMZ

    checkpoint = read_checkpoint(shared / "weights" / "regnetx-400mf_tiny200.pyth")
    network = RegNet(checkpoint.spec).eval()
    load_into(network, checkpoint.state)
    crops = np.stack([crop_pixels(path, OMZ)[48:176, 48:176] for path in photos[:24]])
    images = (crops.transpose(0, 3, 1, 2).astype(np.float32) - 116) / 58
    weights = {name: values.numpy() for name, values in network.state_dict().items()}
    expected = ReferenceNetwork(checkpoint.spec, weights).logits(images)
    with torch.inference_mode():
        found = network(torch.from_numpy(images)).numpy()
    assert np.abs(found - expected).max() <= 1e-5
