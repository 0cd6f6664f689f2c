"""The dashboard's event loop waits for nothing: no keyring, no name server, no disk. Keys are obeyed meanwhile."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input

from modelhub_tui.cli import keys, tui
from modelhub_tui.client import auth
from modelhub_tui.domain import Link
from modelhub_tui.screens.login import LoginScreen
from tests.pulse import HELD_S, PAUSE_S, HeldUp, Pulse
from tests.routers.models import ADMIN_PASSWORD
from tests.routers.test_dashboard import SCREEN, dashboard, until
from tests.routers.worlds import open_world


class Ring:
    """A keyring with nothing in it."""

    def get_password(self, service: str, user: str) -> str | None:
        return None

    def set_password(self, service: str, user: str, text: str) -> None:
        pass


async def keys_are_obeyed(pilot: Pilot[None]) -> None:
    for _ in range(5):
        await pilot.press("question_mark")
        assert len(pilot.app.screen_stack) == 2
        await pilot.press("escape")
        assert len(pilot.app.screen_stack) == 1
        await asyncio.sleep(HELD_S / 5)


@pytest.mark.parametrize("slow", ["keyring", "names", "catalog", "key file"])
async def test_what_does_not_answer_holds_no_key_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    """While it connects: a keyring that asks its owner first, a name server, a catalog and a key on a dead share."""
    monkeypatch.setattr(auth, "_working_keyring", Ring)
    app = dashboard("http://router.invalid:9", None, tmp_path)
    owner, name = {
        "keyring": (Ring, "get_password"),
        "names": (socket, "getaddrinfo"),
        "catalog": (tui, "load_catalog"),
        "key file": (keys, "kept_key"),
    }[slow]
    held = HeldUp(getattr(owner, name))
    monkeypatch.setattr(owner, name, held)
    async with app.run_test(size=SCREEN) as pilot:
        await held.asked()
        async with Pulse() as pulse:
            await keys_are_obeyed(pilot)
        held.let_go()
        await until(pilot, lambda: app.fleet.connection.link is not Link.CONNECTING)
    assert not held.on_a_loop and pulse.longest_s < PAUSE_S


async def test_a_keyring_that_takes_its_time_to_remember_holds_no_key_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldUp(Ring.set_password)
    monkeypatch.setattr(Ring, "set_password", held)
    monkeypatch.setattr(auth, "_working_keyring", Ring)
    with open_world("G1", tmp_path) as world:
        app = dashboard(world.url, None, tmp_path)
        async with app.run_test(size=SCREEN) as pilot:
            await until(
                pilot, lambda: isinstance(app.screen, LoginScreen) and bool(app.screen.query("#login-remember"))
            )
            user, password = app.screen.query(Input)
            user.value, password.value = "admin", ADMIN_PASSWORD
            app.screen.query_one("#login-remember", Button).press()
            await held.asked()
            async with Pulse() as pulse:
                password.focus()
                for letter in "slow":
                    await pilot.press(letter)
                    await asyncio.sleep(HELD_S / 4)
                assert password.value.endswith("slow")
            held.let_go()
            await until(pilot, lambda: app.fleet.connection.link is Link.LIVE)
        assert not held.on_a_loop and pulse.longest_s < PAUSE_S


async def test_a_key_that_is_kept_slowly_holds_no_key_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = HeldUp(tui.keep_key)
    monkeypatch.setattr(tui, "keep_key", held)
    app: Any = dashboard("http://router.invalid:9", None, tmp_path)
    async with app.run_test(size=SCREEN) as pilot:
        kept = asyncio.create_task(app._use_key("sk_some", True))
        await held.asked()
        async with Pulse() as pulse:
            await keys_are_obeyed(pilot)
        held.let_go()
        await kept
    assert not held.on_a_loop and pulse.longest_s < PAUSE_S
