"""The docs' examples of `serve`, against a real server: commands of curl and the Python code."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from serving_process import serving
from test_docs import ROOT, blocks, examples

from regnet.pixels.samples import sample_photos

PAGES = [ROOT / "docs" / f"{name}.md" for name in ("serve", "serve-protocol", "serve-operations")]


def test_the_examples_give_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    for photo in sample_photos():
        shutil.copy(photo, tmp_path)
    monkeypatch.chdir(tmp_path)
    asked = [block for page in PAGES for block in blocks(page, "text") if "curl -s" in block]
    assert len(asked) == 4
    with serving(tmp_path, "bundled", "--offline") as served:
        for command, lines in (example for block in asked for example in examples(block)):
            command = command.replace("http://127.0.0.1:8000", served.url)
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
            pattern = re.escape("\n".join(lines)).replace(re.escape("..."), "(?s:.*)")
            assert re.fullmatch(pattern, done.stdout.strip("\n")), done.stdout
        pytest.importorskip("tritonclient.http")
        (code,) = (block for page in PAGES for block in blocks(page, "py"))
        code = code.replace("127.0.0.1:8000", served.host)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith("(2, 200)\n[b'0.9"), done.stdout
        assert done.stdout.endswith(":193:espresso']\n"), done.stdout
