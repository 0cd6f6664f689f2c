"""`dataclass` as in the standard library, for our kind of classes in less time.

The standard one writes and compiles up to six methods for each class at each start: together a fifth of what a bare
Textual app takes. Here only `__init__` is compiled; what compares, hashes, prints and protects is shared by all.
Type checkers see the standard decorator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any


def _dataclass(kind: type | None = None, /, *, frozen: bool = False, slots: bool = False, eq: bool = True) -> Any:
    """Make a dataclass of a class that defines none of the methods a dataclass gets.

    Raises:
        TypeError: A field is not given to `__init__` by position.
    """
    if kind is None:
        return lambda kind: _dataclass(kind, frozen=frozen, slots=slots, eq=eq)
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(kind)
    fields = dataclasses.fields(made)
    made.__init__ = _init(made, fields, "set_(self, {0!r}, {1})" if frozen else "self.{0} = {1}")
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


def _init(made: type, fields: tuple[dataclasses.Field[Any], ...], setting: str) -> Any:
    """The one method that is compiled: models are made by the hundred thousand."""
    known: dict[str, Any] = {"__name__": made.__module__, "set_": object.__setattr__, "missing_": dataclasses.MISSING}
    parameters, lines = ["self"], []
    for each in fields:
        name = value = each.name
        if each.kw_only or not each.init:
            raise TypeError(f"{made.__name__}.{name} is not given by position")
        if each.default is not dataclasses.MISSING:
            known[f"default_{name}"] = each.default
            parameters.append(f"{name}=default_{name}")
        elif each.default_factory is not dataclasses.MISSING:
            known[f"make_{name}"] = each.default_factory
            parameters.append(f"{name}=missing_")
            value = f"make_{name}() if {name} is missing_ else {name}"
        else:
            parameters.append(name)
        lines.append(setting.format(name, value))
    if hasattr(made, "__post_init__"):  # Textual's messages have one
        lines.append("self.__post_init__()")
    exec(f"def __init__({', '.join(parameters)}):\n " + "\n ".join(lines or ["pass"]), known)  # noqa: S102 - our own fields
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
