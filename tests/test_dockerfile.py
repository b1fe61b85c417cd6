"""The Dockerfile without Docker: its files exist, and what it runs works."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("starlette")

from serving_process import serving

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
LINES = [line.split(maxsplit=1) for line in TEXT.splitlines() if line and line[0] not in "# "]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def lines(instruction: str) -> list[str]:
    return [rest for word, rest in LINES if word == instruction]


def test_what_it_copies_is_there_and_is_all_that_the_wheel_needs() -> None:
    copied = {name for rest in lines("COPY") for name in rest.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    needed = {"pyproject.toml", "hatch_build.py", "constraints.txt", "src", PROJECT["readme"]}
    assert copied == needed | set(PROJECT["license-files"])


def test_it_installs_the_core_and_the_server_with_constraints() -> None:
    (install,) = (rest for rest in lines("RUN") if "pip install" in rest)
    assert install.endswith('-c /build/source/constraints.txt "$(ls /build/wheels/*.whl)[serve]"')
    versions = [tuple(map(int, v)) for v in re.findall(r"python:(\d+)\.(\d+)-slim", TEXT)]
    assert len(set(versions)) == 1
    assert versions[0] >= tuple(map(int, PROJECT["requires-python"].strip(">=").split(".")))


def test_the_user_is_not_root() -> None:
    assert [word for word, _ in LINES].index("USER") < [word for word, _ in LINES].index(
        "ENTRYPOINT"
    )
    (user,) = lines("USER")
    assert f"useradd --uid 10001 --create-home {user}" in TEXT
    assert f"--owner {user} /cache" in TEXT


def test_its_server_starts_and_its_health_check_tells_whether_it_runs(tmp_path: Path) -> None:
    command, models = json.loads(lines("ENTRYPOINT")[0]), json.loads(lines("CMD")[0])
    assert command[:2] == ["regnet", "serve"]
    assert command[command.index("--port") + 1] == lines("EXPOSE")[0] == "8000"
    check = json.loads(lines("HEALTHCHECK")[0].partition(" CMD ")[2])
    with serving(tmp_path, *command[2:], *models) as served:
        port = served.url.rpartition(":")[2]
        check = [sys.executable, *(word.replace(":8000/", f":{port}/") for word in check[1:])]
        assert subprocess.run(check, check=False).returncode == 0
    assert subprocess.run(check, capture_output=True, check=False).returncode == 1
