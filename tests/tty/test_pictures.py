"""Whatever is diffed, scrolled or kept: the terminal always shows what a full repaint by Textual would.

Random sessions of the whole dashboard in process. `PICTURES=50` in the environment runs so many of them instead of
the few that `make test` has time for.
"""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from modelhub_tui.domain import Connection, Fleet, Link, Model, ModelState
from tests.tty.emulator import Look
from tests.tty.stage import Stage, staged
from tests.tui import fleets

SESSIONS, STEPS = int(os.environ.get("PICTURES", "4")), 8
PATIENCE = 8
"""Comparisons before a difference counts: some things, such as a palette's search, end when they end."""
SIZES = ((120, 40), (80, 24), (172, 30), (60, 18), (40, 12))
KEYS = ("down", "up", "left", "right", "pagedown", "pageup", "home", "end", "wheel_down", "wheel_up", "enter", "escape")
OPEN = ("?", "f", "r", "n", "\x10", "d", "x", "p", "y", "1", "2", "\t", "s", "v", " ", "R", "c")
WORDS = ("/co", "/qwen 7", "/模", "/zzz", "\x7f", "/", "der", "é")
TITLES = ("通义千问 2.5 七億", "Zoë's éclair", "한국어 모델 12B")
FRAGILE = ("Zoe\u0301 éclair", "🙂 emoji 👩‍💻 model", "✅ checked")
"""Terminals disagree about the width of these, and so does the emulator: stock painting goes astray there."""


class Session:
    """One random session: what the router says, and what a person does."""

    def __init__(self, seed: int, titles: tuple[str, ...] = TITLES) -> None:
        self.choose = random.Random(seed)
        models = list(fleets.many(self.choose.choice((0, 3, 90, 400))).models)
        for at in range(0, len(models), 17):
            models[at] = replace(models[at], title=self.choose.choice(titles))
        self.fleet = fleets.fleet(models=tuple(models))
        self.size = self.choose.choice(SIZES)
        self.done: list[str] = []

    async def act(self, stage: Stage) -> None:
        """Do one thing."""
        does: Callable[[Stage], Awaitable[None]] = self.choose.choices(
            (self._key, self._open, self._write, self._move, self._news, self._resize, self._theme),
            (8, 3, 3, 4, 2, 1, 1),
        )[0]
        await does(stage)

    async def _send(self, stage: Stage, key: str) -> None:
        self.done.append(key)
        await stage.send(key)

    async def _key(self, stage: Stage) -> None:
        await self._send(stage, self.choose.choice(KEYS))

    async def _open(self, stage: Stage) -> None:
        await self._send(stage, self.choose.choice(OPEN))

    async def _write(self, stage: Stage) -> None:
        await self._send(stage, self.choose.choice(WORDS))

    async def _move(self, stage: Stage) -> None:
        """Some transfers move on, and one begins or ends."""
        models = list(self.fleet.models)
        moving = [at for at, model in enumerate(models) if model.state is ModelState.DOWNLOADING]
        for at in moving:
            models[at] = self._progress(models[at])
        for at in self.choose.sample(range(len(models)), min(2, len(models))):
            if models[at].state is ModelState.AVAILABLE:
                models[at] = fleets.downloading(models[at], 0.0)
        await self._say(stage, replace(self.fleet, models=tuple(models)), f"{len(moving)} transfers moved")

    def _progress(self, model: Model) -> Model:
        at = (model.transfer.fraction or 0.0) + self.choose.random() / 3 if model.transfer else 0.1
        return fleets.downloading(model, at) if at < 1 else fleets.downloaded(model)

    async def _news(self, stage: Stage) -> None:
        """Models come and go, change state, or the router is lost and found."""
        models = list(self.fleet.models)
        changes = (fleets.failed, fleets.queued, fleets.deleting, fleets.paused, fleets.downloaded)
        what = self.choose.randrange(4)
        if what == 0 and models:
            at = self.choose.randrange(len(models))
            change = self.choose.choice(changes)
            models[at] = change(models[at], fleets.NO_SPACE) if change is fleets.failed else change(models[at])
        elif what == 1:
            del models[: self.choose.randrange(5)]
        elif what == 2:
            models.reverse()
        link = self.choose.choice((Link.LIVE, Link.LIVE, Link.LOST))
        connection = fleets.LIVE if link is Link.LIVE else Connection(link, "No answer.", heard_at=fleets.NOW - 60)
        await self._say(stage, replace(self.fleet, models=tuple(models), connection=connection), f"news {what} {link}")

    async def _say(self, stage: Stage, fleet: Fleet, what: str) -> None:
        self.fleet = fleet
        self.done.append(what)
        await stage.say(fleet)

    async def _resize(self, stage: Stage) -> None:
        size = self.choose.choice(SIZES)
        self.done.append(f"resize {size}")
        await stage.resize(*size)

    async def _theme(self, stage: Stage) -> None:
        if len(stage.app.screen_stack) > 1:
            return  # Textual itself does not draw all of what is below a dialog anew
        name = self.choose.choice(sorted(stage.app.available_themes))
        self.done.append(f"theme {name}")
        stage.app.theme = name
        await stage.settle()


@pytest.mark.parametrize("seed", range(SESSIONS))
async def test_any_session_shows_what_a_full_repaint_shows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    session = Session(seed)
    async with staged(session.fleet, size=session.size) as stage:
        for _ in range(STEPS):
            for _ in range(session.choose.randint(1, 3)):
                await session.act(stage)
            assert stage.app.wire_errors == 0, f"fell back after {session.done}"
            for _ in range(PATIENCE):
                if stage.looks() == stage.stock_looks():
                    break
                await stage.calm()  # a palette that still searches, a scroll that is still to come
            same(stage.looks(), stage.stock_looks(), f"seed {seed}, after {session.done}")


@pytest.mark.parametrize("seed", range(1000, 1000 + max(SESSIONS // 4, 1)))
async def test_text_of_uncertain_width_looks_the_same_after_a_repaint(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    session = Session(seed, FRAGILE)
    async with staged(session.fleet, size=session.size) as stage:
        for _ in range(STEPS):
            await session.act(stage)
            for _ in range(PATIENCE):
                await stage.calm()
                shown = stage.looks()
                await stage.send("ctrl+l")
                if shown == stage.looks():
                    break
            assert stage.app.wire_errors == 0, f"fell back after {session.done}"
            same(shown, stage.looks(), f"seed {seed}, after {session.done}")


@pytest.mark.parametrize("seed", range(2000, 2000 + max(SESSIONS // 4, 1)))
async def test_frames_that_wait_for_the_terminal_end_in_the_same_picture(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    session = Session(seed)
    async with staged(session.fleet, size=session.size) as stage:
        await stage.send("down", "up")
        stage.far = True
        held = 0
        for _ in range(STEPS):
            for _ in range(session.choose.randint(2, 5)):
                await session.act(stage)
                held += bool(stage.app._held)
            await stage.answer()
            await stage.calm()
            await stage.answer()
            assert stage.app.wire_errors == 0, f"fell back after {session.done}"
            same(stage.looks(), stage.stock_looks(), f"seed {seed}, after {session.done}")
        assert held, "nothing had to wait"


def same(shown: list[list[Look]], wanted: list[list[Look]], when: str) -> None:
    """Fail with the first cell that differs."""
    for y, (row, other) in enumerate(zip(shown, wanted, strict=True)):
        for x, (cell, meant) in enumerate(zip(row, other, strict=True)):
            assert cell == meant, f"{when}: at {x},{y}"
