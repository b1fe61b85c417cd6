"""Every example in the README and the docs runs as it stands and gives what the page says.

Python blocks of a page run in order in one process. In console blocks each line after `$ ` is a
command; the lines below it, if any, are its whole output, `...` stands for anything, and
`[exit status N]` for another status than 0. Other blocks (`text`) need the network and are not run.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from labelled_photos import write_labelled_photos

from regnet.pixels.samples import sample_photos

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small data set: a folder a class."""
    folder = tmp_path_factory.mktemp("data") / "labelled"
    write_labelled_photos(folder)
    return folder


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """Return a clip of three seconds, a sample photo each; None without the extra `video`."""
    if find_spec("av") is None:
        return None
    from clips import steady, write_clip

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"  # lossless: the same on all machines
    return write_clip(path, steady(3, rate=5), codec="png", pix_fmt="rgb24")


@pytest.fixture
def folder(
    labelled: Path, clip: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return a folder with the photos that the examples name, some of them labelled."""
    (tmp_path / "photos" / "trip").mkdir(parents=True)
    for photo in sample_photos():
        shutil.copy(photo, tmp_path)
        shutil.copy(photo, tmp_path / "photos" / ("trip" if photo.suffix == ".jpg" else ""))
    shutil.copytree(labelled, tmp_path / "labelled")
    if clip is not None:
        shutil.copy(clip, tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python")], ids=lambda page: page.name
)
def test_python_examples(page: Path, folder: Path) -> None:
    code = "\n".join(blocks(page, "python"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def examples(block: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a console block, each with the lines below it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


CONSOLE = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "console"))
]


@pytest.mark.parametrize("block", CONSOLE)
def test_console_examples(block: str, folder: Path) -> None:
    for command, lines in examples(block):
        status = 0
        if lines and (stated := re.fullmatch(r"\[exit status (\d+)\]", lines[-1])):
            status = int(stated[1])
            lines = lines[:-1]
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        if lines:
            pattern = re.escape("\n".join(lines)).replace(re.escape("..."), "(?s:.*)")
            assert re.fullmatch(pattern, done.stdout.strip("\n")), done.stdout


def test_every_command_has_a_page_and_the_readme_links_to_it() -> None:
    from regnet.cli import COMMANDS

    readme = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        assert (ROOT / "docs" / f"{command}.md").is_file()
        assert f"(docs/{command}.md)" in readme


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\(([^)#]*)(#([^)]+))?\)", page.read_text()):
        if "://" in target:
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.name)
def test_long_pages_have_a_table_of_contents(page: Path) -> None:
    if len(page.read_text().splitlines()) > 100:
        headings = re.findall(r"^## (.+)$", without_code(page), re.MULTILINE)
        top = page.read_text().split("\n## ")[0]
        linked = re.findall(r"\]\(#([^)]+)\)", top)
        assert len(set(linked)) >= len(headings) - 1, headings


def test_the_reference_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "tools" / "make_reference.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run make docs"
