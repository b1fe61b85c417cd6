"""Verified downloads of weights into the cache.

A file has its final name only once its size and hash are right. Everything on the way there may
be killed at any moment: the next run goes on from where it was.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from regnet.system.addresses import host_of, without_secrets
from regnet.system.cache import cache_dir as default_cache_dir
from regnet.system.errors import (
    DownloadError,
    IntegrityError,
    LicenceError,
    OfflineError,
    WeightsError,
    reason_of,
)
from regnet.system.files import new_folder_beside
from regnet.system.http import Lines
from regnet.system.retry import FinalError
from regnet.zoo.card import Card, WeightsFile
from regnet.zoo.catalogue import bundled_path
from regnet.zoo.events import OnEvent, Reporter, ignore
from regnet.zoo.record import (
    CHUNK,
    Hasher,
    SeenHashes,
    clear_way,
    hash_file,
    read_record,
    record_path,
    write_record,
)
from regnet.zoo.transfer import PartialFile, Terms, Transfer, drop_origin, ensure_space

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
    instead: str = "",
) -> Path:
    """Return the verified file of a card's weights, fetched if it is not in the cache.

    Of a file whose hash nobody published the tensors are compared with the card's network, before
    its own hash is recorded for later downloads; the last event says so.

    `mirrors` are addresses of folders that are tried first, then those in $REGNET_MIRROR
    (separated by spaces), then the card's own. `verify` hashes a cached file instead of
    trusting its size and time of change. A second process that wants the same file waits for the
    first and fetches nothing. `instead` is what the caller's user can do without the file.

    Raises `OfflineError` (not cached, and `offline` or no connection to any mirror),
    `LicenceError` (a non-commercial licence without `accept_licence`), `IntegrityError` (a
    mirror sent something wrong and no other something right) and `DownloadError`.
    """
    reporter = Reporter(card.name, on_event)
    try:
        path = cached_file(card, cache_dir=cache_dir, verify=verify)
        if path is None:
            places = [_Place(one, cache_dir, instead) for one in card.by_file]
            place = places[0]
            if offline:
                exists = place.path.is_file()
                what = (
                    "is in the cache but not known to be right" if exists else "is not in the cache"
                )
                raise OfflineError(
                    f"{card.name} {what} ({place.path}), and --offline forbids to fetch it: "
                    f"{place.options(offline=True)}"
                )
            require_licence(card, accept_licence)
            path = _fetch(places, mirrors, reporter, terms or Terms(), verify=verify)
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

    A file of the recorded size and time is hashed only if `verify`. Raises `DownloadError`.
    """
    if card.file is None:
        path = bundled_path(card)
        return path if path.is_file() else None
    places = (_Place(one, cache_dir) for one in card.by_file)
    return next(filter(None, (place.verified(again=verify) for place in places)), None)


def import_file(
    card: Card,
    path: str | Path,
    *,
    cache_dir: str | Path | None = None,
    on_event: OnEvent = ignore,
) -> Path:
    """Return the cached copy of a card's weights, taken from a file once that is verified.

    Of several files of a card it is taken for that of its name, or else of its suffix. Raises
    `IntegrityError` if it is not the card's file, `DownloadError` if it cannot be copied.
    """
    card = max(card.by_file, key=partial(_likeness, Path(path)))
    place, reporter = _Place(card, cache_dir), Reporter(card.name, on_event)
    with ExitStack() as stack:
        try:
            reading = stack.enter_context(Path(path).open("rb"))
        except OSError as exc:
            raise DownloadError(f"cannot read {path}: {reason_of(exc)}") from exc
        stack.enter_context(place.usable())
        stack.enter_context(place.lock(reporter))
        temporary = stack.enter_context(new_folder_beside(place.path)) / place.path.name
        hasher = Hasher()
        with temporary.open("wb") as writing:
            ensure_space(temporary.parent, os.fstat(reading.fileno()).st_size)
            while chunk := reading.read(CHUNK):
                writing.write(chunk)
                hasher.update(chunk)
            writing.flush()
            os.fsync(writing.fileno())
        expected, digests = place.seen.expected(card), hasher.digests()
        problem = expected.problem(digests)
        if not problem and not expected.hashed:
            problem = _looked(card, reporter, temporary)
        if problem:
            raise IntegrityError(f"{path} is not the file of {card.name}: {problem}")
        url = Path(path).resolve().as_uri()
        place.seen.remember(card, digests, url=url)
        write_record(place.path, temporary, digests, url=url, etag=None)
        temporary.replace(place.path)
    return place.path


def _likeness(path: Path, card: Card) -> tuple[bool, bool]:
    """Return whether a card's file has the name of a file, and its suffix."""
    name = card.file.name if card.file else ""
    return name == path.name, Path(name).suffix == path.suffix


def forget_hash(card: Card, *, cache_dir: str | Path | None = None) -> bool:
    """Forget the hashes recorded for a card's files; tell whether there was one.

    The cached files then no longer count as verified. Raises `DownloadError`.
    """
    forgotten = False
    for place in (_Place(one, cache_dir) for one in card.by_file):
        with place.usable():
            record_path(place.path).unlink(missing_ok=True)
            forgotten |= place.seen.forget(place.card)
    return forgotten


def require_licence(card: Card, accepted: bool) -> None:
    """Raise `LicenceError` with the notice of a non-commercial licence not yet accepted."""
    if card.licence.non_commercial and not accepted:
        raise LicenceError(
            f"{card.name} was not downloaded. {card.licence.notice} . To accept this: "
            f"`regnet download --accept-licence {card.name}`"
        )


class _Place:
    """Where a card's file lies in the cache, and what it must be."""

    def __init__(self, card: Card, cache_dir: str | Path | None, instead: str = "") -> None:
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
        self._instead = instead

    def options(self, *, offline: bool = False) -> str:
        """Return what the user can do if the file cannot be had."""
        mirror = f"name a server that has {self.file.name} with `--mirror URL`"
        ways = (
            self._instead,
            f"leave out --offline, and {mirror}" if offline else mirror,
            f"fetch that file on another machine and import it with `regnet download --from "
            f"{self.file.name} {self.card.name}`",
        )
        return ", or ".join(filter(None, ways))

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
            digests = hash_file(self.path).digests()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as exc:
            raise DownloadError(f"cannot read {self.path}: {reason_of(exc)}") from exc
        vouched = expected.hashed or (record is not None and record.sha384 == digests.sha384)
        if expected.problem(digests) or not vouched:
            return None
        url, etag = (record.url, record.etag) if record else ("", None)
        with suppress(OSError):  # a cache that cannot be written does without
            write_record(self.path, self.path, digests, url=url, etag=etag)
        return self.path

    @contextmanager
    def usable(self) -> Iterator[None]:
        """Turn what goes wrong with the cache folder into `DownloadError`."""
        try:
            yield
        except OSError as exc:
            raise DownloadError(
                f"cannot write to the cache folder {self.folder}: {reason_of(exc, named=True)}; "
                "choose another with --cache-dir or $REGNET_CACHE"
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


def _mirror_urls(mirrors: Sequence[str], file: WeightsFile) -> list[str]:
    bases = [*mirrors, *os.environ.get(MIRROR_VARIABLE, "").split()]
    for base in bases:
        if not base.lower().startswith(("http://", "https://")):
            shown = without_secrets(base)
            raise DownloadError(f"the mirror {shown!r} is not an http or https address")
    return [f"{base.rstrip('/')}/{file.name}" for base in bases]


def _fetch(
    places: Sequence[_Place],
    mirrors: Sequence[str],
    reporter: Reporter,
    terms: Terms,
    *,
    verify: bool,
) -> Path:
    """Try the files in turn, each from all its mirrors."""
    failures: dict[str, FinalError] = {}
    for place in places:
        urls = [*_mirror_urls(mirrors, place.file), *place.file.urls]
        with place.usable(), place.lock(reporter):
            path = place.verified(again=verify) or _fetch_file(
                place, urls, reporter, terms, failures
            )
        if path:
            return path
    kind = DownloadError
    if any(exc.integrity for exc in failures.values()):
        kind = IntegrityError
    elif all(exc.unreachable for exc in failures.values()):
        kind = OfflineError
    place = places[0]
    raise kind(f"{place.card.name} could not be downloaded{_reasons(failures)}{place.options()}")


def _fetch_file(
    place: _Place,
    urls: Sequence[str],
    reporter: Reporter,
    terms: Terms,
    failures: dict[str, FinalError],
) -> Path | None:
    """Try the mirrors of one file in turn; note in `failures` why each did not give it."""
    card = place.card
    with ExitStack() as stack:
        lines = Lines()
        stack.callback(lines.close)
        part = stack.enter_context(PartialFile(place.path))
        expected = place.seen.expected(card)
        for url in urls:
            transfer = Transfer(
                url=url,
                part=part,
                expected=expected,
                lines=lines,
                terms=terms,
                reporter=reporter,
                look=partial(_looked, card, reporter),
            )
            try:
                transfer.run()
            except FinalError as exc:
                failures[transfer.shown] = exc
                reporter.send("retry", url=transfer.shown, message=f"gave up: {exc}")
                continue
            # Whoever sees the file's name finds its record.
            etag = part.origin.etag if part.origin else None
            place.seen.remember(card, part.digests, url=transfer.shown)
            write_record(place.path, part.path, part.digests, url=transfer.shown, etag=etag)
            part.finish()
            return place.path
    return None


def _reasons(failures: Mapping[str, FinalError]) -> str:
    """Return why each mirror failed, on one line if all for the same reason."""
    servers: dict[str, list[str]] = {}
    for url, exc in failures.items():
        servers.setdefault(str(exc), []).append(host_of(url) if exc.unreachable else url)
    if len(servers) == 1:
        ((why, names),) = servers.items()
        return f" from {' and '.join(names)} ({why}): "
    lines = [f"\n  {' and '.join(names)}: {why}" for why, names in servers.items()]
    return f":{''.join(lines)}\nTo go on, "


def _looked(card: Card, reporter: Reporter, path: Path) -> str | None:
    """Return what is wrong with a card's file whose hash nobody published, by its tensors."""
    from regnet.checkpoints.weights import read_checkpoint

    try:
        read_checkpoint(path, spec=card.build_spec())
    except WeightsError as exc:
        problem = str(exc).replace(f"{path}", "the file").partition("\n")[0]
        return f"{problem} (nobody published its hash, so it was looked into)"
    network = card.spec if isinstance(card.spec, str) else card.name
    message = (
        f"nobody published a hash of this file: its tensors are those of {network}; its hash holds "
        "for later downloads"
    )
    reporter.send("looked", message=message)
    return None
