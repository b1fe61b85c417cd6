"""bench/gpu.py runs every row where there is no GPU, so that it runs where there is one."""

import json
import os
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).parent.parent / "bench"


def test_a_tiny_version_of_every_row_runs_on_a_cpu() -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "gpu.py", "--quick", "--device", "cpu"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["failed"], found["skipped"], found["bars"]) == ({}, [], {})
    rows = found["images_per_s"]
    assert all(rate > 0 for rate in rows.values())
    kinds = {name.partition(",")[0] for name in rows}
    alone = {"inference", "training", "trainer", "plain", "decoding alone", "engine alone"}
    over = {"trainer over plain", "files to labels over the lesser of its parts"}
    assert kinds == alone | over | {"files to labels"}
    assert found["first_call_s"].keys() == {name for name in rows if " over " not in name}


def test_rows_without_time_are_skipped_and_counted() -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "gpu.py", "--quick", "--device", "cpu", "--seconds", "0"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["images_per_s"]
    assert len(found["skipped"]) == 11
