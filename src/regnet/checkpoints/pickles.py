"""Pickles read as plain values: a machine that follows a pickle's instructions and imports nothing.

A pickle is a program that may call any function by its name. Here a name stays a name: containers
are built, functions of our own stand in for the few that checkpoints need (`calls`), and an
instance of any other class becomes an inert `Record`. A pickle that calls or mentions anything
else is refused with that name. All protocols, 0 to 5, are read.
"""

import pickletools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from regnet.checkpoints.plain_types import (
    PLAIN_CALLS,
    PLAIN_TYPES,
    Dtype,
    Record,
    as_key,
    require,
)

Calls = Mapping[str, Callable[..., Any]]
"""Functions of ours by the name, `module.name`, that a pickle calls them by."""


class RefusedError(Exception):
    """The pickle asks for functions or classes that are not plain data; `names` says which."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


@dataclass(frozen=True)
class Global:
    """The name of a function or class in a pickle. Nothing is imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


def read_pickle(
    stream: BinaryIO,
    *,
    calls: Calls | None = None,
    values: Mapping[str, Any] | None = None,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the value of the pickle at a stream's position, and leave the stream at its end.

    `calls` and `values` (what a name stands for) are known besides Python's and numpy's plain
    types; `persistent` resolves persistent ids. Raises `RefusedError`; a damaged pickle raises
    almost any other exception.
    """
    return _Machine(PLAIN_CALLS | dict(calls or {}), values or {}, persistent).run(stream)


class _Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(
        self, calls: Calls, values: Mapping[str, Any], persistent: Callable[[Any], Any] | None
    ) -> None:
        self._calls = calls
        self._values = values
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._mentioned: dict[str, None] = {}
        self._used: set[str] = set()
        self._length = 0
        self._passed = 0

    def run(self, stream: BinaryIO) -> Any:
        """Follow the instructions up to STOP."""
        start = stream.tell()
        for opcode, argument, place in pickletools.genops(stream):
            self._length = (place or 0) - start
            if opcode.name == "STOP":
                self._require_data()
                return self._stack.pop()
            self._step(opcode.name, argument)
        raise EOFError("the pickle has no end")

    def _require_data(self) -> None:
        """Refuse names that stand for nothing: functions and classes left among the values."""
        known = self._used | _KNOWN_TYPES
        if names := [name for name in self._mentioned if name not in known]:
            raise RefusedError(names[:5])

    def _step(self, name: str, argument: Any) -> None:
        if name in _ARGUMENT_IS_VALUE:
            self._stack.append(argument)
        elif name in _NEW_VALUES:
            self._stack.append(_NEW_VALUES[name]())
        elif name not in _NOTHING_TO_DO:
            _OPERATIONS[name](self, argument)

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _duplicate(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _tuple(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(tuple(items))

    def _short_tuple(self, count: int) -> None:
        items = [self._stack.pop() for _ in range(count)]
        self._stack.append(tuple(reversed(items)))

    def _list(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(_pairs(items))

    def _frozenset(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(frozenset(map(as_key, items)))

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        require(target, list, Record)
        (target.entries if isinstance(target, Record) else target).extend(items)

    def _append_one(self, _: Any) -> None:
        self._append([self._stack.pop()])

    def _append_all(self, _: Any) -> None:
        self._append(self._since_mark())

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        require(target, dict, Record)
        (target.items if isinstance(target, Record) else target).update(_pairs(items))

    def _set_one_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _set_all_items(self, _: Any) -> None:
        self._set_items(self._since_mark())

    def _add(self, _: Any) -> None:
        items = self._since_mark()
        require(self._stack[-1], set)
        self._stack[-1].update(map(as_key, items))

    def _recall(self, place: int) -> None:
        self._stack.append(self._memo[place])

    def _memorise(self, place: int | None) -> None:
        self._memo[len(self._memo) if place is None else place] = self._stack[-1]

    def _global(self, argument: str) -> None:
        self._name(*argument.split(" ", 1))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._name(module, name)

    def _name(self, module: Any, name: Any) -> None:
        """Push what a name stands for: a value of ours, else the name."""
        require(module, str)
        require(name, str)
        if len(module) + len(name) > _LONGEST_NAME:
            raise ValueError("a name that is too long")
        named = Global(_MODULES_OF_PYTHON_2.get(module, module), name)
        if str(named) in self._values:
            self._stack.append(self._values[str(named)])
        else:
            self._mentioned[str(named)] = None
            self._stack.append(named)

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        require(arguments, tuple)
        self._stack.append(self._call(function, arguments))

    def _pass(self, arguments: tuple[Any, ...]) -> None:
        """Count what calls may copy: a short pickle could recall one long value very often."""
        sized = (value for value in arguments if isinstance(value, _SIZED))
        self._passed += 1 + len(arguments) + sum(map(len, sized))
        if self._passed > _PASSED_AT_FIRST + _PASSED_PER_BYTE * self._length:
            raise ValueError("the pickle passes the same long values again and again")

    def _call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """Return what one of our own calls returns; refuse any other function."""
        require(function, Global)
        self._pass(arguments)
        name = str(function)
        if name in _MAKE_AN_INSTANCE:
            return self._instance(arguments[0], ())
        if name == _TENSOR_OF_A_CLASS:
            inner, kind, inner_arguments, _ = arguments
            require(kind, Global)
            self._used.add(str(kind))
            return self._call(inner, inner_arguments)
        if name not in self._calls:
            raise RefusedError([name])
        self._used.add(name)
        return self._calls[name](*arguments)

    def _instance(self, kind: Any, arguments: tuple[Any, ...]) -> Any:
        """Return an inert instance; classes of Python, torch and numpy have to be known."""
        require(kind, Global)
        name = str(kind)
        self._used.add(name)
        if name in self._calls:
            return self._calls[name](*arguments)
        if kind.module.partition(".")[0] in _KNOWN_BY_NAME_ONLY:
            raise RefusedError([name])
        return Record(name, *arguments)

    def _new_object(self, _: Any) -> None:
        arguments, kind = self._stack.pop(), self._stack.pop()
        require(arguments, tuple)
        self._pass(arguments)
        self._stack.append(self._instance(kind, arguments))

    def _new_object_with_names(self, _: Any) -> None:
        require(self._stack.pop(), dict)
        self._new_object(None)

    def _old_class(self, argument: str) -> None:
        items = self._since_mark()
        self._global(argument)
        self._stack.append(self._call(self._stack.pop(), tuple(items)))

    def _old_object(self, _: Any) -> None:
        kind, *items = self._since_mark()
        self._stack.append(self._call(kind, tuple(items)))

    def _build(self, _: Any) -> None:
        """Keep a record's attributes; those of a plain container (`_metadata`) are left out."""
        state, target = self._stack.pop(), self._stack[-1]
        require(target, Record, dict, list, set, Dtype)
        if isinstance(target, Record):
            target.state = state
        elif isinstance(target, Dtype):
            target.set_order(state)

    def _resolve(self, argument: Any) -> None:
        if self._persistent is None:
            raise ValueError("a persistent id, and nothing to resolve it")
        self._stack.append(self._persistent(argument))

    def _resolve_top(self, _: Any) -> None:
        self._resolve(self._stack.pop())

    def _extension(self, number: int) -> None:
        raise RefusedError([f"extension {number} of copyreg"])


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {as_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


_ARGUMENT_IS_VALUE = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE"),
        *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_NEW_VALUES: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_NOTHING_TO_DO = frozenset({"PROTO", "FRAME"})
_OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine._mark,
    "POP": _Machine._pop,
    "POP_MARK": _Machine._pop_mark,
    "DUP": _Machine._duplicate,
    "TUPLE": _Machine._tuple,
    "TUPLE1": lambda machine, _: machine._short_tuple(1),
    "TUPLE2": lambda machine, _: machine._short_tuple(2),
    "TUPLE3": lambda machine, _: machine._short_tuple(3),
    "LIST": _Machine._list,
    "DICT": _Machine._dict,
    "FROZENSET": _Machine._frozenset,
    "APPEND": _Machine._append_one,
    "APPENDS": _Machine._append_all,
    "SETITEM": _Machine._set_one_item,
    "SETITEMS": _Machine._set_all_items,
    "ADDITEMS": _Machine._add,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine._recall),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine._memorise),
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._new_object,
    "NEWOBJ_EX": _Machine._new_object_with_names,
    "INST": _Machine._old_class,
    "OBJ": _Machine._old_object,
    "BUILD": _Machine._build,
    "PERSID": _Machine._resolve,
    "BINPERSID": _Machine._resolve_top,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _Machine._extension),
}

_SIZED = (str, bytes, bytearray, list, tuple, dict, set)
_PASSED_AT_FIRST = 4096
_PASSED_PER_BYTE = 16
_LONGEST_NAME = 1000

# Protocols 0 to 2 name modules as Python 2 did.
_MODULES_OF_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_MAKE_AN_INSTANCE = frozenset({"copyreg._reconstructor", "copyreg.__newobj__"})
# How torch writes a tensor of a class of its own: (function, class, arguments, attributes).
_TENSOR_OF_A_CLASS = "torch._tensor._rebuild_from_type_v2"
_KNOWN_TYPES = PLAIN_TYPES | _MAKE_AN_INSTANCE | {_TENSOR_OF_A_CLASS}
_KNOWN_BY_NAME_ONLY = frozenset({*sys.stdlib_module_names, "torch", "numpy"})
