"""How one snapshot of the fleet follows another.

What did not change stays the same object, and what a person just asked for covers what the router still says.
No clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from modelhub_tui.domain import Model, ModelState, Node, NodeStatus

T = TypeVar("T")

LAST_SEEN_STEP_S = 30.0
"""An online node's `last_seen` moves all the time; it is news only in steps of this size."""

PULLABLE = frozenset({ModelState.AVAILABLE, ModelState.FAILED, ModelState.DELETING})
"""Reported states that a pull covers."""
PRESENT = frozenset(ModelState) - {ModelState.AVAILABLE, ModelState.DELETING}
"""Reported states that a deletion covers."""


@dataclass(slots=True, eq=False)
class Intent:
    """What a person asked for and no report has confirmed yet."""

    state: ModelState
    """The state to show."""
    reason: str
    over: frozenset[ModelState]
    """The reported states it covers; any other one means the router is further already."""
    done_at: int | None = None
    """Number of the last request for news begun before the router agreed; None while it has not."""


class Intents:
    """The unconfirmed intents, at most one for each model: the latest."""

    def __init__(self) -> None:
        self._by_key: dict[str, Intent] = {}
        self._covered: dict[str, tuple[Model, Intent, Model]] = {}

    def add(self, key: str, intent: Intent) -> None:
        """Cover the model from now on."""
        self._by_key[key] = intent

    def withdraw(self, key: str, intent: Intent) -> None:
        """Uncover the model, unless a later intent covers it."""
        if self._by_key.get(key) is intent:
            del self._by_key[key]

    def settle(self, number: int) -> bool:
        """Drop the intents that a report requested as `number` decides; True if there were any."""
        settled = [key for key, it in self._by_key.items() if it.done_at is not None and number > it.done_at]
        for key in settled:
            del self._by_key[key]
            self._covered.pop(key, None)
        return bool(settled)

    def cover(self, models: tuple[Model, ...]) -> tuple[Model, ...]:
        """The models as they will be once the router has done what it was asked to."""
        return tuple(self._cover(model) for model in models) if self._by_key else models

    def _cover(self, model: Model) -> Model:
        intent = self._by_key.get(model.key)
        if intent is None or model.state not in intent.over:
            return model
        seen = self._covered.get(model.key)
        if seen is None or seen[0] is not model or seen[1] is not intent:
            transfers = () if intent.state is ModelState.QUEUED else model.transfers
            covered = replace(model, state=intent.state, reason=intent.reason, transfers=transfers)
            self._covered[model.key] = seen = (model, intent, covered)
        return seen[2]


def steady(old: tuple[T, ...], new: tuple[T, ...]) -> tuple[T, ...]:
    """The old tuple itself if the new one holds the very same objects."""
    return old if len(old) == len(new) and all(map(_is, old, new)) else new


def steady_models(old: tuple[Model, ...], new: Iterable[Model]) -> tuple[Model, ...]:
    """The new models; each that equals its predecessor is the old object, so that only what changed is drawn anew."""
    known = {model.key: model for model in old}
    return steady(old, tuple(_same(known.get(model.key), model) for model in new))


def steady_nodes(old: tuple[Node, ...], new: Iterable[Node]) -> tuple[Node, ...]:
    """The new nodes, keeping the old object of each that only says, once more, that it is alive."""
    known = {node.id: node for node in old}
    return steady(old, tuple(_steady_node(known.get(node.id), node) for node in new))


def _steady_node(old: Node | None, new: Node) -> Node:
    if old is not None and new.status is NodeStatus.ONLINE and new.last_seen and old.last_seen:
        step_s = abs(new.last_seen - old.last_seen)
        if step_s < LAST_SEEN_STEP_S and replace(new, last_seen=old.last_seen) == old:
            return old
    return _same(old, new)


def _same(old: T | None, new: T) -> T:
    return old if old is not None and old == new else new


def _is(one: object, other: object) -> bool:
    return one is other
