"""`regnet doctor --self`: what is installed, what is slower than it could be, and what to do."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run_main

from regnet.conversion.cache_folder import CacheFolder
from regnet.doctor.installation import PURPOSES, examine_self, self_report
from regnet.pages.terminal import report_lines
from regnet.pixels import kernel
from regnet.system.installation import Installation

ROOT = Path(__file__).parent.parent


def test_every_extra_has_a_purpose() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert set(PURPOSES) == set(extras) - {"all", "docs", "build", "test"}


def test_missing_extras_are_named_with_their_commands(tmp_path: Path) -> None:
    extras = {"heif": ("no-such-package>=1",), "report": ("numpy>=2",)}
    found = examine_self(CacheFolder(tmp_path), installation=Installation(extras=extras))
    assert [(e.name, e.complete) for e in found.extras] == [("report", True), ("heif", False)]
    assert found.extras[1].state == "needs no-such-package"
    assert "For HEIC and HEIF photos: pip install 'regnet-vision[heif]'" in found.advice
    assert not any("--html" in line for line in found.advice)
    text = "\n".join(report_lines(self_report(found)))
    assert "pip install 'regnet-vision[heif]'" in text
    assert str(tmp_path) in text


def test_extras_that_are_added_alike_share_a_line(tmp_path: Path) -> None:
    extras = dict.fromkeys(("heif", "jxl"), ("no-such-package",))
    found = examine_self(CacheFolder(tmp_path), installation=Installation(extras=extras))
    assert found.advice[-1] == "For EXTRA heif, jxl: pip install 'regnet-vision[EXTRA]'"
    assert found.to_dict()["extras"]["jxl"]["command"] == "pip install 'regnet-vision[jxl]'"


def test_what_makes_it_slower_or_fail_has_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(kernel, "available", lambda: False)
    monkeypatch.delenv(kernel.SWITCH, raising=False)
    found = examine_self(CacheFolder(tmp_path / "file" / "cache"), installation=Installation())
    slower, cache = found.faults
    assert slower.endswith("and then pip install --force-reinstall --no-deps regnet-vision")
    assert "cannot be written to" in cache
    monkeypatch.setenv(kernel.SWITCH, "off")
    assert examine_self(CacheFolder(tmp_path), installation=Installation()).faults == [
        "REGNET_KERNEL=off makes resizing slower: unset it"
    ]


def test_advice_follows_the_cpu(tmp_path: Path) -> None:
    found = examine_self(CacheFolder(tmp_path), installation=Installation())
    old = replace(found, machine=replace(found.machine, flags=("avx2",), capabilities=("FP32",)))
    assert old.advice == ["This CPU has no VNNI: INT8 models run in floating point, not faster"]
    new = replace(old, machine=replace(old.machine, flags=("avx512_vnni",), capabilities=("BF16",)))
    assert new.advice == ["This CPU computes in bfloat16: --precision bf16 is faster"]


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_main("doctor", "--self", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == bool(found["faults"])
    assert found["kernel"] in ("active", "absent", "off")
    assert set(found["extras"]) <= set(PURPOSES)
    assert found["core"]["openvino"]
    assert run_main("doctor").returncode == 2
