"""Views that follow a fleet from snapshot to snapshot say what looking at everything again would say."""

from __future__ import annotations

import random
from dataclasses import replace

from modelhub_tui.domain import Model
from modelhub_tui.filtering import Filter, ModelView, SortKey
from modelhub_tui.fleet_state import Following
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
    models = fleets.many(500).models
    for steps in (0, 1, 3, 9):
        view = ModelView()
        view.show(models, Filter(), SortKey.CATALOG)
        done = [view.prepare(120) for _ in range(steps)]
        assert any(done) == (steps * 120 >= 500)
        renamed = (*models[:200], replace(models[200], title="Zanzibar 7B"), *models[201:])
        for listed in (models, renamed):
            for text in ("zanzibar", "qwen 7b", "v3"):
                wanted = ModelView().show(listed, Filter(text), SortKey.CATALOG)
                assert view.show(listed, Filter(text), SortKey.CATALOG) == wanted
