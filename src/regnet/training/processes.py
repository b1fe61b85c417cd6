"""The processes of a run: how they are laid out, what they agree on, and that one is lost."""

import os
import re
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from lightning_fabric.strategies.strategy import Strategy

from regnet.training.sharding import shard_stages


def layout(devices: int | str, nodes: int, strategy: str, *, on_cpu: bool) -> dict[str, Any]:
    """Return what Fabric is to be given as `devices`, `num_nodes` and `strategy`.

    Where torchrun started this process, its numbers count. "auto" devices are all GPUs, but of
    CPUs one process. The strategy "fsdp" is PyTorch's FSDP2, which shards parameters, gradients
    and the optimizer's state; "auto" and "ddp" give every process all of them.
    """
    if dist.is_available() and dist.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    elif devices == "auto" and on_cpu:
        devices = 1
    named: str | Strategy = ModelParallelStrategy(shard_stages) if strategy == "fsdp" else strategy
    return {"devices": devices, "num_nodes": nodes, "strategy": named}


class Processes:
    """This process, number `rank` from 0, among the `count` of a run."""

    def __init__(self, fabric: Fabric) -> None:
        self.rank, self.count = fabric.global_rank, fabric.world_size
        # Hosts agree over gloo: so no GPU has to wait, and a host notices at once that one is lost.
        self._group = dist.new_group(backend="gloo") if self.count > 1 else None

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Return which flags are raised by any process; all of them must ask at once."""
        if self._group is None:
            return flags
        raised = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(raised, dist.ReduceOp.MAX, group=self._group)
        return tuple(map(bool, raised.tolist()))

    def lost_one(self, error: RuntimeError) -> str:
        """Return what an error says of another process that cannot be reached, "" if of none."""
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        known = isinstance(error, dist.DistError) or re.search("gloo|NCCL", line, re.IGNORECASE)
        if self.count == 1 or not known:
            return ""
        without_place = re.sub(r"^\[\S+\] ", "", line)  # in the library's source
        return without_place.split(". ")[0][:200]
