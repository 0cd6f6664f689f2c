"""Moments, spans and places in words; what happened while nobody looked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelhub_tui.away import while_away
from modelhub_tui.domain import CatalogEntry, CatalogFile, Connection, Fleet, Link, ModelState
from modelhub_tui.states import join_models
from modelhub_tui.widgets.moments import exact, in_words, moment, ordinal

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("number", "said"),
    [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (22, "22nd"), (111, "111th")],
)
def test_places_are_said_as_people_say_them(number: int, said: str) -> None:
    assert ordinal(number) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1, "1 second"),
        (90, "90 seconds"),
        (600, "10 minutes"),
        (3_600, "1 hour"),
        (5_400, "90 minutes"),
        (172_800, "2 days"),
        (90_000, "25 hours"),
    ],
)
def test_spans_are_said_in_one_unit(seconds: int, said: str) -> None:
    assert in_words(seconds) == said


def test_another_day_is_said_with_its_date() -> None:
    assert len(moment(NOW, NOW)) == 5
    assert moment(NOW - 86_400, NOW)[6:] == moment(NOW, NOW)
    assert len(exact(NOW, NOW)) == 8
    assert exact(NOW - 86_400, NOW).startswith("20")


def fleet(*states: ModelState, at: float = NOW) -> Fleet:
    entries = [
        CatalogEntry(str(n), f"M{n}", "", f"o/m{n}", (CatalogFile("a.gguf", 1, None),)) for n, _ in enumerate(states)
    ]
    models = join_models(entries, None)
    told = tuple(replace(model, state=state) for model, state in zip(models, states, strict=True))
    return Fleet(told, connection=Connection(Link.LIVE, heard_at=at))


S = ModelState


def test_counts_what_became_of_each_model() -> None:
    before = fleet(S.DOWNLOADING, S.QUEUED, S.DOWNLOADING, S.DOWNLOADED, S.AVAILABLE, S.DOWNLOADING, at=NOW - 7_200)
    after = fleet(S.DOWNLOADED, S.FAILED, S.DOWNLOADING, S.AVAILABLE, S.QUEUED, S.PAUSED)
    last = replace(after.models[-1], paused=True)
    said = while_away(before, replace(after, models=(*after.models[:-1], last)))
    assert said == "While you were away (2 h): 1 downloaded, 1 failed, 1 started, 1 gone, 2 still running."


def test_says_nothing_of_what_only_moved_on_or_was_merely_found() -> None:
    before = fleet(S.QUEUED, S.DOWNLOADED, S.AVAILABLE)
    after = fleet(S.DOWNLOADING, S.DOWNLOADED, S.DOWNLOADED)
    found = replace(after.models[2], found=True)
    assert while_away(before, replace(after, models=(*after.models[:2], found))) == ""
