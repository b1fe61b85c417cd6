"""Verified downloads of weights into the cache.

A file has its final name only once its size and hash are right. Everything on the way there may
be killed at any moment: the next run goes on from where it was.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import BinaryIO

from regnet.system.addresses import without_secrets
from regnet.system.cache import cache_dir as default_cache_dir
from regnet.system.errors import (
    DownloadError,
    IntegrityError,
    LicenceError,
    OfflineError,
    WeightsError,
)
from regnet.system.files import new_folder_beside
from regnet.system.http import Lines
from regnet.system.retry import FinalError
from regnet.zoo.card import Card, WeightsFile
from regnet.zoo.catalogue import bundled_path
from regnet.zoo.events import OnEvent, Reporter, ignore
from regnet.zoo.part import PartialFile, drop_origin
from regnet.zoo.record import (
    CHUNK,
    Digests,
    Hasher,
    SeenHashes,
    clear_way,
    forget_record,
    hash_file,
    new_record,
    read_record,
    write_record,
)
from regnet.zoo.transfer import Terms, Transfer, ensure_space

MIRROR_VARIABLE = "REGNET_MIRROR"


def download(
    card: Card,
    *,
    cache_dir: str | Path | None = None,
    mirrors: Sequence[str] = (),
    offline: bool = False,
    verify: bool = False,
    accept_licence: bool = False,
    on_event: OnEvent = ignore,
    terms: Terms | None = None,
) -> Path:
    """Return the verified file of a card's weights, fetched if it is not in the cache.

    Of a file whose hash nobody published the tensors are compared with the card's network, before
    its own hash is recorded for later downloads; the last event says so.

    `mirrors` are addresses of folders that are tried first, then those in $REGNET_MIRROR
    (separated by spaces), then the card's own. `verify` hashes a cached file instead of
    trusting its size and time of change. A second process that wants the same file waits for the
    first and fetches nothing.

    Raises `OfflineError` (not cached, and `offline` or no connection to any mirror),
    `LicenceError` (a non-commercial licence without `accept_licence`), `IntegrityError` (a
    mirror sent something wrong and no other something right) and `DownloadError`.
    """
    reporter = Reporter(card.name, on_event)
    try:
        path = _shipped(card) or _get(
            card,
            _Place(card, cache_dir),
            mirrors=mirrors,
            offline=offline,
            verify=verify,
            accept_licence=accept_licence,
            reporter=reporter,
            terms=terms or Terms(),
        )
    except Exception as exc:
        reporter.send("failed", message=str(exc) or type(exc).__name__)
        raise
    size = path.stat().st_size
    reporter.send("done", path=str(path), bytes=size, total=size)
    return path


def cached_file(
    card: Card, *, cache_dir: str | Path | None = None, verify: bool = False
) -> Path | None:
    """Return the verified file of a card's weights if it is in the cache; never fetches.

    A file that is, by size and time of change, the one verified before is not hashed again
    unless `verify` is set. Raises `DownloadError` where the cache cannot be read.
    """
    if card.file is None:
        return _shipped(card)
    return _Place(card, cache_dir).verified(again=verify)


def import_file(
    card: Card,
    path: str | Path,
    *,
    cache_dir: str | Path | None = None,
    on_event: OnEvent = ignore,
) -> Path:
    """Return the cached copy of a card's weights, taken from a file once that is verified.

    A file whose hash nobody published is looked into, as by `download`.
    Raises `IntegrityError` where it is not the card's file, `DownloadError` where it cannot be
    read or the cache not be written.
    """
    place, reporter = _Place(card, cache_dir), Reporter(card.name, on_event)
    with ExitStack() as stack:
        try:
            reading = stack.enter_context(Path(path).open("rb"))
        except OSError as exc:
            raise DownloadError(f"cannot read {path}: {exc}") from exc
        stack.enter_context(place.usable())
        stack.enter_context(place.lock(reporter))
        return _import(place, reading, reporter)


def forget_hash(card: Card, *, cache_dir: str | Path | None = None) -> bool:
    """Forget the hash recorded for a card's file; tell whether one was.

    A file in the cache no longer counts as verified, unless its hash was published.
    Raises `DownloadError` where the cache cannot be written.
    """
    place = _Place(card, cache_dir)
    with place.usable():
        forget_record(place.path)
        return place.seen.forget(card)


def require_licence(card: Card, accepted: bool) -> None:
    """Raise `LicenceError` with the notice of a non-commercial licence not yet accepted."""
    if card.licence.non_commercial and not accepted:
        raise LicenceError(
            f"{card.name} was not downloaded. {card.licence.notice} . To accept this: "
            f"`regnet download --accept-licence {card.name}`"
        )


class _Place:
    """Where a card's file lies in the cache, and what it must be."""

    def __init__(self, card: Card, cache_dir: str | Path | None) -> None:
        if card.file is None:
            raise DownloadError(
                f"{card.name} is part of the package ({card.bundled}): there is nothing to "
                "download; if the file is missing, install regnet-vision anew"
            )
        weights = default_cache_dir(cache_dir) / "weights"
        self.card = card
        self.file: WeightsFile = card.file
        self.folder = weights.parent
        self.path = weights / card.name / self.file.name
        self.seen = SeenHashes(weights)

    def verified(self, *, again: bool) -> Path | None:
        """Return the file if it is there and right; hashed where its record does not vouch."""
        try:
            stat = self.path.stat()
            if not (S_ISREG(stat.st_mode) or S_ISDIR(stat.st_mode)):
                return None  # a pipe or a device is not opened
            record = read_record(self.path)
            expected = self.seen.expected(self.card)
            known = record is not None and expected.problem(record.digests) is None
            if record is not None and known and record.describes(stat) and not again:
                drop_origin(self.path)
                return self.path
            found = hash_file(self.path).digests()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise DownloadError(f"cannot read {self.path}: {exc}") from exc
        vouched = expected.hashed or (record is not None and record.sha384 == found.sha384)
        if expected.problem(found) or not vouched:
            return None
        self._vouch(found, url=record.url if record else "", etag=record.etag if record else None)
        return self.path

    def _vouch(self, found: Digests, *, url: str, etag: str | None) -> None:
        """Record that the file is right; a cache that cannot be written does without."""
        with suppress(OSError):
            write_record(self.path, new_record(self.path, found, url=url, etag=etag))

    @contextmanager
    def usable(self) -> Iterator[None]:
        """Turn what goes wrong with the cache folder into `DownloadError`."""
        try:
            yield
        except OSError as exc:
            raise DownloadError(
                f"cannot write to the cache folder {self.folder}: {exc}; choose another with "
                "--cache-dir or $REGNET_CACHE"
            ) from exc

    @contextmanager
    def lock(self, reporter: Reporter) -> Iterator[None]:
        """Hold the file against other processes; waits for one that has it."""
        from filelock import FileLock, Timeout

        self.path.parent.mkdir(parents=True, exist_ok=True)
        path = self.path.with_name(f"{self.path.name}.lock")
        clear_way(path)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            reporter.send("waiting", message="another process is fetching it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def _get(
    card: Card,
    place: _Place,
    *,
    mirrors: Sequence[str],
    offline: bool,
    verify: bool,
    accept_licence: bool,
    reporter: Reporter,
    terms: Terms,
) -> Path:
    if path := place.verified(again=verify):
        return path
    if offline:
        there = place.path.is_file()
        what = "is in the cache but not known to be right" if there else "is not in the cache"
        raise OfflineError(f"{card.name} {what} ({place.path}). {_ways_on(place)}")
    require_licence(card, accept_licence)
    urls = [*_mirror_urls(mirrors, place.file), *place.file.urls]
    with place.usable(), place.lock(reporter):
        if path := place.verified(again=verify):
            return path
        return _fetch(place, urls, reporter=reporter, terms=terms)


def _mirror_urls(mirrors: Sequence[str], file: WeightsFile) -> list[str]:
    bases = [*mirrors, *os.environ.get(MIRROR_VARIABLE, "").split()]
    for base in bases:
        if not base.lower().startswith(("http://", "https://")):
            shown = without_secrets(base)
            raise DownloadError(f"the mirror {shown!r} is not an http or https address")
    return [f"{base.rstrip('/')}/{file.name}" for base in bases]


def _fetch(
    place: _Place,
    urls: Sequence[str],
    *,
    reporter: Reporter,
    terms: Terms,
) -> Path:
    """Try the mirrors in turn."""
    failures: list[tuple[str, FinalError]] = []
    with ExitStack() as stack:
        lines = Lines()
        stack.callback(lines.close)
        part = stack.enter_context(PartialFile(place.path))
        expected = place.seen.expected(place.card)
        for url in urls:
            transfer = Transfer(
                url,
                part,
                expected,
                lines=lines,
                terms=terms,
                reporter=reporter,
                look=partial(_looked, place.card, reporter),
            )
            try:
                transfer.run()
            except FinalError as exc:
                failures.append((without_secrets(url), exc))
                reporter.send("retry", url=without_secrets(url), message=f"gave up: {exc}")
            else:
                return _finish(place, part, without_secrets(url))
    raise _all_failed(place, failures)


def _looked(card: Card, reporter: Reporter, path: Path) -> str | None:
    """Look into a file of a card whose hash nobody published; return what is wrong with it."""
    from regnet.zoo.look import look_into

    try:
        found = look_into(path, card)
    except WeightsError as exc:
        return str(exc)
    what = "nobody published a hash of this file"
    reporter.send("looked", message=f"{what}: {found}; its hash holds for later downloads")
    return None


def _finish(place: _Place, part: PartialFile, url: str) -> Path:
    """Record what came, then give it its name: whoever sees the name finds the record."""
    etag = part.origin.etag if part.origin else None
    place.seen.remember(place.card, part.digests, url=url)
    write_record(place.path, new_record(part.path, part.digests, url=url, etag=etag))
    part.finish(place.path)
    return place.path


def _all_failed(place: _Place, failures: Sequence[tuple[str, FinalError]]) -> DownloadError:
    kind = DownloadError
    if any(exc.integrity for _, exc in failures):
        kind = IntegrityError
    elif all(exc.unreachable for _, exc in failures):
        kind = OfflineError
    reasons = "".join(f"\n  {url}: {exc}" for url, exc in failures)
    return kind(f"{place.card.name} could not be downloaded:{reasons}\n{_ways_on(place)}")


def _ways_on(place: _Place) -> str:
    name, file = place.card.name, place.file.name
    return (
        f"Ways on: `regnet download --mirror URL {name}` with a server that has {file}; or fetch "
        f"it on another machine and `regnet download --from {file} {name}`"
    )


def _import(place: _Place, reading: BinaryIO, reporter: Reporter) -> Path:
    """Copy an open file into the place, which is locked."""
    expected, source = place.seen.expected(place.card), Path(reading.name)
    with new_folder_beside(place.path) as scratch:
        temporary = scratch / place.path.name
        found = _copy(reading, temporary)
        problem = expected.problem(found)
        if not problem and not expected.hashed:
            problem = _looked(place.card, reporter, temporary)
        if problem:
            raise IntegrityError(f"{source} is not the file of {place.card.name}: {problem}")
        url = source.resolve().as_uri()
        place.seen.remember(place.card, found, url=url)
        write_record(place.path, new_record(temporary, found, url=url, etag=None))
        temporary.replace(place.path)
    return place.path


def _copy(reading: BinaryIO, target: Path) -> Digests:
    """Copy an open file to the disk and return the digests of what was copied."""
    hasher = Hasher()
    with target.open("wb") as writing:
        ensure_space(target.parent, os.fstat(reading.fileno()).st_size)
        while chunk := reading.read(CHUNK):
            writing.write(chunk)
            hasher.update(chunk)
        writing.flush()
        os.fsync(writing.fileno())
    return hasher.digests()


def _shipped(card: Card) -> Path | None:
    """Return the model of a card inside the package, if it has one."""
    if card.bundled is None:
        return None
    path = bundled_path(card)
    return path if path.is_file() else None
