"""Photos into a folder per class: copied, linked or moved; nothing overwritten, all undoable.

Before a photo is placed, a line in `sorted.jsonl` says where it goes. A target appears whole, by a
hard link, which fails where the name is taken; a moved photo leaves its old place after that. So
a run that was killed leaves every photo in one place at least, and the next run completes it.
"""

import json
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Self, get_args

from regnet.data.archives import failing
from regnet.data.photo_files import SORTED_LIST
from regnet.data.sources import Item, Video
from regnet.inference.result import Prediction
from regnet.network.labels import Labels, first_name
from regnet.system.checked import Checked, Rule
from regnet.system.errors import OutputError, reason_of
from regnet.system.files import is_file_name, remove_leftovers, write_whole
from regnet.system.json_text import json_text
from regnet.system.option import Options, option
from regnet.system.output_file import naming
from regnet.system.placing import Action, absolute, free_names, is_moved, is_same, put
from regnet.system.text import counted

LIST: Final = SORTED_LIST
UNKNOWN: Final = "unknown"
_LONGEST: Final = 60  # characters of a folder's name
_RESERVED: Final = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]+')
_DEVICES: Final = [  # of Windows
    *("con", "prn", "aux", "nul"),
    *(f"{port}{number}" for port in ("com", "lpt") for number in range(10)),
]


class Sorting(Options):
    """Whether and how photos are sorted."""

    sort_into: Path | None = option(None, "Sort the photos into a folder per class in DIR", "DIR")
    copy: bool = option(False, "Copy the photos there (the default)")
    link: bool = option(False, "Make symbolic links there")
    move: bool = option(False, "Move the photos there")
    undo: bool = option(False, "Undo all that was sorted into DIR")

    def __post_init__(self) -> None:
        chosen = [f"--{name}" for name in (*get_args(Action), "undo") if getattr(self, name)]
        if len(chosen) > 1:
            raise OutputError(f"{' and '.join(chosen)} contradict each other: choose one")
        if chosen and self.sort_into is None:
            raise OutputError(f"{chosen[0]} needs --sort-into DIR")

    @property
    def action(self) -> Action:
        """How photos get into their folders."""
        return "link" if self.link else "move" if self.move else "copy"

    @contextmanager
    def sorter(self, labels: Labels) -> Iterator["Sorter | None"]:
        """Give what places photos, None if none are sorted. Raises `OutputError`."""
        if self.sort_into is None:
            yield None
            return
        with sorting_lock(self.sort_into):
            yield Sorter(self.sort_into, self.action, labels)


def _is_below(text: str) -> bool:
    """Tell whether a path leads from a folder to a file below it."""
    path = Path(text)
    inner = path.parts and not path.is_absolute() and ".." not in path.parts
    return bool(inner) and is_file_name(text)


@dataclass(frozen=True)
class Placed(Checked, error=OutputError):
    """Where a photo goes: absolute `source`, `target` below the folder; both as the file system's.

    `size` in bytes and `mtime_ns` are the photo's, to tell whether it is still the same.
    """

    source: Annotated[str, Rule("that can name a file", is_file_name)]
    target: Annotated[str, Rule("that leads below the folder", _is_below)]
    action: Action
    size: int
    mtime_ns: int
    label: str
    probability: float | None

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Return what a line of the list says. Raises `ValueError`, `OutputError`."""
        return cls.from_dict(json.loads(line))

    @property
    def is_relabelled(self) -> bool:
        """Whether `regnet doctor --apply` moved the photo: it has a class without a probability."""
        return bool(self.label) and self.probability is None

    @property
    def line(self) -> str:
        """The line of the list."""
        return json_text(asdict(self)) + "\n"

    def describes(self, path: Path) -> bool:
        """Tell whether a file has the size and the time of change of the photo."""
        with suppress(OSError):
            stat = path.stat()
            return (stat.st_size, stat.st_mtime_ns) == (self.size, self.mtime_ns)
        return False


class Sorter:
    """Places photos in the folders of their classes, and remembers where. For one thread."""

    def __init__(self, folder: Path, action: Action, labels: Labels) -> None:
        self.folder, self.action = folder.resolve(), action
        remove_leftovers(self.folder)
        self._folders = folder_names(labels)
        self._list = self.folder / LIST
        self.placed = {one.source: one for one in read_list(self._list)}
        self._targets = {str(self.folder / p.target): s for s, p in self.placed.items()}
        self._named = set[str]()
        self.counts = Counter[str]()
        self.done_before = 0

    def sort(
        self, items: Iterable[Item], predict: Callable[[Iterator[Item]], Iterable[Prediction]]
    ) -> Iterator[Prediction]:
        """Yield the predictions of the photos that are to be placed, each placed or with an error.

        `predict` gives one prediction for each item, in their order.
        """
        waiting = deque[str]()

        def taken() -> Iterator[Item]:
            for item in items:
                if self.takes(item.source):
                    waiting.append(item.source)
                    is_video = isinstance(item, Video)
                    yield Item(item.source, failing("videos are not sorted")) if is_video else item

        for prediction in predict(taken()):
            source = waiting.popleft()
            if prediction.error is None:
                try:
                    self.place(source, prediction)
                except OSError as exc:
                    reason = f"cannot be sorted: {reason_of(exc)}"
                    prediction = replace(prediction, error=reason, predictions=())
            yield prediction

    def takes(self, source: str) -> bool:
        """Tell whether a photo is to be placed; completes one that was placed when a run ended.

        A target of this or an earlier run is none to be placed, if it lies among the sources, and
        neither is a photo that was named before.
        """
        path = absolute(source)
        if str(path) in self._named:
            return False
        self._named.add(str(path))
        if self._targets.keys() & {str(path), str(path.resolve())}:
            return False
        return not self.completes(path)

    def completes(self, path: Path) -> bool:
        """Tell whether an earlier run placed a photo; finishes a move that was interrupted."""
        before = self.placed.get(str(path))
        if before is None or self._targets[str(self.folder / before.target)] != str(path):
            return False  # or it was not placed in the end, and another photo was
        target = self._target(before)
        if not os.path.lexists(target):
            return False
        if os.path.lexists(path) and not self._is_another(path, target):
            if not before.describes(path):
                return False
            if before.action == "move":
                if not is_moved(path, target):
                    return False
                path.unlink()
        self.done_before += 1
        return True

    def _target(self, placed: Placed) -> Path:
        """Return where a photo lies that was placed: its copy or link may be relabelled since."""
        target, seen = self.folder / placed.target, set[Path]()
        while placed.action != "move" and not os.path.lexists(target) and target not in seen:
            seen.add(target)
            if later := self.placed.get(str(target)):
                target = self.folder / later.target
        return target

    def _is_another(self, path: Path, target: Path) -> bool:
        """Tell whether another photo was placed where the one of a target lay."""
        return str(path) in self._targets and not os.path.samestat(path.lstat(), target.lstat())

    def place(self, source: str, prediction: Prediction) -> None:
        """Place one photo that was classified. Raises `OSError`."""
        if not os.path.isfile(source):
            raise OSError("only photos that are files are sorted; unpack or download it first")
        best = next(iter(prediction.predictions), None)
        name = self._folders[best.index] if best and not prediction.unknown else UNKNOWN
        label, probability = (best.label, best.probability) if best else ("", None)
        self.put(absolute(source), name, label=label, probability=probability)

    def put(self, path: Path, name: str, *, label: str, probability: float | None) -> None:
        """Place a photo at an absolute path in the folder of this name. Raises `OSError`."""
        if path != self.folder / name / path.name:  # else it lies there already
            self._add(path, name, label, probability)
        self.counts[name] += 1

    def _add(self, path: Path, name: str, label: str, probability: float | None) -> None:
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        stat = path.stat()
        for target in free_names(self.folder / name / path.name):
            placed = Placed(
                source=str(path),
                target=str(target.relative_to(self.folder)),
                action=self.action,
                size=stat.st_size,
                mtime_ns=stat.st_mtime_ns,
                label=label,
                probability=probability,
            )
            _append(self._list, placed.line)
            with suppress(FileExistsError):
                put(path, target, self.action, self.folder)
                break
        self.placed[placed.source] = placed
        self._targets[str(target)] = placed.source

    def summary(self) -> str:
        """Return what was done, in a line."""
        folders = len(self.counts.keys() - {UNKNOWN})
        done = {"copy": "copied", "link": "linked", "move": "moved"}[self.action]
        text = f"{self.folder}: {counted(self.counts.total(), 'photo')} {done} into "
        text += counted(folders, "class folder")
        text += f", {self.counts[UNKNOWN]:,} of them into {UNKNOWN}/" * bool(self.counts[UNKNOWN])
        text += f"; {self.done_before:,} were there already" * bool(self.done_before)
        return f"{text}; the list of them is {LIST}"


@contextmanager
def sorting_lock(folder: Path) -> Iterator[None]:
    """Hold a folder that photos are sorted into.

    Raises `OutputError` if another process does, or if it is no folder and cannot become one.
    """
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise OutputError(f"cannot make the folder {folder}: {reason_of(exc)}") from exc
    lock = FileLock(folder / ".sorting.lock", blocking=False)
    try:
        with naming(folder):
            lock.acquire()
    except Timeout as exc:
        raise OutputError(f"{folder}: another process is sorting photos into it") from exc
    try:
        yield
    finally:
        lock.release()


def folder_names(labels: Labels) -> list[str]:
    """Return a folder's name for each class: its first name, with wnid or index if several have it.

    No name is empty, hidden, too long, `unknown`, or has a character that a file system refuses.
    """
    names = [_RESERVED.sub("-", first_name(label.name))[:_LONGEST].strip(" .") for label in labels]
    taken = [UNKNOWN, LIST, "", *_DEVICES]
    marks = [label.wnid or str(index) for index, label in enumerate(labels)]
    while True:
        counts = Counter(name.casefold() for name in [*names, *taken])
        shared = [counts[name.casefold()] > 1 for name in names]
        if not any(shared):
            return names
        names = [
            f"{name} {mark}".strip() if is_shared else name
            for name, mark, is_shared in zip(names, marks, shared, strict=True)
        ]
        marks = list(map(str, range(len(names))))


def read_list(path: Path) -> list[Placed]:
    """Return the list of what was placed; a torn last line is cut off. Raises `OutputError`."""
    try:
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            os.truncate(path, len(whole))
        return [Placed.from_line(line) for line in whole.decode().splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError, OutputError) as exc:
        why = reason_of(exc)
        raise OutputError(f"{path}: is not a list of sorted photos ({why}); move it away") from exc


def undo(folder: Path, *, relabelled: bool = False) -> tuple[int, list[str]]:
    """Undo what was sorted into a folder; return how many photos, and which targets are left.

    With `relabelled` only what `regnet doctor --apply` moved.
    Moved photos go back, and so do copies whose original is gone; other copies and links are
    removed, if they are still what was made. Targets that were changed, or whose old place is
    taken, stay where they are and in the list.
    """
    folder = folder.resolve()
    every = dict.fromkeys(read_list(folder / LIST))
    placed = [one for one in every if one.is_relabelled or not relabelled]
    done = {one for one in reversed(placed) if _undone(one, folder)}
    for name in {Path(one.target).parent for one in placed}:
        with suppress(OSError):
            (folder / name).rmdir()
    with naming(folder / LIST):
        if len(done) < len(every):
            lines = (one.line for one in every if one not in done)
            write_whole(folder / LIST, "".join(lines).encode())
        else:
            (folder / LIST).unlink(missing_ok=True)
    left = [str(folder / one.target) for one in reversed(placed) if one not in done]
    return len(done), left


def _undone(placed: Placed, folder: Path) -> bool:
    """Undo one placement; tell whether it is undone."""
    try:
        return _undo(placed, Path(placed.source), folder / placed.target)
    except OSError:
        return False


def _undo(placed: Placed, source: Path, target: Path) -> bool:
    """Undo one placement; tell whether it is undone. Raises `OSError`."""
    if not os.path.lexists(target):
        return True
    if placed.action == "link":
        if not (target.is_symlink() and os.readlink(target) == placed.source):  # noqa: PTH115
            return False
        target.unlink()
        return True
    if (placed.action == "copy" and target.is_symlink()) or not placed.describes(target):
        return False
    if os.path.lexists(source):
        is_done = is_same if placed.action == "copy" else is_moved
        if is_done(source, target):
            target.unlink()
        return not os.path.lexists(target)
    source.parent.mkdir(parents=True, exist_ok=True)
    put(target, source, "move", source.parent)
    return True


def _append(path: Path, line: str) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(line.encode())
