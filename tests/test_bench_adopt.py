"""bench/adopt.py on tiny models: one of no known maker, and one that Pillow feeds as Keras does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from foreign_models import write_classifier

from regnet.pixels.samples import sample_photos

pytest.importorskip("onnxruntime", reason="the originals run in ONNX Runtime")
BENCH = Path(__file__).parent.parent / "bench" / "adopt.py"


def test_flips_are_counted(tmp_path: Path) -> None:
    models, photos = tmp_path / "models", tmp_path / "photos"
    write_classifier(models / "other.onnx")
    write_classifier(
        models / "keras-nhwc.onnx", size=224, channels_last=True, softmax=True, classes=1001
    )
    names = "\n".join(f"class {i}" for i in range(1001))
    (models / "labels-1001.txt").write_text(names)
    photos.mkdir()
    for photo in sample_photos():
        shutil.copy(str(photo), photos)
    command = [sys.executable, str(BENCH), str(models), str(photos)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout.splitlines()[-1])
    keras, other = values["models"]
    assert (values["photos"], keras["fed_by"], other["fed_by"]) == (3, "PIL", "regnet")
    for row in (keras, other):
        assert row["flips"] == 0
        assert row["most"] <= 1e-5
