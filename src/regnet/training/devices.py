"""Where a run trains: its processes, networks sharded over them, and memory when it is short."""

import contextlib
import ctypes
import os
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from numpy.typing import NDArray

from regnet.system.errors import MissingExtraError, TrainingError
from regnet.training.recipe import Recipe

try:
    import torch
    import torch.distributed as dist
    import torch.nn.functional as F
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
    from torch import Tensor, nn
    from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, distribute_tensor
except ImportError as exc:
    raise MissingExtraError("training", "train") from exc

STEPS: Final = 30
"""Steps that an epoch should have, so that small sets train in a few epochs."""

_MIN_BATCH: Final = 16  # with fewer images, batch-norm statistics are mostly noise
_MAX_CPU, _MAX_GPU = 64, 256
_SHORTAGE: Final = re.compile(
    "can.t allocate memory|bad_alloc|not enough memory|start new thread"
    "|could not create a (primitive|memory)"  # oneDNN's
)
_MALLOC: Final = {-1: 2**31 - 1, -2: 64 << 20, -4: 0}  # trim threshold, top pad, mmap max


def layout(devices: int | str, nodes: int, strategy: str, *, on_cpu: bool) -> dict[str, Any]:
    """Return Fabric's `devices`, `num_nodes` and `strategy`; under torchrun its numbers.

    "auto" devices are all GPUs, but one process on CPUs. "fsdp" is PyTorch's FSDP2, which shards
    parameters, gradients and optimizer state; "auto" and "ddp" replicate them in every process.
    """
    if dist.is_available() and dist.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    elif devices == "auto" and on_cpu:
        devices = 1
    sharded = strategy == "fsdp"
    return {
        "devices": devices,
        "num_nodes": nodes,
        "strategy": ModelParallelStrategy(_shard) if sharded else strategy,
    }


def _shard(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shard a network over all processes, in place: stem, stages and head each as one."""
    everyone = init_device_mesh(mesh.device_type, (dist.get_world_size(),))
    for part in network.children():
        fully_shard(part, mesh=everyone)
    fully_shard(network, mesh=everyone)
    return network


def on_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """Return an array as a tensor on a device; the host does not wait for its copy."""
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Processes:
    """This process, number `rank` from 0, among the `count` of a run."""

    def __init__(self, fabric: Fabric) -> None:
        self.rank, self.count = fabric.global_rank, fabric.world_size
        # Hosts agree over gloo: no GPU has to wait, and a lost host is noticed at once.
        self._group = dist.new_group(backend="gloo") if self.count > 1 else None

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return which flags are raised in any process; all of them must call this at once."""
        if self._group is None:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(raised, dist.ReduceOp.MAX, group=self._group)
        return tuple(map(bool, raised.tolist()))

    def lost_one(self, error: RuntimeError) -> str:
        """Return what an error says about an unreachable process, "" if it is another error."""
        line = first_line(error)
        known = isinstance(error, dist.DistError) or re.search("gloo|NCCL", line, re.IGNORECASE)
        if self.count == 1 or not known:
            return ""
        without_place = re.sub(r"^\[\S+\] ", "", line)  # in the library's source
        return without_place.split(". ")[0][:200]


# FSDP2. A checkpoint holds whole tensors, so that any number of processes can resume from it.


def is_sharded(fabric: Fabric) -> bool:
    """Return whether Fabric shards the networks it sets up."""
    return isinstance(fabric.strategy, ModelParallelStrategy)


def whole(value: Any) -> Any:
    """Return nested dicts and lists with whole tensors; all processes must call this at once."""
    if isinstance(value, dict):
        return {key: whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [whole(each) for each in value]
    return value.full_tensor() if isinstance(value, DTensor) else value


def own_part(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor that may be sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def sharded_like(values: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return whole tensors sharded as `own` of the same names; all processes at once."""
    return {name: _like(value, own[name]) for name, value in values.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a whole optimizer state, sharded as the parameters are."""
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sharded = {
        place: {name: _like(value, own[place]) for name, value in values.items()}
        for place, values in state["state"].items()
    }
    fused = [group.get("fused") for group in optimizer.param_groups]  # as this device has it
    optimizer.load_state_dict(state | {"state": sharded})
    for group, own_way in zip(optimizer.param_groups, fused, strict=True):
        group["fused"] = own_way


def _like(value: Any, own: Tensor) -> Any:
    """Return a tensor of the shape of `own` sharded as that is; other values as they are."""
    if not isinstance(own, DTensor) or not hasattr(value, "shape") or value.shape != own.shape:
        return value
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)


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


def one_step(network: nn.Module, recipe: Recipe, fabric: Any, images: int) -> None:
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


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its kind if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def is_shortage(error: Exception) -> bool:
    """Return whether an error means that memory was refused: torch has no class for CPUs."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_SHORTAGE.search(str(error)))
