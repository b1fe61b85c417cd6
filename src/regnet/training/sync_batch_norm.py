"""Batch normalisation over the images of all processes.

So the result of training does not depend on how many processes share a batch. Source of the
gradient: Ioffe and Szegedy 2015 (arXiv 1502.03167), section 3, with the sums taken over all.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Turn each BatchNorm2d of a network, in place, into one over all processes.

    On a GPU into torch's own, which is for CUDA alone.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm


class SyncedBatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of all processes' images."""

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised images (N, C, H, W)."""
        if not self.training:
            return super().forward(x)
        mean, variance, count = _statistics(x.detach())
        self._keep(mean, variance, count)
        done: Tensor = _Normalised.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, mean, variance, count, self.eps
        )
        return done

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, count: int) -> None:
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


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return mean and variance (C,) over all processes, and how many values went into each."""
    zeros = torch.zeros(x.shape[1], device=x.device)  # not used, but they make the result float32
    own_mean, own_variance = torch.batch_norm_update_stats(x, zeros, zeros.clone(), 0.0)
    own_mean, own_variance = own_mean.double(), own_variance.double()
    own_count = x.numel() // x.shape[1]
    sums = torch.stack([own_mean, own_variance + own_mean**2]) * own_count
    totals = torch.cat([sums.flatten(), sums.new_tensor([own_count])])
    dist.all_reduce(totals)
    count = totals[-1]
    mean, squares = (totals[:-1] / count).view(2, -1)
    return mean.float(), (squares - mean**2).clamp_min(0).float(), int(count)


class _Normalised(torch.autograd.Function):
    """Images normalised by mean and variance that depend on the images of all processes."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: int,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.count, ctx.eps = count, eps
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        direct, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        means = torch.stack([to_weight, to_bias])
        dist.all_reduce(means)
        means /= ctx.count
        # x also moved the mean and the variance that all images are normalised by.
        gain = -weight * torch.rsqrt(variance + ctx.eps)
        through = F.batch_norm(x, mean, variance, gain * means[0], gain * means[1], eps=ctx.eps)
        return direct + through, to_weight, to_bias, None, None, None, None
