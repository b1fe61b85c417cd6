"""The command `regnet` as users run it: formats, sources, exit codes, errors."""

import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Thread
from typing import NoReturn

import numpy as np
import pytest
from command_line import run_main
from local_server import LocalServer, stalls_after
from PIL import Image

from regnet.cli import main
from regnet.cli.console import signals_wait
from regnet.cli.info import _layers_text
from regnet.conversion.store import Library
from regnet.pixels.samples import sample_photos
from regnet.system.errors import MissingExtraError
from regnet.system.retry import Retry
from regnet.zoo.catalogue import bundled_path, card_by_name

CAT, ESPRESSO, HOPPER = sample_photos()
BUNDLED = bundled_path(card_by_name("bundled"))


def regnet(*arguments: object, stdin: bytes = b"", code: int = 0):
    """Run the command in this process."""
    done = run_main(*arguments, stdin=stdin)
    assert done.returncode == code, done.stderr.decode()
    return done


def process(*arguments: object, code: int = 0, **options):
    """Run the command in a process of its own, for what depends on one."""
    done = subprocess.run(
        [sys.executable, "-m", "regnet", *map(str, arguments)],
        capture_output=True,
        timeout=120,
        check=False,
        **options,
    )
    assert done.returncode == code, done.stderr.decode()
    return done


def classify(*arguments: object, **options) -> list[dict]:
    """Classify with the bundled model and return the results."""
    done = regnet("classify", "--model", "bundled", "-f", "jsonl", *arguments, **options)
    return [json.loads(line) for line in done.stdout.splitlines()]


def top(result: dict) -> str:
    return result["predictions"][0]["label"].split(",")[0]


def test_the_table_shows_labels_and_percents() -> None:
    text = regnet("classify", "-m", "bundled", "-k", "2", CAT, ESPRESSO).stdout.decode()
    assert re.search(r"cat\.png\n +5\d\.\d %  █+ +Egyptian cat\n", text)
    assert re.search(r"espresso\.png\n +9\d\.\d %  █+ +espresso\n", text)
    assert len(text.splitlines()) == 6


def test_skipped_files_and_dark_photos_are_lines_on_standard_error(tmp_path: Path) -> None:
    (tmp_path / "@eaDir").mkdir()
    for name in ("a.png", "b", "@eaDir/a.png"):
        (tmp_path / name).write_bytes(CAT.read_bytes())
    for name in ("a.json", "b.json", "README"):
        (tmp_path / name).write_text("text")
    for number in range(5):
        dark = np.full((8, 8), number, np.uint16)
        Image.fromarray(dark).save(tmp_path / f"dark{number}.png")
    done = regnet("classify", "-m", "bundled", "-f", "jsonl", tmp_path)
    assert len(done.stdout.splitlines()) == 7
    lines = done.stderr.decode().splitlines()
    assert [line for line in lines if ": skipped " in line] == [
        f"regnet: {tmp_path}: skipped 3 files: 2 .json, 1 without suffix; "
        "and folders that hold no photos: @eaDir (1 file)"
    ]
    named = [line for line in lines if "as if they had 12 bits" in line]
    assert len(named) == 3
    assert all(line.startswith(f"regnet: {tmp_path}/dark") for line in named)
    assert "regnet: 2 more 16-bit photos are nearly black" in lines


def test_addresses_are_not_opened_offline() -> None:
    with LocalServer() as server:
        server.files["/cat.png"] = CAT.read_bytes()
        url = f"{server.base}/cat.png"
        (found,) = classify("--offline", url, code=1)
        assert found["error"] == "not opened, because of --offline"
        regnet("explain", "-m", "bundled", "--json", "--offline", url, code=1)
        assert server.log == []


def test_a_folder_is_searched_with_its_subfolders(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "b.png").write_bytes(ESPRESSO.read_bytes())
    (tmp_path / "a.png").write_bytes(CAT.read_bytes())
    (tmp_path / "notes.txt").write_text("not an image")
    assert [top(r) for r in classify(tmp_path)] == ["Egyptian cat", "espresso"]


def test_globs_archives_and_stdin(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(CAT, "in/cat.png")
        archive.write(HOPPER, "hopper.jpg")
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as archive:
        archive.add(ESPRESSO, "espresso.png")
    zipped = classify(tmp_path / "z.zip")
    assert {top(r) for r in zipped} == {"Egyptian cat", "military uniform"}
    assert all("z.zip" in r["source"] for r in zipped)
    assert top(classify(tmp_path / "t.tar.gz")[0]) == "espresso"
    assert top(classify("-", stdin=CAT.read_bytes())[0]) == "Egyptian cat"
    assert len(classify("-", stdin=(tmp_path / "z.zip").read_bytes())) == 2
    assert len(classify(CAT.parent / "*.png")) == 2


def test_urls() -> None:
    with LocalServer() as server:
        server.files = {"cat.png": CAT.read_bytes()}
        found = classify(server.url("cat.png"), server.url("none.png"), code=1)
    assert top(found[0]) == "Egyptian cat"
    assert "404" in found[1]["error"]


def test_bad_images_are_rows_and_the_exit_code_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "half.jpg").write_bytes(HOPPER.read_bytes()[:20000])
    (tmp_path / "text.png").write_text("hello")
    found = classify(tmp_path, CAT, tmp_path / "none.jpg", code=1)
    assert [r["error"] is None for r in found] == [False, False, False, True, False]
    assert "empty" in found[0]["error"]
    assert "truncated" in found[1]["error"]
    assert all(r["predictions"] == [] for r in found if r["error"])


def test_every_format_has_the_same_fields(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (tmp_path / "bad.png").write_bytes(b"?")
    rows = classify(CAT, tmp_path / "bad.png", "-k", "2", code=1)
    for ending in ("json", "csv", "parquet"):
        out = tmp_path / f"out.{ending}"
        command = ["classify", "-m", "bundled", CAT, tmp_path / "bad.png", "-k", "2", "-o", out]
        regnet(*command, code=1)
    assert json.loads((tmp_path / "out.json").read_text()) == rows
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == rows
    table = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [(r["rank"], r["label"]) for r in table] == [
        *((str(i), s["label"]) for i, s in enumerate(rows[0]["predictions"], 1)),
        ("", ""),
    ]
    assert table[2]["error"] == rows[1]["error"]
    assert float(table[0]["probability"]) == rows[0]["predictions"][0]["probability"]
    assert {r["model"] for r in table} == {"bundled"}
    assert not list(tmp_path.glob("*.part"))


def test_names_that_are_not_utf8_are_written_out(tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd/bad\xff.png")).write_bytes(CAT.read_bytes())
    for ending in ("csv", "parquet", "jsonl", "txt"):
        regnet("classify", "-m", "bundled", tmp_path / "odd", "-o", tmp_path / f"o.{ending}")
    assert "bad\\udcff.png" in (tmp_path / "o.csv").read_text("utf-8")


def test_a_terminal_without_unicode_gets_plain_bars(tmp_path: Path) -> None:
    photo = tmp_path / "café.png"
    photo.write_bytes(ESPRESSO.read_bytes())
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = process("classify", "-m", "bundled", "-k", "1", "café.png", cwd=tmp_path, env=plain)
    assert shown.stdout.splitlines() == [b"caf?.png", b"   98.1 %  " + b"#" * 20 + b"  espresso"]


def test_a_source_is_not_overwritten(tmp_path: Path) -> None:
    photo = tmp_path / "cat.png"
    photo.write_bytes(CAT.read_bytes())
    done = regnet("classify", "-m", "bundled", photo, "-f", "csv", "-o", photo, code=2)
    assert b"one of the sources" in done.stderr
    assert photo.read_bytes() == CAT.read_bytes()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_does_not_wait_for_a_silent_server(tmp_path: Path, end: signal.Signals) -> None:
    with LocalServer() as server:
        server.files = {"cup.png": ESPRESSO.read_bytes()}
        server.script = [stalls_after(100)] * 8
        urls = [server.url("cup.png")] * 4
        out = tmp_path / "out.jsonl"
        process = subprocess.Popen(
            [sys.executable, "-m", "regnet", "classify", "-m", "bundled", CAT, *urls, "-o", out],
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 60
        while not (len(server.log) > 0 and tmp_path.joinpath("out.jsonl.part").exists()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        start = time.monotonic()
        process.send_signal(end)
        process.communicate(timeout=60)
    assert time.monotonic() - start < 10
    assert process.returncode == 130
    assert len(out.read_text().splitlines()) <= 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["classify", "-m", "regnetz", CAT], "no model is called 'regnetz'"),
        (["classify", "-m", "none.xml", CAT], "none.xml: no such file"),
        (["classify", "-m", "none.pth", CAT], "none.pth: no such file"),
        (["classify", "-m", "bundled", "-o", "/no/such/folder/x.csv", CAT], "cannot write"),
        (["classify", "-m", "bundled", "-f", "parquet", CAT], "-o FILE"),
        (["classify", "-m", "bundled", "-f", "yaml", CAT], "yaml"),
        (["classify", "-m", "bundled", "-k", "0", CAT], "top-k"),
        (["explain", "-m", "bundled", CAT, "-o", CAT], f"{CAT} exists and is not a folder"),
        (["samples", CAT], f"{CAT} exists and is not a folder"),
        (["convert", "x.pth", "--labels", "no.txt"], "list no.txt: No such file or directory"),
        (["classify"], "SOURCE"),
        (["classify", "none.jpg", "none/"], "no such file or folder: none.jpg, none/"),
        (["classify", Path(__file__).parent / "golden"], "no images in"),
        (["explain", Path(__file__).parent / "golden" / "*"], "golden/*"),
        (["explain", "none.jpg"], "no such file or folder: none.jpg"),
        (["evaluate", "regnetx-3.2gf", "none/"], "no such file or folder: none/"),
        (["classify", "bundled", CAT], f"did you mean: regnet classify --model bundled {CAT}"),
        (["classify", "RegNetX-3.2GF:bf16"], "regnet classify --model RegNetX-3.2GF:bf16 PHOTO"),
        (["explain", BUNDLED, CAT], f"regnet explain --model {BUNDLED} {CAT}"),
        (["explain", "-m", "bundled:torch", CAT], "takes no engine but ir: leave out torch"),
        (["classify", "-m", "bundled:bf16", "--precision", "int8", CAT], "contradicts"),
        (["quantize", "bundled:bf16", "--calibration", "x"], "takes no precision but f32"),
        (["convert", "bundled:pycls"], "takes no protocol but the model's own"),
        (["calibrate", "bundled:bf16", "x"], "no precision but f32 or int8: leave out bf16"),
        (["benchmark", "bundled:int8", "--precision", "f32,int8"], "contradicts --precision f32"),
        (["serve", "bundled:onnx"], "takes no engine but ir"),
        (["serve", "-m", "bundled", "bundled"], "the arguments name a model already"),
        (["evaluate", "bundled", "x", "-m", "bundled"], "the arguments name a model already"),
        (["evaluate", "-m", "bundled"], "which DATASET? The arguments are: MODEL DATASET"),
        (["info"], "which MODEL?"),
        (["convert", "none.pth"], "none.pth: no such file"),
        (["convert", "bundled"], "converted already"),
        (["info", "regnetq"], "no model is called"),
        (["nonsense"], "nonsense"),
    ],
)
def test_what_cannot_run_exits_with_2_and_says_why(arguments: list[str], reason: str) -> None:
    done = regnet(*arguments, code=2)
    assert reason in re.sub(r"[│\s]+", " ", done.stderr.decode())
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [("classify", CAT), ("explain", CAT), ("serve",), ("evaluate", "regnetx-3.2gf", CAT.parent)],
)
def test_without_network_every_command_names_the_same_three_ways_on(
    words: tuple[object, ...], tmp_path: Path
) -> None:
    done = regnet(*words, "--offline", "--cache-dir", tmp_path, code=2)
    name = "RegNetX-3.2GF_dds_8gpu.pyth"
    assert done.stderr.decode() == (
        f"regnet: regnetx-3.2gf is not in the cache ({tmp_path}/weights/regnetx-3.2gf/{name}), and "
        "--offline forbids to fetch it: use `--model bundled`, the small model in the package, or "
        f"leave out --offline, and name a server that has {name} with `--mirror URL`, or fetch "
        "that file on another machine and import it with "
        f"`regnet download --from {name} regnetx-3.2gf`\n"
    )


def test_a_server_without_the_file_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Retry, "delay", lambda self, failures, asked=None: 0.0)
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed.getsockname()[1]}")
        done = regnet("classify", CAT, "--cache-dir", tmp_path, code=2)
    lines = done.stderr.decode().splitlines()
    assert [line.partition(": no connection")[0] for line in lines[:-1]] == [
        "regnetx-3.2gf: storage.openvinotoolkit.org",
        "regnetx-3.2gf: dl.fbaipublicfiles.com",
    ]
    assert lines[-1].count("no connection") == 1
    assert "could not be downloaded from storage.openvinotoolkit.org and dl.fb" in lines[-1]


def test_a_model_may_be_an_argument_or_an_option() -> None:
    first, second, third = (
        regnet("info", *words).stdout
        for words in (["bundled:int8"], ["-m", "bundled:int8"], ["--model", "bundled:int8"])
    )
    assert first == second == third
    assert b"bundled-int8.xml" in first


def test_the_parts_of_a_model_choose_how_it_is_run(tmp_path: Path) -> None:
    by_part, by_option, plain = (
        json.loads(regnet("classify", CAT, "-f", "json", *words).stdout)
        for words in (
            ["-m", "bundled:int8"],
            ["-m", "bundled", "--precision", "int8"],
            ["-m", "bundled"],
        )
    )
    assert by_part == by_option != plain


def test_the_demo_classifies_the_sample_photos_wherever_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = regnet("demo").stdout
    assert re.findall(rb"^\S+", printed, re.MULTILINE) == [
        b"cat.png",
        b"espresso.png",
        b"grace_hopper.jpg",
    ]
    assert b"Egyptian cat" in printed
    assert regnet("classify", "--samples", "--top-k", 3).stdout == printed


def test_sample_photos_are_copied_and_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "photos"
    first = regnet("samples", folder)
    assert first.stdout.decode().split() == [str(folder / photo.name) for photo in sample_photos()]
    (folder / "cat.png").write_bytes(b"mine")
    (folder / "espresso.png").unlink()
    second = regnet("samples", folder, code=1)
    assert second.stdout.decode() == f"{folder / 'espresso.png'}\n"
    assert "cat.png: another file has this name; not overwritten" in second.stderr.decode()
    assert "grace_hopper.jpg: exists" in second.stderr.decode()
    assert (folder / "cat.png").read_bytes() == b"mine"
    assert b"cannot write" in regnet("samples", CAT, code=2).stderr


def test_ctrl_c_leaves_what_was_written_readable(tmp_path: Path) -> None:
    source, out = tmp_path / "many", tmp_path / "out.json"
    source.mkdir()
    for number in range(3000):
        (source / f"{number:04}.png").symlink_to(ESPRESSO)
    process = subprocess.Popen(
        [sys.executable, "-m", "regnet", "classify", "-m", "bundled", source, "-o", out],
        stderr=subprocess.PIPE,
    )
    part = tmp_path / "out.json.part"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (part.exists() and part.stat().st_size > 20000):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130, message
    found = json.loads(out.read_text())
    assert 0 < len(found) < 3000
    assert f"{len(found)} images" in message.decode()
    assert not part.exists()


@pytest.mark.parametrize("words", ["-f jsonl", "-o /dev/stdout", "-f csv -o /dev/fd/1"])
def test_a_closed_pipe_ends_the_run_without_a_word(words: str) -> None:
    command = f"{sys.executable} -m regnet classify -m bundled {words} {CAT} {HOPPER}"
    with subprocess.Popen(
        command.split(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "regnet", "models"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    said = b"regnet: cannot write to standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_a_source_that_is_none_says_what_to_do() -> None:
    done = regnet("classify", "-m", "bundled", "-k", "1", "", CAT.as_uri(), CAT, code=1)
    assert b"the name is empty" in done.stdout
    assert b"name the file by its path, without file://" in done.stdout
    assert b"Egyptian cat" in done.stdout


def test_photos_that_were_not_embedded_are_named(tmp_path: Path) -> None:
    (tmp_path / "no.jpg").touch()
    photos = tmp_path / "x.npy", tmp_path / "no.jpg", CAT
    done = regnet("embed", "-m", "bundled", "-o", *photos, code=1)
    assert b"1 photo failed (" in done.stderr
    assert b"no.jpg: the file is empty)" in done.stderr


def test_piped_output_has_no_progress_or_colour() -> None:
    done = process("classify", "-m", "bundled", CAT)
    assert b"\x1b" not in done.stdout
    assert done.stderr == b""


def test_version() -> None:
    from regnet.system.version import TOOL_VERSION

    assert process("--version").stdout.decode().strip() == f"regnet {TOOL_VERSION}"


def test_info_of_a_name_and_of_the_bundled_ir() -> None:
    named = json.loads(regnet("info", "regnet_x_3_2gf", "--json").stdout)
    assert (named["params"], named["macs"], named["acts"]) == (15296552, 3176622952, 11367432)
    bundled = json.loads(regnet("info", "bundled", "--json").stdout)
    assert bundled["graph"] == {"gflops": 0.3521, "mparams": 5.2643}
    assert (bundled["network"], bundled["classes"]) == (None, 200)
    assert (bundled["spec"]["d"], bundled["spec"]["stem_stride"]) == (31, 2)
    text = regnet("info", "regnetx-3.2gf").stdout.decode()
    assert "15,296,552" in text


def test_info_names_a_few_of_the_layers_restored_and_all_as_json() -> None:
    ir = Library(offline=True).ir("bundled", precision="int8")
    layers = json.loads(regnet("info", ir, "--json").stdout)["certificate"]["restored"]
    assert len(layers) > 4
    text = regnet("info", ir).stdout.decode()
    first = ", ".join(layers[:3])
    assert f"restored {len(layers)} layers ({first} and {len(layers) - 3} more)\n" in text
    assert layers[3] not in text


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ((), "no layers"),
        (("a",), "1 layer (a)"),
        (("a", "b", "c"), "3 layers (a, b, c)"),
        (("a", "b", "c", "d"), "4 layers (a, b, c and 1 more)"),
    ],
)
def test_layers_are_counted_and_the_first_named(layers: tuple[str, ...], text: str) -> None:
    assert _layers_text(layers) == text


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of the smallest published network with random weights, as pycls's."""
    import torch

    from regnet.network.modules import RegNet
    from regnet.network.spec import spec_by_name

    torch.manual_seed(0)
    network = RegNet(spec_by_name("regnetx-200mf"))
    path = tmp_path_factory.mktemp("mirror") / "RegNetX-200MF_dds_8gpu.pyth"
    torch.save({"epoch": 99, "model_state": network.state_dict()}, path)
    return path


def test_a_checkpoint_becomes_an_ir_once(checkpoint: Path, tmp_path: Path) -> None:
    options = ["--cache-dir", tmp_path / "cache"]
    done = regnet("convert", checkpoint, "-o", tmp_path / "out", "--json", *options)
    result = json.loads(done.stdout)
    assert result["max_delta"] <= 1e-5
    assert all(Path(file).is_file() for file in result["files"])
    ir = Path(result["path"])
    assert regnet("info", ir).returncode == 0
    ir_rows = regnet("classify", "-m", ir, "-f", "jsonl", CAT, *options).stdout
    rows = regnet("classify", "-m", checkpoint, "-f", "jsonl", CAT, *options)
    assert rows.stdout == ir_rows
    assert b"converting" not in rows.stderr


@pytest.fixture
def without_torch(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which a process finds no torch."""
    (tmp_path / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *a: None if name == 'torch' else find(name, *a)\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def test_a_checkpoint_is_converted_and_classifies_without_torch(
    checkpoint: Path, tmp_path: Path, without_torch: dict[str, str]
) -> None:
    options = ["--cache-dir", tmp_path / "cache"]
    run = partial(process, env=without_torch)
    converted = json.loads(run("convert", checkpoint, "-o", tmp_path, "--json", *options).stdout)
    assert converted["max_delta"] <= 1e-5
    rows = [
        json.loads(run("classify", "-m", model, "-f", "jsonl", CAT, *options).stdout)
        for model in (checkpoint, converted["path"])
    ]
    assert rows[0] == rows[1]
    failed = run("compare", f"{checkpoint}:torch", checkpoint, CAT, *options, code=2)
    assert "needs the extra 'torch': " in failed.stderr.decode()


def test_insisting_on_another_network_is_an_error(checkpoint: Path, tmp_path: Path) -> None:
    options = ["--cache-dir", tmp_path, "-o", tmp_path / "out"]
    done = regnet("convert", checkpoint, "--spec", "regnetx-400mf", *options, code=2)
    assert re.search("regnetx-400mf.*regnetx-200mf", done.stderr.decode())
    assert not (tmp_path / "out").exists()


def test_labels_and_protocol_can_be_given(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\n".join(f"thing {i}" for i in range(1000)))
    options = ["--labels", tmp_path / "classes.txt", "--resize", 96, "--crop", 64, "--name", "mine"]
    regnet("convert", checkpoint, *options, "-o", tmp_path, "--cache-dir", tmp_path / "c")
    found = json.loads(regnet("classify", "-m", tmp_path / "mine.xml", "-f", "json", CAT).stdout)
    assert found[0]["model"] == "mine"
    assert found[0]["predictions"][0]["label"].startswith("thing ")
    info = json.loads(regnet("info", tmp_path / "mine.xml", "--json").stdout)
    assert (info["protocol"]["resize"], info["protocol"]["crop"]) == (96, 64)


def test_a_card_from_a_mirror_to_labels(checkpoint: Path, tmp_path: Path) -> None:
    """Download, convert and classify a published card, from a mirror that has its file."""
    cache = ["--cache-dir", tmp_path / "cache"]
    with LocalServer() as server:
        server.files = {f"files/{checkpoint.name}": checkpoint.read_bytes()}
        mirror = ["--mirror", server.url("files")]
        done = regnet("download", "regnetx-200mf", *mirror, *cache)
        assert Path(done.stdout.decode().strip()).read_bytes() == checkpoint.read_bytes()
        regnet("convert", "regnetx_002", "-o", tmp_path, "--offline", *cache)
        options = ["-m", "regnetx-200mf", "--offline", "-f", "jsonl"]
        named = regnet("classify", *options, CAT, *cache).stdout
        assert len(server.log) == 1
    converted = regnet("classify", "-m", tmp_path / "regnetx-200mf.xml", "-f", "jsonl", CAT)
    assert json.loads(named) == json.loads(converted.stdout)
    assert json.loads(named)["model"] == "regnetx-200mf"


def test_the_first_command_downloads_converts_and_answers_without_torch(
    checkpoint: Path, tmp_path: Path, without_torch: dict[str, str]
) -> None:
    words = ("classify", "-m", "regnetx-200mf", "-k", 1, CAT, "--cache-dir", tmp_path / "cache")
    with LocalServer() as server:
        server.files = {checkpoint.name: checkpoint.read_bytes()}
        done = process(*words, "--mirror", server.base, env=without_torch)
    assert done.stdout.decode().startswith(f"{CAT}\n")
    said = done.stderr.decode().splitlines()
    assert said[0].startswith("regnetx-200mf: downloading ")
    assert said[-1].startswith("regnetx-200mf: converting ")


def test_offline_results_do_not_go_elsewhere() -> None:
    words = ("classify", CAT, "--offline", "--ray", "local", "-o", "s3://bucket/labels")
    assert b"s3://bucket/labels: not written to" in regnet(*words, code=2).stderr


def test_json_and_csv_are_utf8_whatever_the_terminal(tmp_path: Path) -> None:
    names = ["bad\udcff.png", "a\rb.png", "日本.png"]
    for name in names:
        (tmp_path / name).write_bytes(CAT.read_bytes())
    expected = [str(tmp_path / name).replace("\udcff", "\\udcff") for name in names]
    words = ("classify", "-m", "bundled", "-k", "1", *(tmp_path / name for name in names))
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    text = process(*words, "-f", "jsonl", env=environ).stdout.decode()
    assert [json.loads(line)["source"] for line in text.splitlines()] == expected
    assert "日本.png" in text
    text = process(*words, "-f", "csv", env=environ).stdout.decode()
    assert [r["source"] for r in csv.DictReader(io.StringIO(text, newline=""))] == expected


@pytest.mark.parametrize("format", ["json", "csv", "parquet"])
def test_results_go_to_standard_output_by_its_name(format: str, tmp_path: Path) -> None:
    words = ("classify", "-m", "bundled", CAT, "-f", format, "-o")
    regnet(*words, tmp_path / "file")
    assert process(*words, "/dev/stdout").stdout == (tmp_path / "file").read_bytes()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_comes_out_as_any_error_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: signal.Signals
) -> None:
    """`from _ssl import RAND_egd` makes `TypeError: expected a message argument` of one."""

    def start(commands: object) -> NoReturn:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(end)
        raise TypeError("expected a message argument")

    monkeypatch.setattr("regnet.cli.build_app", start)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "regnet: interrupted\n"


def test_signals_wait_whichever_thread_they_reach() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):
        with signals_wait():
            sender = Thread(target=signal.raise_signal, args=(signal.SIGINT,))
            sender.start()
            sender.join()
            done.append("the block")
        done.append("what follows")
    assert done == ["the block"]


def test_an_interrupt_that_a_library_made_an_error_of_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM while uvloop is imported comes as ImportError, so the extra seems to be missing."""

    def start(commands: object) -> NoReturn:
        try:
            raise ImportError("initialization failed") from KeyboardInterrupt()
        except ImportError as exc:
            raise MissingExtraError("serving", "serve") from exc

    monkeypatch.setattr("regnet.cli.build_app", start)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "regnet: interrupted\n"
