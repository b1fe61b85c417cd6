"""An examination as lines of text for people."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from regnet.doctor.examine import Examination
from regnet.doctor.findings import SEVERITIES, File, Finding, counted, share_text
from regnet.inference.result import readable

_LINES = 5  # of a finding
_NAMES = 3  # of a line


def examination_lines(found: Examination) -> Iterator[str]:
    """Yield the lines: what the data set is, what is wrong, the verdict."""
    yield f"{readable(found.path)}: {summary(found)}"
    yield from size_lines(found)
    for finding in found.findings:
        yield ""
        yield from _finding(finding)
    yield ""
    yield verdict(found)


def summary(found: Examination) -> str:
    """Return how many photos of how many classes there are, and in which splits."""
    text = f"{counted(found.photos, 'photo')} of {counted(len(found.classes), 'class', 'classes')}"
    sizes = [f"{split} {sum(n.values()):,}" for split, n in found.splits.items() if split]
    return ", ".join((text, *sizes))


def size_lines(found: Examination) -> Iterator[str]:
    """Yield how large the photos are, and what a centre crop keeps of them."""
    if found.short is None or found.long is None or found.kept is None:
        return
    yield (
        f"  sides {found.short.median:.0f} x {found.long.median:.0f} pixels (medians), "
        f"shortest {found.short.least:.0f}, longest {found.long.most:.0f}"
    )
    yield (
        f"  centre crop {found.preprocess.crop} of {found.preprocess.resize} keeps "
        f"{share_text(found.kept.median)} of a photo (median), at least "
        f"{share_text(found.kept.least)}"
    )


def verdict(found: Examination) -> str:
    """Return how many findings there are of each severity."""
    numbers = [
        counted(count, severity)
        for severity in SEVERITIES
        if (count := sum(f.severity == severity for f in found.findings))
    ]
    if not numbers:
        return "nothing wrong"
    told = ", ".join(numbers)
    return f"{told}: a training would be wasted" if found.wasteful else told


def _finding(finding: Finding) -> Iterator[str]:
    yield f"{finding.severity:8} {readable(finding.text)}"
    yield f"{'':8} {readable(finding.remedy)}"
    sign = " ~ " if finding.code.startswith("near") else " = "
    groups = [list(g) for _, g in groupby(finding.files, key=lambda file: file.group or id(file))]
    for group in groups[:_LINES]:
        yield f"{'':10} {_line(group, sign)}"
    if len(groups) > _LINES:
        yield f"{'':10} ... and {len(groups) - _LINES:,} more: --json or --html FILE"


def _line(files: Sequence[File], sign: str) -> str:
    """Return the names of copies, or of a single photo and what of it."""
    names = [readable(file.source) for file in files[:_NAMES]]
    if len(files) > _NAMES:
        names.append(f"... ({len(files):,} in all)")
    detail = f": {readable(files[0].detail)}" if files[0].detail else ""
    return sign.join(names) + detail
