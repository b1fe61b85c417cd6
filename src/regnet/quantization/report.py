"""The report of `regnet quantize`."""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from regnet.data.sources import Item, iter_items
from regnet.ir.engine import read_model
from regnet.network.labels import Labels, first_name
from regnet.pages import report as page
from regnet.pages.figures import ACCENT, MUTED, SOFT, WARM, plain
from regnet.pages.thumbnails import thumbnails
from regnet.quantization.quantize import Quantization
from regnet.quantization.trial import Speed
from regnet.statistics.agreement import Agreement
from regnet.system.text import counted, percent, sentence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FLIPS: Final = 48
_BARS: Final = 16
_LAYER: Final = re.compile(r"s(\d+)\.b(\d+)\.(?:f\.)?(a|b|c|proj)")
_KINDS: Final = {
    "a": "first 1 x 1 convolution",
    "b": "3 x 3 convolution in groups",
    "c": "last 1 x 1 convolution",
    "proj": "1 x 1 convolution of the shortcut",
}


def quantization_report(result: Quantization, photos: str | Path) -> page.Report:
    """Return the report; its page reads the flips among the check `photos` again."""
    model, certificate = read_model(result.path).metadata, result.certificate
    copies = f"; {result.duplicates:,} exact copies left out" if result.duplicates else ""
    facts = [
        ("Model", f"{model.name}, weights {model.precision}, licence {model.licence}"),
        ("Assumed", "; ".join(result.assumed)),
        ("File", str(result.path)),
        (
            "Photos",
            f"{certificate.calibration_photos:,} set the ranges, {result.chosen_on:,} chose the "
            f"layers, {certificate.photos:,} certify{copies}",
        ),
        ("Checked with", str(photos)),
        ("Agreement", f"{_requested(result)}; the bound is one-sided, 95 % (Clopper and Pearson)"),
        ("Largest difference", f"{result.agreement.max_delta:.3g} of a probability"),
        ("Weights' sha384", model.weights_sha384),
    ]
    failures = [(failure.source, failure.error) for failure in result.unreadable]
    return page.Report(
        f"{model.name} in INT8",
        [
            page.Section("", [page.Tiles(_tiles(result))]),
            _comparison(result),
            _flips(result.agreement, model.labels, photos),
            _restored(result),
            *page.unreadable_section(failures, len(failures)),
            page.Section("How it was measured", [page.Facts(facts)]),
        ],
        subtitle=f"certified against FP32 on {result.agreement.images:,} photos that were not used "
        "for anything else",
        command="regnet quantize",
    )


def described_layer(layer: str) -> str:
    """Return what a layer is, from its name; "" if the name is not known."""
    if (parts := _LAYER.fullmatch(layer)) is None:
        return "the stem's 3 x 3 convolution" if layer == "stem.conv" else ""
    stage, block, kind = parts.groups()
    return f"stage {stage}, block {block}: {_KINDS[kind]}"


def _requested(result: Quantization) -> str:
    return f"{100 * result.certificate.min_agreement:g} % requested"


def _tiles(result: Quantization) -> list[page.Tile]:
    agreed, speed = result.agreement, result.speed
    bound = f"at least {percent(agreed.top1_at_least)} (95 % confidence)"
    margins = [flip.margin for flip in agreed.flips]
    margin = f", median margin {median(margins):.3f}, max {max(margins):.3f}" if margins else ""
    times = f"{speed.vs_f32:.2f}x FP32"
    if speed.vs_bf16 is not None:
        times += f", {speed.vs_bf16:.2f}x bf16"
    verdict = f"{_requested(result)}: held"
    return [
        page.Tile("Top class as in FP32", percent(agreed.top1.value), bound, verdict, "good"),
        page.Tile("Flips", f"{agreed.flipped:,}", f"of {agreed.images:,} photos{margin}"),
        page.Tile("Mean KL", f"{agreed.mean_kl:.2g}", f"nats; max {agreed.max_kl:.2g}"),
        page.Tile("Speed", f"{speed.int8:,.0f} /s", f"images, {times}"),
        page.Tile("Layers restored", str(len(result.restored)), f"to FP32, of {result.layers:,}"),
    ]


def _variants(result: Quantization) -> Iterator[tuple[str, Agreement, Speed]]:
    """Yield the model with every layer in INT8, and the one written if that is another."""
    if result.agreement_before is None or result.speed_before is None:
        yield "every layer in INT8", result.agreement, result.speed
        return
    yield "every layer in INT8", result.agreement_before, result.speed_before
    yield f"{counted(len(result.restored), 'layer')} restored", result.agreement, result.speed


def _comparison(result: Quantization) -> page.Section:
    agreement = page.Plot(
        "agreement",
        partial(_draw_agreement, result=result),
        "Share of photos with the top class of FP32, with its lower bound",
        "Agreement and its lower bound; the line is the requested one.",
        height=2.6,
    )
    speed = page.Plot(
        "speed",
        partial(_draw_speed, result=result),
        "Images per second of FP32, bf16 and INT8",
        "Inference only, batches of 8, all cores, interleaved.",
        height=2.6,
    )
    columns = ("", "Agreement", "At least", "Flips", "Mean KL", "Images/s", "x FP32", "x bf16")
    rows: list[tuple[page.Cell, ...]] = [
        (
            name[0].upper() + name[1:],
            page.Number(agreed.top1.value, ".2%"),
            page.Number(agreed.top1_at_least, ".2%"),
            page.Number(agreed.flipped),
            page.Number(agreed.mean_kl, ".2g"),
            page.Number(speed.int8),
            page.Number(speed.vs_f32, ".2f"),
            page.Number(speed.vs_bf16, ".2f"),
        )
        for name, agreed, speed in _variants(result)
    ]
    chosen = (
        f"{counted(result.chosen_on, 'other photo')} chose the layers; these certify that choice "
        "and were used once."
    )
    remarks = [chosen, *map(sentence, result.no_gain)]
    return page.Section(
        "Agreement, and what it costs",
        [page.Beside([agreement, speed]), page.Table(columns, rows), *remarks],
    )


def _draw_agreement(canvas: "Figure", result: Quantization) -> None:
    axes = canvas.subplots()
    variants = list(_variants(result))
    for place, (_, agreed, _) in enumerate(variants):
        colour = ACCENT if agreed is result.agreement else MUTED
        share, low = 100 * agreed.top1.value, 100 * agreed.top1_at_least
        axes.plot([low, share], [place, place], color=colour, linewidth=2, marker="|")
        axes.plot([share], [place], "o", color=colour, markersize=7)
    axes.axvline(100 * result.certificate.min_agreement, color=WARM, linewidth=1.2, linestyle="--")
    axes.set_yticks(range(len(variants)), [name for name, *_ in variants])
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.set_xlabel("% of photos")
    plain(axes, grid="x")


def _draw_speed(canvas: "Figure", result: Quantization) -> None:
    axes = canvas.subplots()
    rows = [("FP32", result.speed.f32), ("bf16", result.speed.bf16)]
    rows += [(name, speed.int8) for name, _, speed in _variants(result)]
    shown = [(name, rate) for name, rate in rows if rate is not None]
    colours = [*[SOFT] * (len(shown) - 1), ACCENT]
    bars = axes.barh(range(len(shown)), [rate for _, rate in shown], 0.62, color=colours)
    axes.bar_label(bars, [f"{rate:,.0f}" for _, rate in shown], padding=4)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel("images per second")
    plain(axes, grid="x")


def _flips(agreed: Agreement, labels: Labels, photos: str | Path) -> page.Section:
    if not agreed.flips:
        return page.Section("Flips", ["Every photo has the top class of FP32."])
    margins = page.Plot(
        "margins",
        partial(_draw_margins, agreed=agreed),
        "Histogram of the margins of the flips",
        "FP32's top probability minus its second.",
        width=7.2,
        height=2.6,
    )
    cards = []
    for flip in agreed.flips[:_FLIPS]:
        f32, int8 = (first_name(labels[index].name) for index in (flip.reference, flip.other))
        lines = (f"FP32 {f32}", f"INT8 {int8}", f"margin {flip.margin:.3f}")
        cards.append(page.Photo(flip.source, lines))
    most = f" The {_FLIPS} with the largest margin are shown." if agreed.flipped > _FLIPS else ""
    return page.Section(
        "Flips",
        [margins, page.PageOnly([page.Gallery(cards, thumbnails(partial(_find, photos)))])],
        lead=f"Photos with another top class in INT8: {agreed.flipped:,} of {agreed.images:,}."
        f"{most} If the margin is small, FP32 could not decide either.",
    )


def _find(photos: str | Path, names: Sequence[str]) -> dict[str, Item]:
    """Return the photos of these names, in one pass."""
    items = ((item.source, item) for item in iter_items([photos]) if item.source in names)
    return dict(islice(items, len(names)))


def _draw_margins(canvas: "Figure", agreed: Agreement) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = canvas.subplots()
    axes.hist([flip.margin for flip in agreed.flips], bins=_BARS, color=ACCENT, rwidth=0.92)
    axes.set(xlabel="margin: FP32's top probability minus its second", ylabel="photos")
    axes.set_xlim(left=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)


def _restored(result: Quantization) -> page.Section:
    title = "Layers restored to FP32"
    if not result.restored:
        return page.Section(title, [f"None: all {result.layers:,} layers that can be INT8 are."])
    return page.Section(
        title,
        [
            page.Table(
                ("Layer", "Kind"), [(name, described_layer(name)) for name in result.restored]
            )
        ],
        lead="The most sensitive first: those with the most damage per multiplication. "
        f"{len(result.restored):,} of {result.layers:,}, as few as the agreement allows.",
    )
