"""One file from one mirror into a part: resumed, retried, and checked at the end."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from regnet.system.addresses import without_secrets
from regnet.system.checked import Checked
from regnet.system.errors import DownloadError
from regnet.system.files import write_all
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
from regnet.zoo.record import Digests, Expected, Hasher, clear_way, hash_file, read_json, write_json

if TYPE_CHECKING:
    import httpx

GIB = 1 << 30
SPARE_DISK = 16 << 20
ADVANCE = 1 << 20
"""Bytes that a broken response must have added for the count of failures to start anew."""


@dataclass(frozen=True, kw_only=True)
class Origin(Checked):
    """What a server said of the whole file when its first bytes came; `total` in bytes."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None

    @property
    def validator(self) -> str | None:
        """The value for If-Range: a strong ETag, else the last change, if it can be sent back."""
        strong = None if (self.etag or "").startswith("W/") else self.etag
        values = (value for value in (strong, self.last_modified) if value)
        return next((v for v in values if v.isascii() and v.isprintable()), None)


class PartialFile:
    """A file that is still arriving, `<name>.part`, and beside it its origin as JSON.

    Every byte goes to the system at once, so that what a killed process received is still there.
    `mixed` tells whether the bytes are of several responses, or of an earlier run. As a context
    manager it leaves no empty part behind. Raises `OSError`.
    """

    def __init__(self, final: Path) -> None:
        self._final = final
        self.path = final.with_name(f"{final.name}.part")
        self._origin_path = _origin_path(final)
        clear_way(self.path)
        self.origin = read_json(self._origin_path, Origin)
        complete = self.origin is not None and self.path.exists()
        self._hasher = hash_file(self.path) if complete else Hasher()
        self.mixed = self.size > 0
        self._stream = self.path.open("ab" if self.size else "wb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()
        if self.size == 0:
            self.path.unlink(missing_ok=True)
            self._origin_path.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Number of bytes received."""
        return self._hasher.size

    @property
    def digests(self) -> Digests:
        """Digests of the bytes received."""
        return self._hasher.digests()

    def append(self, chunk: bytes) -> None:
        """Add the next bytes; they are in the file when this returns."""
        write_all(self._stream.fileno(), chunk)
        self._hasher.update(chunk)

    def start(self, origin: Origin) -> None:
        """Begin anew, as a part of another file. Bytes never lie under a foreign origin."""
        self.clear()
        write_json(self._origin_path, asdict(origin))
        self.origin = origin

    def clear(self) -> None:
        """Drop the bytes and the origin."""
        self._stream.truncate(0)
        self._stream.seek(0)
        self._origin_path.unlink(missing_ok=True)
        self.origin = None
        self._hasher = Hasher()
        self.mixed = False

    def finish(self) -> None:
        """Give the complete file its final name, once it is on the disk."""
        os.fsync(self._stream.fileno())
        self._stream.close()
        self.path.replace(self._final)
        drop_origin(self._final)


def drop_origin(final: Path) -> None:
    """Remove the origin beside a complete file; a cache that cannot be written keeps it."""
    with suppress(OSError):
        _origin_path(final).unlink()


def _origin_path(final: Path) -> Path:
    return final.with_name(f"{final.name}.part.json")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Timeouts and limits of a transfer.

    `stall` is the longest wait for a byte in seconds. A mirror that sends less than `least_rate`
    bytes a second for `slow` seconds is left. `limit` is the maximum of an unpublished size.
    """

    retry: Retry = field(default_factory=Retry)
    stall: float = 30.0
    slow: float = 30.0
    least_rate: int = 10_000
    limit: int = 8 * GIB


class StartOverError(BrokenError):
    """The part does not fit what the server has; begin anew."""


@dataclass(kw_only=True)
class Transfer:
    """Brings one file from one mirror into a part.

    `look` tells what is wrong with a file of which no hash was published.
    """

    url: str
    part: PartialFile
    expected: Expected
    lines: Lines
    terms: Terms
    reporter: Reporter
    look: Callable[[Path], str | None]
    received: int = 0  # bytes, in all attempts

    def run(self) -> None:
        """Complete the part and check it. Raises `FinalError` where this mirror cannot."""
        if not self.expected.hashed and self._is_complete():
            self.part.clear()  # nothing tells whether the bytes of an earlier run are still right
        problem = self._complete()
        if problem and self.part.mixed:
            self._tell(f"{problem}; it came in pieces: once more from the start")
            self.part.clear()
            problem = self._complete()
        if problem:
            self.part.clear()
            raise FinalError(problem, integrity=True)

    @property
    def shown(self) -> str:
        """The address without secrets."""
        return without_secrets(self.url)

    def _complete(self) -> str | None:
        """Try until the part is as long as the file; return what is wrong with it."""
        failures, best = 0, self.part.size
        while not self._is_complete():
            try:
                self._attempt()
                break
            except BrokenError as exc:
                if self.part.size >= best + ADVANCE:
                    failures, best = 0, self.part.size
                failures += 1
                self._after_failure(exc, failures)
        problem = self.expected.problem(self.part.digests)
        return problem if problem or self.expected.hashed else self.look(self.part.path)

    def _is_complete(self) -> bool:
        """Tell whether all bytes came already, in an earlier run or before the line broke."""
        origin = self._resumable()
        return origin is not None and self.part.size == (self.expected.size or origin.total)

    def _after_failure(self, exc: BrokenError, failures: int) -> None:
        retry = self.terms.retry
        retry.check(exc, failures)
        if isinstance(exc, StartOverError):
            self._tell(f"{exc}: once more from the start")
            return
        delay = retry.delay(failures, exc.asked)
        self._tell(f"{exc}; trying again in {delay:.1f} s")
        retry.sleep(delay)

    def _tell(self, message: str) -> None:
        self.reporter.send("retry", message=message, url=self.shown, bytes=self.part.size)

    def _attempt(self) -> None:
        headers = {}
        if origin := self._resumable():
            headers["Range"] = f"bytes={self.part.size}-"
            if origin.url == self.shown and origin.validator:
                headers["If-Range"] = origin.validator
        with self.lines.ask(self.url, self._patience(), headers) as response:
            check_status(response, 200, 206, 416)
            if response.status_code == 416:
                self._past_the_end(response, asked=bool(headers))
                return
            whole = response.status_code == 200
            self._receive(response, self._begin(response) if whole else self._resume(response))

    def _patience(self) -> Patience:
        """Return the patience with a mirror: it ends when too few bytes came since it was asked."""
        terms, before = self.terms, self.received

        def goes_well() -> bool:
            nonlocal before
            few = self.received - before < terms.least_rate * terms.slow
            before = self.received
            return not few

        why = f"it sent less than {terms.least_rate:,} bytes a second for {terms.slow:g} s"
        return Patience(stall=terms.stall, seconds=terms.slow, why=why, goes_well=goes_well)

    def _resumable(self) -> Origin | None:
        """Return the origin of a part that may be continued from this mirror, else None.

        Without a hash, only if the same address certainly still has the same file.
        """
        origin = self.part.origin
        if self.part.size == 0 or origin is None:
            return None
        same = origin.url == self.shown and origin.validator is not None
        size_known = (origin.total or self.expected.size) is not None
        return origin if same or (self.expected.hashed and size_known) else None

    def _start_over(self, why: str) -> StartOverError:
        """Drop the part, and return the error to raise."""
        self.part.clear()
        return StartOverError(why)

    def _past_the_end(self, response: "httpx.Response", *, asked: bool) -> None:
        """Handle a 416: the part is complete, or not a part of what the server has."""
        if not asked:
            raise FinalError("HTTP 416, though the whole file was asked for")
        fits = self.expected.hashed and self.expected.problem(self.part.digests) is None
        if not fits and unsatisfied_total(response) != self.part.size:
            raise self._start_over("the server has less than is here already")

    def _begin(self, response: "httpx.Response") -> int | None:
        """Start the part anew with a whole file; return its size."""
        total, headers = content_length(response), response.headers
        known = self.expected.size is not None or self.expected.hashed
        if not known and not is_delimited(response):
            raise FinalError("it does not say how long the file is, and nobody else did")
        self._check_size(total)
        etag, last_modified = headers.get("ETag"), headers.get("Last-Modified")
        self.part.start(Origin(url=self.shown, etag=etag, last_modified=last_modified, total=total))
        return total

    def _resume(self, response: "httpx.Response") -> int | None:
        """Check that the response continues the part; return the size of the whole file."""
        origin, span = self.part.origin, content_range(response)
        if origin is None:
            raise FinalError("it sends a part, though the whole file was asked for")
        if span is None:
            raise self._start_over("it sends a part that it does not describe")
        first, last, total = span
        self._check_size(total)
        etag = response.headers.get("ETag")
        other_etag = origin.url == self.shown and origin.etag and etag and etag != origin.etag
        other_size = total is not None and (last >= total or origin.total not in (None, total))
        if first != self.part.size or other_size or other_etag:
            raise self._start_over("the file has changed on the server")
        return total if total is not None else origin.total

    def _check_size(self, total: int | None) -> None:
        """Refuse a file that cannot be the right one before any of it is fetched."""
        if total is None:
            return
        if problem := self.expected.size_problem(total):
            raise FinalError(problem, integrity=True)
        if total > self.terms.limit and self.expected.size is None:
            raise FinalError(f"{total:,} bytes are over the limit", integrity=True)
        ensure_space(self.part.path.parent, total - self.part.size)

    def _receive(self, response: "httpx.Response", total: int | None) -> None:
        part = self.part
        total = self.expected.size or total
        limit = total or self.terms.limit
        self.reporter.start(self.shown, part.size, total)
        part.mixed = part.size > 0
        for chunk in response.iter_raw():
            if part.size + len(chunk) > limit:
                part.clear()
                raise FinalError(f"it sends more than {limit:,} bytes", integrity=True)
            part.append(chunk)
            self.received += len(chunk)
            self.reporter.progress(part.size, total)
        if total is not None and part.size < total:
            raise BrokenError(f"it ended after {part.size:,} of {total:,} bytes")


def ensure_space(folder: Path, needed: int) -> None:
    """Raise `DownloadError` where the disk of a folder lacks the bytes that a file still needs."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_DISK:
        raise DownloadError(
            f"the disk of {folder} is too full: {needed:,} bytes needed, {free:,} free; "
            "make room, or choose another folder with --cache-dir"
        )
