"""How a sweep shows: a live table on a terminal, elsewhere a line a run; and what it came to."""

import time
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Self

from regnet.cli.console import clock, say, shows_motion, stderr

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from regnet.space.records import RunRecord
    from regnet.space.sweep import Swept
    from regnet.training.history import EpochRecord
    from regnet.training.job import News
    from regnet.training.photos import Unreadable


class SweepDisplay:
    """Watches a sweep; `runs` watches those of this process."""

    def __init__(self) -> None:
        self.runs = _Runs(self)
        self._space, self._records, self._left, self._new = "", list[Any](), 0, 0
        self._start = time.monotonic()
        self._now = ""
        self._live: Live | None = None
        self._shown = shows_motion()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._live is not None:
            self._live.stop()

    def planned(self, space: str, there: "Sequence[RunRecord]", left: int) -> None:
        """Begin to show."""
        self._space, self._records, self._left = space, list(there), left
        self._start = time.monotonic()
        if not self._shown:
            say(f"{space}: {len(there):,} runs there, {left:,} left")
            return
        from rich.live import Live

        self._live = Live(console=stderr(), get_renderable=self._table, transient=True)
        self._live.start()

    def finished(self, record: "RunRecord") -> None:
        """Show a run that ended."""
        self._records.append(record)
        self._left -= 1
        self._new += 1
        self._now = ""
        if not self._shown:
            say(self._line(record))

    def under_way(self, text: str) -> None:
        """Show how far the run of this process is."""
        self._now = text

    @property
    def time_left(self) -> str:
        """The time at the pace so far; "" before the first run has ended."""
        if not self._new:
            return ""
        return clock((time.monotonic() - self._start) / self._new * self._left)

    def _line(self, record: "RunRecord") -> str:
        done = len(self._records)
        place = f"{record.space} {done:,}/{done + self._left:,}"
        if record.failure is not None:
            return f"{place}  failed: {record.failure}  left {self.time_left}"
        best = min(_errors(self._records))
        return (
            f"{place}  error {_percent(record.error)}  {record.macs / 1e6:.1f} MMACs  "
            f"{record.seconds:.0f} s  best {_percent(best)}  left {self.time_left}"
        )

    def _table(self) -> "Table":
        from rich.table import Table

        table = Table(caption=self._now or None)
        for name in ("space", "done", "failed", "left", "best", "median", "last", "time left"):
            table.add_column(name, justify="left" if name == "space" else "right")
        errors = _errors(self._records)
        table.add_row(
            self._space,
            f"{len(self._records):,}",
            f"{len(self._records) - len(errors):,}",
            f"{self._left:,}",
            _percent(min(errors, default=None)),
            _percent(median(errors) if errors else None),
            _percent(self._records[-1].error if self._records else None),
            self.time_left,
        )
        return table


class _Runs:
    """Passes on how far the run under way is."""

    def __init__(self, display: SweepDisplay) -> None:
        self._display = display
        self._error: float | None = None

    def news(self, news: "News") -> None:
        done = (news.epoch - 1) * news.steps + news.step
        share = done / (news.epochs * news.steps)
        if news.epoch == 1:
            self._error = None
        last = "" if self._error is None else f", error {_percent(self._error)}"
        self._display.under_way(
            f"epoch {news.epoch} of {news.epochs} ({share:.0%}), loss {news.loss:.2f}{last}"
        )

    def epoch(self, record: "EpochRecord") -> None:
        self._error = None if record.val_top1 is None else 1 - record.val_top1

    def skipped(self, photo: "Unreadable") -> None:
        """Ignore: what cannot be read was told of before the first run."""

    def stop(self) -> bool:
        return False


def summary(swept: "Swept") -> str:
    """Return what a sweep came to, as lines."""
    done = len(swept.records) - len(swept.failed)
    lines = [
        str(swept.path),
        f"  {swept.space}: {done:,} networks trained, {_now(swept):,} of them now; "
        f"{len(swept.failed):,} failed",
    ]
    lines += [f"    failed: {record.failure}" for record in swept.failed[:10]]
    if (best := swept.best) is not None:
        errors = _errors(swept.records)
        lines.append(
            f"  error       least {_percent(best.error)}, median {_percent(median(errors))}"
        )
        lines.append(
            f"  best        {best.macs / 1e6:.1f} MMACs, {best.params / 1e3:,.0f} thousand "
            f"parameters: {best.spec}"
        )
    return "\n".join(lines)


def _now(swept: "Swept") -> int:
    return sum(record.failure is None for record in swept.new)


def _errors(records: "Sequence[RunRecord]") -> list[float]:
    return [record.error for record in records if record.error is not None]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.2f} %"
