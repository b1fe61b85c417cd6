"""Pickles read as plain values: a machine that follows a pickle's instructions and imports nothing.

A pickle is a program that may call any function by its name. Here a name stays a name: containers
are built, functions of our own stand in for the few that checkpoints need (`calls`), and an
instance of any other class becomes an inert `Record`. A pickle that calls or mentions anything
else is refused with that name. All protocols, 0 to 5, are read.
"""

import pickletools
import sys
from collections.abc import Callable, Iterator, Mapping
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
    """The pickle asks for functions or classes that are not plain data; the message names them."""


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
    budget: Iterator[int] | None = None,
) -> Any:
    """Return the value of the pickle at a stream's position, and leave the stream at its end.

    `calls` and `values` (what a name stands for) are known besides Python's and numpy's plain
    types; `persistent` resolves persistent ids; `budget` is what the pickles of one file
    share. Raises `RefusedError`; a damaged pickle raises almost any other exception.
    """
    machine = _Machine(PLAIN_CALLS | dict(calls or {}), values or {}, persistent)
    return machine.run(stream, instructions() if budget is None else budget)


def instructions() -> Iterator[int]:
    """Return a fresh budget: the instructions that the pickles of one file may have together."""
    return iter(range(_MOST_INSTRUCTIONS))


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

    def run(self, stream: BinaryIO, budget: Iterator[int]) -> Any:
        """Follow the instructions up to STOP."""
        start = stream.tell()
        for opcode, argument, place in pickletools.genops(stream):
            if next(budget, None) is None:
                raise ValueError(f"pickles of more than {_MOST_INSTRUCTIONS:,} instructions")
            self._length = (place or 0) - start
            if opcode.name == "STOP":
                # Functions and classes left among the values are not plain data.
                known = self._used | _KNOWN_TYPES
                if names := [name for name in self._mentioned if name not in known]:
                    raise RefusedError(", ".join(names[:5]))
                return self._stack.pop()
            self.step(opcode.name, argument)
        raise EOFError("the pickle has no end")

    def step(self, name: str, argument: Any) -> None:
        """Follow one instruction, by its name in `pickletools`."""
        match name:
            case _ if name in _ARGUMENT_IS_VALUE:
                self._push(argument)
            case _ if name in _NEW_VALUES:
                self._push(_NEW_VALUES[name]())
            case "PUT" | "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self._push(self._memo[argument])
            case "MARK":
                self._marks.append(self._stack)
                self._stack = []
            case "POP" if self._stack:
                self._stack.pop()
            case "POP" | "POP_MARK":
                self._since_mark()
            case "DUP":
                self._push(self._stack[-1])
            case "TUPLE":
                self._push(tuple(self._since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._push(tuple(self._last(int(name[-1]))))
            case "LIST":
                self._push(self._since_mark())
            case "DICT":
                self._push(_pairs(self._since_mark()))
            case "FROZENSET":
                self._push(frozenset(map(as_key, self._since_mark())))
            case "APPEND":
                self._append(self._last(1))
            case "APPENDS":
                self._append(self._since_mark())
            case "SETITEM":
                self._set_items(self._last(2))
            case "SETITEMS":
                self._set_items(self._since_mark())
            case "ADDITEMS":
                items = self._since_mark()
                require(self._stack[-1], set)
                self._stack[-1].update(map(as_key, items))
            case "GLOBAL":
                self._push(self._named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                self._push(self._named(*self._last(2)))
            case "REDUCE":
                self._push(self._call(*self._last(2)))
            case "INST":
                items = self._since_mark()
                self._push(self._call(self._named(*argument.split(" ", 1)), tuple(items)))
            case "OBJ":
                kind, *items = self._since_mark()
                self._push(self._call(kind, tuple(items)))
            case "NEWOBJ":
                self._push(self._new_object(*self._last(2)))
            case "NEWOBJ_EX":
                kind, arguments, names = self._last(3)
                require(names, dict)
                self._push(self._new_object(kind, arguments))
            case "BUILD":
                self._build(*self._last(1))
            case "PERSID":
                self._push(self._resolved(argument))
            case "BINPERSID":
                self._push(self._resolved(*self._last(1)))
            case "EXT1" | "EXT2" | "EXT4":
                raise RefusedError(f"extension {argument} of copyreg")
            case "PROTO" | "FRAME":
                pass
            case _:
                raise ValueError(f"the instruction {name}")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _last(self, count: int) -> list[Any]:
        """Take the last values off the stack; they come in the order in which they were pushed."""
        return [self._stack.pop() for _ in range(count)][::-1]

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        require(target, list, Record)
        (target.entries if isinstance(target, Record) else target).extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        require(target, dict, Record)
        (target.items if isinstance(target, Record) else target).update(_pairs(items))

    def _named(self, module: Any, name: Any) -> Any:
        """Return what a name stands for: a value of ours, else the name."""
        require(module, str)
        require(name, str)
        if len(module) + len(name) > _LONGEST_NAME:
            raise ValueError("a name that is too long")
        named = Global(_MODULES_OF_PYTHON_2.get(module, module), name)
        if str(named) in self._values:
            return self._values[str(named)]
        self._mentioned[str(named)] = None
        return named

    def _pass(self, arguments: tuple[Any, ...]) -> None:
        """Count what calls may copy: a short pickle could recall one long value very often."""
        require(arguments, tuple)
        sized = (value for value in arguments if isinstance(value, _SIZED))
        self._passed += 1 + len(arguments) + sum(map(len, sized))
        if self._passed > _PASSED_AT_FIRST + _PASSED_PER_BYTE * self._length:
            raise ValueError("the pickle passes the same long values again and again")

    def _call(self, function: Any, arguments: Any) -> Any:
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
            raise RefusedError(name)
        self._used.add(name)
        return self._calls[name](*arguments)

    def _new_object(self, kind: Any, arguments: Any) -> Any:
        self._pass(arguments)
        return self._instance(kind, arguments)

    def _instance(self, kind: Any, arguments: tuple[Any, ...]) -> Any:
        """Return an inert instance; classes of Python, torch and numpy have to be known."""
        require(kind, Global)
        name = str(kind)
        self._used.add(name)
        if name in self._calls:
            return self._calls[name](*arguments)
        if kind.module.partition(".")[0] in _KNOWN_BY_NAME_ONLY:
            raise RefusedError(name)
        return Record(name, *arguments)

    def _build(self, state: Any) -> None:
        """Keep a record's attributes; those of a plain container (`_metadata`) are left out."""
        target = self._stack[-1]
        require(target, Record, dict, list, set, Dtype)
        if isinstance(target, Record):
            target.state = state
        elif isinstance(target, Dtype):
            target.order = ">" if state[1] == ">" else "<"

    def _resolved(self, reference: Any) -> Any:
        if self._persistent is None:
            raise ValueError("a persistent id, and nothing to resolve it")
        return self._persistent(reference)


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

_SIZED = (str, bytes, bytearray, list, tuple, dict, set)
_PASSED_AT_FIRST = 4096
_PASSED_PER_BYTE = 16
_LONGEST_NAME = 1000
_MOST_INSTRUCTIONS = 2 * 10**6  # a second or two; each makes a value of some 200 bytes at most

# Protocols 0 to 2 name modules as Python 2 did.
_MODULES_OF_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_MAKE_AN_INSTANCE = frozenset({"copyreg._reconstructor", "copyreg.__newobj__"})
# How torch writes a tensor of a class of its own: (function, class, arguments, attributes).
_TENSOR_OF_A_CLASS = "torch._tensor._rebuild_from_type_v2"
_KNOWN_TYPES = PLAIN_TYPES | _MAKE_AN_INSTANCE | {_TENSOR_OF_A_CLASS}
_KNOWN_BY_NAME_ONLY = frozenset({*sys.stdlib_module_names, "torch", "numpy"})
