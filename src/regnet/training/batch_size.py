"""The size of a batch where the recipe leaves it open: by the photos, and what memory holds."""

import re
from collections.abc import Callable
from typing import Any, Final

import torch
from torch.nn import functional as F

from regnet.network.modules import RegNet
from regnet.system.errors import TrainingError
from regnet.training.recipe import Recipe

STEPS: Final = 30
"""Steps that an epoch should have, for small sets to be learnt in a few epochs."""

_LEAST: Final = 16  # below, the statistics of batch normalisation are mostly chance
_MOST_CPU, _MOST_GPU = 64, 256
_REFUSED: Final = re.compile(
    "can.t allocate memory|bad_alloc|not enough memory|start new thread"
    "|could not create a (primitive|memory)"  # oneDNN's
)


def batch_by_photos(photos: int, *, gpu: bool, processes: int = 1) -> int:
    """Return the largest power of two with about 30 steps an epoch, from 16 to 64 (GPU: 256).

    Times the number of processes, as far as the photos reach.
    """
    most = (_MOST_GPU if gpu else _MOST_CPU) * processes
    batch = _LEAST * processes
    while 2 * batch <= most and 2 * batch * STEPS <= photos * 1.1:
        batch *= 2
    return batch


def fitting(batch: int, attempt: Callable[[int], None]) -> int:
    """Return the batch, halved as often as `attempt` runs out of a GPU's memory on it."""
    while True:
        try:
            attempt(batch)
            return batch
        except torch.OutOfMemoryError as exc:
            torch.cuda.empty_cache()
            if batch == 1:
                raise TrainingError(
                    "not even one image fits into the GPU's memory: take smaller crops (--crop), "
                    "a smaller network, or --accelerator cpu"
                ) from exc
            batch //= 2


def one_step(network: RegNet, recipe: Recipe, fabric: Any, images: int) -> None:
    """Compute gradients of so many grey images at the recipe's largest crop, and forget them."""
    side = max([recipe.input.crop, *(size for _, size in recipe.input.progressive)])
    network.to(fabric.device)
    batch = torch.zeros(images, 3, side, side, device=fabric.device)
    with fabric.autocast():
        logits = network(batch.to(memory_format=torch.channels_last))
        loss = F.cross_entropy(
            logits.float(), torch.zeros(images, dtype=torch.long).to(batch.device)
        )
    loss.backward()  # type: ignore[no-untyped-call]
    network.zero_grad(set_to_none=True)


def is_shortage(error: Exception) -> bool:
    """Return whether an error says that memory was refused: torch has no class for that on CPUs."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_REFUSED.search(str(error)))
