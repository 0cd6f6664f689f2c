"""The command palette: every command that applies, the orders of the list, and the looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from textual.command import DiscoveryHit, Hit, Hits, Provider

from modelhub_tui.commands import COMMANDS, FLEET_COMMANDS
from modelhub_tui.filtering import SortKey
from modelhub_tui.screens.fleet import FleetScreen
from modelhub_tui.screens.main import MainScreen
from modelhub_tui.screens.search import SORT_WORDS
from modelhub_tui.themes import OURS

LEFT_OUT = {"app.palette", "find.leave", "find.back"}
"""Commands that make no sense once the palette is open."""


class HubCommands(Provider):
    """All texts are ours: no remote text gets in, so nothing in it is read as markup."""

    def _offers(self) -> Iterator[tuple[str, str, Callable[[], object]]]:
        """Name, explanation and effect of everything that can be done now."""
        screen = self.screen
        if isinstance(screen, MainScreen):
            at = screen.situation()
            for command in COMMANDS:
                if command.action and command.id not in LEFT_OUT and command.when(at):
                    key = f" ({command.shown})" if command.shown else ""
                    yield f"{command.label}{key}", command.help, partial(screen.run_command, command.id)
            for sort in SortKey:
                yield (
                    f"Sort: {SORT_WORDS[sort]}",
                    "Change the order of the list",
                    partial(setattr, screen, "sort", sort),
                )
        elif isinstance(screen, FleetScreen):
            at = screen.situation()
            for command in FLEET_COMMANDS:
                if command.when(at):
                    yield f"{command.label} ({command.shown})", command.help, partial(screen.run_command, command.id)
        for theme in OURS:
            yield f"Theme: {theme.name}", "Change the colours", partial(setattr, self.app, "theme", theme.name)
        yield "Theme: more ...", "Choose among all of Textual's themes", self.app.search_themes

    async def discover(self) -> Hits:
        """Everything, before anything is typed."""
        for name, help, effect in self._offers():
            yield DiscoveryHit(name, effect, help=help)

    async def search(self, query: str) -> Hits:
        """What matches."""
        matcher = self.matcher(query)
        for name, help, effect in self._offers():
            score = matcher.match(name)
            if score > 0:
                yield Hit(score, matcher.highlight(name), effect, help=help)
