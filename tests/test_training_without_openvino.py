"""A machine without OpenVINO trains, writes weights, and says that the conversion waits."""

import subprocess
import sys
from pathlib import Path

from photo_folders import write_photos

from regnet.checkpoints.weights import read_checkpoint

BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "openvino":
            raise ModuleNotFoundError("No module named 'openvino'", name=name)

sys.meta_path.insert(0, Blocked())
"""
COMMAND = "from regnet.cli import main\nsys.exit(main())"


def python(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED + code, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_it_trains_and_writes_weights(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 8)
    options = ["--model", "regnetx-200mf", "--small-stem", "--crop=32", "--epochs=1", "-o", "run"]
    done = python(COMMAND, "train", "photos", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    weights = Path("run", "weights.safetensors")
    assert f"{weights} is not converted" in done.stderr
    assert f"regnet convert {weights}" in done.stderr
    assert done.stdout.startswith(f"{weights}\n")
    assert not list(tmp_path.glob("run/*.xml"))
    assert read_checkpoint(tmp_path / weights).labels
    assert (tmp_path / "run" / "report.html").exists()


def test_what_needs_openvino_says_so(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 8)
    failed = python(COMMAND, "train", "photos", "--recipe", "finetune", cwd=tmp_path)
    assert failed.returncode == 2
    assert "needs OpenVINO" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_importing_the_trainer_does_not_import_it(tmp_path: Path) -> None:
    code = "import regnet.training.session, regnet.training.loop, regnet.training.report"
    done = python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
