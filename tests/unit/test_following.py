"""Views that follow a fleet from snapshot to snapshot say what looking at everything again would say."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from modelhub_tui.domain import Model
from modelhub_tui.filtering import Filter, ModelView, SortKey
from modelhub_tui.fleet_state import Following
from modelhub_tui.search_texts import PAGE
from tests.tui import fleets


def test_following_finds_what_a_fresh_look_finds() -> None:
    choose = random.Random(7)
    models = fleets.many(120).models
    followed = {test: Following(test) for test in (Model.is_local, Model.is_moving, Model.is_transferred)}
    for _ in range(200):
        changed = list(models)
        for at in choose.sample(range(len(changed)), choose.randrange(4)):
            change = choose.choice((fleets.downloaded, fleets.queued, fleets.paused, fleets.deleting))
            changed[at] = choose.choice((change(changed[at]), fleets.downloading(changed[at], choose.random())))
        if choose.random() < 0.1:
            changed.pop(choose.randrange(len(changed)))
        models = tuple(changed)
        for test, follows in followed.items():
            assert follows.of(models) == tuple(each for each in models if test(each))
            assert follows.of(models) is follows.of(models)


def test_a_prepared_search_finds_what_an_unprepared_one_finds() -> None:
    models = fleets.many(2 * PAGE + 500).models
    for steps in (0, 1, 2, 5):
        view = ModelView()
        view.show(models, Filter(), SortKey.CATALOG)
        done = [view.prepare(1) for _ in range(steps)]
        assert any(done) == (steps * PAGE >= len(models))
        renamed = (*models[:200], replace(models[200], title="Zanzibar 7B"), *models[201:])
        for listed in (models, renamed):
            for text in ("zanzibar", "qwen 7b", "v3"):
                wanted = ModelView().show(listed, Filter(text), SortKey.CATALOG)
                assert view.show(listed, Filter(text), SortKey.CATALOG) == wanted


@pytest.mark.parametrize("sort", [SortKey.CATALOG, SortKey.NAME])
@pytest.mark.parametrize("text", ["v", "qwen 7b", "2", "gguf 12", "zanzibar", "coding"])
def test_a_search_that_stops_at_a_screenful_has_the_first_of_all_it_will_find(text: str, sort: SortKey) -> None:
    models = fleets.many(6 * PAGE + 17).models
    wanted = ModelView().show(models, Filter(text), sort)
    view, found = ModelView(), ()
    for step in range(20):
        before, found = found, view.show(models, Filter(text), sort, enough=40, pages=2)
        assert found == wanted[: len(found)]
        assert len(before) <= len(found)
        if view.complete:
            break
        assert len(found) >= 40
        if step == 2:
            # Meanwhile a model makes progress, which asks for all again.
            models = (fleets.downloading(models[0], 0.5), *models[1:])
            wanted = ModelView().show(models, Filter(text), sort)
    assert view.complete
    assert found == wanted
    if text in ("v", "2"):
        assert step > 2, "it stopped on the way"
