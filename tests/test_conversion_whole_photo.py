"""A converted model is given the resize and the crop that it lacks."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from regnet.conversion.model_copy import Form, write_copy
from regnet.ir.engine import Engine, read_model
from regnet.pixels.samples import sample_photos
from regnet.system.errors import ConversionError, ModelError
from regnet.system.runtime import core
from regnet.zoo.catalogue import bundled_path, card_by_name

BUNDLED = bundled_path(card_by_name("bundled"))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "regnet", "convert", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_the_bundled_model_takes_whole_photos(tmp_path: Path) -> None:
    done = run("bundled", "--preprocessing", "graph", "-o", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    path = Path(result["path"])
    assert path == tmp_path / "bundled-graph-fp16.xml"
    assert sorted(map(str, tmp_path.iterdir())) == sorted(result["files"])
    assert result["max_delta"] <= 1e-5
    assert result["pixel_bound"]["levels"] <= 1
    whole, crops = Engine(read_model(path)), Engine(read_model(BUNDLED))
    for photo in sample_photos():
        rows = [engine.infer([engine.pixels(photo)]) for engine in (whole, crops)]
        assert np.abs(rows[0] - rows[1]).max() <= 1e-5


def test_an_int8_model_too(tmp_path: Path) -> None:
    int8 = BUNDLED.with_name("bundled-int8.xml")
    written = write_copy(int8, tmp_path, Form(whole=True, name="mine"))
    assert written.path.name == "mine-graph-int8.xml"
    metadata = read_model(written.path).metadata
    assert (metadata.precision, metadata.preprocessing) == ("int8", "graph")
    assert metadata.pixel_bound == written.pixel_bound
    info = core.read_model(written.path).get_rt_info(["model_info", "reverse_input_channels"])
    assert info.astype(str) == "True"


def test_what_cannot_be_done_is_one_line(tmp_path: Path) -> None:
    for wrong in (["--crop", "64"], ["--channels", "RGB"]):
        done = run("bundled", "--preprocessing", "graph", "-o", tmp_path, *wrong)
        assert done.returncode == 2
        assert done.stderr.startswith("regnet: ")
        assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_it_is_done_once(tmp_path: Path) -> None:
    path = write_copy(BUNDLED, tmp_path, Form(whole=True)).path
    with pytest.raises(ConversionError, match="takes whole photos already"):
        write_copy(path, tmp_path, Form(whole=True))
    with pytest.raises(ModelError, match="no such file"):
        write_copy(tmp_path / "none.xml", tmp_path, Form(whole=True))
