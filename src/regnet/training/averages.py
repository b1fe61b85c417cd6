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

    As in the paper's code, the means of batches and of their squares are averaged evenly, so that
    the variance has what the batches differ by. BN that does not learn keeps its own, and all do
    where there are no batches.
    """
    modes = [(module, module.training) for module in network.modules()]
    norms = [module for module in network.modules() if isinstance(module, _NORMS)]
    learning = [norm for norm in norms if any(p.requires_grad for p in norm.parameters())]
    network.train()
    for norm in norms:
        norm.train(norm in learning)
    with _momentum(learning, 1.0):  # the running statistics are then the last batch's own
        found = [_moments(learning) for images in batches if network(images) is not None]
    for place, norm in enumerate(learning if found else ()):
        mean, square = torch.stack([moments[place] for moments in found]).mean(0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(square - mean * mean)
    for module, mode in modes:
        module.training = mode
