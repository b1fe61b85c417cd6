"""The downloader against a real server: nothing wrong accepted, nothing right fetched twice."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import local_server as behave
import numpy as np
import pytest
from local_server import LocalServer
from zoo_weights import TINY, weights_of

from regnet.conversion.cache_folder import CacheFolder, Removed
from regnet.system.errors import DownloadError, IntegrityError, LicenceError, OfflineError
from regnet.system.http import Lines, Patience, content_length, content_range, unsatisfied_total
from regnet.system.retry import FinalError, Retry
from regnet.zoo.card import Card, WeightsFile
from regnet.zoo.catalogue import card_by_name
from regnet.zoo.download import cached_file, download, forget_hash, import_file
from regnet.zoo.events import Event
from regnet.zoo.transfer import Terms

NAME = "weights.pyth"
CONTENT = weights_of(TINY, 1)
OTHER = weights_of(TINY, 2)


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with LocalServer() as server:
        server.files[NAME] = CONTENT
        yield server


@pytest.fixture
def second() -> Iterator[LocalServer]:
    with LocalServer() as server:
        server.files[NAME] = CONTENT
        yield server


@pytest.fixture
def sleeps() -> list[float]:
    return []


@pytest.fixture
def terms(sleeps: list[float]) -> Terms:
    return Terms(retry=Retry(sleep=sleeps.append, chance=lambda: 1.0), stall=20.0)


def card_of(*servers: LocalServer, **facts: Any) -> Card:
    """A card of CONTENT at these servers, its full hash published unless facts say otherwise."""
    known = {"size": len(CONTENT), "sha384": hashlib.sha384(CONTENT).hexdigest()}
    file = WeightsFile(
        name=NAME, urls=tuple(s.url(NAME) for s in servers), **(facts if facts else known)
    )
    return replace(card_by_name("regnetx-200mf"), spec=TINY, file=file)


def unhashed(*servers: LocalServer) -> Card:
    return card_of(*servers, size=None)


def prefixed(*servers: LocalServer) -> Card:
    return card_of(*servers, sha256_prefix=hashlib.sha256(CONTENT).hexdigest()[:8])


def leftovers(cache: Path) -> list[str]:
    """Files in the cache other than records and locks."""
    files = [path.name for path in cache.rglob("*") if path.is_file()]
    return sorted(n for n in files if not n.endswith((".lock", ".json")) or ".part" in n)


# --- the plain case ---------------------------------------------------------------------------


def test_a_file_is_fetched_once_and_recorded(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    events: list[Event] = []
    for _ in range(2):
        path = download(card_of(server), cache_dir=tmp_path, terms=terms, on_event=events.append)
        assert path == tmp_path / "weights" / "regnetx-200mf" / NAME
        assert path.read_bytes() == CONTENT
    assert len(server.log) == 1
    assert leftovers(tmp_path) == [NAME]
    record = json.loads((path.parent / f"{NAME}.json").read_text())
    assert record["sha384"] == hashlib.sha384(CONTENT).hexdigest()
    assert record["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert (record["size"], record["url"]) == (len(CONTENT), server.url(NAME))
    assert record["etag"] == behave.etag(CONTENT)
    assert [e.event for e in events if e.event != "progress"] == ["start", "done", "done"]


def test_the_cache_is_cleared_but_for_a_running_download(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    cache, removed = CacheFolder(tmp_path), list[Removed]()

    def clear(event: Event) -> None:
        if event.event != "done":
            removed.append(cache.clear())

    path = download(card_of(server), cache_dir=tmp_path, terms=terms, on_event=clear)
    assert path.read_bytes() == CONTENT
    assert {r.files for r in removed} == {0}
    assert sum(r.in_use for r in removed) > 0
    assert cache.clear().files == 2
    assert leftovers(tmp_path) == []


def test_a_touched_file_is_hashed_and_not_fetched(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    path = download(card_of(server), cache_dir=tmp_path, terms=terms)
    os.utime(path, (1, 1))
    assert download(card_of(server), cache_dir=tmp_path, terms=terms) == path
    assert len(server.log) == 1


@pytest.mark.parametrize("damage", [CONTENT[:-1], CONTENT + b"!", OTHER, b""])
def test_a_damaged_file_is_replaced(
    server: LocalServer, terms: Terms, tmp_path: Path, damage: bytes
) -> None:
    path = download(card_of(server), cache_dir=tmp_path, terms=terms)
    path.write_bytes(damage)
    assert cached_file(card_of(server), cache_dir=tmp_path) is None
    assert download(card_of(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT


def test_verify_finds_damage_behind_an_unchanged_size_and_time(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    path = download(card_of(server), cache_dir=tmp_path, terms=terms)
    stat = path.stat()
    path.write_bytes(OTHER)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert cached_file(card_of(server), cache_dir=tmp_path) == path
    assert cached_file(card_of(server), cache_dir=tmp_path, verify=True) is None
    download(card_of(server), cache_dir=tmp_path, terms=terms, verify=True)
    assert path.read_bytes() == CONTENT


def test_a_cached_file_of_unknown_origin_is_not_trusted(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    path = tmp_path / "weights" / "regnetx-200mf" / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(OTHER)
    assert cached_file(unhashed(server), cache_dir=tmp_path) is None
    assert download(unhashed(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT


# --- broken transfers -------------------------------------------------------------------------


@pytest.mark.parametrize("make", [card_of, prefixed, unhashed])
def test_a_dying_server_is_asked_for_the_rest_only(
    server: LocalServer, terms: Terms, tmp_path: Path, sleeps: list[float], make: Any
) -> None:
    server.script = [behave.dies_after(n) for n in (100_000, 1, 0, 50_000)]
    path = download(make(server), cache_dir=tmp_path, terms=terms)
    assert path.read_bytes() == CONTENT
    assert server.sent == len(CONTENT)
    assert [r.range for r in server.log] == [
        None,
        "bytes=100000-",
        "bytes=100001-",
        "bytes=100001-",
        "bytes=150001-",
    ]
    assert all(r.if_range == behave.etag(CONTENT) for r in server.log[1:])
    assert sleeps == [0.5, 1.0, 2.0, 4.0]


def test_a_stalling_server_is_left_and_asked_again(server: LocalServer, tmp_path: Path) -> None:
    server.script = [behave.stalls_after(120_000)]
    terms = Terms(retry=Retry(base=0.01), stall=1.0)
    events: list[Event] = []
    path = download(card_of(server), cache_dir=tmp_path, terms=terms, on_event=events.append)
    assert path.read_bytes() == CONTENT
    assert server.log[1].range == "bytes=120000-"
    assert any("nothing came for 1 s" in (e.message or "") for e in events)


@pytest.mark.parametrize("head", [False, True])
def test_a_mirror_that_drips_is_left_for_the_next(
    server: LocalServer, second: LocalServer, terms: Terms, tmp_path: Path, head: bool
) -> None:
    server.script = [behave.drips(head=head)]
    events: list[Event] = []
    hasty = replace(terms, slow=0.5, least_rate=1000)
    got = download(card_of(server, second), cache_dir=tmp_path, terms=hasty, on_event=events.append)
    assert got.read_bytes() == CONTENT
    assert len(server.log) == len(second.log) == 1
    (message,) = [e.message for e in events if e.event == "retry"]
    assert message == "gave up: it sent less than 1,000 bytes a second for 0.5 s"


def test_a_mirror_that_is_slow_but_no_slower_than_allowed_may_go_on(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.script = [behave.slowly(1.5)]
    hasty = replace(terms, slow=0.4, least_rate=1000)
    assert download(card_of(server), cache_dir=tmp_path, terms=hasty).read_bytes() == CONTENT
    assert len(server.log) == 1


def test_a_server_that_never_completes_is_given_up_and_the_part_kept(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.script = [behave.dies_after(1000)] * 5
    with pytest.raises(DownloadError, match=r"5 attempts.*--mirror URL.*--from weights.pyth"):
        download(card_of(server), cache_dir=tmp_path, terms=terms)
    assert leftovers(tmp_path) == [f"{NAME}.part", f"{NAME}.part.json"]
    assert download(card_of(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert server.log[-1].range == "bytes=5000-"
    assert server.sent == len(CONTENT)


def test_a_long_file_over_a_bad_line_completes(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    content = random.Random(3).randbytes(9 << 20)
    server.files[NAME] = content
    server.script = [behave.dies_after((1 << 20) + 1)] * 8
    card = card_of(server, sha384=hashlib.sha384(content).hexdigest())
    assert download(card, cache_dir=tmp_path, terms=terms).read_bytes() == content
    assert server.sent == len(content)


def test_the_next_mirror_goes_on_where_the_first_died(
    server: LocalServer, second: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.script = [behave.dies_after(200_000), *[behave.status(503)] * 4]
    path = download(card_of(server, second), cache_dir=tmp_path, terms=terms)
    assert path.read_bytes() == CONTENT
    assert [r.range for r in second.log] == ["bytes=200000-"]
    assert second.sent == len(CONTENT) - 200_000


def test_without_a_hash_another_mirror_starts_anew(
    server: LocalServer, second: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.script = [behave.dies_after(200_000), *[behave.status(503)] * 4]
    path = download(unhashed(server, second), cache_dir=tmp_path, terms=terms)
    assert path.read_bytes() == CONTENT
    assert [r.range for r in second.log] == [None]


def test_without_hash_and_validator_nothing_is_resumed(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.validators = False
    server.script = [behave.dies_after(200_000)]
    path = download(unhashed(server), cache_dir=tmp_path, terms=terms)
    assert path.read_bytes() == CONTENT
    assert [r.range for r in server.log] == [None, None]


def test_with_a_hash_no_validator_is_needed(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.validators = False
    server.script = [behave.dies_after(200_000)]
    assert download(prefixed(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert [r.range for r in server.log] == [None, "bytes=200000-"]


# --- resuming what no longer fits -------------------------------------------------------------


def interrupted(server: LocalServer, card: Card, cache: Path, *, after: int = 100_000) -> None:
    """Leave a part of so many bytes, as a killed run does."""
    server.script = [behave.dies_after(after)]
    with pytest.raises(DownloadError):
        download(card, cache_dir=cache, terms=Terms(retry=Retry(attempts=1)))
    assert f"{NAME}.part" in leftovers(cache)
    server.log.clear()


@pytest.mark.parametrize("make", [card_of, prefixed, unhashed])
def test_a_server_that_ignores_range_is_taken_from_the_start(
    server: LocalServer, terms: Terms, tmp_path: Path, make: Any
) -> None:
    interrupted(server, make(server), tmp_path)
    server.script = [behave.ignores_range]
    assert download(make(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert [(r.range, r.status) for r in server.log] == [("bytes=100000-", 200)]


@pytest.mark.parametrize("server_checks", [True, False])
def test_a_file_that_changed_is_taken_from_the_start(
    server: LocalServer, terms: Terms, tmp_path: Path, server_checks: bool
) -> None:
    server.files[NAME] = OTHER
    interrupted(server, unhashed(server), tmp_path)
    server.files[NAME] = CONTENT
    server.script = [] if server_checks else [behave.ignores_if_range]
    path = download(unhashed(server), cache_dir=tmp_path, terms=terms)
    assert path.read_bytes() == CONTENT


def test_a_file_that_grew_is_taken_from_the_start(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.validators = False
    server.files[NAME] = OTHER[:200_000]
    interrupted(server, prefixed(server), tmp_path)
    server.files[NAME] = CONTENT
    assert download(prefixed(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert [r.range for r in server.log] == ["bytes=100000-", None]


def test_a_file_that_grew_within_a_second_is_taken_from_the_start(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.etags = False
    server.files[NAME] = OTHER[:200_000]
    interrupted(server, unhashed(server), tmp_path)
    server.files[NAME] = CONTENT
    assert download(unhashed(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert [(r.range, r.status) for r in server.log] == [("bytes=100000-", 206), (None, 200)]
    assert server.log[0].if_range is not None


def test_a_shorter_range_than_asked_for_is_taken_and_continued(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    interrupted(server, unhashed(server), tmp_path)
    server.script = [behave.short_range(50_000)] * 2
    assert download(unhashed(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert [r.range for r in server.log] == [f"bytes={n}-" for n in (100_000, 150_000, 200_000)]


def test_a_body_that_ends_early_without_a_word_is_continued_where_the_size_is_known(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.script = [behave.without_length(cut=100_000)]
    card = card_of(server, size=len(CONTENT), sha256_prefix=hashlib.sha256(CONTENT).hexdigest())
    assert download(card, cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert [r.range for r in server.log] == [None, "bytes=100000-"]


def test_a_file_that_shrank_is_taken_from_the_start(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.validators = False
    server.files[NAME] = OTHER + OTHER
    interrupted(server, prefixed(server), tmp_path, after=400_000)
    server.files[NAME] = CONTENT
    assert download(prefixed(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert [r.status for r in server.log] == [416, 200]


def test_a_range_that_does_not_fit_is_not_taken(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    interrupted(server, card_of(server), tmp_path)
    server.script = [behave.misplaced_range]
    assert download(card_of(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT


@pytest.mark.parametrize("make", [card_of, prefixed])
def test_a_part_that_proves_wrong_is_fetched_anew_once(
    server: LocalServer, terms: Terms, tmp_path: Path, make: Any
) -> None:
    interrupted(server, make(server), tmp_path)
    part = tmp_path / "weights" / "regnetx-200mf" / f"{NAME}.part"
    part.write_bytes(OTHER[:100_000])
    assert download(make(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert [r.range for r in server.log] == ["bytes=100000-", None]


def test_a_complete_part_needs_no_request(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    interrupted(server, card_of(server), tmp_path)
    part = tmp_path / "weights" / "regnetx-200mf" / f"{NAME}.part"
    part.write_bytes(CONTENT)
    assert download(card_of(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert server.log == []


def test_a_part_without_its_origin_is_dropped(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    interrupted(server, card_of(server), tmp_path)
    for path in tmp_path.rglob("*.part.json"):
        path.write_text("{")
    assert download(card_of(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert [r.range for r in server.log] == [None]


@pytest.mark.parametrize("code", [206, 416])
@pytest.mark.parametrize("total", ["9" * 18, "9" * 5000])
def test_a_range_of_absurd_length_is_not_believed(
    server: LocalServer, terms: Terms, tmp_path: Path, code: int, total: str
) -> None:
    interrupted(server, unhashed(server), tmp_path)
    span = f"bytes */{total}" if code == 416 else f"bytes 100000-{total}/{total}"
    server.script = [behave.status(code, ("Content-Range", span))]
    if (code, len(total)) == (206, 18):
        with pytest.raises(IntegrityError, match="over the limit"):
            download(unhashed(server), cache_dir=tmp_path, terms=terms)
    assert download(unhashed(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT


def test_numbers_in_headers_are_short_and_ascii() -> None:
    def answer(name: str, value: str) -> httpx.Response:
        return httpx.Response(206, headers=[(name.encode(), value.encode())])

    huge = "9" * 5000
    assert content_length(answer("Content-Length", "123")) == 123
    assert content_range(answer("Content-Range", "bytes 1-2/3")) == (1, 2, 3)
    assert unsatisfied_total(answer("Content-Range", "bytes */3")) == 3
    for number in (huge, "٣"):
        assert content_length(answer("Content-Length", number)) is None
        assert unsatisfied_total(answer("Content-Range", f"bytes */{number}")) is None
        for span in (f"{number}-2/3", f"1-{number}/3", f"1-2/{number}"):
            assert content_range(answer("Content-Range", f"bytes {span}")) is None


def test_a_tag_that_cannot_be_sent_back_is_not(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.tag = '"é"'
    interrupted(server, unhashed(server), tmp_path)
    assert download(unhashed(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert [r.range for r in server.log] == ["bytes=100000-"]
    assert server.log[0].if_range == formatdate(server.last_modified, usegmt=True)


DAMAGED = ["10", 5, None, True, -1, 1.5, [], {}, "\n"]


@pytest.mark.parametrize("field", ["url", "etag", "last_modified", "total", "more"])
@pytest.mark.parametrize("value", DAMAGED)
def test_a_damaged_origin_counts_as_none(
    server: LocalServer, terms: Terms, tmp_path: Path, field: str, value: Any
) -> None:
    interrupted(server, unhashed(server), tmp_path)
    origin = tmp_path / "weights" / "regnetx-200mf" / f"{NAME}.part.json"
    origin.write_text(json.dumps(json.loads(origin.read_text()) | {field: value}))
    assert download(unhashed(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "field", ["url", "size", "sha384", "sha256", "etag", "time", "mtime_ns", "more"]
)
@pytest.mark.parametrize("value", DAMAGED)
def test_a_damaged_record_counts_as_none(
    server: LocalServer, terms: Terms, tmp_path: Path, field: str, value: Any
) -> None:
    path = download(card_of(server), cache_dir=tmp_path, terms=terms)
    record = path.with_name(f"{NAME}.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {field: value}))
    assert download(card_of(server), cache_dir=tmp_path, terms=terms) == path
    assert len(server.log) == 1


@pytest.mark.parametrize("text", ["[]", "5", "null", '"x"', "[" * 100_000, "9" * 5000, "\xff"])
def test_a_record_that_is_no_record_counts_as_none(
    server: LocalServer, terms: Terms, tmp_path: Path, text: str
) -> None:
    path = download(card_of(server), cache_dir=tmp_path, terms=terms)
    path.with_name(f"{NAME}.json").write_bytes(text.encode("latin-1"))
    assert download(card_of(server), cache_dir=tmp_path, terms=terms) == path


# --- lies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        behave.sends(OTHER),
        behave.sends(CONTENT[:-1]),
        behave.sends(CONTENT + b"!"),
        behave.sends(b"<html>please log in</html>"),
        behave.claims_length(1000),
        behave.claims_length(len(CONTENT) - 1),
        behave.claims_length(len(CONTENT) + 1000),
        behave.chunked(b"more"),
        behave.chunked(b"more" * 100_000),
    ],
)
@pytest.mark.parametrize("make", [card_of, prefixed])
def test_what_is_wrong_is_never_accepted_and_the_next_mirror_asked(
    server: LocalServer, second: LocalServer, terms: Terms, tmp_path: Path, lie: Any, make: Any
) -> None:
    server.script = [lie] * 20
    path = download(make(server, second), cache_dir=tmp_path, terms=terms)
    assert path.read_bytes() == CONTENT
    shutil.rmtree(tmp_path)
    server.script = [lie] * 20
    with pytest.raises(DownloadError, match="could not be downloaded"):
        download(make(server), cache_dir=tmp_path, terms=terms)
    assert NAME not in leftovers(tmp_path)


def test_wrong_bytes_everywhere_name_every_mirror(
    server: LocalServer, second: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.script, second.script = [behave.sends(OTHER)], [behave.status(404)]
    with pytest.raises(IntegrityError) as error:
        download(card_of(server, second), cache_dir=tmp_path, terms=terms)
    text = str(error.value)
    assert f"{server.url(NAME)}: its sha384 is {hashlib.sha384(OTHER).hexdigest()}" in text
    assert f"{second.url(NAME)}: HTTP 404" in text
    assert leftovers(tmp_path) == []


def test_a_wrong_size_is_refused_before_anything_is_fetched(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.files[NAME] = CONTENT + CONTENT
    with pytest.raises(IntegrityError, match=f"{2 * len(CONTENT):,} bytes, not {len(CONTENT):,}"):
        download(card_of(server), cache_dir=tmp_path, terms=terms)
    assert leftovers(tmp_path) == []


def test_more_bytes_than_the_size_are_an_integrity_error(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.script = [behave.chunked(b"!")]
    with pytest.raises(IntegrityError, match=f"sends more than {len(CONTENT):,} bytes"):
        download(card_of(server), cache_dir=tmp_path, terms=terms)


def test_a_page_instead_of_the_weights_is_refused(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.files[NAME] = b"<html>please log in</html>"
    card = card_of(server, size_at_least=250_000)
    with pytest.raises(IntegrityError, match="the parameters alone take 250,000"):
        download(card, cache_dir=tmp_path, terms=terms)


def test_an_endless_file_stops_at_the_limit(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    for how in (behave.well, behave.chunked()):
        server.script = [how]
        with pytest.raises(IntegrityError):
            download(unhashed(server), cache_dir=tmp_path, terms=replace(terms, limit=200_000))
    assert leftovers(tmp_path) == []


def test_a_body_of_unknown_end_needs_a_hash(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.script = [behave.without_length()]
    with pytest.raises(DownloadError, match="does not say how long"):
        download(unhashed(server), cache_dir=tmp_path, terms=terms)
    server.script = [behave.without_length()]
    assert download(prefixed(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT


def test_a_chunked_file_is_taken_whole_or_again(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.script = [behave.chunked(cut=100_000), behave.well]
    assert download(unhashed(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert server.log[1].range == "bytes=100000-"


# --- statuses, redirects, mirrors -------------------------------------------------------------


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 451, 304])
def test_a_final_status_goes_to_the_next_mirror_at_once(
    server: LocalServer,
    second: LocalServer,
    terms: Terms,
    tmp_path: Path,
    sleeps: list[float],
    code: int,
) -> None:
    server.script = [behave.status(code)]
    path = download(card_of(server, second), cache_dir=tmp_path, terms=terms)
    assert path.read_bytes() == CONTENT
    assert (len(server.log), len(second.log), sleeps) == (1, 1, [])


def test_passing_statuses_are_tried_again_in_turn(
    server: LocalServer, terms: Terms, tmp_path: Path, sleeps: list[float]
) -> None:
    server.script = [
        behave.status(429, ("Retry-After", 7)),
        behave.status(500),
        behave.status(503, ("Retry-After", 100_000)),
        behave.status(502, ("Retry-After", "soon")),
    ]
    assert download(card_of(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert sleeps == [7.0, 1.0, 60.0, 4.0]


def test_redirects_are_followed_with_the_range(
    server: LocalServer, second: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    server.script = [behave.redirect(second.url(NAME))] * 2
    second.script = [behave.dies_after(100_000)]
    path = download(card_of(server), cache_dir=tmp_path, terms=terms)
    assert path.read_bytes() == CONTENT
    assert [r.range for r in second.log] == [None, "bytes=100000-"]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_redirects_out_of_http_are_refused(
    server: LocalServer, terms: Terms, tmp_path: Path, target: str
) -> None:
    server.script = [behave.redirect(target)]
    with pytest.raises(DownloadError, match=r"is not followed|not an http address"):
        download(card_of(server), cache_dir=tmp_path, terms=terms)


ODD = ["http://a..b/", f"http://{'a' * 64}.example/", "http://[::1", "http://xn--a/", "http://.x/"]


@pytest.mark.parametrize("odd", [*ODD, "http://127.0.0.1/\udc80", "http://a\u2100b/"])
def test_an_address_that_cannot_be_is_that_mirrors_failure(
    server: LocalServer, terms: Terms, tmp_path: Path, odd: str
) -> None:
    card = card_of(server)
    path = download(card, cache_dir=tmp_path, terms=terms, mirrors=[odd])
    assert path.read_bytes() == CONTENT
    server.script = [behave.status(404)]
    with pytest.raises(DownloadError, match="not an http address"):
        download(card, cache_dir=tmp_path / "2", terms=terms, mirrors=[odd])


@pytest.mark.parametrize("odd", ODD)
def test_a_redirect_to_an_address_that_cannot_be_is_that_mirrors_failure(
    server: LocalServer, second: LocalServer, terms: Terms, tmp_path: Path, odd: str
) -> None:
    server.script = [behave.redirect(odd)] * 5
    path = download(card_of(server, second), cache_dir=tmp_path, terms=terms)
    assert path.read_bytes() == CONTENT
    assert len(second.log) == 1


@pytest.mark.parametrize(
    ("proxy", "advice"),
    [
        ("socks5://127.0.0.1:1", r"pip install 'httpx\[socks\]'"),
        ("foo://127.0.0.1:1", "unset ALL_PROXY"),
        ("http://[::1", "unset ALL_PROXY"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_an_error(
    server: LocalServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    proxy: str,
    advice: str,
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.delenv("all_proxy", raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy)
    events: list[Event] = []
    with pytest.raises(DownloadError, match=advice):
        download(card_of(server), cache_dir=tmp_path, on_event=events.append)
    assert [e.event for e in events] == ["failed"]


def test_redirects_in_a_circle_end(server: LocalServer, terms: Terms, tmp_path: Path) -> None:
    server.script = [behave.redirect(server.url(NAME))] * 50
    with pytest.raises(DownloadError, match="more than 10 redirects"):
        download(card_of(server), cache_dir=tmp_path, terms=terms)
    assert len(server.log) == 10


def test_a_redirect_from_https_to_http_is_refused() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.scheme == "http":
            return httpx.Response(200, content=CONTENT)
        return httpx.Response(302, headers={"Location": "http://example.test/w"})

    lines = Lines(lambda: httpx.Client(transport=httpx.MockTransport(answer)))
    patience = Patience(stall=1.0, seconds=20.0, why="")
    with (
        pytest.raises(FinalError, match="from https to http"),
        lines.ask("https://example.test/w", patience),
    ):
        pass


def test_mirrors_given_come_first_then_the_environments(
    server: LocalServer,
    second: LocalServer,
    terms: Terms,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.files = {f"a/{NAME}": OTHER, f"c/{NAME}": CONTENT}
    monkeypatch.setenv("REGNET_MIRROR", f"{server.base}/b/ {server.base}/c")
    download(card_of(second), cache_dir=tmp_path, terms=terms, mirrors=[f"{server.base}/a"])
    assert [r.path for r in server.log] == [f"{d}/{NAME}" for d in "abc"]
    assert second.log == []


def test_passwords_in_mirrors_are_neither_recorded_nor_shown(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    mirror = server.base.replace("://", "://user:secret@")
    events: list[Event] = []
    server.script = [behave.dies_after(100)]
    card = card_of(server)
    download(card, cache_dir=tmp_path, terms=terms, mirrors=[mirror], on_event=events.append)
    server.script = [behave.status(404)] * 2
    with pytest.raises(DownloadError) as error:
        download(card, cache_dir=tmp_path / "2", terms=terms, mirrors=[mirror])
    written = "".join(p.read_text() for p in tmp_path.rglob("*.json"))
    assert "secret" not in f"{written}{events}{error.value}"


@pytest.mark.parametrize("mirror", ["/srv/weights", "file:///srv", "ftp://u:secret@x"])
def test_a_mirror_that_is_no_http_address_is_refused(tmp_path: Path, mirror: str) -> None:
    with pytest.raises(DownloadError, match="not an http or https address") as error:
        download(card_by_name("regnetx-200mf"), cache_dir=tmp_path, mirrors=[mirror])
    assert "secret" not in str(error.value)


def test_no_connection_at_all_is_an_offline_error(terms: Terms, tmp_path: Path) -> None:
    with LocalServer() as gone:
        card = card_of(gone)
    with pytest.raises(OfflineError, match=r"no connection.*3 attempts"):
        download(card, cache_dir=tmp_path, terms=terms)


def test_offline_uses_the_cache_or_names_the_ways_on(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    with pytest.raises(OfflineError, match=r"--mirror URL.*--from"):
        download(card_of(server), cache_dir=tmp_path, offline=True)
    path = download(card_of(server), cache_dir=tmp_path, terms=terms)
    assert download(card_of(server), cache_dir=tmp_path, offline=True) == path
    assert len(server.log) == 1


# --- files without a published hash -----------------------------------------------------------


@pytest.mark.parametrize("make", [unhashed, prefixed])
def test_the_first_hash_holds_after_the_weights_are_gone(
    server: LocalServer, terms: Terms, tmp_path: Path, make: Any
) -> None:
    card = make(server)
    path = download(card, cache_dir=tmp_path, terms=terms)
    shutil.rmtree(path.parent)
    server.files[NAME] = OTHER
    with pytest.raises(IntegrityError, match=r"as in the first download.*--forget regnetx-200mf"):
        download(card, cache_dir=tmp_path, terms=terms)
    assert cached_file(card, cache_dir=tmp_path) is None
    server.files[NAME] = CONTENT
    assert download(card, cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT


def test_a_forgotten_hash_holds_no_longer(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    card = unhashed(server)
    download(card, cache_dir=tmp_path, terms=terms)
    server.files[NAME] = OTHER
    assert forget_hash(card, cache_dir=tmp_path)
    assert not forget_hash(card, cache_dir=tmp_path)
    assert download(card, cache_dir=tmp_path, terms=terms).read_bytes() == OTHER


def test_unreadable_recorded_hashes_are_an_error_and_not_forgotten(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    for text in ("{", "[]", '{"a": 1}'):
        (tmp_path / "weights" / "known-hashes.json").write_text(text)
        with pytest.raises(DownloadError, match=r"known-hashes\.json.*restore or remove it"):
            download(unhashed(server), cache_dir=tmp_path, terms=terms)
    assert server.log == []


# --- importing, licences, folders -------------------------------------------------------------


def test_a_file_from_elsewhere_is_verified_and_copied(server: LocalServer, tmp_path: Path) -> None:
    source = tmp_path / "downloaded"
    source.write_bytes(CONTENT)
    path = import_file(card_of(server), source, cache_dir=tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    assert download(card_of(server), cache_dir=tmp_path / "cache", offline=True) == path
    assert leftovers(tmp_path / "cache") == [NAME]


@pytest.mark.parametrize("content", [OTHER, CONTENT[:-1], b""])
def test_a_wrong_file_from_elsewhere_is_refused(
    server: LocalServer, tmp_path: Path, content: bytes
) -> None:
    source = tmp_path / "downloaded"
    source.write_bytes(content)
    with pytest.raises(IntegrityError, match="is not the file of regnetx-200mf"):
        import_file(card_of(server), source, cache_dir=tmp_path / "cache")
    assert leftovers(tmp_path / "cache") == []
    with pytest.raises(DownloadError, match=r"cannot read .*none"):
        import_file(card_of(server), tmp_path / "none", cache_dir=tmp_path / "cache")


def test_an_imported_file_sets_the_hash(server: LocalServer, terms: Terms, tmp_path: Path) -> None:
    source = tmp_path / "downloaded"
    source.write_bytes(CONTENT)
    path = import_file(unhashed(server), source, cache_dir=tmp_path)
    path.unlink()
    server.files[NAME] = OTHER
    with pytest.raises(IntegrityError):
        download(unhashed(server), cache_dir=tmp_path, terms=terms)


def test_non_commercial_weights_need_consent_once(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    card = replace(card_by_name("regnety-16gf-swag"), file=card_of(server).file)
    with pytest.raises(LicenceError, match=r"CC-BY-NC-4\.0.*--accept-licence"):
        download(card, cache_dir=tmp_path, terms=terms)
    assert server.log == []
    download(card, cache_dir=tmp_path, terms=terms, accept_licence=True)
    download(card, cache_dir=tmp_path, terms=terms)


def test_a_full_disk_is_noticed_before_the_transfer(
    server: LocalServer, terms: Terms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=300_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    with pytest.raises(
        DownloadError, match=rf"too full: {len(CONTENT):,} bytes needed.*--cache-dir"
    ):
        download(card_of(server), cache_dir=tmp_path, terms=terms)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("inside", ["", "cache"])
def test_a_cache_that_is_no_folder_is_an_error(
    server: LocalServer, tmp_path: Path, inside: str
) -> None:
    source, in_the_way = tmp_path / "downloaded", tmp_path / "file"
    source.write_bytes(CONTENT)
    in_the_way.touch()
    cache = in_the_way / inside
    assert cached_file(card_of(server), cache_dir=cache) is None
    for act in (
        lambda: download(card_of(server), cache_dir=cache),
        lambda: import_file(card_of(server), source, cache_dir=cache),
        lambda: forget_hash(card_of(server), cache_dir=cache),
    ):
        with pytest.raises(DownloadError, match=r"cannot write.*file.*another with --cache-dir"):
            act()


def test_progress_says_how_much_is_left(server: LocalServer, tmp_path: Path) -> None:
    server.script = [behave.slowly(0.6)]
    events: list[Event] = []
    download(card_of(server), cache_dir=tmp_path, on_event=events.append)
    progress = [e for e in events if e.event == "progress"]
    assert progress
    assert all(e.total == len(CONTENT) and e.seconds_left is not None for e in progress)
    assert sorted(e.bytes for e in progress) == [e.bytes for e in progress]


# --- what lies in the way ---------------------------------------------------------------------


def put_in_the_way(path: Path, what: str, precious: Path) -> None:
    path.unlink(missing_ok=True)
    if what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as bound, contextlib.chdir(path.parent):
            bound.bind(path.name)
    elif what == "hard link":
        path.hardlink_to(precious)
    elif what == "link to nothing":
        path.symlink_to(precious.with_name("none"))
    elif what == "link to a folder":
        path.symlink_to(precious.parent)
    else:
        path.symlink_to("/dev/zero" if what == "link to a device" else precious)


IN_THE_WAY = ["pipe", "socket", "hard link", "link", "link to nothing", "link to a folder"]


@pytest.mark.parametrize("end", [".part", ".part.json", ".lock", ".json", "/../known-hashes.json"])
@pytest.mark.parametrize("what", [*IN_THE_WAY, "link to a device"])
def test_what_is_no_file_of_ours_is_not_opened(
    server: LocalServer, terms: Terms, tmp_path: Path, end: str, what: str
) -> None:
    precious = tmp_path / "home" / "precious"
    precious.parent.mkdir()
    precious.write_bytes(b"precious")
    final = tmp_path / "weights" / "regnetx-200mf" / NAME
    if end == ".part.json":
        interrupted(server, unhashed(server), tmp_path)
    final.parent.mkdir(parents=True, exist_ok=True)
    path = final.with_name(f"{NAME}{end}") if end[0] == "." else final.parent / end[1:]
    put_in_the_way(path, what, precious)
    if end[0] == "/":  # it holds hashes, so that it is not removed
        with pytest.raises(DownloadError, match=r"known-hashes\.json: .*restore or remove it"):
            download(unhashed(server), cache_dir=tmp_path, terms=terms)
    else:
        path = download(unhashed(server), cache_dir=tmp_path, terms=terms)
        assert path.read_bytes() == CONTENT
        assert sorted(p.name for p in path.parent.iterdir()) == [
            NAME,
            f"{NAME}.json",
            f"{NAME}.lock",
        ]
        assert all(p.is_file() and not p.is_symlink() for p in path.parent.iterdir())
    assert [p.name for p in precious.parent.iterdir()] == ["precious"]
    assert precious.read_bytes() == b"precious"


@pytest.mark.parametrize("end", [".part", ".part.json", ".lock", ".json", ""])
def test_a_folder_in_the_way_is_named(
    server: LocalServer, terms: Terms, tmp_path: Path, end: str
) -> None:
    (tmp_path / "weights" / "regnetx-200mf" / f"{NAME}{end}" / "kept").mkdir(parents=True)
    with pytest.raises(DownloadError, match=rf"{NAME}{end}: (a folder is in|Is a dir)"):
        download(card_of(server), cache_dir=tmp_path, terms=terms)
    assert (tmp_path / "weights" / "regnetx-200mf" / f"{NAME}{end}" / "kept").is_dir()


def test_a_pipe_instead_of_the_weights_is_not_read(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    path = download(card_of(server), cache_dir=tmp_path, terms=terms)
    put_in_the_way(path, "pipe", tmp_path)
    assert cached_file(card_of(server), cache_dir=tmp_path) is None
    assert download(card_of(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT


# --- files whose hash nobody published --------------------------------------------------------


def test_of_a_file_without_hash_the_tensors_are_looked_at(
    server: LocalServer, terms: Terms, tmp_path: Path
) -> None:
    events: list[Event] = []
    for _ in range(2):
        download(unhashed(server), cache_dir=tmp_path, terms=terms, on_event=events.append)
    (looked,) = [event for event in events if event.event == "looked"]
    assert looked.message is not None
    assert looked.message.startswith("nobody published a hash of this file: its tensors are those")
    download(card_of(server), cache_dir=tmp_path / "b", terms=terms, on_event=events.append)
    assert [event.event for event in events].count("looked") == 1


PAGE = b"<!DOCTYPE html><html>Please log in</html>" * 10_000
NOT_FINITE = weights_of(TINY, 1, zipped=False).replace(np.ones(24, "<f4").tobytes(), b"\xff" * 96)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (PAGE, "it is a web page"),
        (b"", "it is empty"),
        (random.Random(1).randbytes(300_000), "neither a PyTorch nor a safetensors file"),
        (CONTENT[:300_000], "truncated or corrupt"),
        (weights_of(TINY, 1, zipped=False)[:300_000], "truncated or corrupt"),
        (CONTENT[:99_999] + b"!" + CONTENT[100_000:], "fails its checksum"),
        (weights_of(replace(TINY, d=4), 1), "the file holds"),
        (weights_of(TINY.with_classes(10), 1), "1000 classes asked, the file has 10"),
        (NOT_FINITE, "not finite"),
    ],
    ids=["page", "empty", "noise", "cut", "cut pickle", "damaged", "other", "classes", "NaN"],
)
def test_of_files_without_hash_the_wrong_ones_are_left_for_the_next_mirror(
    server: LocalServer,
    second: LocalServer,
    terms: Terms,
    tmp_path: Path,
    content: bytes,
    problem: str,
) -> None:
    server.files[NAME] = content
    with pytest.raises(IntegrityError, match=problem):
        download(unhashed(server), cache_dir=tmp_path, terms=terms)
    assert leftovers(tmp_path) == []
    path = download(unhashed(server, second), cache_dir=tmp_path, terms=terms)
    assert path.read_bytes() == CONTENT
    (tmp_path / "elsewhere").write_bytes(content)
    with pytest.raises(IntegrityError, match="is not the file of regnetx-200mf"):
        import_file(unhashed(server), tmp_path / "elsewhere", cache_dir=tmp_path / "b")


@pytest.mark.parametrize("make", [card_of, prefixed, unhashed])
@pytest.mark.parametrize("wrong", [CONTENT[:-1] + b"!", OTHER, bytes(len(CONTENT))])
def test_a_damaged_part_of_full_length_is_fetched_again_in_the_same_run(
    server: LocalServer, terms: Terms, tmp_path: Path, make: Any, wrong: bytes
) -> None:
    interrupted(server, make(server), tmp_path)
    part = tmp_path / "weights" / "regnetx-200mf" / f"{NAME}.part"
    part.write_bytes(wrong)
    assert download(make(server), cache_dir=tmp_path, terms=terms).read_bytes() == CONTENT
    assert [r.range for r in server.log] == [None]


# --- everything at random ---------------------------------------------------------------------


def misbehaviours(random_: random.Random) -> list[Any]:
    """A random script of what servers do."""
    count = random_.randrange(len(CONTENT))
    choices = [
        behave.dies_after(count),
        behave.status(random_.choice([429, 500, 502, 503])),
        behave.ignores_range,
        behave.ignores_if_range,
        behave.misplaced_range,
        behave.sends(OTHER),
        behave.sends(CONTENT[:count]),
        behave.claims_length(count),
        behave.claims_length(len(CONTENT) + count),
        behave.chunked(),
        behave.chunked(b"more"),
        behave.chunked(cut=count),
        behave.without_length(),
        behave.without_length(cut=count),
        behave.short_range(count + 1),
        behave.well,
    ]
    return random_.choices(choices, k=random_.randrange(8))


@pytest.mark.parametrize("seed", range(30))
def test_whatever_servers_do_the_file_is_right_or_absent(
    server: LocalServer, second: LocalServer, terms: Terms, tmp_path: Path, seed: int
) -> None:
    random_ = random.Random(seed)
    make = random_.choice([card_of, prefixed])
    for _ in range(4):
        server.script, second.script = misbehaviours(random_), misbehaviours(random_)
        try:
            path = download(make(server, second), cache_dir=tmp_path, terms=terms)
        except DownloadError:
            assert NAME not in leftovers(tmp_path)
        else:
            assert path.read_bytes() == CONTENT
    server.script, second.script = [], []
    path = download(make(server, second), cache_dir=tmp_path, terms=terms)
    assert path.read_bytes() == CONTENT
    assert leftovers(tmp_path) == [NAME]
