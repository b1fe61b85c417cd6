"""What was found wrong with a data set: how bad, in a sentence, what to do, and where."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from regnet.inference.result import readable
from regnet.system.json_text import plain_fields

Severity = Literal["error", "warning", "note"]

SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "note")
"""Worst first: what would waste a training, what would make it worse, what is good to know."""


@dataclass(frozen=True)
class File:
    """A file of a finding: its name, split and class (empty where it has none), and what of it.

    Files of one `group` belong together, as the copies of one picture do.
    """

    source: str
    split: str = ""
    label: str = ""
    detail: str = ""
    group: int | None = None

    @property
    def place(self) -> str:
        """Split and class."""
        return "/".join(part for part in (self.split, self.label) if part)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            "source": readable(self.source),
            "split": self.split,
            "class": readable(self.label),
            "detail": readable(self.detail),
            "group": self.group,
        }


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: `code` names its kind, `count` says of how many files or classes.

    `files` are the first of them; there may be more.
    """

    code: str
    severity: Severity
    text: str
    remedy: str
    count: int = 0
    files: tuple[File, ...] = ()

    def first(self, number: int) -> "Finding":
        """Return the finding with at most so many files."""
        return replace(self, files=self.files[:number])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return plain_fields(self) | {
            "text": readable(self.text),
            "remedy": readable(self.remedy),
        }


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings by severity; those of one severity stay in their order."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))


def errors_of(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings that would waste a training."""
    return tuple(finding for finding in findings if finding.severity == "error")


def share_of(part: int, whole: int) -> str:
    """Return a share for a sentence: `12 %`, `0.4 %`, and never 0 % of something."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "under 0.1 %"
    return f"{share:.0f} %" if share >= 10 or share == round(share) else f"{share:.1f} %"


def quoted(names: Sequence[str], *, most: int = 8) -> str:
    """Return the first names for a sentence, and how many more there are."""
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most:,} more"
