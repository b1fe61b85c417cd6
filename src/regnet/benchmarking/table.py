"""What `regnet benchmark` measured, as people read it."""

from collections.abc import Sequence
from typing import Final

from regnet.benchmarking.benchmark import Benchmark, EngineSpeed
from regnet.benchmarking.end_to_end import EndToEnd
from regnet.benchmarking.machine import Machine

Rows = Sequence[Sequence[str]]

BUSY: Final = 0.05


def as_text(found: Benchmark) -> str:
    """Return all tables, with what must be known to read them."""
    parts = [
        "\n".join(_head(found)),
        *((grid(_engine_rows(found)),) if found.engines else ()),
        "\n".join(_notes(found)),
        *(_end_to_end_parts(found.end_to_end) if found.end_to_end else ()),
    ]
    return "\n\n".join(part for part in parts if part)


def grid(rows: Rows) -> str:
    """Return rows of cells as text, the first column left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def machine_text(machine: Machine) -> str:
    """Return a machine in one line."""
    flags = " ".join(machine.flags) or "instructions unknown"
    return (
        f"{machine.cpu}, {machine.cores} cores, {flags}; OpenVINO {machine.openvino}, "
        f"Python {machine.python}, {machine.system}"
    )


def _head(found: Benchmark) -> list[str]:
    height, width, _ = found.input
    return [
        f"{found.name}: {found.gflops:.4g} GFLOPs an image of {width} x {height}",
        machine_text(found.machine),
        f"medians of {found.rounds} rounds in which all took turns",
    ]


def _engine_rows(found: Benchmark) -> Rows:
    percentiles = tuple(found.engines[0].latency_ms)
    head = ("engine", *(f"{name} ms" for name in percentiles), "images/s", "batch", "ceiling/s")
    ceilings = {ceiling.precision: ceiling for ceiling in found.ceilings}
    return [
        (*head, "share"),
        *(
            (
                f"{row.engine} {row.precision}",
                *(f"{row.latency_ms[name]:.2f}" for name in percentiles),
                f"{row.images_per_second:.1f}",
                str(best_batch(row)),
                f"{ceilings[row.precision].images_per_second:.1f}",
                f"{100 * row.share:.0f} %",
            )
            for row in found.engines
        ),
    ]


def best_batch(row: EngineSpeed) -> int:
    """Return the batch that gave the best throughput."""
    return max(row.by_batch, key=lambda batch: row.by_batch[batch])


def _notes(found: Benchmark) -> list[str]:
    """Return the ceilings, what did not take part, and what was assumed."""
    ceilings = ", ".join(
        f"{c.gflops_per_second:.0f} GFLOP/s {c.precision}"
        + ("" if c.precision == "int8" or c.precision == c.computed_in else " (not native)")
        for c in found.ceilings
    )
    lines = [f"ceiling: matrix products, measured in the same rounds: {ceilings}"]
    if len(found.engines) > 1:
        lines += [
            f"{row.engine} {row.precision} over {name}: {times:.2f} times the images/s"
            for row in found.engines[-1:]
            for name, times in row.times.items()
            if row.engine == "OpenVINO"
        ]
    lines += [f"{name}: not measured: {reason}" for name, reason in found.absent.items()]
    if any(row.engine != "OpenVINO" for row in found.engines) and not found.own_weights:
        lines.append("the other engines ran the same network with random weights, as fast")
    return [*lines, *busy_text(found)]


def busy_text(found: Benchmark) -> list[str]:
    """Return a warning where other processes took so much that figures cannot be trusted."""
    if found.other_work is None or found.other_work < BUSY:
        return []
    return [
        f"other processes took {100 * found.other_work:.0f} % of the machine meanwhile: "
        "figures are too low; measure again when it is idle"
    ]


def _end_to_end_parts(found: EndToEnd) -> list[str]:
    head = f"files to labels: {found.photos} photos, batches of {found.batch_size}"
    pixels = (
        []
        if found.identical is None
        else [f"pixels identical to Pillow's: {found.identical} of {found.photos} photos"]
    )
    if found.unreadable:
        pixels.append(f"not readable, left out: {found.unreadable} photos")
    return [
        "\n".join([f"{head}, medians of {found.rounds} rounds", *pixels]),
        grid(_whole_rows(found)),
        *((grid(_loop_rows(found)),) if found.loops else ()),
    ]


def _whole_rows(found: EndToEnd) -> Rows:
    return [
        ("regnet", "images/s", "allowed", "share", "decode ms", "engine ms", "other ms", "flips"),
        *(
            (
                whole.precision,
                f"{whole.images_per_second:.1f}",
                f"{whole.allowed:.1f}",
                f"{100 * whole.share:.1f} %",
                f"{whole.decode_ms:.2f}",
                f"{whole.engine_ms:.2f}",
                f"{whole.other_ms:.2f}",
                _count(whole.flips),
            )
            for whole in found.wholes
        ),
    ]


def _loop_rows(found: EndToEnd) -> Rows:
    """Return the plain loops, and how many times faster each precision of ours is."""
    return [
        ("against", "images/s", "flips", *(f"regnet {w.precision}" for w in found.wholes)),
        *(
            (
                f"{loop.name} ({loop.precision})",
                f"{loop.images_per_second:.1f}",
                _count(loop.flips),
                *(f"{whole.times[loop.name]:.2f} x" for whole in found.wholes),
            )
            for loop in found.loops
        ),
    ]


def _count(flips: int | None) -> str:
    return "-" if flips is None else str(flips)
