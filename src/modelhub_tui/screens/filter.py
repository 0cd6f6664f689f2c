"""Choose which models the list shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from modelhub_tui.domain import Model, ModelState, Node
from modelhub_tui.filtering import Filter, ModelView, SortKey, capability_counts, fits, tag_counts
from modelhub_tui.screens.dialog import Dialog
from modelhub_tui.values import dataclass
from modelhub_tui.widgets.glyphs import Glyphs

STATE_CHOICES: tuple[tuple[str, frozenset[ModelState]], ...] = (
    ("available", frozenset({ModelState.AVAILABLE})),
    ("downloading", frozenset({ModelState.QUEUED, ModelState.DOWNLOADING, ModelState.PAUSED})),
    ("failed", frozenset({ModelState.FAILED})),
    ("downloaded", frozenset({ModelState.DOWNLOADED, ModelState.DELETING})),
)
MAX_TAGS = 40


@dataclass(frozen=True, slots=True)
class Choice:
    """One line that can be switched on and off."""

    label: str
    count: int
    is_on: Callable[[Filter], bool]
    toggled: Callable[[Filter], Filter]


def choices(models: tuple[Model, ...], nodes: tuple[Node, ...]) -> tuple[tuple[str, tuple[Choice, ...]], ...]:
    """All choices in groups, each with the number of models behind it. Nothing is offered that no model has."""
    states = tuple(
        _state_choice(name, states, sum(model.state in states for model in models)) for name, states in STATE_CHOICES
    )
    fit_choice = Choice(
        "fits a node",
        sum(fits(model, nodes) for model in models),
        lambda at: at.fits_only,
        lambda at: replace(at, fits_only=not at.fits_only),
    )
    groups = (
        ("State", states),
        ("Hardware", (fit_choice,) if nodes else ()),
        (
            "Capability",
            tuple(_set_choice("capabilities", each, count) for each, count in capability_counts(models).items()),
        ),
        ("Tag", tuple(_set_choice("tags", each, count) for each, count in list(tag_counts(models).items())[:MAX_TAGS])),
    )
    return tuple((title, found) for title, group in groups if (found := tuple(each for each in group if each.count)))


def _state_choice(name: str, states: frozenset[ModelState], count: int) -> Choice:
    return Choice(
        name,
        count,
        lambda at: states <= at.states,
        lambda at: replace(at, states=at.states ^ states if states <= at.states else at.states | states),
    )


def _set_choice(field: str, value: str, count: int) -> Choice:
    def toggled(at: Filter) -> Filter:
        return replace(at, **{field: getattr(at, field) ^ {value}})

    return Choice(value.replace("_", " "), count, lambda at: value in getattr(at, field), toggled)


class FilterScreen(Dialog[None]):
    """A list of switches. The list behind follows at once; escape keeps what is chosen."""

    AUTO_FOCUS = "#filter-choices"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f,q", "close", "Done", show=False),
        Binding("c,backspace,delete", "clear", "Clear all", show=False),
        Binding("space", "switch", "Switch", show=False),
        Binding("j", "move('down')", show=False),
        Binding("k", "move('up')", show=False),
    ]
    DEFAULT_CSS = """
    FilterScreen .dialog { width: 46; height: 80%; max-height: 34; }
    FilterScreen #filter-choices { height: 1fr; border: none; padding: 0; background: transparent; }
    """

    def __init__(
        self,
        models: tuple[Model, ...],
        nodes: tuple[Node, ...],
        wanted: Filter,
        glyphs: Glyphs,
        changed: Callable[[Filter], None],
    ) -> None:
        """Prepare the switches.

        Args:
            models: All models of the tab.
            nodes: Decide what fits.
            wanted: The filter in force, whose text is kept.
            glyphs: Marks this terminal can show.
            changed: Told the new filter after every switch.
        """
        super().__init__()
        self._offered, self._hardware = models, nodes
        self.wanted, self._glyphs, self._changed = wanted, glyphs, changed
        self._lines: list[Choice | str] = []
        for title, group in choices(models, nodes):
            self._lines += [title, *group]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Filter"
            yield OptionList(
                *(Option(self._prompt(line), disabled=isinstance(line, str)) for line in self._lines),
                id="filter-choices",
                compact=True,
                markup=False,
            )
            yield Static("space switches, c clears, esc closes", classes="dialog-hint", markup=False)

    def on_mount(self) -> None:
        """Say how many models pass."""
        self._count()

    def _prompt(self, line: Choice | str) -> Content:
        if isinstance(line, str):
            return Content.styled(line, "bold $text-muted")
        is_on = line.is_on(self.wanted)
        mark = f"[{self._glyphs.downloaded if is_on else ' '}]"
        return Content.assemble(
            (f"  {mark} ", "bold"),
            (f"{line.label[:26]:<26}", "bold" if is_on else ""),
            f"{line.count:>5}",
        )

    @on(OptionList.OptionSelected, "#filter-choices")
    def _toggle(self, event: OptionList.OptionSelected) -> None:
        line = self._lines[event.option_index]
        if isinstance(line, Choice):
            self._set(line.toggled(self.wanted))

    def action_switch(self) -> None:
        """Switch the highlighted line."""
        self.query_one(OptionList).action_select()

    def action_move(self, direction: str) -> None:
        """Move like the arrows do."""
        listed = self.query_one(OptionList)
        listed.action_cursor_down() if direction == "down" else listed.action_cursor_up()

    def action_clear(self) -> None:
        """Show everything again; the search text stays."""
        self._set(Filter(text=self.wanted.text))

    def _set(self, wanted: Filter) -> None:
        self.wanted = wanted
        listed = self.query_one(OptionList)
        for at, line in enumerate(self._lines):
            if isinstance(line, Choice):
                listed.replace_option_prompt_at_index(at, self._prompt(line))
        self._count()
        self._changed(wanted)

    def _count(self) -> None:
        shown = len(ModelView().show(self._offered, self.wanted, SortKey.CATALOG, self._hardware))
        self.query_one(".dialog").border_subtitle = f"{shown} of {len(self._offered)}"
