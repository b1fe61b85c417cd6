"""Averages kept or made of a network in training: its weights over steps, BN over photos."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


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
        torch._foreach_lerp_(
            [self._kept[name] for name in floats], [now[name] for name in floats], 1 - decay
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
    """Set BN's statistics, in place, to the means over batches of normalised images.

    Means and variances of the batches are averaged evenly, as in the paper's code.
    """
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    was_training = network.training
    network.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average of all batches
    for images in batches:
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(was_training)
