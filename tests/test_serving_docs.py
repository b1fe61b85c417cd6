"""The docs' examples of `serve`, against a real server: commands of curl and the Python code."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from command_line import run_main
from serving_process import serving
from test_docs import ROOT, blocks, commands, examples

from regnet.zoo.catalogue import bundled_path, card_by_name

NAMES = ("serve", "serve-protocol", "serve-operations", "compare")
PAGES = [*(ROOT / "docs" / f"{name}.md" for name in NAMES), ROOT / "README.md"]
ADDRESS = re.compile(r"http://(127\.0\.0\.1|localhost):8000")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with what the examples name."""
    for place in (tmp_path, tmp_path / "photos"):
        assert run_main("samples", place).returncode == 0
    ir = bundled_path(card_by_name("bundled"))
    for name in ("my-cats", "theirs-int8", "efficientnet-lite0-int8"):
        for file in (ir, ir.with_suffix(".bin")):
            shutil.copy(file, tmp_path / f"{name}{file.suffix}")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_servers_of_the_examples_start(folder: Path) -> None:
    (folder / "token.txt").write_text("a" * 64)
    servers = {c for page in PAGES for c in commands(page) if c.startswith("regnet serve")}
    for command in servers - {"regnet serve"}:  # that one downloads
        with serving(folder, *command.split()[2:], "--offline"):
            pass
    assert len(servers) >= 3


def test_the_examples_give_what_the_page_says(folder: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    texts = [block for page in PAGES for block in blocks(page, "text")]
    asked = [text for text in texts if "curl -s" in text or ADDRESS.search(text)]
    found = [one for text in asked for one in examples(text) if ADDRESS.search(one[0])]
    assert len(found) == 7
    with serving(folder, "bundled", "--offline") as served:
        for command, lines in found:
            command = ADDRESS.sub(served.url, command)
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
            pattern = re.escape("\n".join(lines) or "...").replace(re.escape("..."), "(?s:.*)")
            assert re.fullmatch(pattern, done.stdout.strip("\n")), done.stdout
        pytest.importorskip("tritonclient.http")
        (code,) = (block for page in PAGES for block in blocks(page, "py"))
        code = code.replace("127.0.0.1:8000", served.host)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith("(2, 200)\n[b'0.9"), done.stdout
        assert done.stdout.endswith(":193:espresso']\n"), done.stdout
