"""How one snapshot follows another: joining only what changed gives what joining everything gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from modelhub_tui.domain import (
    CatalogEntry,
    CatalogFile,
    HubStats,
    ModelState,
    NodeStatus,
    Phase,
    Placement,
    RouterModel,
    RouterReport,
    Transfer,
)
from modelhub_tui.fleet_state import FleetJoin, Intent, Intents, steady_nodes
from modelhub_tui.states import join_models
from tests.client.fakes import NODE

CATALOG = tuple(
    CatalogEntry(f"e{number}", f"Entry {number}", "", f"Acme/R{number // 2}", (CatalogFile(f"f{number}.gguf", 10),))
    for number in range(6)
)
OFF = replace(NODE, status=NodeStatus.OFFLINE)

records = st.builds(
    RouterModel,
    name=st.sampled_from([f"acme/r{number}" for number in range(4)] + ["acme/r1:f3", "zed/z"]),
    repo=st.sampled_from([f"Acme/R{number}" for number in range(4)] + ["Zed/Z"]),
    file=st.sampled_from([None, *(f"f{number}.gguf" for number in range(7))]),
    registered=st.booleans(),
    deleting=st.booleans(),
    transfers=st.sampled_from([(), (Transfer("gpu-01", Phase.FETCHING, 5, 10),)]),
    placements=st.sampled_from([(), (Placement("gpu-01"),)]),
)
reports = st.builds(
    RouterReport,
    st.lists(records, max_size=7).map(tuple),
    st.sampled_from([(NODE,), (OFF,), (replace(NODE, last_seen=9),)]),
)


@st.composite
def histories(draw: Any) -> list[RouterReport]:
    """Reports as they come: mostly the last one with a few records in another state."""
    history = [draw(reports)]
    for _ in range(draw(st.integers(1, 6))):
        last = history[-1]
        if last.models and draw(st.booleans()):
            at = draw(st.integers(0, len(last.models) - 1))
            models = list(last.models)
            models[at] = replace(models[at], transfers=draw(st.sampled_from([(), (Transfer("n", Phase.WAITING),)])))
            history.append(RouterReport(tuple(models), draw(st.sampled_from([last.nodes, (replace(NODE),)]))))
        else:
            history.append(draw(reports))
    return history


@settings(max_examples=150, deadline=None)
@given(histories())
def test_joining_what_changed_is_joining_everything(history: list[RouterReport]) -> None:
    join, stats = FleetJoin(CATALOG), {"acme/r1": HubStats(1, 2)}
    for report in history:
        before = {model.key: model for model in join.models}
        after = join.join(report, stats)
        assert after == join_models(CATALOG, report, stats)
        assert all(model is before[model.key] for model in after if before.get(model.key) == model)


def test_a_few_changes_join_a_few_records(monkeypatch: Any) -> None:
    """The proof that the short way is taken at all."""
    models = tuple(RouterModel(f"a/m{number:03}", f"A/M{number:03}", "f.gguf", True) for number in range(100))
    join, stats = FleetJoin(()), {}
    join.join(RouterReport(models, (NODE,)), stats)
    joined: list[int] = []

    def counting(catalog: Any, report: RouterReport, told: Any) -> Any:
        joined.append(len(report.models))
        return join_models(catalog, report, told)

    monkeypatch.setattr("modelhub_tui.fleet_state.join_models", counting)
    changed = (*models[:50], replace(models[50], size_bytes=7), *models[51:])
    after = join.join(RouterReport(changed, (NODE,)), stats)
    assert joined == [1] and after[50].size_bytes == 7
    join.join(RouterReport(changed, (OFF,)), stats)
    assert joined == [1, 100]  # a node that went away changes what everybody waits for


def test_the_latest_intent_wins_and_only_it_can_be_withdrawn() -> None:
    models = join_models(CATALOG, None)
    intents = Intents()
    first = Intent(ModelState.QUEUED, "registering…", frozenset({ModelState.AVAILABLE}))
    second = Intent(ModelState.DELETING, "", frozenset({ModelState.AVAILABLE}))
    intents.add(models[0].key, first)
    covered = intents.cover(models)
    assert covered[0].state is ModelState.QUEUED and covered[1] is models[1]
    assert intents.cover(models)[0] is covered[0]
    intents.add(models[0].key, second)
    intents.withdraw(models[0].key, first)
    assert intents.cover(models)[0].state is ModelState.DELETING
    second.done_at = 4
    assert not intents.settle(4, 100.0)
    assert intents.settle(5, 100.0)
    assert intents.cover(models) is models


def test_an_intent_that_nodes_have_to_follow_waits_for_them_for_a_while() -> None:
    intent = Intent(ModelState.PAUSED, "", frozenset({ModelState.DOWNLOADING}), patience_s=5.0)
    assert not intent.decided(9, 100.0)
    intent.done_at, intent.agreed_at = 4, 100.0
    assert [intent.decided(5, at) for at in (100.0, 104.9, 105.0)] == [False, False, True]
    assert not intent.decided(4, 105.0)


def test_a_node_that_only_says_it_is_alive_is_the_same_object() -> None:
    old = (NODE,)
    assert steady_nodes(old, (replace(NODE, last_seen=120.0),)) is old
    assert steady_nodes(old, (replace(NODE, last_seen=131.0),))[0].last_seen == 131.0
    assert steady_nodes(old, (replace(NODE, last_seen=120.0, ram_bytes=1),))[0].ram_bytes == 1
    assert steady_nodes(old, (replace(OFF, last_seen=120.0),))[0].status is NodeStatus.OFFLINE
    assert steady_nodes(old, (replace(NODE),)) is old


def test_a_node_that_is_the_same_object_is_not_looked_at(monkeypatch: Any) -> None:
    """At 1,000 nodes the copies made for it were half of what a report costs."""
    node = replace(NODE, status=NodeStatus.ONLINE, last_seen=1_800_000_000.0)
    old = (node,)

    def copied(*_: object, **__: object) -> None:
        raise AssertionError("the node was copied")

    monkeypatch.setattr("modelhub_tui.fleet_state.replace", copied)
    assert steady_nodes(old, [node]) is old
