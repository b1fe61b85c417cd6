"""What `regnet doctor --self` finds: the installation, its extras, the devices, the cache."""

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from regnet.conversion.cache_folder import CacheFolder
from regnet.pages.report import Facts, Report, Section, Table
from regnet.pixels import kernel
from regnet.system.devices import Device, devices
from regnet.system.installation import (
    Installation,
    installed_version,
    name_of,
    this_installation,
)
from regnet.system.machine import Machine, this_machine
from regnet.system.text import counted, megabytes
from regnet.system.version import TOOL_VERSION

PURPOSES: Final = {
    "torch": "the torch engine",
    "train": "train, space sweep",
    "serve": "serve",
    "quantize": "quantize",
    "report": "--html",
    "onnx": "ONNX files",
    "parquet": "Parquet files",
    "video": "videos and cameras",
    "heif": "HEIC and HEIF photos",
    "jxl": "JPEG XL photos",
    "cluster": "--ray",
}
"""What each extra is for."""

_CORE: Final = ("numpy", "openvino", "pillow", "simplejpeg", "httpx", "typer")


@dataclass(frozen=True)
class Extra:
    """An extra: its packages with their versions (None: missing), and the command that adds it."""

    name: str
    packages: Mapping[str, str | None]
    command: str

    @property
    def complete(self) -> bool:
        """Whether all its packages are installed."""
        return all(self.packages.values())

    @property
    def state(self) -> str:
        """Its packages in words."""
        missing = [name for name, version in self.packages.items() if version is None]
        if missing:
            return f"needs {', '.join(missing)}"
        return ", ".join(f"{name} {version}" for name, version in self.packages.items())


@dataclass(frozen=True)
class SelfExamination:
    """An installation examined; `kernel` is active, absent or off."""

    origin: str
    core: Mapping[str, str | None]
    extras: tuple[Extra, ...]
    machine: Machine
    devices: tuple[Device, ...]
    kernel: str
    cache: Mapping[str, Any]
    writable: bool
    again: str

    @property
    def faults(self) -> list[str]:
        """What makes it slower or fail, each with what to do."""
        faults = []
        if self.kernel == "absent":
            faults.append(
                "Photos are resized without compiled code, so slower: install regnet's wheel for "
                f"this system, or a C compiler (gcc or clang) and then {self.again}"
            )
        if self.kernel == "off":
            faults.append(f"{kernel.SWITCH}=off makes resizing slower: unset it")
        if not self.writable:
            faults.append(
                f"The cache {self.cache['folder']} cannot be written to: name another folder with "
                "--cache-dir or REGNET_CACHE"
            )
        return faults

    @property
    def advice(self) -> list[str]:
        """What could be done besides: faster precisions, and the commands that add extras."""
        advice = []
        if self.machine.has_bf16:
            advice.append("This CPU computes in bfloat16: --precision bf16 is faster")
        if not self.machine.sums_int8:
            advice.append("This CPU has no VNNI: INT8 models run in floating point, not faster")
        ways: dict[str, list[Extra]] = {}
        for extra in self.extras:
            if not extra.complete:
                way = extra.command.replace(f"[{extra.name}]", "[EXTRA]")
                ways.setdefault(way, []).append(extra)
        for way, (first, *others) in ways.items():
            names = ", ".join(extra.name for extra in (first, *others))
            about, command = PURPOSES[first.name], first.command
            advice.append(f"For EXTRA {names}: {way}" if others else f"For {about}: {command}")
        return advice

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        extras = {
            extra.name: {
                "complete": extra.complete,
                "packages": dict(extra.packages),
                "command": extra.command,
            }
            for extra in self.extras
        }
        return {
            "version": TOOL_VERSION,
            "installed_from": self.origin,
            "core": dict(self.core),
            "extras": extras,
            "machine": asdict(self.machine),
            "devices": list(map(asdict, self.devices)),
            "kernel": self.kernel,
            "cache": {**self.cache, "writable": self.writable},
            "faults": self.faults,
            "advice": self.advice,
        }


def examine_self(
    cache: CacheFolder, *, installation: Installation | None = None
) -> SelfExamination:
    """Return what this installation is and lacks."""
    found = installation or this_installation()
    return SelfExamination(
        origin=found.origin,
        core={name: installed_version(name) for name in _CORE},
        extras=tuple(_extras(found)),
        machine=this_machine(),
        devices=devices(),
        kernel=_kernel(),
        cache=cache.to_dict(),
        writable=_writable(cache),
        again=found.again(),
    )


def _extras(found: Installation) -> Iterator[Extra]:
    for name in PURPOSES:
        if needs := found.extras.get(name):
            names = map(name_of, needs)
            yield Extra(name, {n: installed_version(n) for n in names}, found.command(name))


def _kernel() -> str:
    if kernel.available():
        return "active"
    return "off" if os.environ.get(kernel.SWITCH) == "off" else "absent"


def _writable(cache: CacheFolder) -> bool:
    """Tell whether the cache, or the nearest folder above it that exists, can be written to."""
    place = next(
        p for p in (cache.folder.absolute(), *cache.folder.absolute().parents) if p.exists()
    )
    return place.is_dir() and os.access(place, os.W_OK)


def self_report(found: SelfExamination) -> Report:
    """Return an examined installation as a report."""
    machine = found.machine
    facts = [
        ("Installed from", found.origin),
        ("Python", f"{machine.python}, {machine.system} {platform.machine()}"),
        ("Packages", ", ".join(f"{name} {version}" for name, version in found.core.items())),
        ("CPU", f"{machine.cpu}, {counted(machine.cores, 'core')}"),
        ("Instructions", " ".join(machine.flags)),
        ("Devices", ", ".join(map(str, found.devices))),
        ("Compiled resize", found.kernel),
        ("Cache", f"{found.cache['folder']}, {megabytes(found.cache['bytes'])} MB"),
    ]
    rows = [
        (e.name, PURPOSES[e.name], "yes" if e.complete else "no", e.state) for e in found.extras
    ]
    table = Table(("Extra", "For", "Installed", "Packages"), rows, first=len(rows))
    return Report(
        f"regnet {TOOL_VERSION}",
        [
            Section("", [Facts(facts)]),
            Section("", [table]),
            *([Section("To mend", found.faults)] if found.faults else []),
            *([Section("What you could do", found.advice)] if found.advice else []),
        ],
        verdict="" if found.faults else "nothing wrong",
    )
