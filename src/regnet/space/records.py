"""Records of training runs: one JSON object per line, in a file that only grows.

A record holds a network, its cost, how it was trained and the result. All figures about spaces are
computed from records alone.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Self

from regnet.network.spec import Spec, spec_to_dict
from regnet.system.checked import Checked, within
from regnet.system.errors import OutputError, SpaceError, reason_of
from regnet.system.files import is_stream, write_all
from regnet.system.json_text import json_bytes

_KEY_DIGITS: Final = 16
_TAIL: Final = 1 << 20  # bytes at the end of a file that hold its last line

Count = Annotated[int, within(ge=0)]
Amount = Annotated[float, within(ge=0)]
Share = Annotated[float, within(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Setting(Checked, error=SpaceError):
    """What all runs of a sweep share.

    `data` is the photos' name and fingerprint, `image_size` the side of the validation photos in
    pixels, `recipe` a hash of the recipe without its seed.
    """

    data: str
    train_photos: Count
    val_photos: Count
    classes: Count
    image_size: Count
    epochs: Count
    recipe: str


@dataclass(frozen=True, kw_only=True)
class RunRecord(Checked, error=SpaceError):
    """One run of one network.

    `params`, `macs` and `acts` are its cost on an image of `setting.image_size` pixels. `errors`
    (top-1 on the validation photos, in [0, 1]) and `losses` (of the training) are those after each
    epoch. `seconds` are those of the whole run, `started` is in ISO 8601, UTC. `failure` says why
    a run has no result; its errors may then be incomplete.
    """

    space: str
    spec: Spec
    params: Count
    macs: Count
    acts: Count
    setting: Setting
    seed: Count
    errors: tuple[Share, ...]
    losses: tuple[Amount, ...]
    seconds: Amount
    machine: str
    started: str
    tool: str
    failure: str | None = None

    @property
    def error(self) -> float | None:
        """The error after the last epoch; None for a run that failed."""
        return None if self.failure is not None or not self.errors else self.errors[-1]

    @property
    def key(self) -> str:
        """The key of the run: equal for two records of one run."""
        return run_key(self.space, self.spec, self.seed, self.setting)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON values; `RunRecord.from_dict` reads it back."""
        lists = {"errors": list(self.errors), "losses": list(self.losses)}
        return asdict(self) | lists | {"spec": spec_to_dict(self.spec)}


def run_key(space: str, spec: Spec, seed: int, setting: Setting) -> str:
    """Return what identifies a run: a hash of its space, network, seed and setting."""
    text = json.dumps([space, spec_to_dict(spec), seed, asdict(setting)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]


def read_records(paths: Sequence[Path]) -> list[RunRecord]:
    """Return the records of files in their order; if a run has several, the last one.

    A torn last line, as a killed writer leaves it, is skipped. Raises `SpaceError` with the file
    and line of anything else that is not a record.
    """
    records: dict[str, RunRecord] = {}
    for path in paths:
        records |= read_file(path)[1]
    return list(records.values())


def read_file(path: Path) -> tuple[str, dict[str, RunRecord]]:
    """Return a file's SHA-256 and its records by key; see `read_records`."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise SpaceError(f"cannot read the records {path}: {reason_of(exc)}") from exc
    records = {record.key: record for record in _records(path, data)}
    return hashlib.sha256(data).hexdigest(), records


def _records(path: Path, data: bytes) -> Iterator[RunRecord]:
    lines = data.split(b"\n")
    if not _is_whole(lines[-1]):
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield RunRecord.from_dict(json.loads(line))
        except (ValueError, RecursionError, SpaceError) as exc:
            raise SpaceError(
                f"{path}, line {number}: not a record of a run: {exc}. Remove the line to read the "
                "rest; a sweep then repeats the run"
            ) from exc


def _is_whole(line: bytes) -> bool:
    """Return whether the text after the last newline is a complete line all the same."""
    try:
        json.loads(line or b"0")
    except (ValueError, RecursionError):
        return False
    return True


class RecordFile:
    """A file of records that only grows; each line is complete and on disk, or absent.

    Several processes may append at once. Raises `SpaceError` if it holds something else,
    `OutputError` if it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if is_stream(path):
            raise OutputError(f"cannot write {path}: records are read as well, so name a file")
        with self._writing():
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            self.records: tuple[RunRecord, ...] = tuple(read_records([path]))
        except SpaceError:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.close(self._file)

    def keys(self, *, failed: bool = True) -> frozenset[str]:
        """Return the keys of the runs in the file, with or without those that failed."""
        return frozenset(r.key for r in self.records if failed or r.failure is None)

    def append(self, record: RunRecord) -> None:
        """Add a record; it is on disk when this returns."""
        line = json_bytes(record.to_dict(), allow_nan=False) + b"\n"
        with self._writing(), _locked(self._file):
            size = self._mend()
            try:
                write_all(self._file, line)
            except OSError:
                os.ftruncate(self._file, size)
                raise
            os.fsync(self._file)
        self.records = (*self.records, record)

    def _mend(self) -> int:
        """End the last line with a newline, or cut it off if it is torn; return the size."""
        size = os.fstat(self._file).st_size
        start = max(size - _TAIL, 0)
        tail = os.pread(self._file, size - start, start)
        rest = tail[tail.rfind(b"\n") + 1 :]
        if rest and _is_whole(rest):
            write_all(self._file, b"\n")
            return size + 1
        os.ftruncate(self._file, size - len(rest))
        return size - len(rest)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise OutputError(
                f"cannot write {self.path}: {reason_of(exc)}; make room or name another file, "
                "and run the same command to continue"
            ) from exc


@contextmanager
def _locked(file: int) -> Iterator[None]:
    """Lock the file against other processes that append to it."""
    try:
        import fcntl
    except ImportError:  # Windows: a sweep must be the only writer
        yield
        return
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
