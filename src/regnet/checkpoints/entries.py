"""The RegNet in what a file holds: the one dictionary, and the one prefix of its keys.

Training scripts put weights in entries and under prefixes of their own choice. Every dictionary of
tensors in the file, and every prefix of its keys, under which a whole RegNet lies is an `Entry`.
If there is one, it is taken; a plain and an averaged version of the same network are chosen from by
the rules of the projects that write both; otherwise the error names all of them.
"""

import math
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from regnet.checkpoints.families import foreign_network
from regnet.checkpoints.layouts import (
    Layout,
    find_prefixes,
    is_counter,
    known_keys,
    not_a_regnet,
    prefix_of,
    to_pycls,
    without_inner_wrappers,
)
from regnet.checkpoints.plain_types import Record
from regnet.checkpoints.shapes import Shape, difference, infer_spec, network_shapes
from regnet.checkpoints.torch_file import NotPlain
from regnet.network.spec import Spec
from regnet.system.errors import MismatchError, WeightsError, shown

MAX_DEPTH = 6
_NESTED = (dict, list, tuple, Record, torch.Tensor, NotPlain)
_AVERAGED = ("state_dict_ema", "model_ema")
_PLAIN = ("state_dict", "model")
_HEAD = ("head.fc.weight", "head.fc.bias")
_MOST = 16
_SHARED = 2**20  # bytes
_COMPARED = frozenset(
    (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32)
)

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
    tensors: dict[str, torch.Tensor | NotPlain]
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
    """The entry that was chosen, its tensors, and the names of what else in the file has some.

    `apart` are the paths of containers that hold other networks, and not this one.
    """

    entry: Entry
    tensors: dict[str, torch.Tensor]
    beside: tuple[str, ...]
    apart: frozenset[Path] = frozenset()


def find_network(content: Any, name: str | None = None) -> FoundNetwork:
    """Return the one RegNet in a file's content, or that in the entry called `name`.

    Raises `MismatchError` if there is no RegNet, or if there are several to choose from;
    `WeightsError` if there are no tensors at all.
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
        entry = _only(_preferred(_distinct(candidates), content))
    else:
        entry = max(entries, key=lambda entry: len(entry.tensors))
        _require_known_kind(entry)
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
            if prefix is not None and not is_counter(short):
                _add(groups[prefix], prefixes[prefix].plain_key(short, prefix), key, named[key])
        for prefix, group in groups.items():
            yield _measured(Entry(path, prefix, prefixes[prefix], group))


def _add(group: dict[str, Any], name: str, key: str, tensor: Any) -> None:
    """Put a tensor into a group; refuse two that have one name there."""
    if name in group:
        raise MismatchError(f"two of its tensors are {name:.80} of one network, one is {key:.80}")
    group[name] = tensor


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
    """Return what a container holds by name; a list's items are named by their numbers.

    A number beside the text of it, as keys of one dictionary, has "int" before it.
    """
    value = value.items if isinstance(value, Record) else value
    if isinstance(value, Mapping):
        texts = {key: child for key, child in value.items() if isinstance(key, str)}
        numbers = {key: child for key, child in value.items() if isinstance(key, int)}
        return texts | {f"int {n}" if str(n) in texts else str(n): c for n, c in numbers.items()}
    if isinstance(value, list | tuple):
        return {str(n): child for n, child in enumerate(value) if isinstance(child, _NESTED)}
    return {}


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor | NotPlain)


def _shape(tensor: torch.Tensor | NotPlain) -> Shape:
    return tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else ()


def _shapes(tensors: Mapping[str, Any]) -> dict[str, Shape]:
    return {key: _shape(tensor) for key, tensor in tensors.items()}


def _measured(entry: Entry) -> Entry:
    """Return an entry with its spec where it is a whole network, with or without a head."""
    shapes = _shapes(entry.tensors)
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
    wanted = _parts(name)
    exact = [entry for entry in entries if entry.name == name or _parts(entry.name) == wanted]
    if found := exact or [entry for entry in entries if _contains(_parts(entry.name), wanted)]:
        return found
    raise MismatchError(f"no RegNet is in an entry called {name}; there are: {_names(entries)}")


def _parts(name: str) -> list[str]:
    return name.replace(".", "/").strip("/").split("/")


def _contains(whole: list[str], part: list[str]) -> bool:
    return any(whole[n : n + len(part)] == part for n in range(len(whole)))


def _names(entries: Sequence[Entry]) -> str:
    shown = ", ".join(f"{entry.name:.200}" for entry in entries[:_MOST])
    return shown if len(entries) <= _MOST else f"{shown} and {len(entries) - _MOST} more"


def _distinct(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries without those that repeat an earlier one, number for number."""
    kept: list[Entry] = []
    for entry in entries:
        if not any(_equal(entry, other) for other in kept):
            kept.append(entry)
    return kept


def _equal(a: Entry, b: Entry) -> bool:
    return a.tensors.keys() == b.tensors.keys() and all(
        _same_numbers(tensor, b.tensors[key]) for key, tensor in a.tensors.items()
    )


def _same_numbers(a: torch.Tensor | NotPlain, b: torch.Tensor | NotPlain) -> bool:
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return False
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return a.dtype in _COMPARED and torch.equal(a, b)


def _preferred(entries: Sequence[Entry], content: Any) -> list[Entry]:
    """Return the entries without those of which a better version of the same network is there."""
    return [b for b in entries if not any(_is_better(a, b, content) for a in entries)]


def _is_better(a: Entry, b: Entry, content: Any) -> bool:
    """Tell whether A is the version to take of B: averaged, or for pycls of the lower error."""
    depth = next((n for n, (x, y) in enumerate(zip(a.path, b.path, strict=False)) if x != y), None)
    if depth is None or a.spec != b.spec or _place(a, depth) != _place(b, depth):
        return False
    ours, other = a.path[depth], b.path[depth]
    if {ours, other} == {"model_state", "ema_state"}:
        for name in a.path[:depth]:
            content = _children(content)[name]
        return ours == better_state(_children(content))
    return ours in _AVERAGED and other in _PLAIN


def _place(entry: Entry, depth: int) -> Path:
    """Return where an entry is below a depth of its path, wrappers aside."""
    names = (*entry.path[depth + 1 :], *entry.prefix.split("."))
    return tuple(name for name in names if name not in ("", "module", "_orig_mod"))


def _only(entries: Sequence[Entry]) -> Entry:
    if len(entries) == 1:
        return entries[0]
    raise _several(entries)


def _several(entries: Sequence[Entry]) -> MismatchError:
    return MismatchError(
        f"it holds {len(entries)} networks: {_names(entries)}. Choose one with --entry NAME"
    )


def _plain_tensors(entry: Entry) -> dict[str, torch.Tensor]:
    """Return an entry's tensors; raises `WeightsError` where one cannot be a weight."""
    tensors: dict[str, torch.Tensor] = {}
    for key, tensor in entry.tensors.items():
        if isinstance(tensor, NotPlain):
            raise WeightsError(f"{entry.prefix}{key} {tensor.reason}")
        tensors[key] = tensor
    _require_own_data(tensors.values())
    return tensors


def _require_own_data(tensors: Collection[torch.Tensor]) -> None:
    """Refuse tensors that share their data so often that copies of them could fill the memory."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    if sum(t.nbytes for t in tensors) > 2 * sum(storages.values()) + _SHARED:
        raise WeightsError("its tensors have more elements than there is data")


def _require_known_kind(entry: Entry) -> None:
    """Refuse variants of a RegNet by their kind, before all their strange names are listed."""
    if kind := foreign_network(_shapes(entry.tensors)):
        raise _foreign(kind)


def _foreign(kind: str) -> MismatchError:
    return MismatchError(
        f"these are not a RegNet's weights but those of {kind}; regnet knows RegNetX and RegNetY"
    )


def _no_network(content: Any) -> WeightsError:
    """Return the error that says what the content is instead."""
    groups = [tensors for _, tensors in _dictionaries(content)]
    if not groups:
        return WeightsError(f"the file holds no named tensors (but {type(content).__name__})")
    largest = max(groups, key=len)
    kind = foreign_network(_shapes(largest))
    return _foreign(kind) if kind else not_a_regnet(largest)


def _beside(content: Any, entry: Entry) -> Iterator[str]:
    """Yield the names of what holds tensors in the file and is not in the entry."""
    value = content
    holders = _Holders()
    for name in entry.path:
        yield from (other for other in holders.names(value) if other != name)
        value = _children(value)[name]
    groups: dict[str, list[str]] = {}
    for key in map(without_inner_wrappers, holders.names(value)):
        if not key.startswith(entry.prefix) and not is_counter(key):
            groups.setdefault(key.partition(".")[0], []).append(key)
    for first, keys in groups.items():
        yield keys[0] if len(keys) == 1 else f"{first} ({len(keys)} tensors)"


class _Holders:
    """Which containers hold tensors, each looked at once however often the file refers to it."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], bool] = {}

    def names(self, value: Any) -> list[str]:
        """Return the names in a container of tensors, and of what holds tensors."""
        return [k for k, c in _children(value).items() if self._holds(c, MAX_DEPTH)]

    def _holds(self, value: Any, depth: int) -> bool:
        if _is_tensor(value):
            return True
        place = (id(value), depth)
        if place not in self._known:
            self._known[place] = depth >= 0 and any(
                self._holds(child, depth - 1) for child in _children(value).values()
            )
        return self._known[place]


def better_state(content: Mapping[str, Any]) -> str:
    """Return "model_state" or "ema_state", as pycls chooses: by `test_err` and `ema_err`.

    An error that is missing or undefined counts as 100 %; at equal errors it is `model_state`.
    Raises `WeightsError` where an error is not a number.
    """
    plain = _error(content, "test_err")
    return "model_state" if plain <= _error(content, "ema_err") else "ema_state"


def _error(content: Mapping[str, Any], name: str) -> float:
    value = content.get(name)
    if value is None:
        return 100.0
    try:
        error = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as exc:
        raise WeightsError(f"{name} is no number: {shown(value):.80}") from exc
    return 100.0 if math.isnan(error) else error
