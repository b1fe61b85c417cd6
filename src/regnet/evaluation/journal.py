"""The journal of an evaluation: scored batches on disk, so that an interrupted run resumes.

A file of records, each with its length and checksum; the first says what is evaluated, the others
hold a batch each. A record that is torn, as a kill leaves it, ends the file and is cut off.
"""

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from regnet.system.errors import OutputError, reason_of
from regnet.system.files import write_all

_HEAD: Final = struct.Struct("<II")  # length and CRC-32 of what follows
_LONGEST: Final = 256 << 20  # bytes of a record: a damaged length must not fill the memory

Say = Callable[[str], None]
Answers = tuple[Sequence[str | None], NDArray[np.float32]]
"""A batch's error per image (None if readable), and probabilities of the readable ones."""


class Journal:
    """An open journal file, read once with `replay`, then appended to. For one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self._file: BinaryIO = path.open("r+b", buffering=0)

    def begin(self, identity: bytes) -> bool:
        """Go behind the first record; tell whether another evaluation's had to be thrown away."""
        known = self._read()
        if known == identity:
            return False
        self._file.seek(0)
        self._file.truncate()
        self._write(identity)
        return known is not None

    def replay(self) -> Iterator[Answers]:
        """Yield the batches of an earlier run; a torn record at the end is cut off."""
        end = self._file.tell()
        while (payload := self._read()) is not None:
            end = self._file.tell()
            head, _, rows = payload.partition(b"\n")
            values = json.loads(head)
            flat = np.frombuffer(rows, "<f4").astype(np.float32, copy=False)
            yield values["errors"], flat.reshape(-1, values["classes"])
        self._file.seek(end)
        self._file.truncate()

    def append(self, errors: Sequence[str | None], probabilities: NDArray[np.float32]) -> None:
        """Write a batch; it outlives the process. Raises `OutputError`."""
        rows = np.ascontiguousarray(probabilities, "<f4")
        head = json.dumps({"errors": errors, "classes": rows.shape[1]}).encode()
        try:
            self._write(head + b"\n" + rows.tobytes())
        except OSError as exc:
            raise OutputError(
                f"cannot write {self.path}: {reason_of(exc)}; make room, and the run resumes "
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
        payload = b""
        while len(payload) < length and (part := self._file.read(length - len(payload))):
            payload += part
        return payload if len(payload) == length and zlib.crc32(payload) == crc else None


@contextmanager
def open_journal(
    path: Path, identity: Mapping[str, Any], *, fresh: bool, say: Say
) -> Iterator[Journal | None]:
    """Give the journal of an evaluation, removed at the end unless it ends in an exception.

    `identity` are the JSON values that determine the results: if those of the file differ, or with
    `fresh`, it starts over. None, after `say` has said why, if the folder cannot be written to or
    another process has the same journal open.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_suffix(".lock"), blocking=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        if fresh:
            path.unlink(missing_ok=True)
        journal = Journal(path)
        if journal.begin(json.dumps(identity, sort_keys=True).encode()):
            say("the model or the images changed since the interrupted run: starting over")
    except Timeout:
        say("the same evaluation is running already: this one cannot be resumed if interrupted")
        yield None
        return
    except OSError as exc:
        lock.release()
        why = reason_of(exc)
        say(f"cannot write to {path.parent} ({why}): if interrupted, this cannot be resumed")
        yield None
        return
    try:
        yield journal
    except BaseException:
        journal.close()
        lock.release()
        raise
    journal.close()
    path.unlink(missing_ok=True)
    lock.release()
    with suppress(OSError):
        path.with_suffix(".lock").unlink()
