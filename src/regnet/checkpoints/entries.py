"""The RegNet in what a file holds: the one dictionary, and the one prefix of its keys.

Training scripts put weights in entries and under prefixes of their own choice. Every dictionary of
tensors in the file, and every prefix of its keys, under which a whole RegNet lies is an `Entry`.
If there is one, it is taken; a plain and an averaged version of the same network are chosen from by
the rules of the projects that write both; otherwise the error names all of them.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regnet.checkpoints.arrays import NotPlain
from regnet.checkpoints.layouts import (
    Layout,
    find_prefixes,
    foreign_network,
    is_counter,
    known_keys,
    not_a_regnet,
    prefix_of,
    to_pycls,
    without_inner_wrappers,
)
from regnet.checkpoints.plain_types import Record
from regnet.checkpoints.shapes import Shape, difference, infer_spec, network_shapes
from regnet.network.spec import Spec
from regnet.system.errors import MismatchError, WeightsError, shown

MAX_DEPTH = 6
_NESTED = (dict, list, tuple, Record, np.ndarray, NotPlain)
_AVERAGED = ("state_dict_ema", "model_ema")
_PLAIN = ("state_dict", "model")
_HEAD = ("head.fc.weight", "head.fc.bias")
_MOST = 16
_SHARED = 2**20  # bytes

Path = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """Tensors in a file that are named as a RegNet's.

    `path` leads to their dictionary, `prefix` is before each key there; the keys of `tensors` are
    without it. `spec` is the network where nothing is missing, the head aside, and nothing is left
    over; `has_head` tells whether there is a classifier.
    """

    path: Path
    prefix: str
    layout: Layout
    tensors: dict[str, NDArray[Any] | NotPlain]
    spec: Spec | None = None
    has_head: bool = False

    @property
    def name(self) -> str:
        """The name by which `--entry` chooses it, as "state_dict/ema_model"."""
        return entry_name(self.path, self.prefix)


def entry_name(path: Path, prefix: str) -> str:
    """Return the name of a path and a prefix of keys: "state_dict/ema_model"; "." for the whole."""
    return "/".join([*path, *filter(None, [prefix.rstrip(".")])]) or "."


@dataclass(frozen=True)
class FoundNetwork:
    """The chosen entry and its tensors.

    `beside` names the file's other tensors, `apart` are the paths of other networks' containers.
    """

    entry: Entry
    tensors: dict[str, NDArray[Any]]
    beside: tuple[str, ...]
    apart: frozenset[Path] = frozenset()


def find_network(content: Any, name: str | None = None) -> FoundNetwork:
    """Return the one RegNet in a file's content, or that in the entry called `name`.

    Raises `MismatchError` if there is none or a choice to make, `WeightsError` without any tensors.
    """
    entries = list(_entries(content))
    if not entries:
        raise _no_network(content)
    paths = {entry.path[:depth] for entry in entries for depth in range(1, MAX_DEPTH + 1)}
    if name is not None:
        entries = _called(entries, name)
    whole = [entry for entry in entries if entry.spec and entry.has_head]
    headless = [entry for entry in entries if entry.spec and not entry.has_head]
    if candidates := whole or headless:
        candidates += [entry for entry in entries if not entry.spec and _holds_more(entry)]
        if len(candidates) > _MOST:  # comparing all with all would take long
            raise _several(candidates)
        distinct: list[Entry] = []
        for entry in candidates:
            if not any(_equal(entry, other) for other in distinct):
                distinct.append(entry)
        best = [b for b in distinct if not any(_is_better(a, b, content) for a in distinct)]
        if len(best) > 1:
            raise _several(best)
        entry = best[0]
    else:
        entry = max(entries, key=lambda entry: len(entry.tensors))
        if kind := foreign_network(shapes_of(entry.tensors)):  # before all strange names are listed
            raise _foreign(kind)
    apart = frozenset(path for path in paths if path != entry.path[: len(path)])
    return FoundNetwork(entry, _plain_tensors(entry), tuple(_beside(content, entry)), apart)


def _entries(content: Any) -> Iterator[Entry]:
    """Yield what is named as a RegNet's in every dictionary of the content."""
    for path, named in _dictionaries(content):
        plain = {key: without_inner_wrappers(key) for key in named}
        prefixes = find_prefixes(plain.values())
        groups: dict[str, dict[str, Any]] = {prefix: {} for prefix in prefixes}
        for key, short in plain.items():
            prefix = prefix_of(short, prefixes)
            if prefix is None or is_counter(short):
                continue
            name = prefixes[prefix].plain_key(short, prefix)
            if name in groups[prefix]:
                raise MismatchError(
                    f"two of its tensors are {name:.80} of one network, one is {key:.80}"
                )
            groups[prefix][name] = named[key]
        for prefix, group in groups.items():
            yield _measured(Entry(path, prefix, prefixes[prefix], group))


def _dictionaries(content: Any) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the path and the tensors of every dictionary that has any, each once."""
    seen: set[int] = set()
    waiting: deque[tuple[Path, Any]] = deque([((), content)])
    while waiting:
        path, value = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        children = _children(value)
        if tensors := {key: child for key, child in children.items() if _is_tensor(child)}:
            yield path, tensors
        if len(path) < MAX_DEPTH:
            waiting.extend(((*path, k), c) for k, c in children.items() if not _is_tensor(c))


def _children(value: Any) -> Mapping[str, Any]:
    """Return a container's items by name; a number whose text is a key too is "int N"."""
    value = value.items if isinstance(value, Record) else value
    if isinstance(value, Mapping):
        texts = {key: child for key, child in value.items() if isinstance(key, str)}
        numbers = {key: child for key, child in value.items() if isinstance(key, int)}
        return texts | {f"int {n}" if str(n) in texts else str(n): c for n, c in numbers.items()}
    if isinstance(value, list | tuple):
        return {str(n): child for n, child in enumerate(value) if isinstance(child, _NESTED)}
    return {}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, np.ndarray | NotPlain)


def shapes_of(tensors: Mapping[str, Any]) -> dict[str, Shape]:
    """Return the shapes of tensors; those without data have none."""
    return {key: tuple(getattr(tensor, "shape", ())) for key, tensor in tensors.items()}


def _measured(entry: Entry) -> Entry:
    """Return an entry with its spec where it is a whole network, with or without a head."""
    shapes = shapes_of(entry.tensors)
    try:
        ours = {name: shapes[key] for key, name in to_pycls(entry.tensors).items()}
        has_head = _HEAD[0] in ours
        spec = infer_spec(ours, classes=None if has_head else 1)
    except MismatchError:
        return entry
    network = {k: s for k, s in network_shapes(spec).items() if has_head or k not in _HEAD}
    whole = difference(network, ours) is None
    return replace(entry, spec=spec if whole else None, has_head=has_head)


def _holds_more(entry: Entry) -> bool:
    """Tell whether an entry is a whole network and more: another network, of which part is ours."""
    known = {key: entry.tensors[key] for key in known_keys(entry.tensors, entry.layout)}
    return _measured(replace(entry, tensors=known)).spec is not None


def _called(entries: Sequence[Entry], name: str) -> list[Entry]:
    """Return the entries with this name or, where none has it, with it as a part of the name."""
    parts = _parts(name)
    exact = [entry for entry in entries if entry.name == name or _parts(entry.name) == parts]
    if matches := exact or [entry for entry in entries if parts in _parts(entry.name)]:
        return matches
    raise MismatchError(f"no RegNet is in an entry called {name}; there are: {_names(entries)}")


def _parts(name: str) -> str:
    return f"/{name.replace('.', '/').strip('/')}/"


def _names(entries: Sequence[Entry]) -> str:
    shown = ", ".join(f"{entry.name:.200}" for entry in entries[:_MOST])
    return shown if len(entries) <= _MOST else f"{shown} and {len(entries) - _MOST} more"


def _equal(a: Entry, b: Entry) -> bool:
    """Tell whether two entries have the same tensors, number for number."""
    return a.tensors.keys() == b.tensors.keys() and all(
        isinstance(one, np.ndarray)
        and isinstance(other := b.tensors[key], np.ndarray)
        and one.dtype == other.dtype
        and np.array_equal(one, other)
        for key, one in a.tensors.items()
    )


def _is_better(a: Entry, b: Entry, content: Any) -> bool:
    """Tell whether A is the version to take of B: averaged, or for pycls of the lower error."""
    depth = next((n for n, (x, y) in enumerate(zip(a.path, b.path, strict=False)) if x != y), None)
    if depth is None or a.spec != b.spec or _place(a, depth) != _place(b, depth):
        return False
    ours, other = a.path[depth], b.path[depth]
    if {ours, other} == {"model_state", "ema_state"}:
        for name in a.path[:depth]:
            content = _children(content)[name]
        errors = _children(content)
        averaged = _error(errors, "ema_err") < _error(errors, "test_err")
        return ours == ("ema_state" if averaged else "model_state")
    return ours in _AVERAGED and other in _PLAIN


def _place(entry: Entry, depth: int) -> Path:
    """Return where an entry is below a depth of its path, wrappers aside."""
    names = (*entry.path[depth + 1 :], *entry.prefix.split("."))
    return tuple(name for name in names if name not in ("", "module", "_orig_mod"))


def _several(entries: Sequence[Entry]) -> MismatchError:
    return MismatchError(
        f"it holds {len(entries)} networks: {_names(entries)}. Choose one with --entry NAME"
    )


def _plain_tensors(entry: Entry) -> dict[str, NDArray[Any]]:
    """Return an entry's tensors; raises `WeightsError` where one cannot be a weight."""
    tensors: dict[str, NDArray[Any]] = {}
    for key, tensor in entry.tensors.items():
        if isinstance(tensor, NotPlain):
            raise WeightsError(f"{entry.prefix}{key} {tensor.reason}")
        tensors[key] = tensor
    # Copies of tensors that share their data very often could fill the memory.
    size = end = 0
    for first, last in sorted(map(np.lib.array_utils.byte_bounds, tensors.values())):
        size += max(0, last - max(first, end))
        end = max(end, last)
    if sum(tensor.nbytes for tensor in tensors.values()) > 2 * size + _SHARED:
        raise WeightsError("its tensors have more elements than there is data")
    return tensors


def _foreign(kind: str) -> MismatchError:
    return MismatchError(
        f"these are not a RegNet's weights but those of {kind}; regnet knows RegNetV, X, Y and Z"
    )


def _no_network(content: Any) -> WeightsError:
    """Return the error that says what the content is instead."""
    groups = [tensors for _, tensors in _dictionaries(content)]
    if not groups:
        return WeightsError(f"the file holds no named tensors (but {type(content).__name__})")
    largest = max(groups, key=len)
    kind = foreign_network(shapes_of(largest))
    return _foreign(kind) if kind else not_a_regnet(largest)


def _beside(content: Any, entry: Entry) -> Iterator[str]:
    """Yield the names of what holds tensors in the file and is not in the entry."""
    known: dict[tuple[int, int], bool] = {}  # each container is looked at once

    def holds(value: Any, depth: int) -> bool:
        if _is_tensor(value):
            return True
        place = (id(value), depth)
        if place not in known:
            children = _children(value).values() if depth >= 0 else ()
            known[place] = any(holds(child, depth - 1) for child in children)
        return known[place]

    def holders(value: Any) -> list[str]:
        return [name for name, child in _children(value).items() if holds(child, MAX_DEPTH)]

    value = content
    for name in entry.path:
        yield from (other for other in holders(value) if other != name)
        value = _children(value)[name]
    groups: dict[str, list[str]] = {}
    for key in map(without_inner_wrappers, holders(value)):
        if not key.startswith(entry.prefix) and not is_counter(key):
            groups.setdefault(key.partition(".")[0], []).append(key)
    for first, keys in groups.items():
        yield keys[0] if len(keys) == 1 else f"{first} ({len(keys)} tensors)"


def _error(content: Mapping[str, Any], name: str) -> float:
    """Return an error in percent; 100 if it is missing or undefined."""
    if (value := content.get(name)) is None:
        return 100.0
    try:
        error = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as exc:
        raise WeightsError(f"{name} is not a number: {shown(value):.80}") from exc
    return 100.0 if math.isnan(error) else error
