"""Our `dataclass` does what the standard one does, and compiles one method where that compiles six."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field, fields, replace
from typing import Any

import pytest

from modelhub_tui.domain import Node, NodeStatus
from modelhub_tui.values import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """A frozen one."""

    x: int
    y: int = 0
    secret: str = field(default="", repr=False, compare=False)
    tags: tuple[str, ...] = field(default_factory=tuple)

    def moved(self) -> Point:
        return replace(self, x=self.x + 1)


@dataclass(frozen=True, slots=True)
class Alone:
    """With one field."""

    x: int


@dataclass
class Loose:
    """One that changes."""

    x: int
    found: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Itself:
    """Equal to itself only."""

    x: int


def test_values_are_equal_hashed_and_printed_by_their_fields() -> None:
    assert Point(1, 2, "a") == Point(1, y=2, secret="b") != Point(1, 3)
    assert len({Point(1), Point(1, secret="b"), Point(2)}) == 2
    assert repr(Point(1, secret="b")) == "Point(x=1, y=0, tags=())"
    assert Point(1).moved() == Point(2)
    assert Alone(1) == Alone(1) != Alone(2)
    assert hash(Alone(1)) == hash(Alone(1))
    assert Alone(1) != Point(1)
    assert [each.name for each in fields(Point)] == ["x", "y", "secret", "tags"]
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)


@pytest.mark.parametrize(
    "change", [lambda v: setattr(v, "x", 2), lambda v: delattr(v, "x"), lambda v: setattr(v, "z", 2)]
)
def test_frozen_values_cannot_be_changed(change: Callable[[Any], None]) -> None:
    point = Point(1)
    with pytest.raises(FrozenInstanceError):
        change(point)
    assert point == Point(1)
    assert not hasattr(point, "__dict__")


def test_frozen_values_can_be_copied_and_pickled() -> None:
    node = Node("1", "a", NodeStatus.ONLINE, ram_bytes=5)
    assert copy.deepcopy(node) == node == pickle.loads(pickle.dumps(node))


def test_others_can_be_changed_and_are_no_keys() -> None:
    one, other = Loose(1), Loose(1)
    one.found.append(3)
    assert one != other
    one.found.clear()
    assert one == other
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)
    assert Itself(1) != Itself(1)


def test_a_wrong_call_says_whose() -> None:
    with pytest.raises(TypeError, match=r"Point.__init__\(\) missing 1 required positional argument: 'x'"):
        Point()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'q'"):
        Point(1, q=2)  # type: ignore[call-arg]


def test_fields_that_are_not_given_by_position_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Odd\.x is not given by position"):

        @dataclass
        class Odd:
            x: int = field(default=1, kw_only=True)


def test_the_standard_library_compiles_nothing_for_our_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(name: str, *_: Any, **__: Any) -> None:
        pytest.fail(f"{name} was compiled")

    monkeypatch.setattr(dataclasses, "_create_fn", compiled)

    @dataclass(frozen=True, slots=True)
    class Value:
        """Any."""

        x: int = 1

    assert Value() == Value(1)
