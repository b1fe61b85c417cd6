"""The RegNet in numpy, as in figure 4 of the paper (arXiv 2003.13678): the judge of conversions.

It shares no code with the torch modules or the ONNX graph, so comparing it with either proves
something.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from regnet.network.blocks import BlockShape, blocks
from regnet.network.layers import EPSILON
from regnet.network.spec import Spec

Array = NDArray[np.floating[Any]]
Weights = Mapping[str, Array]


@dataclass(frozen=True)
class ReferenceNetwork:
    """A spec's network with weights by pycls's names; it computes in `dtype`, image by image.

    A layer whose batch norm was folded has a bias instead.
    """

    spec: Spec
    weights: Weights
    dtype: type[np.floating[Any]] = np.float64

    def logits(self, images: Array) -> Array:
        """Return the logits (N, classes) of normalised images (N, 3, H, W)."""
        return np.stack([self._logits(image.astype(self.dtype)) for image in images])

    def _logits(self, x: Array) -> Array:
        x = self._stem(x)
        for block in blocks(self.spec):
            x = self._block(x, block)
        if self.spec.head_width is not None:
            x = self._conv(x, "final.conv", "final.bn")
        if self.spec.head_width is not None or self.spec.block != "bottleneck":
            x = self._active(x)
        weight, bias = self._weight("head.fc.weight"), self._weight("head.fc.bias")
        logits: Array = weight @ x.mean(axis=(1, 2)) + bias
        return logits

    def _stem(self, x: Array) -> Array:
        if self.spec.block == "pre-activation":
            return self._conv(x, "stem.conv", stride=self.spec.stem_stride)
        x = self._active(self._conv(x, "stem.conv", "stem.bn", stride=self.spec.stem_stride))
        for name, stride in (("stem.conv2", 1), ("stem.conv3", 2)) * self.spec.tiered_stem:
            x = self._active(self._conv(x, name, f"{name}_bn", stride=stride))
        return x

    def _block(self, x: Array, block: BlockShape) -> Array:
        pre, name, stride = self.spec.block == "pre-activation", block.name, block.stride
        if pre:
            x = self._active(self._norm(x, f"{name}.pre_bn"))
        y = self._active(self._conv(x, f"{name}.f.a", f"{name}.f.a_bn"))
        norm = "" if pre else f"{name}.f.b_bn"
        y = self._conv(y, f"{name}.f.b", norm, stride=stride, groups=block.groups)
        if not pre:
            y = self._active(y)
        if block.squeeze is not None:
            y = y * self._gate(y, f"{name}.f.se.f_ex")
        if pre:
            y = self._active(self._norm(y, f"{name}.f.b_bn"))
        y = self._conv(y, f"{name}.f.c", "" if pre else f"{name}.f.c_bn")
        if block.shortcut != "none":
            y = y + self._shortcut(x, block)
        return self._active(y) if self.spec.block == "bottleneck" else y

    def _shortcut(self, x: Array, block: BlockShape) -> Array:
        if not block.projects:
            return x
        norm = "" if self.spec.block == "pre-activation" else f"{block.name}.bn"
        if block.shortcut == "convolution":
            return self._conv(x, f"{block.name}.proj", norm, stride=block.stride)
        if block.stride > 1:
            x = average_pairs(x)
        return self._conv(x, f"{block.name}.pooled_proj", norm)

    def _active(self, x: Array) -> Array:
        return relu(x) if self.spec.activation == "relu" else x * sigmoid(x)

    def _gate(self, x: Array, name: str) -> Array:
        """Return the factor of each channel, (C, 1, 1), from the channels' means."""
        squeezed = self._conv(x.mean(axis=(1, 2), keepdims=True), f"{name}.0")
        inner = self.spec.squeeze_from == "inner"
        squeezed = relu(squeezed) if inner else self._active(squeezed)
        return sigmoid(self._conv(squeezed, f"{name}.2"))

    def _conv(
        self, x: Array, name: str, norm: str = "", *, stride: int = 1, groups: int = 1
    ) -> Array:
        """Return a convolution of (C, H, W) with its bias, or else with its batch norm."""
        y = convolve(x, self._weight(f"{name}.weight"), stride=stride, groups=groups)
        if f"{name}.bias" in self.weights:
            return y + self._vector(f"{name}.bias")
        return self._norm(y, norm) if norm else y

    def _norm(self, y: Array, norm: str) -> Array:
        """Return the batch norm of (C, H, W), or a scale and shift where it was folded to these."""
        if f"{norm}.running_var" not in self.weights:
            return y * self._vector(f"{norm}.weight") + self._vector(f"{norm}.bias")
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, shift = (self._vector(f"{norm}.{part}") for part in parts)
        return (y - mean) / np.sqrt(variance + self.dtype(EPSILON)) * scale + shift

    def _weight(self, name: str) -> Array:
        return self.weights[name].astype(self.dtype, copy=False)

    def _vector(self, name: str) -> Array:
        return self._weight(name).reshape(-1, 1, 1)


def relu(x: Array) -> Array:
    """Return max(x, 0)."""
    return np.maximum(x, 0)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)), without overflow."""
    result: Array = np.exp(-np.logaddexp(0, -x))
    return result


def average_pairs(x: Array) -> Array:
    """Return the means of 2x2 pixels of (C, H, W); those at an odd edge have fewer."""
    _, height, width = x.shape
    sums = np.add.reduceat(x, range(0, height, 2), axis=1)
    sums = np.add.reduceat(sums, range(0, width, 2), axis=2)
    rows, columns = (np.diff([*range(0, size, 2), size]) for size in (height, width))
    means: Array = sums / np.outer(rows, columns).astype(x.dtype)
    return means


def convolve(x: Array, weight: Array, *, stride: int, groups: int) -> Array:
    """Return x (C, H, W), padded by k // 2, convolved with weights (out, C / groups, k, k)."""
    width_out, _, kernel, _ = weight.shape
    margin = kernel // 2
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin)))
    windows = sliding_window_view(padded, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    _, height, width, *_ = windows.shape
    columns = windows.transpose(0, 3, 4, 1, 2).reshape(groups, -1, height * width)
    rows = weight.reshape(groups, width_out // groups, -1)
    return (rows @ columns).reshape(width_out, height, width)
