"""Compile the resize kernel into the wheel; without a working C compiler, build the wheel without.

The compiler is `cc`, or what the environment variable CC says.
"""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags

FOLDER = Path("src/regnet/pixels/kernel")
SOURCE, LIBRARY = FOLDER / "resize.c", FOLDER / "resize.so"

CONSTRAINTS = "constraints.txt"

FLAGS = [
    *("-std=gnu11", "-O3", "-shared", "-fPIC", "-fvisibility=hidden"),
    "-ffp-contract=off",  # a fused multiply-add would round weights otherwise than Pillow does
    "-fwrapv",  # sums of 32 bits may wrap, as in Pillow
]


class KernelHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the library and the platform's tag to a wheel, and the library to a source tree."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; `version` is "standard" or "editable"."""
        root = Path(self.root)
        if version == "standard":  # a checkout has its own beside the package
            build_data["force_include"][str(root / CONSTRAINTS)] = f"regnet/{CONSTRAINTS}"
        if reason := compile_library(root):
            if version == "editable":  # what an earlier source became must not stay in use
                (root / LIBRARY).unlink(missing_ok=True)
            self.app.display_warning(f"regnet is built without its C kernel, so slower: {reason}")
            return
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag()}"
        build_data["artifacts"].append(LIBRARY.as_posix())


def compile_library(root: Path) -> str | None:
    """Compile the kernel in place; return why that failed, None where it did not."""
    new = root / LIBRARY.with_suffix(".so.part")
    compiler = shlex.split(os.environ.get("CC") or "cc")
    command = [*compiler, *FLAGS, str(root / SOURCE), "-o", str(new), "-lm"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as exc:
        return f"{command[0]}: {exc.strerror}"
    if ran.returncode:
        new.unlink(missing_ok=True)
        return f"{shlex.join(compiler)} failed: {ran.stderr.strip() or ran.returncode}"
    new.replace(root / LIBRARY)  # a library in use must not be written over
    return None


def platform_tag() -> str:
    """Return the tag of this machine itself, not one of those that promise to run on others."""
    platforms = (tag.platform for tag in sys_tags())
    return next(p for p in platforms if not p.startswith(("manylinux", "musllinux")))
