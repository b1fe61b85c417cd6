"""What a machine is, as far as speed depends on it."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regnet.system.errors import MissingEngineError
from regnet.system.parallel import cores

_CPUINFO: Final = Path("/proc/cpuinfo")
_STAT: Final = Path("/proc/stat")
_BUSY: Final = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal: not idle, iowait
_FLAGS: Final = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16",
    "amx_int8", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
_BF16: Final = frozenset(("avx512_bf16", "amx_bf16", "bf16"))


@dataclass(frozen=True)
class Machine:
    """A machine: its CPU's name, the cores this process may use, and what they can compute with.

    `flags` are the instruction sets that matter for networks (empty where the system does not
    say); `capabilities` what OpenVINO makes of them; its version is "" if it is not installed.
    """

    cpu: str
    cores: int
    flags: tuple[str, ...]
    capabilities: tuple[str, ...]
    system: str
    python: str
    openvino: str

    @property
    def sums_int8(self) -> bool:
        """Whether it adds products of INT8 without overflow; x86 before VNNI adds in 16 bits."""
        x86 = any(flag.startswith("avx") for flag in self.flags)
        return not x86 or any("vnni" in flag or flag == "amx_int8" for flag in self.flags)

    @property
    def has_bf16(self) -> bool:
        """Whether it computes in bfloat16."""
        return "BF16" in self.capabilities


def this_machine(*, cpuinfo: Path = _CPUINFO) -> Machine:
    """Return the machine that this process runs on."""
    fields = _cpuinfo(cpuinfo)
    flags = fields.get("flags", fields.get("Features", "")).split()
    capabilities, version = _openvino(flags)
    return Machine(
        cpu=fields.get("model name") or platform.processor() or platform.machine(),
        cores=cores(),
        flags=tuple(flag for flag in _FLAGS if flag in flags),
        capabilities=capabilities,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        openvino=version,
    )


def _openvino(flags: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Return the CPU's capabilities and OpenVINO's version; without it what the flags say."""
    try:
        from regnet.system.runtime import core, ov
    except MissingEngineError:
        return (() if _BF16.isdisjoint(flags) else ("BF16",)), ""
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(capabilities), ov.__version__.partition("-")[0]


def _cpuinfo(path: Path) -> dict[str, str]:
    """Return what Linux says of the first core; nothing on other systems."""
    try:
        text = path.read_text("utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def watch_others(*, stat: Path = _STAT) -> Callable[[], float | None]:
    """Return a function that tells what others took of the machine since now, in [0, 1].

    It is the share of all cores' time that went to other processes, and to other guests of the
    host. None where the system does not say.
    """
    start, began = _others_seconds(stat), time.perf_counter()

    def share() -> float | None:
        end, elapsed = _others_seconds(stat), time.perf_counter() - began
        if start is None or end is None:
            return None
        whole = max(elapsed, 1e-9) * (os.cpu_count() or 1)
        return min(max(0.0, (end - start) / whole), 1.0)

    return share


def _others_seconds(stat: Path) -> float | None:
    """Return the seconds that all cores have worked for others than this process and its own."""
    try:
        counts = stat.read_text("utf-8").splitlines()[0].split()[1:]
        ticks = sum(int(counts[column]) for column in _BUSY)
        busy = ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return None
    return busy - sum(os.times()[:4])
