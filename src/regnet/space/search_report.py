"""The report of `regnet space search`."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from regnet.benchmarking.report import machine_text
from regnet.network.spec import RegNetSpec
from regnet.pages import report as page
from regnet.pages.figures import ACCENT, INK, MUTED, SOFT, WARM, legend_above, plain
from regnet.space.candidates import Measured
from regnet.space.search import UNSTEADY, Found
from regnet.space.search_results import Trained
from regnet.system.text import percent, sentence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BUSY: Final = 0.05  # share of the machine that other processes may take
_ALL: Final = 1_000  # rows that a terminal shows


def search_report(found: Found, trained: Sequence[Trained] = ()) -> page.Report:
    """Return the result of a search, and of training the best networks, as a report."""
    setup, machine = found.plan.setup, found.machine
    return page.Report(
        f"RegNets within {found.plan.latency_ms:g} ms",
        [
            page.Section("", [f"{pick_line(found)}.", page.PageOnly([page.Tiles(_tiles(found))])]),
            _front_section(found),
            _rivals_section(found),
            *([_trained_section(trained)] if trained else []),
            _measured_section(found),
            page.Section(
                "How this was measured",
                [page.PageOnly([page.Facts(_facts(found))]), *remarks(found)],
            ),
        ],
        subtitle=f"{setup.precision}, one image of {setup.image_size} pixels; {machine.cpu}, "
        f"{machine.cores} cores",
        command="regnet space search",
    )


def describe(spec: RegNetSpec) -> str:
    """Return a network in the paper's symbols, on one line."""
    family = "Y" if spec.se_ratio is not None else "X"
    return f"{family} d={spec.d} w0={spec.w0} wa={spec.wa:g} wm={spec.wm:g} g={spec.g}"


def top1(one: Measured) -> str:
    """Return a network's accuracy: published, predicted, or a guess (~)."""
    if one.published_error is not None:
        return f"{percent(1 - one.published_error / 100)} (published)"
    return f"{'~' if one.network.extrapolated else ''}{percent(1 - one.network.error / 100)}"


def pick_line(found: Found) -> str:
    """Return the answer in a sentence."""
    setup, pick = found.plan.setup, found.pick
    return (
        f"{_name(pick)}: {pick.ms:.2f} ms, of {found.plan.latency_ms:g} allowed "
        f"({setup.precision}, {setup.image_size} pixels, {found.machine.cores} cores), "
        f"{'' if pick.name else 'predicted '}top-1 {top1(pick)}"
    )


def remarks(found: Found) -> list[str]:
    """Return what must be known to read the figures, in sentences."""
    accuracy, setup = found.accuracy, found.plan.setup
    texts = [
        f"latency: one image, all cores, medians of interleaved calls; {len(found.measured)} "
        f"networks measured of {found.trusted:,} that resemble the published ones, of "
        f"{found.drawn:,} drawn",
        latency_remark(found),
        "accuracy: predicted, for ImageNet-1k with pycls's recipe and protocol, from the 24 "
        f"published networks; each of them from the others: {accuracy.mean:.2f} points off in the "
        f"mean, {accuracy.largest:.2f} at most",
    ]
    if setup.precision != "f32":
        texts.append(
            f"accuracies are those in f32: {setup.precision} may cost a little, which `regnet "
            "quantize` or `regnet compare` measures once the network is trained"
        )
    if setup.image_size != 224:
        texts.append(
            f"accuracies are those at 224 pixels: at {setup.image_size} only their order means "
            "something"
        )
    if any(one.network.extrapolated and not one.name for one in (*found.front, *found.measured)):
        texts.append(
            "~: fewer or more MACs than all published networks, so the prediction is a guess"
        )
    low, high = min(found.drift), max(found.drift)
    if high > UNSTEADY * low:
        texts.append(f"the machine's speed changed: the reference took {low:.2f} to {high:.2f} ms")
    if found.other_work is not None and found.other_work > _BUSY:
        texts.append(
            f"other processes took {percent(found.other_work, 0)} of the machine meanwhile: "
            "latencies are too high; search again when it is idle"
        )
    return [sentence(text) for text in texts]


def latency_remark(found: Found) -> str:
    """Return how well latencies were predicted."""
    text = f"latency model: {percent(found.latency.median_error, 1)} off in the median, held out"
    if found.ahead_error is None:
        return text
    return (
        f"{text}; {percent(found.ahead_error, 1)} over the {found.ahead} networks that it chose to "
        "be measured"
    )


def _tiles(found: Found) -> list[page.Tile]:
    pick, model = found.pick, percent(found.latency.median_error, 1)
    cost = pick.network.cost
    return [
        page.Tile("Latency", f"{pick.ms:.2f} ms", f"of {found.plan.latency_ms:g} allowed"),
        page.Tile(
            "Top-1", top1(pick), pick.name or f"predicted, ± {found.accuracy.rms:.2f} points"
        ),
        page.Tile("MACs", f"{cost.macs / 1e6:,.0f} M", describe(pick.network.spec)),
        page.Tile("Latency model", model, "median error, held out"),
    ]


def _name(one: Measured) -> str:
    return one.name or describe(one.network.spec)


def _front_section(found: Found) -> page.Section:
    plot = page.Plot(
        "front",
        partial(_draw_front, found=found),
        "Accuracy against latency: what was measured, the front, the published networks",
        "Dots: measured networks; the line joins those that none beats.",
        height=4.2,
    )
    rows: list[list[page.Cell]] = [
        [
            _name(one) + (" <- the pick" if one == found.pick else ""),
            page.Number(one.ms, ".2f"),
            top1(one),
            page.Number(one.network.cost.macs / 1e6, ".0f"),
            page.Number(one.network.cost.params / 1e6, ".2f"),
        ]
        for one in found.front
    ]
    columns = ("Network", "ms", "Top-1, predicted", "MMACs", "Params, M")
    lead = "Latencies are measured; accuracies of networks that are not published are predicted."
    return page.Section("Front", [plot, page.Table(columns, rows, first=_ALL)], lead)


def _draw_front(canvas: "Figure", found: Found) -> None:
    axes = canvas.subplots()
    axes.plot(
        [one.ms for one in found.measured], [100 - one.network.error for one in found.measured],
        "o", color=SOFT, markersize=4, label="measured, accuracy predicted",
    )  # fmt: skip
    axes.plot(
        [one.ms for one in found.front], [100 - one.error for one in found.front], "o-",
        color=ACCENT, markersize=4.5, label="front, predicted where not published",
    )  # fmt: skip
    for one in (rival.published for rival in found.rivals):
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
    legend_above(axes)
    plain(axes, grid="both")


def _rivals_section(found: Found) -> page.Section:
    """Return the published networks, each beside the most accurate other that is as fast."""
    rows: list[list[page.Cell]] = []
    for rival in found.rivals:
        one, better = rival.published, rival.better if rival.sought else None
        cells: list[page.Cell] = ["", "", ""]
        if better:
            cells = [describe(better.network.spec), page.Number(better.ms, ".2f"), top1(better)]
        rows.append([one.name, page.Number(one.ms, ".2f"), percent(1 - one.error / 100), *cells])
    columns = ("Published", "ms", "Top-1, published", "Found, as fast", "ms", "Top-1, predicted")
    lead = "The best network found at the latency of each published network within the budget."
    sought = [rival.beaten for rival in found.rivals if rival.sought]
    beaten = (
        f"At the latency of {sum(sought)} of the {len(sought)} published networks within the "
        "budget, one was found that is predicted at least as accurate."
    )
    return page.Section(
        "Beside the published networks",
        [page.Table(columns, rows, first=_ALL), *([beaten] if sought else [])],
        lead,
    )


def _trained_section(trained: Sequence[Trained]) -> page.Section:
    rows: list[list[page.Cell]] = []
    for one in trained:
        measured, error = one.measured, one.record.error
        result = f"failed: {one.record.failure}" if error is None else percent(1 - error)
        rows.append([_name(measured), page.Number(measured.ms, ".2f"), top1(measured), result])
    columns = ("Network", "ms", "Top-1, predicted", "Top-1, trained")
    setting = trained[0].record.setting
    lead = (
        f"Top-1 after {setting.epochs} epochs on {setting.train_photos:,} photos of "
        f"{setting.classes} classes, on {setting.val_photos:,} others ({setting.data})."
    )
    return page.Section("Trained", [page.Table(columns, rows, first=_ALL)], lead)


def _measured_section(found: Found) -> page.Section:
    rows: list[list[page.Cell]] = [
        [
            describe(one.network.spec),
            page.Number(one.ms, ".2f"),
            page.Number(one.predicted_ms, ".2f"),
            page.Bar(1 - one.error / 100, top1(one)),
            page.Number(one.network.cost.macs / 1e6, ".0f"),
        ]
        for one in sorted(found.measured, key=lambda one: one.ms)
    ]
    columns = ("Network", "ms", "ms, predicted before", "Top-1, predicted", "MMACs")
    plot = page.Plot(
        "predicted",
        partial(_draw_predicted, found=found),
        "Predicted latency against measured latency",
        sentence(latency_remark(found)),
    )
    blocks = [plot] if found.ahead else []
    table = page.PageOnly([page.Table(columns, rows, sortable=True)])
    return page.Section("All that was measured", [*blocks, table])


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
    drawn = f"{found.drawn:,}; {found.trusted:,} resemble the published ones; seed {plan.seed}"
    return [
        ("Machine", machine_text(found.machine)),
        ("Spaces", ", ".join(plan.spaces)),
        ("Drawn", drawn),
        ("Reference", ", ".join(f"{ms:.2f}" for ms in found.drift) + " ms, beside each group"),
        ("Latency model", "; ".join(f"{name} {ms:.3g} ms" for name, ms in parts.items())),
    ]
