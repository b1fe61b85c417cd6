"""The engine that runs a model on a device: OpenVINO's, or torch's for `cuda`."""

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from regnet.ir.engine import ConvertedModel, Engine, InferenceEngine
from regnet.system.devices import CPU, is_cuda, require_device
from regnet.system.parallel import cores

if TYPE_CHECKING:
    from regnet.ir.agreement import DeviceAgreement


def open_engine(model: ConvertedModel, *, device: str = CPU, **options: Any) -> InferenceEngine:
    """Return the engine of a model on a device; `options` are those of `Engine`.

    Raises `ModelError`, also for a device that is not here, as `cuda` is without torch.
    """
    require_device(device)
    if is_cuda(device):
        from regnet.ir.torch_engine import torch_engine

        options.pop("streams", None)  # its own
        return torch_engine(model, device=device, **options)
    return Engine(model, device=device, **options)


class Engines:
    """A model's engines, compiled when first used; `options` are those of `open_engine`."""

    def __init__(self, model: ConvertedModel, **options: Any) -> None:
        self._model, self._options = model, options
        self._engine = partial(open_engine, model, **options)
        self._one_for_both = cores() == 1 or is_cuda(options.get("device", CPU))

    @cached_property
    def one_at_a_time(self) -> InferenceEngine:
        """The engine that gives all cores to a single image."""
        return self.side_by_side if self._one_for_both else self._engine(streams=1)

    @cached_property
    def side_by_side(self) -> InferenceEngine:
        """The engine for many images, one on each core."""
        return self._engine(streams=cores())

    @cached_property
    def agreement(self) -> "DeviceAgreement":
        """How far the device agrees with the CPU in f32 on sample photos, measured once."""
        from regnet.ir.agreement import device_agreement

        options = {n: self._options[n] for n in ("device", "precision", "compiled_cache")}
        return device_agreement(self._model, self.side_by_side, **options)
