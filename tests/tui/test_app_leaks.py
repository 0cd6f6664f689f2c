"""What a session that lasts for days must not keep."""

from __future__ import annotations

import gc

import pytest
from textual._styles_cache import StylesCache

from modelhub_tui.terminal.delta import is_supported
from tests.tui.conftest import MakeApp
from tests.tui.fleets import fleet


@pytest.mark.skipif(not is_supported(), reason="another version of Textual")
async def test_a_closed_dialog_is_let_go(make_app: MakeApp) -> None:
    app = make_app(fleet())
    async with app.run_test(size=(120, 40)) as pilot:

        async def open_and_close() -> int:
            await pilot.press("question_mark")
            await pilot.pause()
            assert len(app.screen_stack) == 2
            await pilot.press("escape")
            await pilot.pause()
            gc.collect()
            return sum(isinstance(each, StylesCache) for each in gc.get_objects())

        await open_and_close()
        before = await open_and_close()
        for _ in range(3):
            after = await open_and_close()
        # What is being closed may still be held by the last event.
        assert after - before < 3
