"""Frozen dataclasses that check their values, built in Python as strictly as from JSON or TOML.

@dataclass(frozen=True, kw_only=True)
class Loss(Checked, error=RecipeError):
    kind: Literal["cross-entropy", "focal"] = "cross-entropy"
    label_smoothing: Annotated[float, within(ge=0, lt=1)] = 0.0

`Loss(label_smoothing=2)` and `Loss.from_dict({"label_smoothing": 2})` raise the `RecipeError`
"label_smoothing must be a finite number from 0 to below 1, not 2".
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields
from math import inf
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin

from regnet.system.errors import RegNetError, shown

E = TypeVar("E", bound=RegNetError)


@dataclass(frozen=True)
class Rule:
    """A test of a value beside its type; `words` follow the type's, as in "a text of digits"."""

    words: str
    test: Callable[[Any], object]


def within(*, ge: float = -inf, gt: float = -inf, le: float = inf, lt: float = inf) -> Rule:
    """Return the rule that a number is at least `ge` or over `gt`, at most `le` or below `lt`."""
    high = f"below {lt}" if lt < inf else f"at most {le}" if le < inf else ""
    if gt > -inf:
        words = " and ".join(filter(None, [f"over {gt}", high]))
    else:
        words = f"from {ge} to {high.removeprefix('at most ')}" if high else f"of at least {ge}"
    return Rule(words, lambda number: ge <= number <= le and gt < number < lt)


def refused(error: type[E], name: str, value: object, allowed: str) -> E:
    """Return the error that `name` has a value other than those allowed."""
    refusal = error(f"{name} must be {allowed}, not {shown(value)}")
    vars(refusal).update(parameter=name, value=value, allowed=allowed)
    return refusal


class Checked:
    """Base of frozen dataclasses whose values must fit the annotations; `error` is raised if not.

    Annotations may be int, float (finite), str, bool, None, Literal, tuple, a checked dataclass or
    any other class, unions of these, and Annotated with one `Rule`. Lists become the tuples, and
    dicts the checked dataclasses, that the annotation asks for.
    """

    _error: ClassVar[type[RegNetError]] = RegNetError
    _known: ClassVar[dict[str, "_Kind"]]

    def __init_subclass__(cls, *, error: type[RegNetError] | None = None) -> None:
        cls._error = error or cls._error

    def __post_init__(self) -> None:
        for name, kind in _kinds(type(self)).items():
            value = getattr(self, name)
            try:
                fitting = kind.fit(value)
            except _UnfitError as exc:
                raise refused(self._error, name, value, str(kind)) from exc
            except RegNetError as exc:
                raise self._error(f"{name}: {exc}") from exc
            if fitting is not value:
                object.__setattr__(self, name, fitting)

    def _require(self, fine: object, name: str, allowed: str) -> None:
        """Raise that a field must be what is allowed unless it is fine; for rules of several."""
        if not fine:
            raise refused(self._error, name, getattr(self, name), allowed)

    @classmethod
    def from_dict(cls, values: object) -> Self:
        """Return the dataclass with these values, by name or (unless keyword-only) in order."""
        known = _kinds(cls)
        names = [f.name for f in fields(cls) if not f.kw_only]  # type: ignore[arg-type]
        if names and isinstance(values, list | tuple) and len(values) <= len(names):
            values = dict(zip(names, values, strict=False))
        if not isinstance(values, dict):
            raise cls._error(f"expected {_Kind(cls)}, got {shown(values)}")
        if unknown := [name for name in values if name not in known]:
            raise cls._error(f"unknown field {shown(unknown[0])}; known: {', '.join(known)}")
        for f in fields(cls):  # type: ignore[arg-type]
            if f.name not in values and f.default is f.default_factory is MISSING:
                raise cls._error(f"the field {f.name!r} is missing")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as plain JSON values; `from_dict` reads them back."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]


class _UnfitError(Exception):
    """A value does not fit an annotation."""


class _Kind:
    """An annotation, taken apart once."""

    def __init__(self, annotation: Any) -> None:
        checked = isinstance(annotation, type) and issubclass(annotation, Checked)
        origin = Checked if checked else get_origin(annotation)
        self.kind = annotation if origin in (None, Checked) else origin
        self.origin = Union if origin is UnionType else origin
        self.args = get_args(annotation)
        self.repeated = Ellipsis in self.args
        first = 1 if self.origin is Annotated or self.repeated else len(self.args)
        nested = self.args[:first] if self.origin in (Annotated, Union, tuple) else ()
        self.nested = [_Kind(arg) for arg in nested]

    def fit(self, value: Any) -> Any:
        """Return a value as a field of this kind holds it; raises `_UnfitError`."""
        if self.origin is Annotated:
            value = self.nested[0].fit(value)
            fits = self.args[1].test(value)
        elif self.origin is Union:
            return self._fit_one(value)
        elif self.origin is tuple:
            return self._fit_items(value)
        elif self.origin is Literal:
            fits = isinstance(value, str) and value in self.args
        elif self.origin is Checked:
            if isinstance(value, (dict, list, tuple)):
                value = self.kind.from_dict(value)
            fits = isinstance(value, self.kind)
        elif self.kind is Any or isinstance(value, bool):
            fits = self.kind in (bool, Any)
        elif self.kind is float:
            fits = isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
        else:
            fits = isinstance(value, self.kind)
        if not fits:
            raise _UnfitError
        return value

    def _fit_one(self, value: Any) -> Any:
        """Return a value as the first kind of a union that fits; a dict as the one of its keys."""
        checked = [nested for nested in self.nested if nested.origin is Checked]
        if isinstance(value, dict) and checked:
            return max(checked, key=lambda c: len(_kinds(c.kind).keys() & value)).fit(value)
        for nested in self.nested:
            with suppress(_UnfitError):
                return nested.fit(value)
        raise _UnfitError

    def _fit_items(self, values: Any) -> tuple[Any, ...]:
        if isinstance(values, list | tuple):
            kinds = self.nested * len(values) if self.repeated else self.nested
            if len(values) == len(kinds):
                return tuple(kind.fit(value) for kind, value in zip(kinds, values, strict=True))
        raise _UnfitError

    def __str__(self) -> str:
        words = [str(nested) for nested in self.nested]
        if self.origin is Annotated:
            return f"{words[0]} {self.args[1].words}"
        if self.origin is tuple:
            return f"a list of {words[0]}" if self.repeated else f"[{', '.join(words)}]"
        if self.origin is Literal:
            words = list(map(repr, self.args))
        if words:
            return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
        if self.origin is Checked:
            return f"a table of {', '.join(_kinds(self.kind))}"
        return _WORDS.get(self.kind) or f"a {self.kind.__name__}"


_NUMBERS = {float: "a finite number", int: "a whole number"}
_WORDS = _NUMBERS | {bool: "true or false", str: "a text", NoneType: "None"}


def _kinds(cls: type[Checked]) -> dict[str, _Kind]:
    """Return the kind of each field, by name."""
    if "_known" not in vars(cls):
        cls._known = {f.name: _Kind(f.type) for f in fields(cls)}  # type: ignore[arg-type]
    return cls._known
