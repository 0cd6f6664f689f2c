"""The dashboard's main paths over every generation and our own service: the real client, watcher and wiring."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from modelhub_tui.cli.tui import TerminalApp, session_app
from modelhub_tui.config import load_settings
from modelhub_tui.domain import Ability, Link, Model, ModelState
from modelhub_tui.screens.login import LoginScreen
from tests.routers import dying, huge, login_proxy, lying, ollama, web_page
from tests.routers.models import ADMIN_PASSWORD
from tests.routers.worlds import FILE, GENERATIONS, NAME, OTHER, OTHER_FILE, OTHER_REPO, REPO, SIZE, open_world

SCREEN = (120, 36)
CATALOG = f"""
schema: 1
models:
  - id: phi-3-mini
    name: Phi-3 Mini
    description: Compact.
    repo: {REPO}
    files: [{{path: {FILE}, size_bytes: {SIZE}}}]
"""


def dashboard(url: str, key: str | None, folder: Path) -> TerminalApp:
    catalog = folder / "catalog.yaml"
    catalog.write_text(CATALOG)
    return session_app(load_settings({"router": url, "api_key": key, "catalog": str(catalog)}))


async def until(pilot: Pilot[None], holds: Callable[[], bool]) -> None:
    """Let the app work until something holds; fails if it does not within a minute."""
    async with asyncio.timeout(60):
        while not holds():
            await pilot.pause(0.02)


def shown(app: TerminalApp, name: str) -> Model | None:
    return next((model for model in app.fleet.models if model.repo.lower() == name), None)


def state(app: TerminalApp, name: str) -> ModelState | None:
    model = shown(app, name)
    return model.state if model else None


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_browse_register_follow_and_delete(generation: str, tmp_path: Path) -> None:
    with open_world(generation, tmp_path) as world:
        world.add_node()
        app = dashboard(world.url, world.key, tmp_path)
        async with app.run_test(size=SCREEN) as pilot:
            assert state(app, NAME) is ModelState.AVAILABLE  # in the first frame, whoever answers
            await until(pilot, lambda: app.fleet.connection.link is Link.LIVE)
            assert app.fleet.router.abilities >= world.abilities
            await pilot.press("r", *OTHER_REPO, "tab", *OTHER_FILE, "enter")
            await until(pilot, lambda: getattr(shown(app, OTHER), "registered", False))
            if Ability.PULL in world.abilities:
                app.main.grid.highlight(0)
                await pilot.press("p")
                await until(pilot, lambda: state(app, NAME) is ModelState.QUEUED)
                world.holds(NAME)
                await until(pilot, lambda: state(app, NAME) is ModelState.DOWNLOADED)
                await pilot.press("2")
                await until(pilot, lambda: [each.repo for each in app.main.grid.models] == [REPO])
                await pilot.press("d")
                await until(pilot, lambda: len(app.screen_stack) == 2)
                await pilot.press("y")
                await until(pilot, lambda: not getattr(shown(app, NAME), "registered", True))


async def test_what_a_router_can_do_is_learned_from_its_lists(tmp_path: Path) -> None:
    with open_world("G3", tmp_path) as world:
        world.router.add_node("gpu-02", "xllm")
        app = dashboard(world.url, world.key, tmp_path)
        async with app.run_test(size=SCREEN) as pilot:
            await until(pilot, lambda: Ability.PULL_ON_NODE in app.fleet.router.abilities)


@pytest.mark.parametrize("generation", ["G1", "G3", "G4"])
async def test_logging_in_by_the_dialog_opens_the_list(generation: str, tmp_path: Path) -> None:
    with open_world(generation, tmp_path) as world:
        app = dashboard(world.url, None, tmp_path)
        async with app.run_test(size=SCREEN) as pilot:
            await until(pilot, lambda: isinstance(app.screen, LoginScreen))
            user, password = app.screen.query(Input)
            user.value, password.value = "admin", ADMIN_PASSWORD
            password.focus()
            await pilot.press("enter")
            await until(pilot, lambda: app.fleet.connection.link is Link.LIVE)
            assert len(app.screen_stack) == 1


@pytest.mark.parametrize("made", [web_page, ollama, login_proxy, dying, huge, lying])
async def test_what_is_no_router_leaves_the_list_and_the_keys_alive(made: Callable[[], Any], tmp_path: Path) -> None:
    with made() as server:
        app = dashboard(server.url, "sk_key", tmp_path)
        async with app.run_test(size=SCREEN) as pilot:
            await until(pilot, lambda: app.fleet.connection.link is not Link.CONNECTING)
            assert state(app, NAME) is ModelState.AVAILABLE
            await pilot.press("slash", *"phi")
            await until(pilot, lambda: app.main.wanted.text == "phi")
            assert [each.repo for each in app.main.grid.models] == [REPO]
