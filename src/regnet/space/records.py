"""Records of training runs: one JSON object a line, in a file that only grows.

A record holds a network, what it costs, how it was trained, and what came out; figures about
spaces are computed from nothing else.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

from regnet.network.spec import Spec, spec_from_dict, spec_to_dict
from regnet.system.errors import OutputError, SpaceError, SpecError, shown
from regnet.system.files import is_stream, write_all
from regnet.system.json_text import json_bytes

_KEY_DIGITS: Final = 16
_TAIL: Final = 1 << 20  # bytes at the end of a file that hold its last line


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all runs of a sweep share.

    `data` is the photos' name and fingerprint, `image_size` the pixels of a side of those the
    networks are validated on, `recipe` a hash of the recipe that all followed but for its seed.
    """

    data: str
    train_photos: int
    val_photos: int
    classes: int
    image_size: int
    epochs: int
    recipe: str


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run of one network.

    `params`, `macs` and `acts` are its cost on an image of `setting.image_size` pixels. After each
    epoch: `errors`, top-1 on the validation photos in [0, 1], and `losses`, of the training.
    `seconds` of the whole run, `started` in ISO 8601, UTC. `failure` says why a run has no result;
    its errors may then be incomplete.
    """

    space: str
    spec: Spec
    params: int
    macs: int
    acts: int
    setting: Setting
    seed: int
    errors: tuple[float, ...]
    losses: tuple[float, ...]
    seconds: float
    machine: str
    started: str
    tool: str
    failure: str | None = None

    @property
    def error(self) -> float | None:
        """The error after the last epoch; None of a run that failed."""
        return None if self.failure is not None or not self.errors else self.errors[-1]

    @property
    def key(self) -> str:
        """What is the same for two records of one run: `run_key`."""
        return run_key(self.space, self.spec, self.seed, self.setting)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON values; `record_from_dict` reads it back."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        lists = {"errors": list(self.errors), "losses": list(self.losses)}
        return values | lists | {"spec": spec_to_dict(self.spec), "setting": asdict(self.setting)}


def run_key(space: str, spec: Spec, seed: int, setting: Setting) -> str:
    """Return what identifies a run: a hash of the network as of that space, seed and setting."""
    values = [space, spec_to_dict(spec), seed, asdict(setting)]
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]


def record_from_dict(values: object) -> RunRecord:
    """Return the record that `to_dict` wrote; raises `SpaceError` that names what is wrong."""
    found = _values(RunRecord, values, "a record")
    try:
        spec = spec_from_dict(_of("spec", found["spec"], dict))
    except SpecError as exc:
        raise SpaceError(f"spec is impossible: {exc}") from exc
    setting = Setting(**_values(Setting, found["setting"], "setting"))
    failure = found.get("failure")
    return RunRecord(
        **found
        | {
            "spec": spec,
            "setting": setting,
            "errors": _numbers("errors", found["errors"], most=1.0),
            "losses": _numbers("losses", found["losses"], most=math.inf),
            "failure": None if failure is None else _of("failure", failure, str),
        }
    )


def _values(kind: type, values: object, what: str) -> dict[str, Any]:
    """Return the values of a dataclass's fields, those of plain types checked."""
    if not isinstance(values, dict):
        raise SpaceError(f"{what} must be an object, not {shown(values)}")
    known = {f.name: f.type for f in fields(kind)}
    if unknown := [name for name in values if name not in known]:
        raise SpaceError(f"{what} has no {shown(unknown[0])}; it has {', '.join(known)}")
    if missing := [name for name in known if name not in values and name != "failure"]:
        raise SpaceError(f"{what} lacks {missing[0]}")
    plain = {name: of for name, of in known.items() if of in (int, float, str)}
    return values | {name: _of(name, values[name], of) for name, of in plain.items()}


def _of(name: str, value: Any, kind: Any) -> Any:
    """Return a value of that type; numbers are finite and not below 0."""
    kinds = (int, float) if kind is float else kind
    good = isinstance(value, kinds) and not isinstance(value, bool)
    if not good or (kind in (int, float) and not 0 <= value < math.inf):
        raise SpaceError(f"{name} = {shown(value)} is not allowed: it must be {_WORDS[kind]}")
    return float(value) if kind is float else value


_WORDS: Final[dict[Any, str]] = {
    int: "a whole number, 0 or more",
    float: "a finite number, 0 or more",
    str: "a text",
    dict: "an object",
    list: "a list",
}


def _numbers(name: str, values: Any, *, most: float) -> tuple[float, ...]:
    numbers: list[float] = [_of(name, value, float) for value in _of(name, values, list)]
    if any(number > most for number in numbers):
        raise SpaceError(f"{name} = {shown(values)} is not allowed: each is at most {most:g}")
    return tuple(numbers)


def read_records(paths: Sequence[Path]) -> list[RunRecord]:
    """Return the records of files in their order; of one run that is there twice, the last.

    A torn last line, as a killed writer leaves it, is left out. Raises `SpaceError` that names file
    and line of anything else that is no record.
    """
    found: dict[str, RunRecord] = {}
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as exc:
            raise SpaceError(f"cannot read the records {path}: {exc.strerror or exc}") from exc
        for record in _records(path, data):
            found[record.key] = record
    return list(found.values())


def _records(path: Path, data: bytes) -> Iterator[RunRecord]:
    lines = data.split(b"\n")
    if not _is_whole(lines[-1]):
        lines.pop()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield record_from_dict(json.loads(line))
        except (ValueError, RecursionError, SpaceError) as exc:
            raise SpaceError(
                f"{path}, line {number}: is no record of a run: {exc}; without that line the rest "
                "is read, and a sweep makes the run again"
            ) from exc


def _is_whole(line: bytes) -> bool:
    """Return whether what follows the last newline is a line all the same."""
    try:
        json.loads(line or b"0")
    except (ValueError, RecursionError):
        return False
    return True


class RecordFile:
    """A file of records that only grows: a line is there whole or not at all, and on disk.

    Several processes may append at once. Raises `SpaceError` where it holds something else,
    `OutputError` where it cannot be written.
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
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def keys(self, *, failed: bool = True) -> frozenset[str]:
        """Return the runs that are in the file; without those that failed where not `failed`."""
        chosen: Iterable[RunRecord] = self.records
        return frozenset(r.key for r in chosen if failed or r.failure is None)

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
        """End the last line with a newline, or cut it off where it is torn; return the size."""
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
                f"cannot write {self.path}: {exc.strerror or exc}; make room or name another file, "
                "and the same command goes on"
            ) from exc


@contextmanager
def _locked(file: int) -> Iterator[None]:
    """Keep other processes that append to the file away."""
    try:
        import fcntl
    except ImportError:  # not on Windows, where a sweep has its records for itself
        yield
        return
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
