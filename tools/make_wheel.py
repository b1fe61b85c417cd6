"""Build the wheel that is released into a folder: one for all Pythons, the resize compiled inside.

On Linux auditwheel finds out which systems it runs on, and names the wheel after them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent


def main(folder: str = "dist") -> None:
    """Build, check and print the wheel's path."""
    with TemporaryDirectory() as built:
        python("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", built, str(ROOT))
        (wheel,) = Path(built).glob("*.whl")
        if wheel.name.endswith("-any.whl"):
            sys.exit(
                "no C compiler worked, so this would be a slower wheel: pip wheel -v . says why"
            )
        if sys.platform == "linux":
            python("auditwheel", "repair", "--wheel-dir", folder, str(wheel))
        else:
            Path(folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(wheel, folder)
    print(max(Path(folder).glob("regnet_vision-*.whl"), key=lambda path: path.stat().st_mtime))


def python(*words: str) -> None:
    """Run a module of this Python, which finds programs beside it; ends with its errors if any."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [sys.executable, "-m", *words]
    ran = subprocess.run(
        command, env={**os.environ, "PATH": path}, stderr=subprocess.PIPE, text=True
    )
    if ran.returncode:
        sys.exit(ran.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
