"""Batch normalisation: over all processes, precise at the end, and unfolded from convolutions."""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from regnet.network.layers import layers
from regnet.network.modules import RegNet
from regnet.network.spec import Spec
from regnet.system.errors import TrainingError

_NORMS: Final = (nn.BatchNorm2d, nn.SyncBatchNorm)


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Make each BatchNorm2d of a network, in place, one over all processes.

    So the result does not depend on how many processes share a batch. On a GPU it is torch's own,
    which is for CUDA only.
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
    """BatchNorm2d whose training statistics are those of all processes' images."""

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised images (N, C, H, W)."""
        if not self.training:
            return super().forward(x)
        mean, variance, count = _synced_statistics(x.detach())
        self._update(mean, variance, count)
        normalised: Tensor = _Normalised.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, mean, variance, count, self.eps
        )
        return normalised

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the running statistics as BatchNorm2d does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:
            share = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), share)


def _synced_statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return mean and variance (C,) over all processes, and the number of values per channel."""
    zeros = torch.zeros(x.shape[1], device=x.device)  # unused, but they make the result float32
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
    """Normalisation whose mean and variance depend on the images of all processes.

    Gradient: Ioffe and Szegedy 2015 (arXiv 1502.03167), section 3, with sums over all.
    """

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
        # x also moved the mean and the variance by which all images are normalised.
        gain = -weight * torch.rsqrt(variance + ctx.eps)
        through = F.batch_norm(x, mean, variance, gain * means[0], gain * means[1], eps=ctx.eps)
        return direct + through, to_weight, to_bias, None, None, None, None


@torch.no_grad()
def precise_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Set batch-norm statistics, in place, to those over batches of normalised images.

    As in the paper's code, the batches' means and mean squares are averaged evenly, so the
    variance includes the differences between batches. Frozen BN keeps its own.
    """
    norms: list[Any] = [module for module in network.modules() if isinstance(module, _NORMS)]
    learning = [norm for norm in norms if norm.weight.requires_grad]
    totals, count = [torch.zeros(()) for _ in learning], 0
    with _batch_statistics(network, norms):
        for images in batches:
            network(images)
            totals = [total + _moments(norm) for total, norm in zip(totals, learning, strict=True)]
            count += 1
    for total, norm in zip(totals if count else (), learning, strict=False):
        mean, square = total / count
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(square - mean * mean)


def _moments(norm: Any) -> Tensor:
    """Return mean and mean square per channel: (2, channels)."""
    mean, variance = norm.running_mean.cpu().double(), norm.running_var.cpu().double()
    return torch.stack([mean, variance + mean * mean])


@contextmanager
def _batch_statistics(network: nn.Module, norms: list[Any]) -> Iterator[None]:
    """Make learning BN hold the statistics of each batch alone; all else is in evaluation mode."""
    modes = [(module, module.training) for module in network.modules()]
    momenta = [norm.momentum for norm in norms]
    network.eval()
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


@torch.no_grad()
def unfold_batch_norm(spec: Spec, folded: Mapping[str, Tensor], images: Iterable[Tensor]) -> RegNet:
    """Return a network with batch norm whose logits in evaluation mode are the folded weights'.

    Folding put each BN into the convolution before it. Each convolution gets one back: its output
    over `images` gives the statistics, scale and offset undo them. `folded` has a weight and a
    bias per layer, by pycls's names; `images` are normalised batches (N, 3, H, W) like the
    training data. Raises `TrainingError` without any.
    """
    network = RegNet(spec).eval()
    own = network.state_dict()
    network.load_state_dict(own | {name: folded[name] for name in own if name in folded})
    for layer in layers(spec):
        norm = network.get_submodule(layer.name)
        if isinstance(norm, nn.BatchNorm2d):  # no convolution took it in: a factor and a shift
            norm.weight.mul_(math.sqrt(1 + norm.eps))
    pairs = dict(_conv_and_norm(network))
    for name, (_, norm) in pairs.items():  # until it has statistics, BN only adds the bias
        _set(norm, torch.zeros_like(norm.bias), torch.ones_like(norm.bias), folded[f"{name}.bias"])
    statistics = {name: _Statistics() for name in pairs}
    hooks = [conv.register_forward_hook(statistics[name]) for name, (conv, _) in pairs.items()]
    for batch in images:
        network(batch)
    for hook in hooks:
        hook.remove()
    for name, (_, norm) in pairs.items():
        mean, variance = statistics[name].mean_and_variance()
        _set(norm, mean, variance, folded[f"{name}.bias"])
    return network


def _conv_and_norm(network: RegNet) -> Iterator[tuple[str, tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """Yield each convolution that BN follows, by name, and that BN."""
    for layer in layers(network.spec):
        conv, norm = network.get_submodule(layer.name), network.get_submodule(layer.norm or "")
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            yield layer.name, (conv, norm)


def _set(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, bias: Tensor) -> None:
    """Make BN in evaluation mode add `bias`, with these statistics."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_(torch.sqrt(variance + norm.eps))
    norm.bias.copy_(bias + mean)


class _Statistics:
    """A forward hook that sums a layer's outputs (N, C, H, W) per channel."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = self._squares = torch.zeros(())

    def __call__(self, module: nn.Module, inputs: object, values: Tensor) -> None:
        values = values.double()
        self._count += values.numel() // values.shape[1]
        self._sum = self._sum + values.sum((0, 2, 3))
        self._squares = self._squares + values.square().sum((0, 2, 3))

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """Return both, float64 (C,)."""
        if not self._count:
            raise TrainingError("no readable photo to take batch-norm statistics from")
        mean = self._sum / self._count
        return mean, (self._squares / self._count - mean.square()).clamp_min(0)
