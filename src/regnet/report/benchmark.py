"""The report of `regnet benchmark`."""

from typing import TYPE_CHECKING

from regnet.benchmarking.benchmark import Benchmark, EngineSpeed
from regnet.benchmarking.end_to_end import EndToEnd
from regnet.benchmarking.table import best_batch, busy_text, machine_text
from regnet.report.figures import ACCENT, MUTED, SOFT, WARM, plain, svg
from regnet.report.html import (
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
from regnet.version import TOOL_VERSION

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


def _name(row: EngineSpeed) -> str:
    return f"{row.engine} {row.precision}"


def _tiles(found: Benchmark) -> list[Tile]:
    own = [row for row in found.engines if row.engine == "OpenVINO"]
    fastest = max(own, key=lambda row: row.images_per_second)
    quickest = min(own, key=lambda row: row.latency_ms["p50"])
    shown = [
        Tile("Throughput", f"{fastest.images_per_second:,.0f} /s", f"images, {_name(fastest)}"),
        Tile("Latency", f"{quickest.latency_ms['p50']:.2f} ms", f"median, {_name(quickest)}"),
        Tile("Of the ceiling", f"{100 * fastest.share:.0f} %", f"{_name(fastest)}"),
    ]
    if found.end_to_end is not None:
        best = max(found.end_to_end.wholes, key=lambda whole: whole.images_per_second)
        note = f"photos to labels, {best.precision}; {100 * best.share:.0f} % of what parts allow"
        shown.append(Tile("End to end", f"{best.images_per_second:,.0f} /s", note))
    return shown


def _engines(found: Benchmark) -> Section:
    throughput = svg(
        "throughput",
        lambda canvas: _draw_throughput(canvas, found),
        height=1.2 + 0.42 * len(found.engines),
        label="Images a second of each engine, and the ceiling of its precision",
    )
    latency = svg(
        "latency",
        lambda canvas: _draw_latency(canvas, found),
        height=1.2 + 0.42 * len(found.engines),
        label="Milliseconds of one image: fastest, median, 90th and 99th percentile",
    )
    return Section(
        "Engines",
        (
            side_by_side(
                figure(throughput, "Best throughput; the mark is the ceiling of the precision."),
                figure(latency, "One image at a time: the median, and up to the 99th percentile."),
            ),
            _engine_table(found),
            *_remarks(found),
        ),
        lead="The ceiling is what the machine's best matrix products of the same type allow.",
    )


def _draw_throughput(canvas: "Figure", found: Benchmark) -> None:
    axes = canvas.subplots()
    ceilings = {ceiling.precision: ceiling.images_per_second for ceiling in found.ceilings}
    rows = found.engines
    colours = [ACCENT if row.engine == "OpenVINO" else SOFT for row in rows]
    places = range(len(rows))
    axes.barh(places, [row.images_per_second for row in rows], color=colours, height=0.62)
    axes.plot([ceilings[row.precision] for row in rows], places, "|", color=WARM, markersize=15)
    axes.set_yticks(places, [_name(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("images a second")
    plain(axes, grid="x")


def _draw_latency(canvas: "Figure", found: Benchmark) -> None:
    axes = canvas.subplots()
    rows = found.engines
    for place, row in enumerate(rows):
        colour = ACCENT if row.engine == "OpenVINO" else MUTED
        low, middle, high = (row.latency_ms[name] for name in ("min", "p50", "p99"))
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot([middle], [place], "o", color=colour, markersize=6)
    axes.set_yticks(range(len(rows)), [_name(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("milliseconds")
    plain(axes, grid="x")


def _engine_table(found: Benchmark) -> Html:
    percentiles = tuple(found.engines[0].latency_ms)
    rows: list[tuple[Cell, ...]] = [
        (
            _name(row),
            *(Number(f"{row.latency_ms[p]:.2f}", row.latency_ms[p]) for p in percentiles),
            Number(f"{row.images_per_second:,.1f}", row.images_per_second),
            Number(str(best_batch(row)), best_batch(row)),
            Bar(f"{100 * row.share:.0f} %", min(row.share, 1.0)),
        )
        for row in found.engines
    ]
    columns = ("Engine", *(f"{p}, ms" for p in percentiles), "Images/s", "Batch", "Of ceiling")
    return table(columns, rows, sortable=True)


def _remarks(found: Benchmark) -> list[Html]:
    texts = [f"{name} was not measured: {reason}." for name, reason in found.absent.items()]
    if any(row.engine != "OpenVINO" for row in found.engines) and not found.own_weights:
        texts.append("The other engines ran the same network with random weights, as fast.")
    texts += [f"{text[0].upper()}{text[1:]}." for text in busy_text(found)]
    return [note(text) for text in texts]


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
            *(Number(f"{times:.2f} x", times) for times in whole.times.values()),
            _flips(whole.flips),
        )
        for whole in found.wholes
    ]
    loops = [
        (
            f"{loop.name} ({loop.precision})",
            Number(f"{loop.images_per_second:,.1f}", loop.images_per_second),
            _flips(loop.flips),
        )
        for loop in found.loops
    ]
    names = [f"Over {loop.name}" for loop in found.loops]
    columns = ("Precision", "Photos/s", "Allowed", "Share", *names, "Top-1 flips")
    parts = [
        figure(drawing, "Where the time of a photo goes, on all cores."),
        table(columns, wholes),
    ]
    if loops:
        parts.append(table(("Plain loop", "Photos/s", "Top-1 flips"), loops))
    if found.identical is not None:
        text = f"Pixels are Pillow's, every one, in {found.identical} of {found.photos} photos."
        parts.append(note(text))
    return Section(
        "From files to labels",
        tuple(parts),
        lead=f"{found.photos} JPEG files, batches of {found.batch_size}. Decoding and engine, each "
        "measured alone on all cores, allow so many photos a second together.",
    )


def _flips(flips: int | None) -> Number:
    return Number("-" if flips is None else str(flips), flips)


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
    ceilings = ", ".join(
        f"{c.precision} {c.gflops_per_second:,.0f} GFLOP/s" for c in found.ceilings
    )
    versions = {row.engine: row.version for row in found.engines}
    return [
        ("Model", found.model),
        *assumed_facts(found.assumed),
        ("Machine", machine_text(found.machine)),
        ("Ceilings", f"matrix products 1024 x 1024 x 1024, {ceilings}"),
        ("Engines", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("Rounds", f"{found.rounds}, in which all took turns; figures are medians"),
    ]
