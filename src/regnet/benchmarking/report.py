"""The report of `regnet benchmark`."""

from functools import partial
from typing import TYPE_CHECKING, Final

from regnet.benchmarking.benchmark import Benchmark
from regnet.benchmarking.end_to_end import EndToEnd
from regnet.pages import report as page
from regnet.pages.figures import ACCENT, SOFT, WARM, legend_above, plain
from regnet.system.devices import CPU
from regnet.system.machine import Machine
from regnet.system.text import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BUSY: Final = 0.05
_PARTS: Final = ("decode", "engine", "other")  # of the time of a photo


def benchmark_report(result: Benchmark) -> page.Report:
    """Return what was measured as a report."""
    height, width, _ = result.input
    whole = result.end_to_end
    facts = [
        ("Model", result.model),
        ("Assumed", "; ".join(result.assumed)),
        ("Device", "" if result.device == CPU else result.device),
        ("Machine", machine_text(result.machine)),
        ("Rounds", f"{result.rounds}, interleaved; results are medians"),
    ]
    return page.Report(
        f"Speed of {result.name}",
        [
            page.Section("", [page.Tiles(_tiles(result))]),
            _precisions(result),
            *([_end_to_end(whole)] if whole is not None else []),
            page.Section("How it was measured", [page.Facts(facts)]),
        ],
        subtitle=f"{result.gflops:.4g} GFLOPs per image of {width} x {height}; "
        f"{result.machine.cpu}, {result.machine.cores} cores",
        command="regnet benchmark",
    )


def machine_text(machine: Machine) -> str:
    """Return a machine in one line."""
    flags = " ".join(machine.flags) or "instructions unknown"
    return (
        f"{machine.cpu}, {machine.cores} cores, {flags}; OpenVINO {machine.openvino}, "
        f"Python {machine.python}, {machine.system}"
    )


def _tiles(result: Benchmark) -> list[page.Tile]:
    fastest = max(result.engines, key=lambda row: row.images_per_second)
    quickest = min(result.engines, key=lambda row: row.latency_ms["p50"])
    tiles = [
        page.Tile(
            "Throughput", f"{fastest.images_per_second:,.0f} /s", f"images, {fastest.precision}"
        ),
        page.Tile(
            "Latency", f"{quickest.latency_ms['p50']:.2f} ms", f"median, {quickest.precision}"
        ),
    ]
    if result.end_to_end is not None:
        best = max(result.end_to_end.wholes, key=lambda whole: whole.images_per_second)
        note = f"photos to labels, {best.precision}; {percent(best.share, 0)} of the upper bound"
        tiles.append(page.Tile("End to end", f"{best.images_per_second:,.0f} /s", note))
    return tiles


def _precisions(result: Benchmark) -> page.Section:
    """Return the table of precisions, with plots, and what limits the figures."""
    plot = partial(page.Plot, height=1.2 + 0.42 * len(result.engines))
    plots = [
        plot(
            "throughput",
            partial(_draw_throughput, result=result),
            "Images per second in each precision",
            "Best throughput.",
        ),
        plot(
            "latency",
            partial(_draw_latency, result=result),
            "Milliseconds of one image: fastest, median, 90th and 99th percentile",
            "One image at a time: the median, and up to the 99th percentile.",
        ),
    ]
    percentiles = tuple(result.engines[0].latency_ms)
    rows = [
        (
            row.precision,
            *(page.Number(row.latency_ms[name], ".2f") for name in percentiles),
            page.Number(row.images_per_second, ",.1f"),
            page.Number(row.best_batch),
        )
        for row in result.engines
    ]
    columns = ("Precision", *(f"{name} ms" for name in percentiles), "Images/s", "Batch")
    last = result.engines[-1]
    remarks = [
        f"{last.precision}: {times:.2f}x the images/s of {p}" for p, times in last.times.items()
    ]
    remarks += map(str, result.agreement)
    if result.other_work is not None and result.other_work >= BUSY:
        remarks.append(
            f"Other processes used {percent(result.other_work, 0)} of the machine meanwhile: the "
            "figures are too low. Measure again when it is idle."
        )
    return page.Section(
        "Precisions", [page.Beside(plots), page.Table(columns, rows, sortable=True), *remarks]
    )


def _end_to_end(whole: EndToEnd) -> page.Section:
    plot = page.Plot(
        "parts",
        partial(_draw_parts, whole=whole),
        "Milliseconds per photo: decoding, engine, the rest",
        "Where the time of a photo goes, on all cores.",
        width=7.2,
        height=1.3 + 0.42 * len(whole.wholes),
    )
    rows = [
        (
            row.precision,
            page.Number(row.images_per_second, ",.1f"),
            page.Number(row.allowed, ",.1f"),
            page.Bar(min(row.share, 1.0), percent(row.share, 1)),
            *(page.Number(getattr(row, f"{part}_ms"), ".2f") for part in _PARTS),
            page.Number(row.flips),
        )
        for row in whole.wholes
    ]
    parts = (f"{part.title()} ms" for part in _PARTS)
    columns = ("Precision", "Photos/s", "Allowed", "Share", *parts, "Flips")
    lead = f"{whole.photos} JPEG files, batches of {whole.batch_size}, {whole.rounds} rounds."
    if whole.unreadable:
        lead += f" {whole.unreadable} unreadable files were left out."
    return page.Section("From files to labels", [plot, page.Table(columns, rows)], lead)


def _bars(axes: "Axes", names: list[str], unit: str) -> None:
    """Label horizontal bars, the first on top."""
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    plain(axes, grid="x")


def _draw_throughput(canvas: "Figure", result: Benchmark) -> None:
    axes = canvas.subplots()
    rates = [row.images_per_second for row in result.engines]
    axes.barh(range(len(rates)), rates, color=ACCENT, height=0.62)
    _bars(axes, [row.precision for row in result.engines], "images per second")


def _draw_latency(canvas: "Figure", result: Benchmark) -> None:
    axes = canvas.subplots()
    for place, row in enumerate(result.engines):
        low, middle, high = (row.latency_ms[name] for name in ("min", "p50", "p99"))
        axes.plot([low, high], [place, place], color=ACCENT, linewidth=2)
        axes.plot([middle], [place], "o", color=ACCENT, markersize=6)
    axes.set_xlim(left=0)
    _bars(axes, [row.precision for row in result.engines], "milliseconds")


def _draw_parts(canvas: "Figure", whole: EndToEnd) -> None:
    axes = canvas.subplots()
    left = [0.0] * len(whole.wholes)
    for name, colour in zip(_PARTS, (ACCENT, SOFT, WARM), strict=True):
        widths = [max(0.0, getattr(row, f"{name}_ms")) for row in whole.wholes]
        axes.barh(range(len(widths)), widths, left=left, color=colour, height=0.62, label=name)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    legend_above(axes)
    _bars(axes, [row.precision for row in whole.wholes], "milliseconds per photo")
