"""Parameters, multiply-accumulates and activations of a spec, without building a network.

The counting is the paper's (pycls): one MAC per multiply-add and per bias of a convolution or
fully-connected layer; batch norm, activations, pooling and additions are free; activations are the
output elements of convolutions and of the head.
"""

from dataclasses import dataclass

from regnet.network.layers import layers
from regnet.network.spec import Spec


@dataclass(frozen=True)
class Complexity:
    """Cost of one image: `params`, `macs` and `acts` (activations), exact counts."""

    params: int
    macs: int
    acts: int


def complexity(spec: Spec, *, image_size: int = 224) -> Complexity:
    """Return the cost of a spec on a square image of `image_size` pixels (1..16384).

    Source: pycls, `complexity` functions of anynet and blocks. Raises `SpecError`.
    """
    params = macs = acts = 0
    for layer in layers(spec, image_size=image_size, distinct=True):
        pixels = layer.size**2
        if layer.kind == "norm":
            params += layer.times * 2 * layer.width_out
            continue
        bias = layer.width_out if layer.has_bias else 0
        norm = 2 * layer.width_out if layer.norm else 0
        params += layer.times * (layer.weights + bias + norm)
        macs += layer.times * (layer.weights * pixels + bias)
        acts += layer.times * layer.width_out * pixels
    return Complexity(params, macs, acts)
