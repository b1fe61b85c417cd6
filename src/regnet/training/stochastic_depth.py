"""Stochastic depth: in training, blocks are left out at random, each photo its own.

Source: Huang et al. 2016 (arXiv 1603.09382), with the survival probability that falls linearly.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from regnet.network.modules import Block


class StochasticDepth:
    """Leaves out the residual branch of a photo's last block with probability `rate`.

    Of earlier blocks with less, by their place; the first has the least. What stays is divided by
    its probability, so that its mean is as in evaluation, where all stays. `draw` chooses what is
    left out in the steps to come.
    """

    def __init__(self, network: nn.Module, rate: float) -> None:
        self._random = torch.Generator().manual_seed(0)
        blocks = [module for module in network.modules() if isinstance(module, Block)]
        for place, block in enumerate(blocks, start=1):
            drop = partial(self._drop, rate * place / len(blocks))
            block.f.register_forward_hook(drop)

    def draw(self, seed: int) -> None:
        """Begin a step."""
        self._random.manual_seed(seed)

    def _drop(self, rate: float, module: nn.Module, inputs: Any, values: Tensor) -> Tensor:
        if not module.training:
            return values
        stays = torch.rand(len(values), 1, 1, 1, generator=self._random) >= rate
        return values * (stays / (1 - rate)).to(values.device, values.dtype)
