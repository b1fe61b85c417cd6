"""Memory: what the allocator keeps, the batch that fits, and what to do when memory is short."""

import contextlib
import ctypes
import re
import sys
from collections.abc import Callable
from typing import Any, Final

import torch
from torch.nn import functional as F

from regnet.network.modules import RegNet
from regnet.system.errors import TrainingError
from regnet.training.recipe import Recipe

STEPS: Final = 30
"""Steps that an epoch should have, so that small sets train in a few epochs."""

_MIN_BATCH: Final = 16  # with fewer images, batch-norm statistics are mostly noise
_MAX_CPU, _MAX_GPU = 64, 256
_SHORTAGE: Final = re.compile(
    "can.t allocate memory|bad_alloc|not enough memory|start new thread"
    "|could not create a (primitive|memory)"  # oneDNN's
)
_MALLOC: Final = {-1: 2**31 - 1, -2: 64 << 20, -4: 0}  # trim threshold, top pad, mmap max


def keep_freed_memory() -> None:
    """Let glibc keep freed memory, if there is a glibc.

    Every step needs the same buffers again. Handing large ones back to the system, as glibc does,
    costs about as much as the step itself on a CPU.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            for option, value in _MALLOC.items():
                ctypes.CDLL(None).mallopt(option, value)


def batch_by_photos(photos: int, *, gpu: bool, processes: int = 1) -> int:
    """Return the largest power of two with about 30 steps an epoch, from 16 to 64 (GPU: 256).

    Times the number of processes, as far as the photos reach.
    """
    largest = (_MAX_GPU if gpu else _MAX_CPU) * processes
    batch = _MIN_BATCH * processes
    while 2 * batch <= largest and 2 * batch * STEPS <= photos * 1.1:
        batch *= 2
    return batch


def fitting(batch: int, attempt: Callable[[int], None]) -> int:
    """Return the batch, halved as often as `attempt` runs out of GPU memory."""
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
    """Compute and drop gradients of grey images at the recipe's largest crop."""
    side = max(recipe.input.crops)
    network.to(fabric.device)
    batch = torch.zeros(images, 3, side, side, device=fabric.device)
    truths = torch.zeros(images, dtype=torch.long, device=fabric.device)
    with fabric.autocast():
        logits = network(batch.to(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), truths)
    loss.backward()  # type: ignore[no-untyped-call]
    network.zero_grad(set_to_none=True)


def is_shortage(error: Exception) -> bool:
    """Return whether an error means that memory was refused: torch has no class for CPUs."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_SHORTAGE.search(str(error)))
