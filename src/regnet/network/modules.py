"""The RegNet networks as torch modules, built from a spec passed in; state-dict keys are pycls's.

Source: arXiv 2003.13678, figure 4; initialisation as in He et al. (arXiv 1512.03385) with the head
of the paper's training code.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from regnet.network.blocks import BlockShape, blocks
from regnet.network.layers import layers, tiers
from regnet.network.spec import Spec
from regnet.system.errors import MissingExtraError

try:
    import torch
    from torch import Tensor, nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval
except ImportError as exc:
    raise MissingExtraError("building a network", "torch") from exc


class RegNet(nn.Module):
    """A RegNet: normalised images (N, 3, H, W) -> logits (N, classes).

    H and W are at least 1; the usual ones are multiples of 32. Weights start by the paper's
    initialisation: convolutions normal with variance 2 / fan-out, BN scale 1 and offset 0, head
    normal with deviation 0.01.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = Stem(spec)
        self.stage_names = [f"s{number}" for number in range(1, len(spec.stages) + 1)]
        for name in self.stage_names:
            self.add_module(name, nn.Sequential())
        for block in blocks(spec):
            stage, _, number = block.name.partition(".")
            self.get_submodule(stage).add_module(number, Block(spec, block))
        width = spec.stages[-1].width
        self._parts = ["stem", *self.stage_names, "head"]
        if spec.head_width is not None or spec.block != "bottleneck":
            self.final = Final(spec, width)
            self._parts.insert(-1, "final")
        self.head = Head(spec.head_width or width, spec.classes)
        self.apply(init_weights)

    def features(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        """Return the output of the stem and of each stage, by name: (N, width, H', W') each."""
        outputs: OrderedDict[str, Tensor] = OrderedDict()
        for name in ("stem", *self.stage_names):
            outputs[name] = x = self.get_submodule(name)(x)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        for name in self._parts:
            x = self.get_submodule(name)(x)
        return x


class Stem(nn.Sequential):
    """3x3 convolution, BN, activation; three times if tiered, the convolution alone in V."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        widths = tiers(spec.stem_width) if spec.tiered_stem else (spec.stem_width,)
        self.conv = _conv(3, widths[0], 3, stride=spec.stem_stride)
        if spec.block == "pre-activation":
            return
        self.bn = nn.BatchNorm2d(widths[0])
        self.relu = activation(spec)
        steps = zip(widths, widths[1:], (1, 2), strict=False)
        for number, (width_in, width, stride) in enumerate(steps, start=2):
            self.add_module(f"conv{number}", _conv(width_in, width, 3, stride=stride))
            self.add_module(f"conv{number}_bn", nn.BatchNorm2d(width))
            self.add_module(f"relu{number}", activation(spec))


class Block(nn.Module):
    """Residual bottleneck block; the first of a stage halves the size and projects its input.

    What differs in a RegNetV or RegNetZ is in `_Frame` of the spec.
    """

    def __init__(self, spec: Spec, block: BlockShape) -> None:
        super().__init__()
        pre = spec.block == "pre-activation"
        self.pre_bn = nn.BatchNorm2d(block.width_in) if pre else None
        self.pre_relu = activation(spec) if pre else None
        pooled = block.shortcut == "pool"
        stride = 1 if pooled else block.stride
        proj = _conv(block.width_in, block.width, 1, stride=stride) if block.projects else None
        halves = pooled and block.stride > 1
        self.pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False) if halves else None
        self.proj = None if pooled else proj
        self.pooled_proj = proj if pooled else None
        self.bn = nn.BatchNorm2d(block.width) if block.projects and not pre else None
        self.f = Transform(spec, block)
        self.relu = activation(spec) if spec.block == "bottleneck" else nn.Identity()
        self.has_shortcut = block.shortcut != "none"

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(shortcut(x) + f(x))."""
        if self.pre_bn is not None and self.pre_relu is not None:
            x = self.pre_relu(self.pre_bn(x))
        y = self.f(x)
        if self.has_shortcut:
            y = self.shortcut(x) + y
        out: Tensor = self.relu(y)
        return out

    def shortcut(self, x: Tensor) -> Tensor:
        """Return what is added to f(x): x itself, or its projection."""
        for layer in (self.pool, self.proj, self.pooled_proj, self.bn):
            x = x if layer is None else layer(x)
        return x


class Transform(nn.Sequential):
    """1x1, 3x3 grouped, [squeeze-excite,] 1x1 convolution, with BN and the spec's activation.

    BN follows each convolution and an activation the first two; in blocks of pre-activation the
    second BN and activation come after squeeze-excite, and the last convolution has no BN.
    """

    def __init__(self, spec: Spec, block: BlockShape) -> None:
        super().__init__()
        inner, pre = block.inner, spec.block == "pre-activation"
        self.a = _conv(block.width_in, inner, 1)
        self.a_bn = nn.BatchNorm2d(inner)
        self.a_relu = activation(spec)
        self.b = _conv(inner, inner, 3, stride=block.stride, groups=block.groups)
        squeeze = None if block.squeeze is None else SqueezeExcite(spec, inner, block.squeeze)
        if pre and squeeze:
            self.se = squeeze
        self.b_bn = nn.BatchNorm2d(inner)
        self.b_relu = activation(spec)
        if squeeze and not pre:
            self.se = squeeze
        self.c = _conv(inner, block.width, 1)
        if not pre:
            self.c_bn = nn.BatchNorm2d(block.width)


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate in [0, 1] computed from the channel means."""

    def __init__(self, spec: Spec, width: int, squeeze: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.f_ex = nn.Sequential(
            nn.Conv2d(width, squeeze, 1),
            nn.ReLU(inplace=True) if spec.squeeze_from == "inner" else activation(spec),
            nn.Conv2d(squeeze, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return x * gate(mean(x))."""
        out: Tensor = x * self.f_ex(self.avg_pool(x))
        return out


class Final(nn.Sequential):
    """[1x1 convolution, BN,] activation between the stages and the head, in RegNetV and RegNetZ."""

    def __init__(self, spec: Spec, width: int) -> None:
        super().__init__()
        if spec.head_width is not None:
            self.conv = _conv(width, spec.head_width, 1)
            self.bn = nn.BatchNorm2d(spec.head_width)
        self.relu = activation(spec)


class Head(nn.Sequential):
    """Global average pool and a fully-connected layer: (N, width, H, W) -> (N, classes)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(width, classes)


def activation(spec: Spec) -> nn.Module:
    """Return a spec's activation as a module."""
    return nn.SiLU(inplace=True) if spec.activation == "silu" else nn.ReLU(inplace=True)


def _conv(
    width_in: int, width_out: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(width_in, width_out, kernel, stride, kernel // 2, groups=groups, bias=False)


def init_weights(module: nn.Module) -> None:
    """Initialise one layer as the paper does; for `nn.Module.apply`."""
    if isinstance(module, nn.Conv2d):
        # Without the division by groups, as in the published code.
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


def fold_batch_norm(network: RegNet) -> RegNet:
    """Return an eval-mode copy with batch norm folded into the convolutions before it.

    Logits match up to rounding; folded in float64, stored in the weights' type.
    """
    folded = deepcopy(network).eval()
    after = [layer for layer in layers(network.spec) if layer.kind == "conv"]
    pairs = [(layer.name, str(layer.norm)) for layer in after]
    for name, norm_name in pairs:
        conv, norm = folded.get_submodule(name), folded.get_submodule(norm_name)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            dtype = conv.weight.dtype
            folded.set_submodule(name, fuse_conv_bn_eval(conv.double(), norm.double()).to(dtype))
            folded.set_submodule(norm_name, nn.Identity())
    return folded


def to_tensors(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return arrays as tensors, which share their memory; tensors are returned as they are."""
    return {name: torch.as_tensor(array) for name, array in arrays.items()}
