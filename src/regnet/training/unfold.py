"""Folded weights -> a network with batch normalisation that computes the same, and trains.

Folding put each BN into the convolution before it. Here every convolution gets one back: what it
gives over some photos are BN's statistics, and BN's scale and offset undo just these.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from regnet.network.modules import RegNet
from regnet.network.spec import Spec
from regnet.system.errors import TrainingError

_PAIRS = (("conv", "bn"), ("a", "a_bn"), ("b", "b_bn"), ("c", "c_bn"), ("proj", "bn"))


@torch.no_grad()
def unfold_batch_norm(spec: Spec, folded: Mapping[str, Tensor], images: Iterable[Tensor]) -> RegNet:
    """Return the network that gives the logits of the folded weights in evaluation mode.

    `folded` has a weight and a bias for each layer, by pycls's names; `images` are batches of
    normalised ones (N, 3, H, W), like those it will train on: in training mode, too, it computes
    the same on such. Raises `TrainingError` without any.
    """
    network = RegNet(spec).eval()
    own = network.state_dict()
    network.load_state_dict(own | {name: folded[name] for name in own if name in folded})
    pairs = dict(_pairs(network))
    for name, (_, norm) in pairs.items():  # the folded network: BN does nothing but add the bias
        _set(norm, torch.zeros_like(norm.bias), torch.ones_like(norm.bias), folded[f"{name}.bias"])
    statistics = {name: _Statistics() for name in pairs}
    hooks = [
        conv.register_forward_hook(_listener(statistics[name])) for name, (conv, _) in pairs.items()
    ]
    for batch in images:
        network(batch)
    for hook in hooks:
        hook.remove()
    for name, (_, norm) in pairs.items():
        mean, variance = statistics[name].mean_and_variance()
        _set(norm, mean, variance, folded[f"{name}.bias"])
    return network


def _pairs(network: RegNet) -> Iterator[tuple[str, tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """Yield each convolution that BN follows, by its name, and that BN."""
    for path, module in network.named_modules():
        for conv_name, norm_name in _PAIRS:
            conv, norm = getattr(module, conv_name, None), getattr(module, norm_name, None)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                yield f"{path}.{conv_name}".lstrip("."), (conv, norm)


def _set(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, bias: Tensor) -> None:
    """Make BN in evaluation mode add `bias`, with these statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_(torch.sqrt(variance + norm.eps))
    norm.bias.copy_(bias + mean)


class _Statistics:
    """Mean and variance of each channel over all that it is given."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = self._squares = torch.zeros(())

    def add(self, values: Tensor) -> None:
        """Take in (N, C, H, W)."""
        values = values.double()
        self._count += values.numel() // values.shape[1]
        self._sum = self._sum + values.sum((0, 2, 3))
        self._squares = self._squares + values.square().sum((0, 2, 3))

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """Return both, float64 (C,)."""
        if not self._count:
            raise TrainingError("no photo could be read that BN's statistics could be taken from")
        mean = self._sum / self._count
        return mean, (self._squares / self._count - mean.square()).clamp_min(0)


def _listener(statistics: _Statistics) -> Callable[[nn.Module, object, Tensor], None]:
    def listen(_: nn.Module, __: object, output: Tensor) -> None:
        statistics.add(output)

    return listen
