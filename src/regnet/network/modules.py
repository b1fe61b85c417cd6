"""The RegNet networks as torch modules, built from a spec passed in; state-dict keys are pycls's.

Source: arXiv 2003.13678, figure 4; initialisation as in He et al. (arXiv 1512.03385) with the head
of the paper's training code.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from regnet.network.layers import layers
from regnet.network.spec import Spec, Stage
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
        width = spec.stem_width
        self.stage_names: list[str] = []
        for number, stage in enumerate(spec.stages, start=1):
            self.stage_names.append(f"s{number}")
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for block in range(1, stage.depth + 1):
                blocks[f"b{block}"] = Block(spec, stage, width, first=block == 1)
                width = stage.width
            self.add_module(f"s{number}", nn.Sequential(blocks))
        self.head = Head(width, spec.classes)
        self.apply(init_weights)

    def features(self, x: Tensor) -> "OrderedDict[str, Tensor]":
        """Return the output of the stem and of each stage, by name: (N, width, H', W') each."""
        outputs: OrderedDict[str, Tensor] = OrderedDict()
        for name in ("stem", *self.stage_names):
            outputs[name] = x = self.get_submodule(name)(x)
        return outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, classes)."""
        for name in ("stem", *self.stage_names, "head"):
            x = self.get_submodule(name)(x)
        return x


class Stem(nn.Sequential):
    """3x3 convolution, BN, ReLU."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.conv = _conv(3, spec.stem_width, 3, stride=spec.stem_stride)
        self.bn = nn.BatchNorm2d(spec.stem_width)
        self.relu = nn.ReLU(inplace=True)


class Block(nn.Module):
    """Residual bottleneck block; the first of a stage halves the size and projects its input."""

    def __init__(self, spec: Spec, stage: Stage, width_in: int, first: bool) -> None:
        super().__init__()
        stride = 2 if first else 1
        self.proj = _conv(width_in, stage.width, 1, stride=stride) if first else None
        self.bn = nn.BatchNorm2d(stage.width) if first else None
        self.f = Transform(stage, width_in, stride, spec.se_width(width_in))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(shortcut(x) + f(x))."""
        shortcut = x if self.proj is None or self.bn is None else self.bn(self.proj(x))
        out: Tensor = self.relu(shortcut + self.f(x))
        return out


class Transform(nn.Sequential):
    """1x1, 3x3 grouped, [squeeze-excite,] 1x1 convolution, each with BN; ReLU after the first two.

    Squeeze-excite reduces to `squeeze` channels; None leaves it out.
    """

    def __init__(self, stage: Stage, width_in: int, stride: int, squeeze: int | None) -> None:
        super().__init__()
        inner = stage.inner_width
        self.a = _conv(width_in, inner, 1)
        self.a_bn = nn.BatchNorm2d(inner)
        self.a_relu = nn.ReLU(inplace=True)
        self.b = _conv(inner, inner, 3, stride=stride, groups=inner // stage.group_width)
        self.b_bn = nn.BatchNorm2d(inner)
        self.b_relu = nn.ReLU(inplace=True)
        if squeeze is not None:
            self.se = SqueezeExcite(inner, squeeze)
        self.c = _conv(inner, stage.width, 1)
        self.c_bn = nn.BatchNorm2d(stage.width)


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate in [0, 1] computed from the channel means."""

    def __init__(self, width: int, squeeze: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.f_ex = nn.Sequential(
            nn.Conv2d(width, squeeze, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeeze, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return x * gate(mean(x))."""
        out: Tensor = x * self.f_ex(self.avg_pool(x))
        return out


class Head(nn.Sequential):
    """Global average pool and a fully-connected layer: (N, width, H, W) -> (N, classes)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(width, classes)


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
    """Return an eval-mode copy with batch norm folded into the convolutions.

    Logits match up to rounding; folded in float64, stored in the weights' type.
    """
    folded = deepcopy(network).eval()
    pairs = [(layer.name, layer.norm) for layer in layers(network.spec) if layer.norm]
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
