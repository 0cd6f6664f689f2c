"""`dataclass` as in the standard library, for our kind of classes in less time.

The standard one writes and compiles up to six methods for each class at each start: together a fifth of what a bare
Textual app takes. Here only `__init__` is compiled; what compares, hashes, prints and protects is shared by all.
Type checkers see the standard decorator.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from itertools import repeat
from operator import attrgetter, call
from typing import TYPE_CHECKING, Any

_exhaust = deque[None](maxlen=0).extend
"""Lets an iterator do what it does, at the speed of C."""


def _dataclass(kind: type | None = None, /, *, frozen: bool = False, slots: bool = False, eq: bool = True) -> Any:
    """Make a dataclass of a class that defines none of the methods a dataclass gets.

    Raises:
        TypeError: A field is not given to `__init__` by position.
    """
    if kind is None:
        return lambda kind: _dataclass(kind, frozen=frozen, slots=slots, eq=eq)
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(kind)
    fields = dataclasses.fields(made)
    made.__init__ = _init(made, fields, frozen, slots)
    made.__repr__ = _repr([each.name for each in fields if each.repr])
    if eq:
        compared = _values([each.name for each in fields if each.compare])
        made.__eq__ = _eq(compared)
        made.__hash__ = (lambda self: hash(compared(self))) if frozen else None
    if frozen:
        made.__setattr__ = made.__delattr__ = _frozen
        everything = _values([each.name for each in fields])
        # Copies and pickles would set what cannot be set.
        made.__reduce__ = lambda self: (type(self), everything(self))
    return made


def _init(made: type, fields: tuple[dataclasses.Field[Any], ...], frozen: bool, slots: bool) -> Any:
    """The one method that is compiled: models are made by the hundred thousand.

    All fields are set by one expression, and defaults come without one: half as long to compile as statements for each.
    """
    known: dict[str, Any] = {"__name__": made.__module__, "missing_": dataclasses.MISSING, "self_": repeat}
    known |= {"all_": _exhaust, "map_": map}
    if slots:
        known |= {"set_": call, "each_": [getattr(made, each.name).__set__ for each in fields]}
        lines = ["all_(map_(set_, each_, self_(self), ({})))"]
    else:
        known |= {"set_": object.__setattr__ if frozen else setattr, "each_": [each.name for each in fields]}
        lines = ["all_(map_(set_, self_(self), each_, ({})))"]
    values: list[str] = []
    defaults: list[Any] = []
    for each in fields:
        name = value = each.name
        if each.kw_only or not each.init:
            raise TypeError(f"{made.__name__}.{name} is not given by position")
        if each.default is not dataclasses.MISSING:
            defaults.append(each.default)
        elif each.default_factory is not dataclasses.MISSING:
            known[f"make_{name}"] = each.default_factory
            defaults.append(dataclasses.MISSING)
            value = f"make_{name}() if {name} is missing_ else {name}"
        values.append(f"{value},")
    lines = [lines[0].format("".join(values))]
    if hasattr(made, "__post_init__"):  # Textual's messages have one
        lines.append("self.__post_init__()")
    exec(f"def __init__(self, {', '.join(each.name for each in fields)}):\n " + "\n ".join(lines), known)  # noqa: S102 - our own fields
    known["__init__"].__defaults__ = tuple(defaults)
    known["__init__"].__qualname__ = f"{made.__qualname__}.__init__"
    return known["__init__"]


def _values(names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What reads these attributes of an object."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


def _eq(compared: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any, object], bool]:
    def equal(self: Any, other: object) -> bool:
        return compared(self) == compared(other) if other.__class__ is self.__class__ else NotImplemented

    return equal


def _repr(names: list[str]) -> Callable[[Any], str]:
    def text(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return text


def _frozen(self: Any, name: str, *_: Any) -> None:
    raise dataclasses.FrozenInstanceError(f"{type(self).__qualname__}.{name} cannot be changed")


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    dataclass = _dataclass
