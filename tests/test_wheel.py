"""The wheel that is released, in an environment of its own without a compiler."""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PIP = [sys.executable, "-m", "pip"]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="auditwheel is for Linux"),
    pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler, cc"),
]


def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel that `make wheel` builds."""
    if find_spec("auditwheel") is None:
        pytest.skip("needs auditwheel, of the extra 'build'")
    folder = tmp_path_factory.mktemp("wheel")
    download = [*PIP, "download", "--no-deps", "--dest", str(folder / "index"), "hatchling==1.33.0"]
    if subprocess.run(download, capture_output=True, check=False).returncode:
        pytest.skip("no package index answers")
    run([sys.executable, str(ROOT / "tools" / "make_wheel.py"), str(folder)])
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def empty(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of an environment that has the wheel alone."""
    folder = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", str(folder)])
    words = ["install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(wheel)]
    run([str(folder / "bin" / "python"), "-m", "pip", *words], env=alone(folder / "bin"))
    return folder / "bin"


def alone(programs: Path) -> dict[str, str]:
    """Return the environment of a user who has these programs only."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CC")}
    return {**environment, "PATH": str(programs), "REGNET_CACHE": str(programs.parent / "cache")}


def test_one_wheel_is_for_all_pythons_and_most_systems(wheel: Path) -> None:
    assert wheel.name.startswith("regnet_vision-")
    assert "-py3-none-manylinux" in wheel.name


def test_it_classifies_where_there_is_no_compiler(empty: Path) -> None:
    done = run([str(empty / "regnet"), "demo"], env=alone(empty), cwd=empty.parent)
    assert "Egyptian cat" in done.stdout
    assert done.stderr == ""  # it would say that it is slower


def test_it_says_that_nothing_is_wrong(empty: Path) -> None:
    done = run([str(empty / "regnet"), "doctor", "--self", "--json"], env=alone(empty))
    found = json.loads(done.stdout)
    assert (found["kernel"], found["faults"]) == ("active", [])
    assert not any(extra["complete"] for extra in found["extras"].values())


def test_a_missing_extra_names_a_command_that_works(empty: Path, wheel: Path) -> None:
    """A dry run of it: pip finds the wheel, and all that the extra needs."""
    photo = empty.parent / "photo.heic"
    photo.write_bytes(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic" + bytes(99))
    command = [str(empty / "regnet"), "classify", "--model", "bundled", str(photo)]
    done = subprocess.run(
        command, env=alone(empty), capture_output=True, text=True, check=False, cwd=empty.parent
    )
    assert done.returncode == 1
    advice = done.stderr.partition("extra 'heif': ")[2].strip()
    assert advice == f"pip install 'regnet-vision[heif] @ {wheel.as_uri()}'"
    tried = run(["/bin/sh", "-c", f"{advice} --dry-run"], env=alone(empty))
    assert "Would install pi_heif" in tried.stdout
