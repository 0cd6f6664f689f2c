"""YAML as plain values, each with the line it came from.

The file is read event by event instead of through a loader: that gives every problem its line, and neither aliases nor
deep nesting can make a small file expensive. (libyaml's composer recurses in C: 50,000 brackets crash the process.)
"""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from modelhub_tui.small_files import read_small
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

MAX_PROBLEMS = 200
_LIMIT_BYTES = 5_000_000
_MAX_DEPTH = 8
"""A catalog has five levels: the file, its models, an entry, its files, a file."""
_MAX_VALUES = 250_000
"""About what fits into the largest file, at two seconds; a list of nothing but commas would take ten."""

Where = tuple[str | int, ...]
"""Place of a value in the file: keys and positions from the top."""


class Unreadable(Exception):
    """The file is no YAML, or not the plain YAML that a catalog is. Carries nothing: the problem is in the report."""


@dataclass
class Report:
    """The problems found so far."""

    file: str
    found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, problem: str) -> None:
        self.found.append((line, problem))

    @property
    def full(self) -> bool:
        """True when nobody would read more."""
        return len(self.found) > MAX_PROBLEMS

    @property
    def lines(self) -> tuple[str, ...]:
        """In the order of the file, so that a person can work through them."""
        ordered = sorted(self.found, key=lambda each: each[0])
        lines = [f"{self.file}:{line}: {problem}" for line, problem in ordered[:MAX_PROBLEMS]]
        if self.full:
            lines.append(f"{self.file}:{ordered[MAX_PROBLEMS][0]}: there are more problems; mend these first")
        return tuple(lines)


@dataclass
class Tree:
    """A document's value, and where each part of it stands."""

    value: object = None
    lines: dict[Where, int] = field(default_factory=dict)
    repeated: list[tuple[Where, int]] = field(default_factory=list)
    """Fields given a second time, with the line of that; their first value is the one kept."""

    def line(self, where: Where) -> int:
        """1-based line of a value, or of the nearest thing around it that is in the file."""
        while where and where not in self.lines:
            where = where[:-1]
        return self.lines.get(where, 1)


def read_yaml(path: Path, report: Report) -> Tree:
    """Read one document of plain values: no tags, anchors or aliases.

    Raises:
        Unreadable: With the problem in `report`; looking further would only produce misleading ones.
    """
    raw = b""
    try:
        raw = read_small(path, _LIMIT_BYTES, follow_links=True)
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        report.add(raw.count(b"\n", 0, error.start) + 1, "is not UTF-8 text; save it in that encoding")
        raise Unreadable from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a usable name"
        report.add(1, f"cannot be read ({why}); check the name and its permissions")
        raise Unreadable from error
    return _Reader(report).read(text)


class _Reader:
    """Turns YAML's events into values."""

    def __init__(self, report: Report) -> None:
        self._report, self._tree = report, Tree()
        self._resolver, self._construct = Resolver(), SafeConstructor()
        self._values = 0

    def read(self, text: str) -> Tree:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            self._events = iter(yaml.parse(text, Loader=loader))
            next(self._events)  # the stream begins
            if isinstance(next(self._events), yaml.StreamEndEvent):
                return self._tree
            self._tree.value = self._value(next(self._events), ())
            next(self._events)  # the document ends
            after = next(self._events)
            if not isinstance(after, yaml.StreamEndEvent):
                self._report.add(_line(after), "a second document begins; put all models into the first")
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
            why = clean(getattr(error, "problem", None) or getattr(error, "reason", None) or "no valid text", 120)
            # The end of the text may be a line further than its last.
            line = min(mark.line, text.count("\n")) + 1 if mark else 1
            raise self._stop(line, f"is not valid YAML ({why}); check quotes, colons and indentation") from error
        return self._tree

    def _value(self, event: Any, where: Where) -> object:
        line = _line(event)
        self._tree.lines.setdefault(where, line)
        self._values += 1
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            raise self._stop(line, "uses a YAML anchor or alias; write the value out")
        if event.tag not in (None, "!"):
            raise self._stop(line, f"has the YAML tag {clean(event.tag, 40)}; write plain values")
        if len(where) > _MAX_DEPTH:
            raise self._stop(line, "is nested too deeply; models: is a list of entries with plain fields")
        if self._values > _MAX_VALUES:
            raise self._stop(line, f"has more than {_MAX_VALUES} values; a catalog only lists models, so shorten it")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(where)
        return self._mapping(where) if isinstance(event, yaml.MappingStartEvent) else self._scalar(event)

    def _sequence(self, where: Where) -> list[object]:
        values: list[object] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            values.append(self._value(event, (*where, len(values))))
        return values

    def _mapping(self, where: Where) -> dict[str, object]:
        values: dict[str, object] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise self._stop(line, "has a list, a mapping or an alias where a field's name should be")
            name = clean(event.value, 60)
            at: Where = (*where, name)
            if name in values:
                self._tree.repeated.append((at, line))
                self._value(next(self._events), (*at, "again"))
            else:
                self._tree.lines[at] = line
                values[name] = self._value(next(self._events), at)
        return values

    def _scalar(self, event: Any) -> object:
        text: str = event.value
        tag = self._resolver.resolve(yaml.ScalarNode, text, event.implicit).rsplit(":", 1)[-1]
        node = yaml.ScalarNode(f"tag:yaml.org,2002:{tag}", text)
        if tag == "null":
            return None
        if tag == "bool":
            return self._construct.construct_yaml_bool(node)
        # A number longer than this is none that a field takes, and Python would not print it. Dates stay text.
        if tag in ("int", "float") and len(text) <= 40:
            number = self._construct.construct_yaml_int if tag == "int" else self._construct.construct_yaml_float
            try:
                return number(node)
            except ValueError:
                return text  # `0x_` looks like a number to YAML, but is none
        return text

    def _stop(self, line: int, problem: str) -> Unreadable:
        self._report.add(line, problem)
        return Unreadable()


def _line(event: Any) -> int:
    """1-based, as editors count."""
    return int(event.start_mark.line) + 1
