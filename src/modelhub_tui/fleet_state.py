"""How one snapshot of the fleet follows another.

What did not change stays the same object, and what a person just asked for covers what the router still says.
No clock, no I/O.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, TypeVar

from modelhub_tui.domain import (
    CatalogEntry,
    HubStats,
    Model,
    ModelState,
    Node,
    NodeStatus,
    Phase,
    RouterModel,
    RouterReport,
)
from modelhub_tui.states import join_models, model_key
from modelhub_tui.values import dataclass

T = TypeVar("T")

LAST_SEEN_STEP_S = 30.0
"""An online node's `last_seen` moves all the time; it is news only in steps of this size."""

_STRETCH = 64
"""Members compared at once: most stretches are as they were."""

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
    patience_s: float = 0.0
    """How long after the router agreed reports may still tell the old state, because nodes have to follow first."""
    done_at: int | None = None
    """Number of the last request for news begun before the router agreed; None while it has not."""
    agreed_at: float = 0.0
    """When it did, on a clock that nobody sets."""

    def decided(self, number: int, now: float) -> bool:
        """Whether a report requested as `number` tells how it went."""
        waits = now - self.agreed_at < self.patience_s
        return self.done_at is not None and number > self.done_at and not waits


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

    def settle(self, number: int, now: float) -> bool:
        """Drop the intents that a report requested as `number` decides; True if there were any."""
        settled = [key for key, intent in self._by_key.items() if intent.decided(number, now)]
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
            covered = _covered(model, intent)
            self._covered[model.key] = seen = (model, intent, covered)
        return seen[2]


def _covered(model: Model, intent: Intent) -> Model:
    """The model as it will be. What is held or let go on keeps its figures; what starts afresh has none."""
    phase = {ModelState.PAUSED: Phase.PAUSED, ModelState.QUEUED: Phase.WAITING}.get(intent.state)
    transfers = model.transfers
    if ModelState.PAUSED in (intent.state, model.state) and phase is not None:
        transfers = tuple(
            replace(each, phase=phase, bytes_per_s=None, eta_s=None, stalled_s=None, retry_in_s=None, error=None)
            for each in transfers
        )
    elif intent.state is ModelState.QUEUED:
        transfers = ()
    paused = intent.state is ModelState.PAUSED or (model.paused and intent.state is not ModelState.QUEUED)
    return replace(model, state=intent.state, reason=intent.reason, paused=paused, transfers=transfers)


class FleetJoin:
    """Joins catalog and reports again and again; when only a few records changed, only they are joined anew.

    Args:
        catalog: The supported models.
        known: What they and others were like last; without it the catalog alone is there before the first report.
    """

    def __init__(self, catalog: tuple[CatalogEntry, ...], known: tuple[Model, ...] | None = None) -> None:
        self._catalog = catalog
        self._entries = {model_key(entry.repo, entry.file): entry for entry in catalog}
        self._report: RouterReport | None = None
        self._stats: Mapping[str, HubStats] = {}
        self._places: dict[str, int] = {}
        """Position of the model made from the record with this name; a name that several have is not in it."""
        self.models = join_models(catalog, None) if known is None else known
        """The last result."""

    def join(self, report: RouterReport | None, stats: Mapping[str, HubStats]) -> tuple[Model, ...]:
        """Return all models; each that did not change is the same object as in the last result."""
        changed = self._changed(report, stats)
        few = self._join_few(changed, report, stats) if changed is not None and report is not None else None
        if few is None:
            self.models = steady_models(self.models, join_models(self._catalog, report, stats))
            self._places = _places(self.models, report)
        else:
            self.models = few
        self._report, self._stats = report, stats
        return self.models

    def _changed(self, report: RouterReport | None, stats: Mapping[str, HubStats]) -> list[RouterModel] | None:
        """The records that changed, if nothing else did that decides which record goes with which entry."""
        last = self._report
        if last is None or report is None or stats is not self._stats or len(last.models) != len(report.models):
            return None
        if last.nodes is not report.nodes and _online(last.nodes) != _online(report.nodes):
            return None
        changed = changed_at(last.models, report.models)
        same = all(_identity(last.models[at]) == _identity(report.models[at]) for at in changed)
        return [report.models[at] for at in changed] if same else None

    def _join_few(
        self, changed: list[RouterModel], report: RouterReport, stats: Mapping[str, HubStats]
    ) -> tuple[Model, ...] | None:
        models = list(self.models)
        for told in changed:
            at = self._places.get(told.name)
            if at is None:
                return None
            entry = self._entries.get(models[at].key)
            found = join_models((entry,) if entry else (), RouterReport((told,), report.nodes), stats)
            if len(found) != 1 or found[0].key != models[at].key:
                return None
            models[at] = _same(models[at], found[0])
        return steady(self.models, tuple(models))


_compared: tuple[tuple[Any, ...], tuple[Any, ...], Sequence[int]] = ((), (), ())
"""The two tuples that were compared last, and the answer: four views follow the same fleet."""


def changed_at(old: tuple[T, ...], new: tuple[T, ...]) -> Sequence[int]:
    """Positions at which two tuples of the same length differ; what is equal may count as the same.

    Whole stretches are compared first: identical members cost 3 ns each so, and 30 ns when looked at one by one.
    """
    global _compared
    last_old, last_new, found_last = _compared
    if old is last_old and new is last_new:
        return found_last
    found: list[int] = []
    for start in range(0, len(new), _STRETCH):
        was, now = old[start : start + _STRETCH], new[start : start + _STRETCH]
        if was != now:
            found += compress(range(start, start + len(now)), map(operator.is_not, was, now))
    _compared = (old, new, found)
    return found


class Following:
    """The models that pass a test, from snapshot to snapshot: what did not change is not looked at again.

    Args:
        passes: Decides by the model alone.
    """

    def __init__(self, passes: Callable[[Model], bool]) -> None:
        self._passes = passes
        self._models: tuple[Model, ...] = ()
        self._at: list[int] = []
        self._found: tuple[Model, ...] = ()

    def of(self, models: tuple[Model, ...]) -> tuple[Model, ...]:
        """Those of `models` that pass, in order."""
        old, self._models = self._models, models
        if models is old:
            return self._found
        passes = self._passes
        changed = changed_at(old, models) if len(old) == len(models) else None
        if changed is None or any(passes(old[at]) != passes(models[at]) for at in changed):
            self._at = [at for at, model in enumerate(models) if passes(model)]
        elif not any(passes(models[at]) for at in changed):
            return self._found
        self._found = tuple(map(models.__getitem__, self._at))
        return self._found


def _places(models: tuple[Model, ...], report: RouterReport | None) -> dict[str, int]:
    shown = Counter(model.name for model in models)
    told = Counter(each.name for each in report.models) if report else Counter()
    return {model.name: at for at, model in enumerate(models) if shown[model.name] == told[model.name] == 1}


def _identity(told: RouterModel) -> tuple[object, ...]:
    return (told.name, told.repo, told.file, told.registered)


def _online(nodes: tuple[Node, ...]) -> list[str]:
    """All that a model's state says about nodes that do nothing with it."""
    return [node.name for node in nodes if node.status is NodeStatus.ONLINE]


def steady(old: tuple[T, ...], new: tuple[T, ...]) -> tuple[T, ...]:
    """The old tuple itself if the new one holds the very same objects."""
    return old if len(old) == len(new) and all(map(operator.is_, old, new)) else new


def steady_models(old: tuple[Model, ...], new: Iterable[Model]) -> tuple[Model, ...]:
    """The new models; each that equals its predecessor is the old object, so that only what changed is drawn anew."""
    known = {model.key: model for model in old}
    return steady(old, tuple(_same(known.get(model.key), model) for model in new))


def steady_nodes(old: tuple[Node, ...], new: Iterable[Node]) -> tuple[Node, ...]:
    """The new nodes, keeping the old object of each that only says, once more, that it is alive."""
    known = {node.id: node for node in old}
    return steady(old, tuple(_steady_node(known.get(node.id), node) for node in new))


def _steady_node(old: Node | None, new: Node) -> Node:
    if new is old:
        return new
    if old is not None and new.status is NodeStatus.ONLINE and new.last_seen and old.last_seen:
        step_s = abs(new.last_seen - old.last_seen)
        if step_s < LAST_SEEN_STEP_S and replace(new, last_seen=old.last_seen) == old:
            return old
    return _same(old, new)


def _same(old: T | None, new: T) -> T:
    return old if old is not None and old == new else new
