"""The report of `regnet benchmark`."""

from typing import TYPE_CHECKING

from regnet.benchmarking.benchmark import Benchmark
from regnet.benchmarking.end_to_end import EndToEnd
from regnet.benchmarking.table import busy_text, machine_text
from regnet.pages.figures import ACCENT, SOFT, WARM, plain, svg
from regnet.pages.html import (
    Bar,
    Cell,
    Html,
    Number,
    Section,
    Tile,
    assumed_facts,
    facts,
    figure,
    note,
    page,
    side_by_side,
    table,
    tiles,
)
from regnet.system.version import TOOL_VERSION

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def benchmark_page(found: Benchmark) -> str:
    """Return the report's HTML."""
    height, width, _ = found.input
    sections = [Section("", (tiles(_tiles(found)),)), _engines(found)]
    if found.end_to_end is not None:
        sections.append(_end_to_end(found.end_to_end))
    sections.append(Section("How this was measured", (facts(_facts(found)),)))
    return page(
        f"Speed of {found.name}",
        sections,
        subtitle=f"{found.gflops:.4g} GFLOPs an image of {width} x {height}; "
        f"{found.machine.cpu}, {found.machine.cores} cores",
        foot=f"regnet {TOOL_VERSION}, regnet benchmark",
    )


def _tiles(found: Benchmark) -> list[Tile]:
    fastest = max(found.engines, key=lambda row: row.images_per_second)
    quickest = min(found.engines, key=lambda row: row.latency_ms["p50"])
    shown = [
        Tile("Throughput", f"{fastest.images_per_second:,.0f} /s", f"images, {fastest.precision}"),
        Tile("Latency", f"{quickest.latency_ms['p50']:.2f} ms", f"median, {quickest.precision}"),
    ]
    if found.end_to_end is not None:
        best = max(found.end_to_end.wholes, key=lambda whole: whole.images_per_second)
        note = f"photos to labels, {best.precision}; {100 * best.share:.0f} % of what parts allow"
        shown.append(Tile("End to end", f"{best.images_per_second:,.0f} /s", note))
    return shown


def _engines(found: Benchmark) -> Section:
    height = 1.2 + 0.42 * len(found.engines)
    throughput = svg(
        "throughput",
        lambda canvas: _draw_throughput(canvas, found),
        height=height,
        label="Images a second in each precision",
    )
    latency = svg(
        "latency",
        lambda canvas: _draw_latency(canvas, found),
        height=height,
        label="Milliseconds of one image: fastest, median, 90th and 99th percentile",
    )
    return Section(
        "Precisions",
        (
            side_by_side(
                figure(throughput, "Best throughput."),
                figure(latency, "One image at a time: the median, and up to the 99th percentile."),
            ),
            _engine_table(found),
            *(note(f"{text[0].upper()}{text[1:]}.") for text in busy_text(found)),
        ),
    )


def _draw_throughput(canvas: "Figure", found: Benchmark) -> None:
    axes = canvas.subplots()
    places = range(len(found.engines))
    axes.barh(places, [row.images_per_second for row in found.engines], color=ACCENT, height=0.62)
    axes.set_yticks(places, [row.precision for row in found.engines])
    axes.invert_yaxis()
    axes.set_xlabel("images a second")
    plain(axes, grid="x")


def _draw_latency(canvas: "Figure", found: Benchmark) -> None:
    axes = canvas.subplots()
    for place, row in enumerate(found.engines):
        low, middle, high = (row.latency_ms[name] for name in ("min", "p50", "p99"))
        axes.plot([low, high], [place, place], color=ACCENT, linewidth=2)
        axes.plot([middle], [place], "o", color=ACCENT, markersize=6)
    axes.set_yticks(range(len(found.engines)), [row.precision for row in found.engines])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds")
    plain(axes, grid="x")


def _engine_table(found: Benchmark) -> Html:
    percentiles = tuple(found.engines[0].latency_ms)
    rows: list[tuple[Cell, ...]] = [
        (
            row.precision,
            *(Number(f"{row.latency_ms[p]:.2f}", row.latency_ms[p]) for p in percentiles),
            Number(f"{row.images_per_second:,.1f}", row.images_per_second),
            Number(str(row.best_batch), row.best_batch),
        )
        for row in found.engines
    ]
    columns = ("Precision", *(f"{p}, ms" for p in percentiles), "Images/s", "Batch")
    return table(columns, rows, sortable=True)


def _end_to_end(found: EndToEnd) -> Section:
    drawing = svg(
        "parts",
        lambda canvas: _draw_parts(canvas, found),
        width=7.2,
        height=1.3 + 0.42 * len(found.wholes),
        label="Milliseconds a photo: decoding, engine, the rest",
    )
    wholes: list[tuple[Cell, ...]] = [
        (
            whole.precision,
            Number(f"{whole.images_per_second:,.1f}", whole.images_per_second),
            Number(f"{whole.allowed:,.1f}", whole.allowed),
            Bar(f"{100 * whole.share:.1f} %", min(whole.share, 1.0)),
            Number("-" if whole.flips is None else str(whole.flips), whole.flips),
        )
        for whole in found.wholes
    ]
    columns = ("Precision", "Photos/s", "Allowed", "Share", "Top-1 flips")
    return Section(
        "From files to labels",
        (figure(drawing, "Where the time of a photo goes, on all cores."), table(columns, wholes)),
        lead=f"{found.photos} JPEG files, batches of {found.batch_size}. Decoding and engine, each "
        "measured alone on all cores, allow so many photos a second together.",
    )


def _draw_parts(canvas: "Figure", found: EndToEnd) -> None:
    axes = canvas.subplots()
    places = range(len(found.wholes))
    left = [0.0] * len(found.wholes)
    for name, colour in (("decode", ACCENT), ("engine", SOFT), ("other", WARM)):
        widths = [max(0.0, getattr(whole, f"{name}_ms")) for whole in found.wholes]
        axes.barh(places, widths, left=left, color=colour, height=0.62, label=name)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(places, [whole.precision for whole in found.wholes])
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds a photo")
    axes.legend(loc="lower right", ncols=3, bbox_to_anchor=(1, 1))
    plain(axes, grid="x")


def _facts(found: Benchmark) -> list[tuple[str, str]]:
    return [
        ("Model", found.model),
        *assumed_facts(found.assumed),
        ("Machine", machine_text(found.machine)),
        ("Rounds", f"{found.rounds}, in which all took turns; figures are medians"),
    ]
