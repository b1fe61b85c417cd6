"""The journal of an evaluation: what was scored is on disk, so an interrupted run goes on later.

A file of records, each with its length and checksum; the first says what is evaluated, the others
hold a batch each. A record that is torn, as a kill leaves it, ends the file and is cut off.
"""

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from regnet.evaluation.scoring import Scored
from regnet.system.errors import OutputError
from regnet.system.files import write_all

_HEAD: Final = struct.Struct("<II")  # length and CRC-32 of what follows
_LONGEST: Final = 256 << 20  # bytes of a record: a damaged length must not fill the memory

Say = Callable[[str], None]


class Journal:
    """An open journal file, read once with `replay`, then appended to. For one thread."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._identity = json.dumps(identity, sort_keys=True).encode()
        path.touch()
        self._file: BinaryIO = path.open("r+b", buffering=0)

    def begin(self) -> bool:
        """Go behind the first record; tell whether another evaluation's had to be thrown away."""
        found = self._read()
        if found == self._identity:
            return False
        self._file.seek(0)
        self._file.truncate()
        self._write(self._identity)
        return found is not None

    def replay(self) -> Iterator[Scored]:
        """Yield the batches that an earlier run kept; what is torn at the end is cut off."""
        end = self._file.tell()
        while (payload := self._read()) is not None:
            end = self._file.tell()
            yield _scored(payload)
        self._file.seek(end)
        self._file.truncate()

    def append(self, scored: Scored) -> None:
        """Write a batch; it outlives the process. Raises `OutputError`."""
        try:
            self._write(_payload(scored))
        except OSError as exc:
            raise OutputError(
                f"cannot write {self.path}: {exc.strerror or exc}; make room, and the run goes on "
                "where it was, or choose another folder with --cache-dir"
            ) from exc

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, payload: bytes) -> None:
        record = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload
        write_all(self._file.fileno(), record)

    def _read(self) -> bytes | None:
        """Return the next record; None at the end, or where it is torn."""
        head = self._file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        length, crc = _HEAD.unpack(head)
        if length > _LONGEST:
            return None
        payload = _read_all(self._file, length)
        return payload if len(payload) == length and zlib.crc32(payload) == crc else None


@contextmanager
def open_journal(
    path: Path, identity: Mapping[str, Any], *, fresh: bool, say: Say
) -> Iterator[Journal | None]:
    """Give the journal of an evaluation, removed at the end unless it ends in an exception.

    `identity` are the JSON values of which the results are a function: where those of the file
    differ, or with `fresh`, it starts over. None, after `say` has said why, where the folder
    cannot be written to or another process has the same journal open.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_suffix(".lock"), blocking=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        journal = _begun(path, identity, fresh=fresh, say=say)
    except Timeout:
        say("the same evaluation is running already: this one cannot be resumed if interrupted")
        yield None
        return
    except OSError as exc:
        lock.release()
        why = exc.strerror or exc
        say(f"cannot write to {path.parent} ({why}): if interrupted, this cannot be resumed")
        yield None
        return
    done = False
    try:
        yield journal
        done = True
    finally:
        journal.close()
        if done:
            path.unlink(missing_ok=True)
        lock.release()
        if done:
            with suppress(OSError):
                path.with_suffix(".lock").unlink()


def _begun(path: Path, identity: Mapping[str, Any], *, fresh: bool, say: Say) -> Journal:
    if fresh:
        path.unlink(missing_ok=True)
    journal = Journal(path, identity)
    if journal.begin():
        say("the model or the images changed since the interrupted run: starting over")
    return journal


def _read_all(file: BinaryIO, length: int) -> bytes:
    parts = []
    while length and (part := file.read(length)):
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _payload(scored: Scored) -> bytes:
    rows = np.ascontiguousarray(scored.probabilities, "<f4")
    head = json.dumps({"errors": scored.errors, "classes": rows.shape[1]}).encode()
    return head + b"\n" + rows.tobytes()


def _scored(payload: bytes) -> Scored:
    head, _, rows = payload.partition(b"\n")
    values = json.loads(head)
    flat = np.frombuffer(rows, "<f4").astype(np.float32, copy=False)
    return Scored(tuple(values["errors"]), flat.reshape(-1, values["classes"]))
