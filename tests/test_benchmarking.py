"""What a benchmark says, of the bundled model and of a tiny one; never how fast anything is."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from test_conversion_export import SMALL, TINY, confident, described
from typer.testing import CliRunner

from regnet.benchmarking.benchmark import Benchmark, Plan, benchmark, find_paths, parse_precisions
from regnet.benchmarking.end_to_end import EndToEndSetup, end_to_end, find_jpegs
from regnet.benchmarking.report import benchmark_report
from regnet.checkpoints.weights import write_safetensors
from regnet.cli import build_app
from regnet.conversion.store import Library
from regnet.ir.graph import read_graph
from regnet.ir.graph_cost import graph_cost
from regnet.pages.html import report_html
from regnet.pages.terminal import report_lines
from regnet.pixels.samples import sample_photos
from regnet.system.errors import DatasetError, ModelError, UnknownModelError
from regnet.system.machine import Machine, this_machine, watch_others

MACHINE = this_machine()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library(folder=tmp_path_factory.mktemp("cache"), offline=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    labels = described(SMALL).labels
    write_safetensors(
        path, confident(SMALL).state_dict(), spec=SMALL, labels=labels, preprocess=TINY
    )
    return str(path)


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of nine JPEGs, some below it, one truncated, and other files."""
    folder = tmp_path_factory.mktemp("jpegs")
    (folder / "below").mkdir()
    images = [Image.open(photo).convert("RGB") for photo in sample_photos()]
    for number in range(8):
        size = (90 + 11 * number, 140 - 9 * number)
        name = f"{'below/' if number % 2 else ''}{number}.{'jpg' if number % 3 else 'JPEG'}"
        images[number % 3].resize(size).save(folder / name, "JPEG")
    (folder / "broken.jpg").write_bytes((folder / "0.JPEG").read_bytes()[:300])
    (folder / "notes.txt").write_text("none")
    images[0].save(folder / "other.png")
    return folder


@pytest.fixture(scope="module")
def found(library: Library, checkpoint: str, jpegs: Path) -> Benchmark:
    plan = Plan(
        model=checkpoint,
        batch_size=2,
        rounds=2,
        photos=tuple(find_jpegs(jpegs, most=100)),
    )
    return benchmark(plan, library=library)


def as_text(result: Benchmark) -> str:
    return "\n".join(report_lines(benchmark_report(result)))


def test_every_precision_is_there(found: Benchmark) -> None:
    floats = ["f32", "bf16"] if MACHINE.has_bf16 else ["f32"]
    assert [row.precision for row in found.engines] == floats
    assert found.rounds == 2


def test_figures_are_sound(found: Benchmark) -> None:
    for row in found.engines:
        low, *others = row.latency_ms.values()
        assert list(row.latency_ms) == ["min", "p50", "p90", "p99"]
        assert 0 < low <= others[0] <= others[1] <= others[2]
        assert sorted(row.by_batch) == [1, 2]
        assert row.images_per_second == max(row.by_batch.values())
        assert row.images_per_second == row.by_batch[row.best_batch]
        assert len(row.times) == len(found.engines) - 1
        assert all(times > 0 for times in row.times.values())


def test_from_files_to_labels(found: Benchmark) -> None:
    whole = found.end_to_end
    assert whole is not None
    assert (whole.photos, whole.unreadable) == (8, 1)
    for row in whole.wholes:
        assert row.images_per_second > 0
        assert row.share > 0
        assert row.allowed == pytest.approx(1e3 / (row.decode_ms + row.engine_ms), rel=0.5)


def test_in_f32_batches_name_the_same_class_as_single_photos(found: Benchmark) -> None:
    assert found.end_to_end is not None
    assert found.end_to_end.wholes[0].precision == "f32"
    assert found.end_to_end.wholes[0].flips == 0


def test_all_of_it_is_json_and_text(found: Benchmark) -> None:
    values = json.loads(json.dumps(found.to_dict()))
    assert values["engines"][0]["latency_ms"]["p50"] == found.engines[0].latency_ms["p50"]
    assert values["end_to_end"]["wholes"][0]["share"] > 0
    assert values["machine"]["cores"] >= 1
    text = as_text(found)
    for wanted in ("\n  f32 ", "p99 ms", "8 JPEG files, batches of 2", "1 unreadable files were"):
        assert wanted in text


def test_the_report_is_a_page_with_plots(found: Benchmark) -> None:
    html = report_html(benchmark_report(found))
    assert html.count("<svg ") == 3
    assert "Speed of tiny" in html
    assert "From files to labels" in html


def test_a_model_that_makes_the_crop_takes_whole_photos(
    library: Library, checkpoint: str, jpegs: Path
) -> None:
    request = replace(library.request(checkpoint), preprocessing="graph")
    plan = Plan(
        model=str(library.convert(request).path),
        precisions=("f32",),
        batch_size=2,
        rounds=1,
        photos=tuple(find_jpegs(jpegs, most=4)),
    )
    found = benchmark(plan, library=library)
    assert found.input == (375, 500, 3)
    assert found.gflops == graph_cost(read_graph(library.ir(checkpoint))).gflops
    assert found.end_to_end is not None
    assert found.end_to_end.wholes[0].flips == 0
    assert "of 500 x 375" in as_text(found)


def test_the_machine_is_read_from_what_linux_says(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: A CPU\nflags\t\t: fpu avx2 avx512_vnni\n\nmodel name : B\n")
    machine = this_machine(cpuinfo=cpuinfo)
    assert (machine.cpu, machine.flags) == ("A CPU", ("avx2", "avx512_vnni"))


@pytest.mark.parametrize(
    ("flags", "sums"),
    [
        (("avx2", "avx512f"), False),
        (("avx2", "avx512f", "avx512_vnni"), True),
        (("avx2", "avx_vnni"), True),
        (("asimd", "asimddp"), True),
        ((), True),
    ],
)
def test_x86_sums_int8_with_vnni_alone(flags: tuple[str, ...], sums: bool) -> None:
    assert replace(MACHINE, flags=flags).sums_int8 is sums


def test_the_machine_is_known_where_there_is_no_cpuinfo(tmp_path: Path) -> None:
    machine = this_machine(cpuinfo=tmp_path / "none")
    assert machine.cpu
    assert machine.flags == ()
    assert machine.cores >= 1


def test_what_others_take_is_what_this_process_did_not(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    ticks = os.sysconf("SC_CLK_TCK")
    stat.write_text("cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0\n")
    share = watch_others(stat=stat)
    assert share() == 0.0  # this process worked, nobody else
    stat.write_text(f"cpu  {10**6 * ticks} 0 0 0 0 0 0 0 0 0\n")
    assert share() == 1.0
    stat.unlink()
    assert share() is None
    assert watch_others(stat=stat)() is None


def test_a_busy_machine_is_warned_of(found: Benchmark) -> None:
    assert "Measure again" in as_text(replace(found, other_work=0.37))
    assert "used 37 % of the machine" in as_text(replace(found, other_work=0.37))
    for idle in (0.01, None):
        assert "Measure again" not in as_text(replace(found, other_work=idle))


def test_jpegs_are_taken_evenly(jpegs: Path) -> None:
    every = find_jpegs(jpegs, most=100)
    assert len(every) == 9
    assert find_jpegs(jpegs, most=3) == every[::3]
    assert len(find_jpegs(jpegs, most=8)) == 8


def test_photos_that_are_none(tmp_path: Path, library: Library) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        find_jpegs(tmp_path / "none", most=5)
    with pytest.raises(DatasetError, match=r"no JPEG files \(.jpg"):
        find_jpegs(tmp_path, most=5)
    (tmp_path / "a.jpg").write_bytes(b"none")
    setup = EndToEndSetup(paths={"f32": library.ir("bundled")}, photos=find_jpegs(tmp_path, most=5))
    with pytest.raises(DatasetError, match="cannot be read"):
        end_to_end(setup)


def test_lists_of_precisions() -> None:
    assert parse_precisions("int8, f32") == ("f32", "int8")
    with pytest.raises(ModelError, match="'fp16' is none of f32, bf16, int8"):
        parse_precisions("f32,fp16")


def test_int8_that_is_not_there(library: Library, checkpoint: str) -> None:
    plan = Plan(model=checkpoint, precisions=("int8",))
    with pytest.raises(UnknownModelError, match="regnet quantize"):
        find_paths(plan, library=library, machine=MACHINE)
    assert "int8" not in find_paths(Plan(model=checkpoint), library=library, machine=MACHINE)


def test_bf16_that_the_machine_has_not(library: Library, checkpoint: str) -> None:
    old = Machine("Old", 1, (), ("FP32",), "Linux", "3.11", "2026")
    assert list(find_paths(Plan(model=checkpoint), library=library, machine=old)) == ["f32"]
    with pytest.raises(ModelError, match=r"bf16: this CPU \(Old\) has none"):
        find_paths(Plan(model=checkpoint, precisions=("bf16",)), library=library, machine=old)


def run(*arguments: str):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(build_app(["benchmark", "info"]), ["benchmark", *arguments])


def test_the_command_prints_tables_and_ends_in_json(tmp_path: Path) -> None:
    html = tmp_path / "speed.html"
    options = ["--precision", "f32", "--rounds", "1", "--html", str(html)]
    done = run("bundled", *options)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert json.loads(lines[-1])["engines"][0]["precision"] == "f32"
    assert lines[0] == "Speed of bundled"
    assert lines[1].startswith("0.3521 GFLOPs per image of 128 x 128")
    assert html.read_text().startswith("<!doctype html>")


def test_the_command_prints_only_json_where_asked() -> None:
    options = ("--precision", "f32", "--rounds", "1", "--json")
    done = run("bundled", *options)
    assert json.loads(done.stdout)["model"] == "bundled"


def test_the_command_refuses_before_it_measures(tmp_path: Path) -> None:
    for options, error in (
        (["--end-to-end", str(tmp_path)], DatasetError),
        (["--precision", "int4"], ModelError),
    ):
        done = run("bundled", *options)
        assert isinstance(done.exception, error)
        assert done.stdout == ""
    done = run("bundled", "--html", str(tmp_path / "none" / "x.html"))
    assert "cannot write" in str(done.exception)
    assert list(tmp_path.iterdir()) == []
