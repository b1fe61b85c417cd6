"""One file from one mirror into a part: resumed, retried, and checked at the end."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from regnet.system.addresses import without_secrets
from regnet.system.errors import DownloadError
from regnet.system.http import (
    Lines,
    Patience,
    check_status,
    content_length,
    content_range,
    is_delimited,
    unsatisfied_total,
)
from regnet.system.retry import BrokenError, FinalError, Retry
from regnet.zoo.events import Reporter
from regnet.zoo.part import Origin, PartialFile
from regnet.zoo.record import Expected

if TYPE_CHECKING:
    import httpx

GIB = 1 << 30
SPARE_DISK = 16 << 20
Look = Callable[[Path], str | None]
"""Tells what is wrong with a file of which no hash was published."""

ADVANCE = 1 << 20
"""Bytes that a broken response must have added for the count of failures to start anew."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How transfers are done.

    `stall` is the longest wait for a byte in seconds. A mirror that sends less than `least_rate`
    bytes a second for `slow` seconds is left. `limit` is the most bytes of a file whose size was
    not published.
    """

    retry: Retry = field(default_factory=Retry)
    stall: float = 30.0
    slow: float = 30.0
    least_rate: int = 10_000
    limit: int = 8 * GIB


class StartOverError(BrokenError):
    """What is here does not fit what the server has; begin anew."""


class Transfer:
    """Brings one file from one mirror into a part."""

    def __init__(
        self,
        url: str,
        part: PartialFile,
        expected: Expected,
        *,
        lines: Lines,
        terms: Terms,
        reporter: Reporter,
        look: Look,
    ) -> None:
        self._url = url
        self._shown = without_secrets(url)
        self._part = part
        self._expected = expected
        self._lines = lines
        self._terms = terms
        self._reporter = reporter
        self._look = look
        self._received = 0  # bytes, in all attempts

    def run(self) -> None:
        """Complete the part and check it. Raises `FinalError` where this mirror cannot."""
        if not self._expected.hashed and self._is_complete():
            self._part.clear()  # nothing tells whether the bytes of an earlier run are still right
        self._complete()
        problem = self._problem()
        if problem and self._part.mixed:
            self._tell(f"{problem}; it came in pieces: once more from the start")
            self._part.clear()
            self._complete()
            problem = self._problem()
        if problem:
            self._part.clear()
            raise FinalError(problem, integrity=True)

    def _problem(self) -> str | None:
        """Return what is wrong with the complete part; without a hash, by a look into it."""
        wrong = self._expected.problem(self._part.digests)
        return wrong if wrong or self._expected.hashed else self._look(self._part.path)

    def _complete(self) -> None:
        """Try until the part is as long as the file."""
        failures, best = 0, self._part.size
        while not self._is_complete():
            try:
                self._attempt()
                return
            except BrokenError as exc:
                if self._part.size >= best + ADVANCE:
                    failures, best = 0, self._part.size
                failures += 1
                self._after_failure(exc, failures)

    def _is_complete(self) -> bool:
        """Tell whether all bytes came already, in an earlier run or before the line broke."""
        part = self._part
        if part.size == 0 or part.origin is None or not self._may_resume():
            return False
        return part.size == (self._expected.size or part.origin.total)

    def _after_failure(self, exc: BrokenError, failures: int) -> None:
        retry = self._terms.retry
        retry.check(exc, failures)
        if isinstance(exc, StartOverError):
            self._tell(f"{exc}: once more from the start")
            return
        delay = retry.delay(failures, exc.asked)
        self._tell(f"{exc}; trying again in {delay:.1f} s")
        retry.sleep(delay)

    def _tell(self, message: str) -> None:
        self._reporter.send("retry", message=message, url=self._shown, bytes=self._part.size)

    def _attempt(self) -> None:
        headers = self._range_headers()
        with self._lines.ask(self._url, self._patience(), headers) as response:
            check_status(response, 200, 206, 416)
            if response.status_code == 416:
                self._past_the_end(response, asked="Range" in headers)
                return
            whole = response.status_code == 200
            total = self._begin(response) if whole else self._resume(response)
            self._receive(response, total)

    def _patience(self) -> Patience:
        """Return the patience with a mirror: it ends when too few bytes came since it was asked."""
        terms, before = self._terms, self._received

        def goes_well() -> bool:
            nonlocal before
            few = self._received - before < terms.least_rate * terms.slow
            before = self._received
            return not few

        why = f"it sent less than {terms.least_rate:,} bytes a second for {terms.slow:g} s"
        return Patience(stall=terms.stall, seconds=terms.slow, why=why, goes_well=goes_well)

    def _range_headers(self) -> dict[str, str]:
        """Ask for the rest where the part may be continued from this mirror."""
        part = self._part
        if part.size == 0 or part.origin is None or not self._may_resume():
            return {}
        headers = {"Range": f"bytes={part.size}-"}
        if part.origin.url == self._shown and part.origin.validator:
            headers["If-Range"] = part.origin.validator
        return headers

    def _may_resume(self) -> bool:
        """Without a hash, only what the same address certainly still has may be continued."""
        origin = self._part.origin
        if origin is None:
            return False
        if origin.url == self._shown and origin.validator:
            return True
        return self._expected.hashed and (origin.total or self._expected.size) is not None

    def _past_the_end(self, response: "httpx.Response", *, asked: bool) -> None:
        """Handle a 416: the part is complete, or not a part of what the server has."""
        part = self._part
        if not asked:
            raise FinalError("HTTP 416, though the whole file was asked for")
        fits = self._expected.hashed and self._expected.problem(part.digests) is None
        if not fits and unsatisfied_total(response) != part.size:
            part.clear()
            raise StartOverError("the server has less than is here already")

    def _begin(self, response: "httpx.Response") -> int | None:
        """Start the part anew with a whole file; return its size."""
        total = content_length(response)
        known = self._expected.size is not None or self._expected.hashed
        if not known and not is_delimited(response):
            raise FinalError("it does not say how long the file is, and nobody else did")
        self._check_size(total)
        headers = response.headers
        self._part.start(
            Origin(
                url=self._shown,
                etag=headers.get("ETag"),
                last_modified=headers.get("Last-Modified"),
                total=total,
            )
        )
        return total

    def _resume(self, response: "httpx.Response") -> int | None:
        """Check that the response continues the part; return the size of the whole file."""
        part, found = self._part, content_range(response)
        if part.origin is None:
            raise FinalError("it sends a part, though the whole file was asked for")
        if found is None:
            part.clear()
            raise StartOverError("it sends a part that it does not describe")
        first, last, total = found
        self._check_size(total)
        if self._changed(response, first, last, total):
            part.clear()
            raise StartOverError("the file has changed on the server")
        return total if total is not None else part.origin.total

    def _changed(
        self, response: "httpx.Response", first: int, last: int, total: int | None
    ) -> bool:
        origin = self._part.origin
        if origin is None or first != self._part.size:
            return True
        if total is not None and (last >= total or origin.total not in (None, total)):
            return True
        etag = response.headers.get("ETag")
        same_place = origin.url == self._shown and bool(origin.etag and etag)
        return same_place and etag != origin.etag

    def _check_size(self, total: int | None) -> None:
        """Refuse a file that cannot be the right one before any of it is fetched."""
        if total is None:
            return
        if problem := self._expected.size_problem(total):
            raise FinalError(problem, integrity=True)
        if total > self._terms.limit and self._expected.size is None:
            raise FinalError(f"{total:,} bytes are over the limit", integrity=True)
        ensure_space(self._part.path.parent, total - self._part.size)

    def _receive(self, response: "httpx.Response", total: int | None) -> None:
        part = self._part
        most = self._expected.size or total or self._terms.limit
        self._reporter.start(self._shown, part.size, self._expected.size or total)
        part.mixed = part.size > 0
        for chunk in response.iter_raw():
            if part.size + len(chunk) > most:
                part.clear()
                raise FinalError(f"it sends more than {most:,} bytes", integrity=True)
            part.append(chunk)
            self._received += len(chunk)
            self._reporter.progress(part.size, self._expected.size or total)
        wanted = self._expected.size or total
        if wanted is not None and part.size < wanted:
            raise BrokenError(f"it ended after {part.size:,} of {wanted:,} bytes")


def ensure_space(folder: Path, needed: int) -> None:
    """Raise `DownloadError` where the disk of a folder lacks the bytes that a file still needs."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_DISK:
        raise DownloadError(
            f"the disk of {folder} is too full: {needed:,} bytes needed, {free:,} free; "
            "make room, or choose another folder with --cache-dir"
        )
