"""What a machine is, as far as speed depends on it."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from regnet.parallel import cores
from regnet.runtime import ov

_CPUINFO: Final = Path("/proc/cpuinfo")
_FLAGS: Final = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16",
    "amx_int8", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """A machine: its CPU's name, the cores this process may use, and what they can compute with.

    `flags` are the instruction sets that matter for networks (empty where the system does not
    say); `capabilities` what OpenVINO makes of them.
    """

    cpu: str
    cores: int
    flags: tuple[str, ...]
    capabilities: tuple[str, ...]
    system: str
    python: str
    openvino: str

    @property
    def has_bf16(self) -> bool:
        """Whether it computes in bfloat16."""
        return "BF16" in self.capabilities


def this_machine(*, cpuinfo: Path = _CPUINFO) -> Machine:
    """Return the machine that this process runs on."""
    fields = _cpuinfo(cpuinfo)
    flags = fields.get("flags", fields.get("Features", "")).split()
    core = ov.Core()
    return Machine(
        cpu=fields.get("model name") or platform.processor() or platform.machine(),
        cores=cores(),
        flags=tuple(flag for flag in _FLAGS if flag in flags),
        capabilities=tuple(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        openvino=ov.__version__.partition("-")[0],
    )


def _cpuinfo(path: Path) -> dict[str, str]:
    """Return what Linux says of the first core; nothing on other systems."""
    try:
        text = path.read_text("utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
