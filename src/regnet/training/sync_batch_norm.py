"""Batch normalisation over the images of all processes, on any device.

So the result of training does not depend on how many processes share a batch. torch's own is for
CUDA alone. Source of the way that statistics of parts are joined: Chan, Golub and LeVeque 1983.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

_AXES = (0, 2, 3)


class SyncedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of all processes' images."""

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised images (N, C, H, W)."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        mean, variance, count = _statistics(values)
        self._keep(mean.detach(), variance.detach(), count)
        gain = self.weight * torch.rsqrt(variance + self.eps)
        offset = self.bias - mean * gain
        return (values * gain[:, None, None] + offset[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Take a batch's statistics into the running ones, as BatchNorm2d does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), share)


def _statistics(values: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return mean and variance (C,) over all processes, and how many values went into each."""
    own_variance, own_mean = torch.var_mean(values, dim=_AXES, correction=0)
    own_count = values.numel() // values.shape[1]
    sums = torch.stack([own_mean, own_variance + own_mean**2]).double() * own_count
    totals = all_reduce(torch.cat([sums.flatten(), sums.new_tensor([own_count])]))
    count = float(totals[-1].detach())
    mean, squares = (totals[:-1] / count).view(2, -1)
    return mean.float(), (squares - mean**2).clamp_min(0).float(), count


def synchronise_batch_norm(network: nn.Module) -> None:
    """Turn each BatchNorm2d of a network, in place, into one over all processes."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm
