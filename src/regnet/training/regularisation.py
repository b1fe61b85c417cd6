"""Disturbances of the network in training, by hooks: activation noise and stochastic depth."""

from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from regnet.network.modules import Block, RegNet
from regnet.training.devices import on_device
from regnet.training.recipe import Augmentation

_OFFSETS: Final = 1 << 16  # places at which a noise may begin


class ActivationNoise:
    """Add uniform noise, one quantization step wide, to each ReLU's output in training.

    The step is that of rounding 0 to the tensor's maximum to `bits` bits. A model trained with
    more noise than INT8 has agrees better with its INT8 version (Baskin et al. 2018, NICE, arXiv
    1810.00162).
    """

    def __init__(self, network: nn.Module, bits: float) -> None:
        self._levels = 2.0**bits - 1
        self._noises: dict[tuple[int, torch.dtype], Tensor] = {}
        self._random = torch.Generator().manual_seed(0)
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(self._add)

    def draw(self, seed: int) -> None:
        """Choose the noise of the steps to come."""
        self._random.manual_seed(seed)

    def _add(self, module: nn.Module, inputs: Any, values: Tensor) -> Tensor:
        if not module.training:
            return values
        step = values.detach().amax() / self._levels
        in_memory = values.permute(0, 2, 3, 1).shape  # channels last
        scaled: Tensor = self._noise(values).view(in_memory).permute(0, 3, 1, 2) * step
        return values + scaled

    def _noise(self, values: Tensor) -> Tensor:
        """Return a number in -0.5..0.5 per value, from a drawn offset."""
        count = values.numel()
        size = 1 << (count + _OFFSETS - 1).bit_length()
        key = (size, values.dtype)
        if key not in self._noises:
            random = torch.Generator().manual_seed(size)
            uniform = torch.rand(size, generator=random) - 0.5
            self._noises[key] = uniform.to(values.device, values.dtype)
        start = int(torch.randint(size - count, (), generator=self._random))
        return self._noises[key][start : start + count]


class StochasticDepth:
    """Drop the residual branch of a photo's last block with probability `rate`, earlier ones less.

    The probability rises linearly with the place of the block. Kept branches are divided by their
    probability of staying, so that means are as in evaluation (Huang et al. 2016, arXiv
    1603.09382).
    """

    def __init__(self, network: nn.Module, rate: float) -> None:
        self._random = torch.Generator().manual_seed(0)
        blocks = [m for m in network.modules() if isinstance(m, Block) and m.has_shortcut]
        for place, block in enumerate(blocks, start=1):
            block.f.register_forward_hook(partial(self._drop, rate * place / len(blocks)))

    def draw(self, seed: int) -> None:
        """Choose what is dropped in the steps to come."""
        self._random.manual_seed(seed)

    def _drop(self, rate: float, module: nn.Module, inputs: Any, values: Tensor) -> Tensor:
        if not module.training:
            return values
        stays = torch.rand(len(values), 1, 1, 1, generator=self._random) >= rate
        kept = on_device((stays / (1 - rate)).numpy(), values.device)
        return values * kept.to(values.dtype)


def disturb(network: RegNet, options: Augmentation) -> list[ActivationNoise | StochasticDepth]:
    """Add a recipe's disturbances to a network; each draws before a step."""
    made: list[ActivationNoise | StochasticDepth] = []
    if options.noise_bits:
        made.append(ActivationNoise(network, options.noise_bits))
    if options.stochastic_depth:
        made.append(StochasticDepth(network, options.stochastic_depth))
    return made
