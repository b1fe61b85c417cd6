"""The devices that run networks here, by name: OpenVINO's, and `cuda` by torch."""

from dataclasses import dataclass
from functools import cache
from typing import Final

from regnet.system.errors import MissingEngineError, ModelError

CPU: Final = "CPU"
_GROUPS: Final = ("AUTO", "MULTI", "HETERO")
"""OpenVINO's names for several devices, which may be listed: `AUTO:GPU,CPU`."""


@dataclass(frozen=True)
class Device:
    """A device: the `name` that chooses it, and the `title` that its maker gave it."""

    name: str
    title: str

    def __str__(self) -> str:
        return f"{self.name} ({self.title})"


def canonical_device(name: str) -> str:
    """Return a device's name as OpenVINO and torch write it: `CPU`, `GPU.1`, `cuda:1`."""
    return name.lower() if is_cuda(name) else name.upper()


def is_cuda(name: str) -> bool:
    """Tell whether torch runs networks on this device, not OpenVINO."""
    return name.partition(":")[0].lower() == "cuda"


def members_of(name: str) -> list[str]:
    """Return the devices that a name lists; none for a group that has all, such as `AUTO`."""
    group, _, listed = name.partition(":")
    if group not in _GROUPS:
        return [name]
    return listed.split(",") if listed else []


def devices() -> tuple[Device, ...]:
    """Return the devices of this machine; looking for them, once, takes a second or more."""
    return (*_openvino_devices(), *_cuda_devices())


def require_device(name: str) -> None:
    """Raise `ModelError` if no device has this name; it lists those that are here.

    `GPU` and `cuda` are the first of several. `AUTO` chooses among OpenVINO's devices.
    """
    name = canonical_device(name)
    asked = members_of(name)
    if not asked or name == CPU:  # every machine has these
        return
    here = _cuda_devices() if is_cuda(name) else _openvino_devices()
    known = {known for device in here for known in (device.name, _first(device.name))}
    if absent := [each for each in asked if each not in known]:
        listing = ", ".join(map(str, devices())) or "none"
        raise ModelError(
            f"device {absent[0] or repr(name)}: not on this machine, which has {listing}. "
            "Name one of these, or AUTO"
        )


def device_title(name: str) -> str:
    """Return the titles of the devices that a name stands for; "" if they are not here."""
    members = members_of(name)
    here = _cuda_devices() if is_cuda(name) else _openvino_devices()
    return ", ".join(
        device.title
        for device in here
        if not members or device.name in members or _first(device.name) in members
    )


def _first(name: str) -> str:
    """Return the name of a kind of devices for the first of that kind, else the name itself."""
    kind, number = name.replace(":", ".").partition(".")[::2]
    return kind if number == "0" else name


@cache
def _openvino_devices() -> tuple[Device, ...]:
    try:
        from regnet.system.runtime import core
    except MissingEngineError:
        return ()
    names = core.available_devices
    return tuple(Device(name, core.get_property(name, "FULL_DEVICE_NAME")) for name in names)


@cache
def _cuda_devices() -> tuple[Device, ...]:
    """Return NVIDIA's GPUs, and AMD's, as torch sees them; none without torch."""
    try:
        from torch import cuda
    except (ImportError, OSError):  # OSError: one of its libraries is missing
        return ()
    count = cuda.device_count() if cuda.is_available() else 0
    return tuple(Device(f"cuda:{n}", cuda.get_device_name(n)) for n in range(count))
