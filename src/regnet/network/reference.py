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

from regnet.network.layers import EPSILON
from regnet.network.spec import Spec, Stage

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
        x = relu(self._conv(x, "stem.conv", "stem.bn", stride=self.spec.stem_stride))
        for number, stage in enumerate(self.spec.stages, start=1):
            for block in range(1, stage.depth + 1):
                x = self._block(x, stage, f"s{number}.b{block}", first=block == 1)
        weight, bias = self._weight("head.fc.weight"), self._weight("head.fc.bias")
        logits: Array = weight @ x.mean(axis=(1, 2)) + bias
        return logits

    def _block(self, x: Array, stage: Stage, name: str, *, first: bool) -> Array:
        stride = 2 if first else 1
        groups = stage.inner_width // stage.group_width
        shortcut = self._conv(x, f"{name}.proj", f"{name}.bn", stride=stride) if first else x
        y = relu(self._conv(x, f"{name}.f.a", f"{name}.f.a_bn"))
        y = relu(self._conv(y, f"{name}.f.b", f"{name}.f.b_bn", stride=stride, groups=groups))
        if self.spec.se_ratio is not None:
            y = y * self._gate(y, f"{name}.f.se.f_ex")
        return relu(shortcut + self._conv(y, f"{name}.f.c", f"{name}.f.c_bn"))

    def _gate(self, x: Array, name: str) -> Array:
        """Return the factor of each channel, (C, 1, 1), from the channels' means."""
        squeezed = relu(self._conv(x.mean(axis=(1, 2), keepdims=True), f"{name}.0"))
        excited: Array = self._conv(squeezed, f"{name}.2")
        return np.exp(-np.logaddexp(0, -excited))  # the sigmoid, without overflow

    def _conv(
        self, x: Array, name: str, norm: str = "", *, stride: int = 1, groups: int = 1
    ) -> Array:
        """Return a convolution of (C, H, W) with its bias, or else with its batch norm."""
        y = convolve(x, self._weight(f"{name}.weight"), stride=stride, groups=groups)
        if f"{name}.bias" in self.weights:
            return y + self._vector(f"{name}.bias")
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
