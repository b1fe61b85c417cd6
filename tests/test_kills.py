"""Killed commands go on: a few kills of each flow of bench/kills.py, which has them all."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench" / "kills.py"
NEEDED = {"cluster": "ray", "evaluation": "matplotlib", "download": "httpx"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(
    "flow", ["cluster", "sweep", "training", "evaluation", "conversion", "download"]
)
def test_killed_commands_go_on_to_the_same_result_and_leave_nothing(flow: str) -> None:
    if find_spec(NEEDED.get(flow, "torch")) is None:
        pytest.skip(f"needs {NEEDED.get(flow, 'torch')}")
    command = [sys.executable, str(BENCH), flow, "--most", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["total"]["kills"] == found["total"]["identical"] >= 3
    assert found["total"]["leftovers"] == 0
    assert found[flow]["damage"]["wrong"] == 0
