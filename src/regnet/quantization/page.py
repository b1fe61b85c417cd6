"""The report of `regnet quantize`."""

import re
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final

from regnet.data.sources import Item, iter_items
from regnet.inference.result import readable
from regnet.ir.engine import read_model
from regnet.ir.metadata import ModelMetadata
from regnet.network.labels import Labels, first_name
from regnet.pages.figures import ACCENT, MUTED, SOFT, WARM, plain, svg
from regnet.pages.html import (
    Cell,
    Number,
    Photo,
    Section,
    Tile,
    assumed_facts,
    facts,
    figure,
    gallery,
    note,
    page,
    side_by_side,
    table,
    tiles,
)
from regnet.pages.thumbnails import thumbnail_of
from regnet.quantization.quantize import Quantization
from regnet.quantization.trial import Speed
from regnet.statistics.agreement import Agreement, Flip
from regnet.system.text import percent
from regnet.system.version import TOOL_VERSION

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


def quantization_page(found: Quantization, photos: str | Path) -> str:
    """Return the report's HTML; the flips among the `photos` it was checked with are read again."""
    model = read_model(found.path).metadata
    sections = [
        Section("", (tiles(_tiles(found)),)),
        _comparison(found),
        _flips(found.agreement, model.labels, photos),
        _restored(found),
    ]
    if found.unreadable:
        sections.append(_unreadable(found))
    sections.append(Section("How this was measured", (facts(_facts(found, model, photos)),)))
    return page(
        f"{model.name} in INT8",
        sections,
        subtitle=f"certified against f32 on {found.agreement.images:,} photos that it was not "
        "made with",
        foot=f"regnet {TOOL_VERSION}, regnet quantize",
    )


def _asked(found: Quantization) -> str:
    return f"{100 * found.certificate.min_agreement:g} % asked"


def _tiles(found: Quantization) -> list[Tile]:
    agreed, speed = found.agreement, found.speed
    return [
        Tile(
            "Top class as in f32", percent(agreed.top1.value),
            f"at least {percent(agreed.top1_at_least)} (95 % confidence)",
            f"{_asked(found)}: held", "good",
        ),
        Tile("Flips", f"{agreed.flipped:,}", f"of {agreed.images:,} photos{_margin(agreed)}"),
        Tile("Mean KL", f"{agreed.mean_kl:.2g}", f"nats, f32 to INT8; {agreed.max_kl:.2g} at most"),
        Tile("Speed", f"{speed.int8:,.0f} /s", f"images, {_times(speed)}"),
        Tile("Layers restored", str(len(found.restored)), f"of {found.layers:,} are in float"),
    ]  # fmt: skip


def _margin(agreed: Agreement) -> str:
    margins = [flip.margin for flip in agreed.flips]
    return f", median margin {median(margins):.3f}" if margins else ""


def _times(speed: Speed) -> str:
    times = f"{speed.vs_f32:.2f} x f32"
    return times if speed.vs_bf16 is None else f"{times}, {speed.vs_bf16:.2f} x bf16"


def _variants(found: Quantization) -> Iterator[tuple[str, Agreement, Speed]]:
    """Yield the model with every layer in INT8, where that is another, and the one written."""
    if found.agreement_before is None or found.speed_before is None:
        yield "every layer in INT8", found.agreement, found.speed
        return
    yield "every layer in INT8", found.agreement_before, found.speed_before
    count = len(found.restored)
    yield f"{count:,} {_layers(count)} restored", found.agreement, found.speed


def _layers(count: int) -> str:
    return "layer" if count == 1 else "layers"


def _comparison(found: Quantization) -> Section:
    variants = list(_variants(found))
    agreement = svg(
        "agreement",
        lambda canvas: _draw_agreement(canvas, found),
        height=2.6,
        label="Share of photos with the top class of f32, with its lower bound",
    )
    speed = svg(
        "speed",
        lambda canvas: _draw_speed(canvas, found),
        height=2.6,
        label="Images a second of f32, bf16 and INT8",
    )
    columns = ("", "Agreement", "At least", "Flips", "Mean KL", "Images/s", "x f32", "x bf16")
    parts = [
        side_by_side(
            figure(
                agreement, "Agreement, and down to its lower bound; the line is what was asked."
            ),
            figure(speed, "The engine alone, in batches of 8, all cores; measured in turns."),
        ),
        table(columns, [_row(*variant) for variant in variants]),
    ]
    text = (
        f"{found.chosen_on:,} other photos chose the layers; these certify that choice, and were "
        "used once."
    )
    parts.extend(map(note, (text, *(f"{reason}." for reason in found.no_gain))))
    return Section("Agreement, and what it costs", tuple(parts))


def _row(name: str, agreed: Agreement, speed: Speed) -> tuple[Cell, ...]:
    bf16 = speed.vs_bf16
    return (
        name[0].upper() + name[1:],
        Number(percent(agreed.top1.value), agreed.top1.value),
        Number(percent(agreed.top1_at_least), agreed.top1_at_least),
        Number(f"{agreed.flipped:,}", agreed.flipped),
        Number(f"{agreed.mean_kl:.2g}", agreed.mean_kl),
        Number(f"{speed.int8:,.0f}", speed.int8),
        Number(f"{speed.vs_f32:.2f}", speed.vs_f32),
        Number("-" if bf16 is None else f"{bf16:.2f}", bf16),
    )


def _draw_agreement(canvas: "Figure", found: Quantization) -> None:
    axes = canvas.subplots()
    variants = list(_variants(found))
    for place, (_, agreed, _) in enumerate(variants):
        colour = ACCENT if agreed is found.agreement else MUTED
        share, low = 100 * agreed.top1.value, 100 * agreed.top1_at_least
        axes.plot([low, share], [place, place], color=colour, linewidth=2, marker="|")
        axes.plot([share], [place], "o", color=colour, markersize=7)
    axes.axvline(100 * found.certificate.min_agreement, color=WARM, linewidth=1.2, linestyle="--")
    axes.set_yticks(range(len(variants)), [name for name, *_ in variants])
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.margins(x=0.12)
    axes.set_xlabel("% of photos")
    plain(axes, grid="x")


def _draw_speed(canvas: "Figure", found: Quantization) -> None:
    axes = canvas.subplots()
    rows = [("f32", found.speed.f32), ("bf16", found.speed.bf16)]
    rows += [(name, speed.int8) for name, _, speed in _variants(found)]
    shown = [(name, rate) for name, rate in rows if rate is not None]
    colours = [*[SOFT] * (len(shown) - 1), ACCENT]
    bars = axes.barh(range(len(shown)), [rate for _, rate in shown], 0.62, color=colours)
    axes.bar_label(bars, [f"{rate:,.0f}" for _, rate in shown], padding=4)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel("images a second")
    plain(axes, grid="x")


def _flips(agreed: Agreement, labels: Labels, photos: str | Path) -> Section:
    if not agreed.flips:
        return Section("Flips", (note("Every photo has the top class of f32."),))
    drawing = svg(
        "margins",
        lambda canvas: _draw_margins(canvas, agreed),
        width=7.2,
        height=2.6,
        label="Histogram of the margins of the flips",
    )
    shown = agreed.flips[:_FLIPS]
    items = _find(photos, {flip.source for flip in shown})
    cards = [_flip(flip, labels, items.get(flip.source)) for flip in shown]
    first = (
        f" The {len(shown)} that f32 was surest of are shown."
        if len(shown) < agreed.flipped
        else ""
    )
    return Section(
        "Flips",
        (
            figure(drawing, "How far f32's two best classes were apart where INT8 takes another."),
            gallery(cards),
        ),
        lead=f"Photos with another top class in INT8: {agreed.flipped:,} of {agreed.images:,}."
        f"{first} Where the margin is small, f32 could not tell either.",
    )


def _draw_margins(canvas: "Figure", agreed: Agreement) -> None:
    from matplotlib.ticker import MaxNLocator

    axes = canvas.subplots()
    axes.hist([flip.margin for flip in agreed.flips], bins=_BARS, color=ACCENT, rwidth=0.92)
    axes.set(xlabel="margin: highest probability of f32 less its second", ylabel="photos")
    axes.set_xlim(left=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)


def _find(photos: str | Path, sources: Collection[str]) -> dict[str, Item]:
    """Return the photos of these names, in one pass."""
    found = ((item.source, item) for item in iter_items([photos]) if item.source in sources)
    return dict(islice(found, len(sources)))


def _flip(flip: Flip, labels: Labels, item: Item | None) -> Photo:
    f32, int8 = (first_name(labels[index].name) for index in (flip.reference, flip.other))
    lines = (f"f32 {f32}", f"INT8 {int8}", f"margin {flip.margin:.3f}")
    return Photo(thumbnail_of(item), lines, readable(flip.source))


def _restored(found: Quantization) -> Section:
    if not found.restored:
        text = f"None: all {found.layers:,} layers that can be INT8 are."
        return Section("Layers back in floating point", (note(text),))
    rows = [(name, described_layer(name)) for name in found.restored]
    return Section(
        "Layers back in floating point",
        (table(("Layer", "What it is"), rows),),
        lead="The most sensitive first: those that do most damage in INT8 for their arithmetic. "
        f"{len(found.restored):,} of {found.layers:,}, as few as the agreement asked for takes.",
    )


def described_layer(layer: str) -> str:
    """Return what a layer is, from its name; "" where the name is not known."""
    if (parts := _LAYER.fullmatch(layer)) is None:
        return "the stem's 3 x 3 convolution" if layer == "stem.conv" else ""
    stage, block, kind = parts.groups()
    return f"stage {stage}, block {block}: {_KINDS[kind]}"


def _unreadable(found: Quantization) -> Section:
    rows = [(readable(failure.source), readable(failure.error)) for failure in found.unreadable]
    return Section(
        "Unreadable photos",
        (table(("Photo", "Reason"), rows),),
        lead=f"Photos that could not be read and were left out: {len(rows):,}.",
    )


def _facts(found: Quantization, model: ModelMetadata, photos: str | Path) -> list[tuple[str, str]]:
    certificate = found.certificate
    copies = f"; {found.duplicates:,} exact copies left out" if found.duplicates else ""
    return [
        ("Model", f"{model.name}, weights {model.precision}, licence {model.licence}"),
        *assumed_facts(found.assumed),
        ("File", str(found.path)),
        (
            "Photos",
            f"{certificate.calibration_photos:,} set the ranges, {found.chosen_on:,} chose the "
            f"layers, {certificate.photos:,} certify{copies}",
        ),
        ("Checked with", readable(str(photos))),
        ("Agreement", f"{_asked(found)}; the bound is one-sided, 95 %, by Clopper and Pearson"),
        ("Largest difference", f"{found.agreement.max_delta:.3g} of a probability"),
        ("Weights' sha384", model.weights_sha384),
    ]
