"""Averages kept or made of a network in training: its weights over steps, BN over photos."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

_NORMS: Final = (nn.BatchNorm2d, nn.SyncBatchNorm)


class WeightAverage:
    """An exponential moving average of a network's weights and BN statistics.

    Early on, when the mean is still of poor weights, it forgets faster: after t steps the decay is
    at most (1 + t) / (10 + t).
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay, self._steps = decay, 0
        self._kept = {name: t.detach().clone() for name, t in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network after a step."""
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        self._steps += 1
        now = network.state_dict()
        floats = [name for name, kept in self._kept.items() if kept.is_floating_point()]
        for kind in {type(now[name]) for name in floats}:  # sharded tensors do not mix with others
            names = [name for name in floats if type(now[name]) is kind]
            torch._foreach_lerp_(
                [self._kept[name] for name in names], [now[name] for name in names], 1 - decay
            )
        for name in self._kept.keys() - set(floats):
            self._kept[name].copy_(now[name])

    @property
    def weights(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return self._kept

    @torch.no_grad()
    def load(self, network: nn.Module) -> None:
        """Take a network's weights for the average."""
        for name, now in network.state_dict().items():
            self._kept[name].copy_(now)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"steps": self._steps, "weights": self._kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._steps = state["steps"]
        for name, kept in self._kept.items():
            kept.copy_(state["weights"][name])


@torch.no_grad()
def precise_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set BN's statistics, in place, to those over batches of normalised images.

    As in the paper's code, the batches' means and mean squares are averaged evenly, so that the
    variance has what batches differ by. BN that does not learn keeps its own; so do all where there
    is no batch.
    """
    norms: list[Any] = [module for module in network.modules() if isinstance(module, _NORMS)]
    learning = [norm for norm in norms if norm.weight.requires_grad]
    totals, count = [torch.zeros(()) for _ in learning], 0
    with _own_statistics(network, norms):
        for images in batches:
            network(images)
            totals = [total + _moments(norm) for total, norm in zip(totals, learning, strict=True)]
            count += 1
    for total, norm in zip(totals if count else (), learning, strict=False):
        mean, square = total / count
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(square - mean * mean)


def _moments(norm: Any) -> Tensor:
    """Return the mean and the mean square of each channel: (2, channels)."""
    mean, variance = norm.running_mean.cpu().double(), norm.running_var.cpu().double()
    return torch.stack([mean, variance + mean * mean])


@contextmanager
def _own_statistics(network: nn.Module, norms: list[Any]) -> Iterator[None]:
    """Let BN that learns keep the statistics of each batch alone, and other BN change nothing."""
    modes = [(module, module.training) for module in network.modules()]
    momenta = [norm.momentum for norm in norms]
    network.eval()  # nothing else is as in training: no noise, no block left out
    for norm in norms:
        norm.train(norm.weight.requires_grad)
        norm.momentum = 1.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, mode in modes:
            module.training = mode
