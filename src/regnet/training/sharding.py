"""Networks sharded over processes by FSDP2: sharded, whole again, and sharded as before.

What a checkpoint holds is always whole, so that any number of processes goes on from it. Plain
tensors pass through all of this as they are.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard_stages(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Shard a network over all processes, in place: stem, stages and head each as one."""
    everyone = init_device_mesh(mesh.device_type, (dist.get_world_size(),))
    for part in network.children():
        fully_shard(part, mesh=everyone)
    fully_shard(network, mesh=everyone)
    return network


def is_sharded(fabric: Fabric) -> bool:
    """Return whether networks that Fabric sets up are sharded."""
    return isinstance(fabric.strategy, ModelParallelStrategy)


def whole(value: Any) -> Any:
    """Return nested dicts and lists with their tensors whole; all processes must ask at once."""
    if isinstance(value, dict):
        return {key: whole(each) for key, each in value.items()}
    if isinstance(value, list):
        return [whole(each) for each in value]
    return value.full_tensor() if isinstance(value, DTensor) else value


def own_part(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor that may be sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def sharded_like(values: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return whole tensors sharded as `own` of the same names; all processes must ask at once."""
    return {name: _like(value, own[name]) for name, value in values.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimizer the whole state of one, sharded as its parameters are."""
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = {
        place: {
            name: _like(value, own[place]) if _has_shape_of(value, own[place]) else value
            for name, value in values.items()
        }
        for place, values in state["state"].items()
    }
    optimizer.load_state_dict(state | {"state": kept})


def _has_shape_of(value: object, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape


def _like(value: Tensor, own: Tensor) -> Tensor:
    if not isinstance(own, DTensor):
        return value
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
