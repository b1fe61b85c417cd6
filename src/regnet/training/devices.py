"""Where a run trains: the devices, as Lightning Fabric names them."""

from dataclasses import dataclass, replace
from typing import Any, Final

from regnet.network.spec import Spec
from regnet.system.errors import MissingExtraError, TrainingError
from regnet.system.machine import this_machine

try:
    import torch
    from lightning_fabric import Fabric
except ImportError as exc:
    raise MissingExtraError("training", "train") from exc

from regnet.training.processes import layout

_LEAST_STEM: Final = 16  # channels


@dataclass(frozen=True, kw_only=True)
class Devices:
    """Devices to train on, as Lightning Fabric names them; torchrun's numbers go before these.

    "auto" takes what is there, but of CPUs one process; the strategy "fsdp" shards the network.
    """

    accelerator: str = "auto"
    devices: int | str = "auto"
    nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"

    def fabric(self) -> Fabric:
        """Return Fabric on these devices. Raises `TrainingError` where they are not there."""
        computed_in: Any = self.computed_in
        try:
            return Fabric(
                accelerator=self.accelerator,
                precision=computed_in,
                **layout(_number(self.devices), self.nodes, self.strategy, on_cpu=self._on_cpu),
            )
        except (ValueError, TypeError, RuntimeError) as exc:
            raise TrainingError(
                f"these devices cannot be had ({exc}); --accelerator, --devices, --strategy and "
                "--precision take the words of Lightning Fabric, all `auto` what is there"
            ) from exc

    def require_sound(self, spec: Spec) -> None:
        """Raise `TrainingError` for a network that torch 2.13 cannot train in bf16 on a CPU.

        Its gradients of a first convolution with fewer than 16 outputs write outside their memory:
        wrong weights, or a crash.
        """
        bf16 = self.computed_in.startswith("bf16")
        if self._on_cpu and bf16 and spec.stem_width < _LEAST_STEM:
            raise TrainingError(
                f"a stem of {spec.stem_width} channels cannot be trained in bf16 on a CPU, torch's "
                f"gradients are wrong there: use --precision 32-true, or {_LEAST_STEM} channels"
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
        """Return these devices, with the values of `before` for those that are the defaults."""
        default = Devices()
        chosen = {
            name: value for name, value in vars(self).items() if value != getattr(default, name)
        }
        return replace(before, **chosen)

    @property
    def computed_in(self) -> str:
        """The precision; "auto" is the fastest. Fabric scales gradients in 16-mixed."""
        if self.precision != "auto":
            return self.precision
        if self._on_cpu:
            return "bf16-mixed" if this_machine().has_bf16 else "32-true"
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if bf16 else "16-mixed"


def _number(devices: int | str) -> int | str:
    return int(devices) if isinstance(devices, str) and devices.lstrip("-").isdecimal() else devices
