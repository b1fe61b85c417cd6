"""Which network a set of tensors belongs to that is no RegNet of ours, told by names and shapes."""

import re
from collections.abc import Iterable, Mapping

from regnet.checkpoints.layouts import sensible

Shapes = Mapping[str, tuple[int, ...]]

# Network -> the end of a key that it alone has, under whatever prefix; the first match counts.
_FAMILIES: tuple[tuple[str, str], ...] = (
    ("timm's regnetv, of pre-activation blocks", r"s1\.b1\.norm1\.weight"),
    ("timm's regnetz, of another kind of block", r"stages\.0\.0\.conv1_1x1\.conv\.weight"),
    ("timm's regnetz, with a convolution before the head", r"final_conv\.conv\.weight"),
    ("a ResNet", r"layer1\.0\.conv1\.(0\.)?weight"),
    ("a ResNet of transformers", r"resnet\.embedder\.embedder\.convolution\.weight"),
    ("a torchvision RegNet taken apart, as by fastai", r"block1\.block1-0\.f\.a\.0\.weight"),
    ("a Swin Transformer", r"attn\.relative_position_bias_table"),
    ("a Vision Transformer", r"blocks\.0\.attn\.qkv\.weight"),
    ("a Vision Transformer", r"encoder_layer_0\.self_attention\.in_proj_weight"),
    ("a Vision Transformer of transformers", r"encoder\.layer\.0\.attention\..*query\.weight"),
    ("a ConvNeXt", r"stages\.0\.(blocks\.|layers\.)?0\.(conv_dw|dwconv)\.weight"),
    ("a ConvNeXt", r"features\.1\.0\.layer_scale"),
    ("an EfficientNet", r"features\.1\.0\.block\.0\.0\.weight"),
    ("an EfficientNet", r"_blocks\.0\._depthwise_conv\.weight"),
    ("an EfficientNet, MobileNet or GhostNet", r"conv_stem\.weight"),
    ("a MobileNet", r"features\.1\.(conv|block)\.0\.0\.weight"),
    ("a MNASNet", r"layers\.8\.0\.layers\.0\.weight"),
    ("a DenseNet", r"denseblock1\.denselayer1\.norm1\.weight"),
    ("a GoogLeNet", r"inception3a\.branch1\.conv\.weight"),
    ("an Inception network", r"Mixed_5b\.branch1x1\.conv\.weight"),
    ("a ShuffleNet", r"stage2\.0\.branch1\.0\.weight"),
    ("a SqueezeNet", r"features\.3\.squeeze\.weight"),
    ("a YOLO detector", r"model\.0\.conv\.weight"),
    ("an AlexNet or VGG network", r"features\.0\.weight"),
)


def foreign_network(shapes: Shapes) -> str | None:
    """Return what tensors belong to, as "a ResNet (layer1.0.conv1.weight)"; None if unknown.

    Expects tensors that are not a whole RegNet of ours.
    """
    for network, pattern in _FAMILIES:
        if key := _first_ending(shapes, pattern):
            return f"{network} ({key})"
    return _variant(shapes)


def _first_ending(keys: Iterable[str], pattern: str) -> str | None:
    found = re.compile(rf"(.*\.)?{pattern}")
    return next((key for key in sensible(keys) if found.fullmatch(key)), None)


def _variant(shapes: Shapes) -> str | None:
    """Return what a network with a RegNet's names differs in from a RegNet, if that is known."""
    if (key := _first_ending(shapes, r"s1\.b1\.conv3\.conv\.weight")) is not None:
        width, inner, *_ = shapes[key] if len(shapes[key]) > 1 else (0, 0)
        if width < inner:
            return f"timm's regnetz, of blocks that widen inside ({key} {shapes[key]})"
    norm = _first_ending(shapes, r"(stem\.(bn|1)|embedder\.normalization)\.weight")
    if norm and not any(key.endswith("running_mean") for key in shapes):
        return f"a variant with group norm, or another norm without running statistics ({norm})"
    return None
