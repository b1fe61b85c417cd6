"""The report of `regnet space search`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from regnet.benchmarking.table import machine_text
from regnet.pages.figures import ACCENT, INK, MUTED, SOFT, WARM, plain, svg
from regnet.pages.html import (
    Cell,
    Html,
    Number,
    Section,
    Tile,
    facts,
    figure,
    note,
    page,
    table,
    tiles,
)
from regnet.space.candidates import Measured
from regnet.space.search import Found
from regnet.space.search_results import Trained
from regnet.space.search_table import (
    FRONT_COLUMNS,
    RIVAL_COLUMNS,
    TRAINED_COLUMNS,
    beaten_line,
    describe,
    front_rows,
    latency_remark,
    pick_line,
    remarks,
    rival_rows,
    top1,
    trained_rows,
)
from regnet.system.version import TOOL_VERSION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def search_page(found: Found, trained: Sequence[Trained] = ()) -> str:
    """Return the report's HTML."""
    setup = found.plan.setup
    sections = [Section("", (tiles(_tiles(found)), note(f"{pick_line(found)}."))), _front(found)]
    sections.append(_rivals(found))
    if trained:
        sections.append(_trained(trained))
    sections += [
        _measurements(found),
        Section("How this was measured", (facts(_facts(found)), *_remarks(found))),
    ]
    return page(
        f"RegNets within {found.plan.latency_ms:g} ms",
        sections,
        subtitle=f"{setup.precision}, one image of {setup.image_size} pixels; "
        f"{found.machine.cpu}, {found.machine.cores} cores",
        foot=f"regnet {TOOL_VERSION}, regnet space search",
    )


def _tiles(found: Found) -> list[Tile]:
    pick = found.pick
    loo = found.accuracy
    return [
        Tile("Latency", f"{pick.ms:.2f} ms", f"of {found.plan.latency_ms:g} allowed"),
        Tile("Top-1", top1(pick), pick.name or f"predicted, ± {loo.rms:.2f} points"),
        Tile("MACs", f"{pick.network.cost.macs / 1e6:,.0f} M", describe(pick.network.spec)),
        Tile(
            "Latency model",
            f"{100 * found.latency.median_error:.1f} %",
            "median error, held out",
        ),
    ]


def _front(found: Found) -> Section:
    drawn = svg(
        "front",
        lambda canvas: _draw_front(canvas, found),
        height=4.2,
        label="Accuracy against latency: what was measured, the front, the published networks",
    )
    return Section(
        "Front",
        (
            figure(drawn, "Dots: measured networks; the line joins those that none beats."),
            table(FRONT_COLUMNS, list(front_rows(found))),
        ),
        lead="Latencies are measured; accuracies of networks that are not published are predicted.",
    )


def _draw_front(canvas: "Figure", found: Found) -> None:
    axes = canvas.subplots()
    _dots(axes, found.measured, SOFT, "measured, accuracy predicted")
    front = found.front
    axes.plot(
        [one.ms for one in front], [100 - one.error for one in front], "o-",
        color=ACCENT, markersize=4.5, label="front, predicted where not published",
    )  # fmt: skip
    for rival in found.rivals:
        one = rival.published
        accuracy = 100 - one.error
        axes.plot([one.ms], [accuracy], "D", color=WARM, markersize=5)
        # X and Y of a size are close to each other: their names go to opposite sides.
        left = one.name.startswith("regnety")
        axes.annotate(
            one.name.removeprefix("regnet"), (one.ms, accuracy), (-6, 5) if left else (5, -9),
            fontsize=8, color=MUTED, ha="right" if left else "left", textcoords="offset points",
        )  # fmt: skip
    axes.plot([], [], "D", color=WARM, markersize=5, label="published")
    axes.axvline(found.plan.latency_ms, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set(xlabel="milliseconds", ylabel="top-1, % (predicted)", xscale="log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(axis="x", which="minor", labelsize=8)
    axes.legend(loc="lower right")
    plain(axes, grid="both")


def _dots(axes: "Axes", measured: Sequence[Measured], colour: str, label: str) -> None:
    axes.plot(
        [one.ms for one in measured], [100 - one.network.error for one in measured], "o",
        color=colour, markersize=4, label=label,
    )  # fmt: skip


def _rivals(found: Found) -> Section:
    line = beaten_line(found.rivals)
    return Section(
        "Beside the published networks",
        (
            table(RIVAL_COLUMNS, list(rival_rows(found))),
            *((note(f"{line[0].upper()}{line[1:]}."),) if line else ()),
        ),
        lead="What was found at the latency of each published network within the budget.",
    )


def _trained(trained: Sequence[Trained]) -> Section:
    setting = trained[0].record.setting
    return Section(
        "Trained",
        (table(TRAINED_COLUMNS, list(trained_rows(trained))),),
        lead=f"Top-1 after {setting.epochs} epochs on {setting.train_photos:,} photos of "
        f"{setting.classes} classes, of {setting.val_photos:,} others ({setting.data}).",
    )


def _measurements(found: Found) -> Section:
    rows: list[tuple[Cell, ...]] = [
        (
            describe(one.network.spec),
            Number(f"{one.ms:.2f}", one.ms),
            Number("" if one.predicted_ms is None else f"{one.predicted_ms:.2f}", one.predicted_ms),
            Number(top1(one), 100 - one.error),
            Number(f"{one.network.cost.macs / 1e6:.0f}", one.network.cost.macs),
        )
        for one in sorted(found.measured, key=lambda one: one.ms)
    ]
    columns = ("Network", "ms", "ms, predicted before", "Top-1, predicted", "MMACs")
    parts: tuple[Html, ...] = (table(columns, rows, sortable=True),)
    if found.ahead:
        parts = (_predicted(found), *parts)
    return Section("All that was measured", parts)


def _predicted(found: Found) -> Html:
    drawn = svg(
        "predicted",
        lambda canvas: _draw_predicted(canvas, found),
        height=3.6,
        label="Predicted latency against measured latency",
    )
    remark = latency_remark(found)
    return figure(drawn, f"{remark[0].upper()}{remark[1:]}.")


def _draw_predicted(canvas: "Figure", found: Found) -> None:
    axes = canvas.subplots()
    pairs = [(one.predicted_ms, one.ms) for one in found.measured if one.predicted_ms is not None]
    largest = 1.05 * max(max(pair) for pair in pairs)
    axes.plot((0, largest), (0, largest), color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(*zip(*pairs, strict=True), "o", color=ACCENT, markersize=4.5)
    axes.set(xlim=(0, largest), ylim=(0, largest))
    axes.set(xlabel="predicted before, ms", ylabel="measured, ms")
    plain(axes, grid="both")


def _facts(found: Found) -> list[tuple[str, str]]:
    plan, parts = found.plan, found.latency.parts
    return [
        ("Machine", machine_text(found.machine)),
        ("Spaces", ", ".join(plan.spaces)),
        (
            "Drawn",
            f"{found.drawn:,}; {found.trusted:,} are as the published ones; seed {plan.seed}",
        ),
        ("Reference", ", ".join(f"{ms:.2f}" for ms in found.drift) + " ms, beside each group"),
        ("Latency model", "; ".join(f"{name} {ms:.3g} ms" for name, ms in parts.items())),
    ]


def _remarks(found: Found) -> list[Html]:
    return [note(f"{text[0].upper()}{text[1:]}.") for text in remarks(found)]
