"""Noise like that of rounded activations, in training: the network learns not to depend on it.

A model that was trained with more noise than INT8 has agrees better with its own INT8 version.
Source of the idea: Baskin et al. 2018, NICE (arXiv 1810.00162).
"""

from typing import Any, Final

import torch
from torch import Tensor, nn

_SLACK: Final = 1 << 16  # places at which a noise may begin


class ActivationNoise:
    """Adds to what each ReLU of a network gives, in training, even noise of one step's width.

    The step is that of rounding 0 to the tensor's largest value to `bits` bits. `draw` chooses the
    noise of the steps to come.
    """

    def __init__(self, network: nn.Module, bits: float) -> None:
        self._levels = 2.0**bits - 1
        self._noises: dict[tuple[int, torch.dtype], Tensor] = {}
        self._random = torch.Generator().manual_seed(0)
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(self._add)

    def draw(self, seed: int) -> None:
        """Begin a step."""
        self._random.manual_seed(seed)

    def _add(self, module: nn.Module, inputs: Any, values: Tensor) -> Tensor:
        if not module.training:
            return values
        step = values.detach().amax() / self._levels
        noise = self._noise(values)
        scaled: Tensor = noise.view(_last(values).shape).permute(0, 3, 1, 2) * step
        return values + scaled

    def _noise(self, values: Tensor) -> Tensor:
        """Return as many numbers in -0.5..0.5 as there are values, from a place drawn."""
        count = values.numel()
        size = 1 << (count + _SLACK - 1).bit_length()
        key = (size, values.dtype)
        if key not in self._noises:
            random = torch.Generator().manual_seed(size)
            even = torch.rand(size, generator=random) - 0.5
            self._noises[key] = even.to(values.device, values.dtype)
        start = int(torch.randint(size - count, (), generator=self._random))
        return self._noises[key][start : start + count]


def _last(values: Tensor) -> Tensor:
    """Return a view with the channels last, as they are in memory."""
    return values.permute(0, 2, 3, 1)
