"""The one screen people live in: tabs, search, list, details, transfers, status, keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive, var
from textual.screen import Screen
from textual.timer import Timer

from modelhub_tui import commands
from modelhub_tui.actions import deleters
from modelhub_tui.commands import BY_ID, COMMANDS, Situation
from modelhub_tui.disk_plan import plan_for
from modelhub_tui.domain import Fleet, Link, Model
from modelhub_tui.filtering import PAGES_AT_ONCE, Filter, ModelView, SortKey
from modelhub_tui.fleet_state import Following
from modelhub_tui.screens.asking import Asking
from modelhub_tui.screens.search import ClickableText, SearchBar, SearchInput
from modelhub_tui.screens.wording import empty_text, names_a_repo, on_disk
from modelhub_tui.terminal.compositing import quicken
from modelhub_tui.values import dataclass
from modelhub_tui.widgets.card_grid import CardGrid
from modelhub_tui.widgets.details import DetailsPane
from modelhub_tui.widgets.footer import FooterItem, KeyFooter
from modelhub_tui.widgets.glyphs import Glyphs
from modelhub_tui.widgets.status_line import StatusLine
from modelhub_tui.widgets.tab_bar import Tab, TabBar
from modelhub_tui.widgets.transfers import TransfersStrip

if TYPE_CHECKING:
    from modelhub_tui.screens.fleet import FleetScreen

HUB, LOCAL = "hub", "local"
IDLE_S, PREPARED_AT_ONCE = 0.02, 2
"""The search is prepared in slices of so many pages, with so long a pause between two."""
ENOUGH, BREATH_S, PAGES_BETWEEN_KEYS = 100, 0.005, 25
"""A key of a search waits for so many models only; the rest is found in slices of so many pages, some 5 ms each, with
so long a pause between two."""
IN_TABLE = {"list.select", "list.open"}
"""Keys of the list that the table of commands has too, where they also depend on the situation."""
WIDE = 160
"""From this width on, in cells, the details have a place of their own beside the list."""


class ModelGrid(CardGrid, inherit_bindings=False):
    """The list, whose keys the app handles in the order typed, like all keys of the screen (see its `BINDINGS`)."""

    BINDINGS: ClassVar[list[BindingType]] = [
        replace(each, priority=True)
        for each in CardGrid.BINDINGS
        if isinstance(each, Binding) and each.id not in IN_TABLE
    ]

    def update_node_styles(self, animate: bool = True) -> None:
        """Not before the first layout, when it gets the focus: no rule of the list is about that."""
        if self.size:
            super().update_node_styles(animate)


class MainScreen(Asking, Screen[None]):
    """Model Hub and Local: what there is, what moves, and what can be done about it."""

    AUTO_FOCUS = "#hub"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (WIDE, "-wide")]
    # Priority: the app then handles every key in the order typed. Otherwise a burst such as `/coder`, which a slow
    # link delivers in one piece, is routed by the focus it finds on arrival and ends in the list.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(each.keys, each.action, each.label, tooltip=each.help, id=each.id, show=False, priority=True)
        for each in COMMANDS
        if each.keys and each.action
    ]

    fleet: reactive[Fleet] = reactive(Fleet, repaint=False)
    """What to show; bound to the app's."""
    wanted: var[Filter] = var(Filter())
    """What the list is narrowed to, the search text included."""
    sort: var[SortKey] = var(SortKey.CATALOG)
    tab: var[str] = var(HUB)
    side_pane: var[bool] = var(True)
    """Show the details beside the list where there is room."""
    details_open: var[bool] = var(False)
    """The details fill the place of the list."""

    @dataclass
    class ActionRequested(Message):
        """The user wants something done, with these models or, as for `undo`, `trash` and `limits`, with none."""

        action: str
        """An action of `actions.STATES_FOR`, a `Place` to move to, or `adopt`, `copy`, `usage`, `undo`, `trash`,
        `limits`."""
        models: tuple[Model, ...]

    class KeyRequested(Message):
        """The user wants to give an API key."""

    class RefreshRequested(Message):
        """The user wants fresh data now."""

    def __init__(
        self, glyphs: Glyphs, clock: Callable[[], float], *, endpoint: str, version: str, can_use_key: bool = False
    ) -> None:
        """Prepare the screen.

        Args:
            glyphs: Marks this terminal can show.
            clock: Seconds since the epoch.
            endpoint: The configured hub, whose URLs the register dialog understands.
            version: Shown by the help screen.
            can_use_key: Somebody can do something with an API key.
        """
        super().__init__(classes="-side")  # set later, it would have all styles applied once more
        quicken(self)
        self._glyphs, self._clock = glyphs, clock
        self._endpoint, self._version, self._can_use_key = endpoint, version, can_use_key
        self._view = ModelView()
        self._local: tuple[Model, ...] = ()
        self._moving: tuple[Model, ...] = ()
        self._idle: Timer | None = None
        """The search is being prepared, or goes on."""
        self._locals, self._movings = Following(Model.is_local), Following(Model.is_moving)
        self._found: tuple[Model, ...] = ()
        self._deleters: frozenset[str] = frozenset()
        """All found once for each fleet, not on every key."""
        self._awaited: str | None = None
        """Name of a model to highlight as soon as it is listed: it was just registered."""
        self._fleet_screen: FleetScreen | None = None
        """Open above this one."""

    # --- arrangement ---

    def compose(self) -> ComposeResult:
        yield TabBar(
            (Tab(HUB, "Model Hub", "1"), Tab(LOCAL, "Local", "2")),
            active=self.tab,
            glyphs=self._glyphs,
            notes=("modelhub",),
        )
        yield SearchBar()
        with Horizontal(id="body"):
            with Vertical(id="lists"):
                yield ModelGrid(layout="hub", glyphs=self._glyphs, id=HUB)
            yield DetailsPane(glyphs=self._glyphs, clock=self._clock, id="details")
        yield TransfersStrip(glyphs=self._glyphs)
        yield StatusLine(glyphs=self._glyphs, clock=self._clock).data_bind(MainScreen.fleet)
        yield KeyFooter()

    def on_mount(self) -> None:
        """Show the first fleet: the catalog and the states of the last session."""
        self.show_fleet()
        # Not by its message, which would come a frame later.
        self.watch(self.query_one(SearchInput), "value", self._typed, init=False)

    def update_node_styles(self, animate: bool = True) -> None:
        """Not before the first layout: they have just been applied, and all of them once more take 12 ms of a start."""
        if self._size:
            super().update_node_styles(animate)

    @property
    def grid(self) -> CardGrid:
        """The list in front."""
        return self.query_one(f"#{self.tab}", CardGrid)

    @property
    def details(self) -> DetailsPane:
        return self.query_one("#details", DetailsPane)

    @property
    def is_wide(self) -> bool:
        """Whether the details have a place of their own."""
        return self.app.size.width >= WIDE

    def on_resize(self) -> None:
        """The details may have come into view."""
        self.show_situation()

    @property
    def searching(self) -> bool:
        """Whether the search has the focus."""
        return isinstance(self.focused, SearchInput)

    @property
    def _of_tab(self) -> tuple[Model, ...]:
        """All models of the tab in front."""
        return self._local if self.tab == LOCAL else self.fleet.models

    def situation(self) -> Situation:
        """What decides which commands apply now."""
        model = self.grid.highlighted
        narrowed = bool(self.wanted.text or self.wanted.choices or self.grid.selected)
        return Situation(
            model=model,
            targets=self.targets(),
            searching=self.searching,
            details=self.details_open,
            narrowed=narrowed,
            clearable=narrowed or self.searching or self.details_open or self.focused is self.details,
            on_local=self.tab == LOCAL,
            wants_key=self._can_use_key and self.fleet.connection.link is Link.REFUSED,
            abilities=self.fleet.router.abilities,
            deleters=self._deleters,
            adoptable=bool(self._found),
        )

    def targets(self) -> tuple[Model, ...]:
        """What a command acts on: the selected models, or the highlighted one."""
        grid = self.grid
        if grid.selected and not self.details_open:
            return grid.selected_models
        return (grid.highlighted,) if grid.highlighted else ()

    # --- what shows ---

    def watch_fleet(self, fleet: Fleet) -> None:
        """New data: hand every widget its part."""
        self._local, self._moving = self._locals.of(fleet.models), self._movings.of(fleet.models)
        self._found = tuple(each for each in self._local if each.found)
        self._deleters = deleters(fleet.nodes)
        if self._fleet_screen is not None:
            self._fleet_screen.fleet = fleet
        if self.is_mounted:
            self.show_fleet()

    def show_fleet(self, enough: int | None = None) -> None:
        """Bring all widgets up to date with fleet, filter, order and tab; list so many models for now, or all."""
        fleet, grid = self.fleet, self.grid
        grid.nodes = fleet.nodes
        grid.abilities = fleet.router.abilities
        grid.dimmed = fleet.connection.link in (Link.LOST, Link.REFUSED)
        grid.empty = Content(empty_text(fleet, self.wanted, local=self.tab == LOCAL))
        self._list(self._find(enough))
        self._show_awaited(grid)
        if not self._view.prepared:
            self._when_idle(self._prepare)
        bar = self.query_one(SearchBar)
        bar.total_count = len(self._of_tab)
        bar.choices, bar.sort = self.wanted.choices, self.sort
        tabs = self.query_one(TabBar)
        tabs.active = self.tab
        tabs.notes = on_disk(fleet.nodes, self._glyphs) if self.tab == LOCAL else ("modelhub",)
        tabs.set_counts(hub=len(fleet.models), local=len(self._local))
        # What moved when the router was last heard says nothing about now.
        self.query_one(TransfersStrip).models = () if grid.dimmed else self._moving
        self.show_situation()

    def _find(self, enough: int | None = None, pages: int = PAGES_AT_ONCE) -> tuple[Model, ...]:
        """What filter, order and search leave: all of it, or so much for now (see `ModelView.show()`)."""
        return self._view.show(self._of_tab, self.wanted, self.sort, self.fleet.nodes, enough=enough, pages=pages)

    def _list(self, found: tuple[Model, ...]) -> None:
        """List what was found last, and look for what is missing as soon as there is nothing else to do."""
        complete = self._view.complete
        self.grid.show(found, rest=None if complete else self._list_all)
        if complete:
            self.query_one(SearchBar).shown_count = len(found)
        else:
            self._when_idle(self._look_on, BREATH_S)

    def _list_all(self) -> None:
        self._list(self._find())

    def _look_on(self) -> None:
        """Look at some more pages; one change when everything has been found, not one for each slice."""
        found = self._find(ENOUGH, PAGES_BETWEEN_KEYS)
        if self._view.complete:
            self._list(found)
        else:
            self._when_idle(self._look_on, BREATH_S)

    def _when_idle(self, work: Callable[[], None], pause_s: float = IDLE_S) -> None:
        def do_it() -> None:
            self._idle = None
            work()

        if self._idle is not None:
            self._idle.stop()
        self._idle = self.set_timer(pause_s, do_it)

    def _prepare(self) -> None:
        """Get some more of the list ready for a search, a few milliseconds' worth, as long as nothing else is on."""
        if not self._view.prepare(PREPARED_AT_ONCE):
            self._when_idle(self._prepare)

    def _show_awaited(self, grid: CardGrid) -> None:
        if self._awaited is None:
            return
        name = self._awaited.casefold()
        for at, model in enumerate(grid.models):
            if model.registered and model.name.casefold() == name:
                self._awaited = None
                grid.highlight(at)
                return

    def show_situation(self) -> None:
        """Bring details and footer up to date with the highlighted model."""
        if self.details_open or (self.side_pane and self.is_wide):
            # A hidden page that changes costs a layout pass on every key.
            details = self.details
            model = self.grid.highlighted
            details.nodes = self.fleet.nodes
            # Only what moves or waits counts besides it, so that a key costs the same in a list of thousands.
            wanted = (model,) if model is not None and not model.placements else ()
            details.plan = plan_for(wanted, self._moving, self.fleet.nodes)
            details.model = model
        self.query_one(KeyFooter).items = tuple(
            FooterItem(each.id, each.shown, label) for each, label in commands.footer(self.situation())
        )

    @on(CardGrid.Highlighted)
    @on(CardGrid.SelectionChanged)
    def _follow_list(self, event: Message) -> None:
        event.stop()
        self.show_situation()

    @on(events.DescendantFocus)
    @on(events.DescendantBlur)
    def _follow_focus(self) -> None:
        if self.is_mounted:
            self.show_situation()

    def watch_wanted(self) -> None:
        self._refresh_list()

    def watch_sort(self) -> None:
        self._refresh_list()

    def _refresh_list(self) -> None:
        if self.is_mounted:
            self.show_fleet()

    # --- search, filter, order ---

    def action_search(self) -> None:
        """Put the focus into the search, at once: the next key is meant for it."""
        self._close_details()
        self.set_focus(self.query_one(SearchInput))

    def action_leave_search(self) -> None:
        """Back to the list, which keeps what was searched for."""
        self.set_focus(self.grid)

    def _typed(self) -> None:
        """Search in the same frame that shows the key; on a slow link the key goes first."""
        if self.app.has_class("-slow-link"):
            self.call_after_refresh(self._search)
        else:
            self._search()

    def _search(self) -> None:
        text = self.query_one(SearchInput).value
        self.set_reactive(MainScreen.wanted, replace(self.wanted, text=text))
        # What is marked has to be in the list for a command to find it.
        self.show_fleet(None if self.grid.selected else ENOUGH)
        if text:
            self.grid.highlight(0)  # the best match, so that enter and p are about it

    @on(ClickableText.Clicked, "#search-icon")
    def _open_search(self) -> None:
        self.action_search()

    @on(ClickableText.Clicked, "#search-count")
    def _open_filter(self) -> None:
        self.action_filter()

    @on(ClickableText.Clicked, "#search-sort")
    def _next_sort(self) -> None:
        self.action_sort()

    def action_filter(self) -> None:
        """Choose states, tags and capabilities; the list follows while the dialog is open."""
        from modelhub_tui.screens.filter import FilterScreen

        self.app.push_screen(FilterScreen(self._of_tab, self.fleet.nodes, self.wanted, self._glyphs, self._take_filter))

    def _take_filter(self, wanted: Filter) -> None:
        self.wanted = wanted

    def action_sort(self) -> None:
        """The next order."""
        self.sort = self.sort.following

    def action_back(self) -> None:
        """Undo one thing: the open details, the selection, the search, the filter; each press one."""
        grid = self.grid
        if self.details_open:
            self._close_details()
        elif self.focused is self.details or (self.searching and not self.wanted.text):
            self.set_focus(grid)
        elif self.wanted.text:
            self.query_one(SearchInput).value = ""
        elif grid.selected:
            grid.selected = frozenset()
        elif self.wanted.choices:
            self.wanted = Filter()
        self.show_situation()

    # --- tabs ---

    async def action_show_tab(self, tab: str) -> None:
        """Show Model Hub or Local; Local's list is built when it is first needed."""
        if tab == self.tab:
            return
        self._close_details()
        if not self.query(f"#{tab}"):
            await self.query_one("#lists").mount(ModelGrid(layout="local", glyphs=self._glyphs, id=tab))
        for grid in self.query(CardGrid):
            grid.display = grid.id == tab
        self.tab = tab
        self.show_fleet()
        self.set_focus(self.grid)

    async def action_next_tab(self) -> None:
        await self.action_show_tab(LOCAL if self.tab == HUB else HUB)

    @on(TabBar.Activated)
    async def _switch_tab(self, event: TabBar.Activated) -> None:
        await self.action_show_tab(event.tab)

    def show_largest(self) -> None:
        """Show what is on disk, the largest first."""
        self.sort = SortKey.LARGEST
        self.call_later(self.action_show_tab, LOCAL)

    # --- details ---

    def action_details(self) -> None:
        """Read the details: go to the pane beside the list, or open it in the list's place."""
        if self.is_wide:
            self.side_pane = True
            self.set_focus(self.details)
        else:
            self.details_open = True

    def action_toggle_details(self) -> None:
        """Show or hide the details, and stay in the list where both fit."""
        if self.is_wide:
            self.side_pane = not self.side_pane
        else:
            self.details_open = not self.details_open

    def watch_side_pane(self, shown: bool) -> None:
        self.set_class(shown, "-side")
        if self.is_mounted:
            if self.focused is self.details:
                self.set_focus(self.grid)
            self.show_situation()

    def watch_details_open(self, is_open: bool) -> None:
        self.set_class(is_open, "-details")
        if self.is_mounted:
            self.set_focus(self.details if is_open else self.grid)
            self.show_situation()

    def _close_details(self) -> None:
        self.details_open = False

    # --- intents: see `asking` for those about models ---

    def action_select(self) -> None:
        """Select the highlighted model, or take it out of the selection."""
        self.grid.action_mark()

    @on(CardGrid.ActionRequested)
    def _act_on_card(self, event: CardGrid.ActionRequested) -> None:
        """A click on the action drawn in a card: for this card alone."""
        self._ask(event.action, (event.model,))

    @on(CardGrid.Activated)
    def _open_card(self) -> None:
        self.action_details()

    def action_register(self) -> None:
        """Open the register dialog; a search that looks like a repo is where it starts."""
        # Pushed here and now, not by a message: the next keys of a burst are meant for the dialog.
        from modelhub_tui.screens.register import RegisterScreen

        if reason := self._refusal("register", ()):
            self.notify(reason, markup=False)
            return
        text = self.wanted.text
        start = text if not self.grid.models and names_a_repo(text) else ""
        self.app.push_screen(RegisterScreen(start, endpoint=self._endpoint), self._await_model)

    def _await_model(self, name: str | None) -> None:
        """A model was registered under this name: bring it to the front as soon as it is listed."""
        if name:
            self._awaited = name
            self.query_one(SearchInput).value = ""
            self.wanted = Filter()
            self.show_fleet()

    def action_fleet(self) -> None:
        """Show which model is on which node; a search text goes along."""
        from modelhub_tui.screens.fleet import FleetScreen

        self._fleet_screen = FleetScreen(self.fleet, self._glyphs, self._clock, text=self.wanted.text)
        self.app.push_screen(self._fleet_screen, self._leave_fleet)

    async def _leave_fleet(self, key: str | None) -> None:
        """Back from the nodes: with a model to show, or without."""
        self._fleet_screen = None
        if key is None:
            return
        await self.action_show_tab(HUB)
        if all(each.key != key for each in self.grid.models):
            self.query_one(SearchInput).value = ""
            self.wanted = Filter()
            self.show_fleet()
        self.grid.highlight(next((at for at, each in enumerate(self.grid.models) if each.key == key), 0))
        self.action_details()

    def action_help(self) -> None:
        """List all keys."""
        from modelhub_tui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen(self._version))

    def action_api_key(self) -> None:
        self.post_message(self.KeyRequested())

    def action_refresh(self) -> None:
        self.post_message(self.RefreshRequested())

    @on(KeyFooter.Pressed)
    async def _press(self, event: KeyFooter.Pressed) -> None:
        await self.run_command(event.command_id)

    async def run_command(self, command_id: str) -> None:
        """Do what a command's key would do."""
        await self.app.run_action(BY_ID[command_id].action, default_namespace=self)

    def forget_selection(self) -> None:
        """Unmark all models: what they were marked for has been asked."""
        self.grid.selected = frozenset()
