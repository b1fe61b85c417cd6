"""Networks with random weights, and faults planted into their converted graphs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import regnet.conversion.export
from regnet.conversion.onnx_graph import onnx_graph
from regnet.network.modules import RegNet
from regnet.network.spec import Spec
from regnet.pixels.preprocess import crop_pixels
from regnet.pixels.protocol import Preprocess

Weights = dict[str, NDArray[np.float32]]


def untrained(spec: Spec, preprocess: Preprocess, photos: list[Path], *, seed: int) -> RegNet:
    """Return a randomly initialised network whose batch-norm statistics are those of photos."""
    torch.manual_seed(seed)
    network = RegNet(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average of all batches, here the only one
    crops = np.stack([crop_pixels(path, preprocess) for path in photos])
    pixels = torch.from_numpy(crops.transpose(0, 3, 1, 2).astype(np.float32))
    mean, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in (preprocess.mean, preprocess.scale))
    with torch.no_grad():
        network.train()((pixels - mean) / scale)
    return network.eval()


def saturated(spec: Spec, *, seed: int = 0) -> RegNet:
    """Return a network with the weights of timm_golden.json's rule; its logits are in thousands.

    Seed 0 is the rule itself; others draw other numbers in the same way.
    """
    network = RegNet(spec).eval()
    state = network.state_dict()
    for number, name in enumerate(sorted(state)):
        if state[name].is_floating_point():
            draw = np.random.RandomState(number + 1000 * seed).standard_normal(state[name].shape)
            state[name] = torch.from_numpy(np.asarray(_golden(name, draw), np.float32))
    network.load_state_dict(state)
    return network


def _golden(name: str, draw: NDArray[np.float64]) -> Any:
    if name.endswith("running_var"):
        return np.exp(0.1 * draw)
    if draw.ndim > 1:
        return draw * np.sqrt(2 / np.prod(draw.shape[1:]))
    if name.endswith(".weight"):
        return 1 + 0.1 * draw
    return 0.1 * draw


@contextmanager
def swapped_channels(layer: str) -> Iterator[None]:
    """Two channels of a layer change places in the graph, weights and biases."""

    def swap(weights: Weights) -> None:
        for name in (f"{layer}.weight", f"{layer}.bias"):
            weights[name] = weights[name].copy()
            weights[name][[0, 1]] = weights[name][[1, 0]]

    with _changed_weights(swap):
        yield


@contextmanager
def dropped_bias(layer: str, channels: slice = slice(None)) -> Iterator[None]:
    """A layer has no bias in the graph, or some of its channels have none."""

    def drop(weights: Weights) -> None:
        weights[f"{layer}.bias"] = weights[f"{layer}.bias"].copy()
        weights[f"{layer}.bias"][channels] = 0

    with _changed_weights(drop):
        yield


@contextmanager
def moved_stride(block: str) -> Iterator[None]:
    """A block's 1x1 convolution has the stride of its 3x3 one; all shapes stay the same."""

    def move(nodes: dict[str, Any]) -> None:
        for layer, stride in (("a", 2), ("b", 1)):
            _set(nodes[f"{block}.f.{layer}.conv"], "strides", [stride, stride])

    with _changed_nodes(move):
        yield


@contextmanager
def shifted_padding(layer: str) -> Iterator[None]:
    """A 3x3 convolution is padded on two sides instead of all four."""
    with _changed_nodes(lambda nodes: _set(nodes[f"{layer}.conv"], "pads", [0, 0, 2, 2])):
        yield


@contextmanager
def large_epsilon(epsilon: float = 1e-3) -> Iterator[None]:
    """Batch norm is folded with another epsilon than the network's."""

    with patch.object(regnet.conversion.export, "EPSILON", epsilon):
        yield


def _changed_weights(change: Callable[[Weights], None]) -> Any:
    def wrong(spec: Spec, weights: Weights, *args: Any, **options: Any) -> Any:
        copy = dict(weights)
        change(copy)
        return onnx_graph(spec, copy, *args, **options)

    return patch.object(regnet.conversion.export, "onnx_graph", wrong)


def _changed_nodes(change: Callable[[dict[str, Any]], None]) -> Any:
    def wrong(*args: Any, **options: Any) -> Any:
        model = onnx_graph(*args, **options)
        change({node.name: node for node in model.graph.node})
        return model

    return patch.object(regnet.conversion.export, "onnx_graph", wrong)


def _set(node: Any, name: str, values: list[int]) -> None:
    attribute = next(a for a in node.attribute if a.name == name)
    assert list(attribute.ints) != values
    attribute.ints[:] = values
