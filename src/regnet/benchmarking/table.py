"""What `regnet benchmark` measured, as people read it."""

from collections.abc import Sequence
from typing import Final

from regnet.benchmarking.benchmark import Benchmark
from regnet.benchmarking.end_to_end import EndToEnd
from regnet.system.machine import Machine

Rows = Sequence[Sequence[str]]

BUSY: Final = 0.05


def as_text(found: Benchmark) -> str:
    """Return all tables, with what must be known to read them."""
    parts = [
        "\n".join(_head(found)),
        grid(_engine_rows(found)),
        "\n".join([*_ratios(found), *busy_text(found)]),
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
    return [
        ("precision", *(f"{name} ms" for name in percentiles), "images/s", "batch"),
        *(
            (
                row.precision,
                *(f"{row.latency_ms[name]:.2f}" for name in percentiles),
                f"{row.images_per_second:.1f}",
                str(row.best_batch),
            )
            for row in found.engines
        ),
    ]


def _ratios(found: Benchmark) -> list[str]:
    """Return how many times the last precision's throughput is that of each other one."""
    last = found.engines[-1]
    return [
        f"{last.precision}: {times:.2f} times {p}'s images/s" for p, times in last.times.items()
    ]


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
    lines = [f"{head}, medians of {found.rounds} rounds"]
    if found.unreadable:
        lines.append(f"not readable, left out: {found.unreadable} photos")
    return ["\n".join(lines), grid(_whole_rows(found))]


def _whole_rows(found: EndToEnd) -> Rows:
    return [
        (
            "precision",
            "images/s",
            "allowed",
            "share",
            "decode ms",
            "engine ms",
            "other ms",
            "flips",
        ),
        *(
            (
                whole.precision,
                f"{whole.images_per_second:.1f}",
                f"{whole.allowed:.1f}",
                f"{100 * whole.share:.1f} %",
                f"{whole.decode_ms:.2f}",
                f"{whole.engine_ms:.2f}",
                f"{whole.other_ms:.2f}",
                "-" if whole.flips is None else str(whole.flips),
            )
            for whole in found.wholes
        ),
    ]
