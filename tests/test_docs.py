"""Every example in the README and the docs runs as it stands and gives what the page says.

Python blocks of a page run in order in one process. In console blocks each line after `$ ` is a
command; the lines below it, if any, are its whole output, `...` stands for anything, and
`[exit status N]` for another status than 0. Text blocks print what other machines and data gave:
their commands run on small stand-ins, and the output is not compared; `REASONS` lists those that
do not run, each with the reason.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from foreign_models import write_classifier
from labelled_photos import write_labelled_photos
from local_server import LocalServer
from space_records import records_of
from zoo_weights import TINY, weights_of

from regnet.ir.engine import read_model
from regnet.pixels.samples import sample_photos
from regnet.system.json_text import json_text
from regnet.zoo.catalogue import bundled_path, card_by_name, card_names

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


REASONS = {
    "installs": r"pip install|pip download|^make ",
    "trains for minutes or days; a short one is on the page of each such command": (
        r"regnet train |torchrun|regnet space sweep|recipes/|bench/"
    ),
    "measures for a minute or more": r"regnet space search|regnet benchmark",
    "is about what one of those made": r"runs/|exported/|imagenette|found.jsonl",
    "needs a GPU": r"--device (GPU|cuda)|:cuda|:GPU",
    "needs a cluster": r"--ray |ray start|ray stop",
    "needs a camera or a stream": r"camera:|rtsp:",
    "needs the network": r"https://example.org",
    "needs containers": r"docker",
    "needs more photos than the samples": (
        r"quantize .*(photos/|tiny-imagenet)|calibrate .*(labelled/|tiny-imagenet)|--sets --unknown"
    ),
    "a server: test_serving_docs.py runs these": r"regnet serve|curl|localhost:8000|token.txt",
}
"""Why a command of a text block is not run here, and which these are."""


def commands(page: Path) -> list[str]:
    """Return the commands in text blocks, with the lines they go on in."""
    text = "".join(blocks(page, "text")).replace("\\\n", "")
    return re.findall(r"^(?:\w*\$ |(?=make ))(.+)$", text, re.MULTILINE)


def left_out(command: str) -> str | None:
    """Return why a command is not run, None if it is."""
    return next((why for why, which in REASONS.items() if re.search(which, command)), None)


TRIED = ("regnetx-3.2gf", "regnetz-c16-ra3")
"""The published models that text blocks run."""

PUBLISHED = """#!{python}
'''regnet, whose published weights are a small random network's.'''
from dataclasses import replace
from functools import cache

from regnet.cli import main
from regnet.network.spec import RegNetSpec
from regnet.zoo import catalogue

published = catalogue._load


@cache
def small(name):
    card = published(name)
    if card.file is None:
        return card
    unknown = dict.fromkeys(("size", "size_about", "size_at_least", "sha256_prefix"))
    file = replace(card.file, **unknown, sha384="{sha384}")
    spec = {spec} if name in {tried} else card.spec
    return replace(card, spec=spec, file=file)


catalogue._load = small
main()
"""


@pytest.fixture(scope="session")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Give an environment in which all published weights are small, on a local server."""
    content, folder = weights_of(TINY.with_classes(1000), 0), tmp_path_factory.mktemp("bin")
    script = PUBLISHED.format(
        python=sys.executable,
        spec=repr(TINY),
        tried=TRIED,
        sha384=hashlib.sha384(content).hexdigest(),
    )
    (folder / "regnet").write_text(script)
    (folder / "regnet").chmod(0o755)
    with LocalServer() as server:
        names = (card_by_name(name).file for name in card_names())
        server.files |= {file.name: content for file in names if file is not None}
        yield {"PATH": f"{folder}{os.pathsep}", "REGNET_MIRROR": server.base}


def write_files(folder: Path) -> None:
    """Write what the text blocks name: checkpoints, data sets, records."""
    for name, classes in {
        "RegNetX-3.2GF_dds_8gpu.pyth": 1000,
        "plants.pth": 1000,
        "checkpoint.pth.tar": 3,
        "tiny200.pyth": 200,
    }.items():
        (folder / name).write_bytes(weights_of(TINY.with_classes(classes), 0))
    for name in ("efficientnet-lite0", "resnet50-keras", "theirs"):
        write_classifier(folder / f"{name}.onnx", classes=3, channels_last="keras" in name)
    (folder / "classes.txt").write_text("ant\nbee\ncat\n")
    shutil.copytree(folder / "labelled", folder / "imagenet")
    photos = sorted((folder / "labelled").rglob("*.png"))
    labels = read_model(bundled_path(card_by_name("bundled"))).metadata.labels
    with zipfile.ZipFile(folder / "tiny-imagenet-200.val.zip", "w") as archive:
        for number, label in enumerate(labels):
            archive.write(photos[number % len(photos)], f"val/{label.wnid}/{number}.png")
    for name, space in (
        ("records", "regnetx"),
        ("regnetx", "regnetx"),
        ("anynetx-a", "anynetx-a"),
    ):
        lines = [f"{json_text(record.to_dict())}\n" for record in records_of(space, 8)]
        (folder / f"{name}.jsonl").write_text("".join(lines))


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if not all(map(left_out, commands(page)))],
    ids=lambda page: page.name,
)
def test_commands_in_text_blocks_run(
    page: Path, folder: Path, publisher: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(folder)
    monkeypatch.setenv("PATH", publisher["PATH"] + os.environ["PATH"])
    monkeypatch.setenv("REGNET_MIRROR", publisher["REGNET_MIRROR"])
    for command in filter(lambda command: left_out(command) is None, commands(page)):
        done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)
        fine = (0, 1) if "regnet doctor" in command else (0,)  # 1: it found something
        assert done.returncode in fine, f"{command}\n{done.stderr.decode()}"


def test_every_reason_to_leave_out_a_command_is_that_of_one() -> None:
    assert {left_out(command) for page in PAGES for command in commands(page)} == {None, *REASONS}


def test_every_command_has_a_page_and_the_readme_links_to_it() -> None:
    from regnet.cli import COMMANDS

    readme = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        pages = {"demo": "classify", "samples": "classify", "search": "photo-search"}
        page = pages.get(command, command)
        assert f"regnet {command}" in (ROOT / "docs" / f"{page}.md").read_text()
        assert f"(docs/{page}.md)" in readme


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
