"""Where a run trains: devices in Lightning Fabric's terms, its processes, sharded networks."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from regnet.network.spec import Spec
from regnet.system.errors import MissingExtraError, TrainingError
from regnet.system.machine import this_machine

try:
    import torch
    import torch.distributed as dist
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
    from torch import Tensor, nn
    from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, distribute_tensor
except ImportError as exc:
    raise MissingExtraError("training", "train") from exc

_MIN_BF16_STEM: Final = 16  # channels


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Devices to train on, in Lightning Fabric's terms; torchrun's numbers override these.

    "auto" uses what is available, but one process on CPUs; the strategy "fsdp" shards the network.
    """

    accelerator: str = "auto"
    devices: int | str = "auto"
    nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"

    def fabric(self) -> Fabric:
        """Return Fabric on these devices. Raises `TrainingError` if they are not available."""
        precision: Any = self.computed_in
        count = self.devices
        if isinstance(count, str) and count.lstrip("-").isdecimal():
            count = int(count)
        try:
            return Fabric(
                accelerator=self.accelerator,
                precision=precision,
                **layout(count, self.nodes, self.strategy, on_cpu=self._on_cpu),
            )
        except (ValueError, TypeError, RuntimeError) as exc:
            raise TrainingError(
                f"cannot use these devices: {exc}. --accelerator, --devices, --strategy and "
                "--precision take Lightning Fabric's values; `auto` uses what is available"
            ) from exc

    def require_sound(self, spec: Spec) -> None:
        """Raise `TrainingError` for a network that torch 2.13 cannot train in bf16 on a CPU.

        Gradients of a first convolution with fewer than 16 outputs are written outside their
        memory: wrong weights, or a crash.
        """
        bf16 = self.computed_in.startswith("bf16")
        if self._on_cpu and bf16 and spec.stem_width < _MIN_BF16_STEM:
            raise TrainingError(
                f"a stem of {spec.stem_width} channels cannot be trained in bf16 on a CPU: torch's "
                f"gradients are wrong. Use --precision 32-true, or {_MIN_BF16_STEM} channels"
            )

    @property
    def _on_cpu(self) -> bool:
        return self.accelerator == "cpu" or not torch.cuda.is_available()

    @property
    def described(self) -> str:
        """The machine in words."""
        machine = this_machine()
        device = machine.cpu if self._on_cpu else torch.cuda.get_device_name()
        return f"{device}, {machine.cores} cores"

    def completed(self, before: "Devices") -> "Devices":
        """Return these devices, with the values of `before` where these are the defaults."""
        default = vars(Devices())
        return replace(before, **{k: v for k, v in vars(self).items() if v != default[k]})

    @property
    def computed_in(self) -> str:
        """The precision; "auto" is the fastest. Fabric scales gradients in 16-mixed."""
        if self.precision != "auto":
            return self.precision
        if self._on_cpu:
            return "bf16-mixed" if this_machine().has_bf16 else "32-true"
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if bf16 else "16-mixed"


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
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
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
    optimizer.load_state_dict(state | {"state": sharded})


def _like(value: Any, own: Tensor) -> Any:
    """Return a tensor of the shape of `own` sharded as that is; other values as they are."""
    if not isinstance(own, DTensor) or not hasattr(value, "shape") or value.shape != own.shape:
        return value
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
