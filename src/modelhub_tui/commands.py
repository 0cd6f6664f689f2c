"""Every command of the dashboard, once: key, name, explanation, and when it applies.

Bindings, footer, help screen, command palette and the README's table of keys are all made from `COMMANDS`.
"""

from __future__ import annotations

from collections.abc import Callable

from modelhub_tui.actions import STATES_FOR, applicable, can, orphaned
from modelhub_tui.domain import LOCAL_ABILITIES, Ability, Model
from modelhub_tui.values import dataclass


@dataclass(frozen=True, slots=True)
class Situation:
    """What decides which commands apply."""

    model: Model | None = None
    """The highlighted model."""
    targets: tuple[Model, ...] = ()
    """What a command acts on: the selected models, or the highlighted one."""
    searching: bool = False
    """The search has the focus."""
    details: bool = False
    """The details fill the screen."""
    clearable: bool = False
    """There is a search text, a filter, a selection or an open pane that escape would take back."""
    narrowed: bool = False
    """A search text, a filter or a selection is in force."""
    on_local: bool = False
    wants_key: bool = False
    """The router asks for a key or a login, and one could be given."""
    abilities: frozenset[Ability] = LOCAL_ABILITIES
    """What this router is able to do."""
    deleters: frozenset[str] | None = None
    """Ids and names of the nodes that delete when asked to; None while that is not known."""
    adoptable: bool = False
    """Some model was found on a disk and is registered nowhere."""
    approvable: bool = False
    """The highlighted node of the fleet view waits to be let in."""


@dataclass(frozen=True, slots=True)
class Command:
    """One thing a person can do."""

    id: str
    """Binding id, such as `model.pull`; a user's keymap names it."""
    keys: str
    """Textual's names of the keys, separated by commas; empty for the palette alone."""
    shown: str
    """The keys as footer and help show them."""
    label: str
    """One or two words."""
    help: str
    """A sentence without its full stop."""
    group: str
    action: str = ""
    """The screen's action, with parameters; empty when the list itself answers the key."""
    when: Callable[[Situation], bool] = lambda _: True
    rank: int = 0
    """Place in the footer, left to right; 0 leaves it out. What does not fit drops out from the right."""

    @property
    def action_name(self) -> str:
        """The action without its parameters."""
        return self.action.split("(", 1)[0].removeprefix("app.")


def _for(action: str) -> Callable[[Situation], bool]:
    return lambda at: not at.searching and any(can(action, model, at.abilities, at.deleters) for model in at.targets)


def _able(ability: Ability) -> Callable[[Situation], bool]:
    return lambda at: not at.searching and ability in at.abilities


def _in_list(at: Situation) -> bool:
    return not at.searching and not at.details


def _has_model(at: Situation) -> bool:
    return not at.searching and at.model is not None


COMMANDS = (
    Command("model.pull", "p", "p", "Pull", "Download the model", "Model", "pull", _for("pull"), 2),
    Command(
        "model.cancel",
        "x",
        "x",
        "Cancel",
        "Stop the download, drop its partial files",
        "Model",
        "cancel",
        _for("cancel"),
        4,
    ),
    Command(
        "model.retry", "R", "R", "Retry", "Start a failed or paused download again", "Model", "retry", _for("retry"), 3
    ),
    Command(
        "model.delete",
        "d",
        "d",
        "Delete",
        "Remove the files from disk, after asking",
        "Model",
        "delete",
        _for("delete"),
        2,
    ),
    Command(
        "model.adopt",
        "p",
        "p",
        "Adopt",
        "Register what is on disk already, as it is",
        "Model",
        "adopt",
        lambda at: _for("adopt")(at) and not _for("pull")(at),
        2,
    ),
    Command(
        "model.adopt_all",
        "",
        "",
        "Adopt all",
        "Register everything found on disk, as it is",
        "Model",
        "adopt_all",
        lambda at: not at.searching and at.adoptable and Ability.ADOPT in at.abilities,
    ),
    Command(
        "model.undo",
        "u",
        "u",
        "Undo",
        "Bring back what was deleted last",
        "Model",
        "undo",
        _able(Ability.UNDO),
    ),
    Command(
        "model.trash",
        "t",
        "t",
        "Trash",
        "Show what was deleted and can come back",
        "Model",
        "trash",
        _able(Ability.UNDO),
    ),
    Command(
        "queue.pause",
        "P",
        "P",
        "Pause",
        "Hold the download; what is on disk stays",
        "Queue",
        "pause",
        _for("pause"),
        3,
    ),
    Command(
        "queue.resume",
        "P",
        "P",
        "Resume",
        "Let a held download go on",
        "Queue",
        "resume",
        lambda at: _for("resume")(at) and not _for("pause")(at),
        3,
    ),
    Command(
        "queue.earlier",
        "less_than_sign",
        "<",
        "Earlier",
        "Move up in the queue",
        "Queue",
        "reorder('earlier')",
        _for("reorder"),
    ),
    Command(
        "queue.later",
        "greater_than_sign",
        ">",
        "Later",
        "Move down in the queue",
        "Queue",
        "reorder('later')",
        _for("reorder"),
    ),
    Command(
        "queue.first",
        "left_curly_bracket",
        "{",
        "First",
        "Move to the front of the queue",
        "Queue",
        "reorder('first')",
        _for("reorder"),
    ),
    Command(
        "queue.last",
        "right_curly_bracket",
        "}",
        "Last",
        "Move to the end of the queue",
        "Queue",
        "reorder('last')",
        _for("reorder"),
    ),
    Command(
        "queue.limits",
        "L",
        "L",
        "Limits",
        "Change what transfers and trash may take",
        "Queue",
        "limits",
        _able(Ability.LIMITS),
    ),
    Command(
        "model.details",
        "enter",
        "enter",
        "Details",
        "Show all about it, and how to use it",
        "Model",
        "details",
        lambda at: _has_model(at) and not at.details,
        5,
    ),
    Command(
        "model.copy",
        "y",
        "y",
        "Copy",
        "Copy the path on disk, or the repo",
        "Model",
        "copy",
        _has_model,
        11,
    ),
    Command(
        "model.usage",
        "Y",
        "Y",
        "Copy command",
        "Copy a command that runs it; again: the next",
        "Model",
        "usage",
        _has_model,
    ),
    Command(
        "model.select",
        "space",
        "space",
        "Select",
        "Select several for the next command",
        "Model",
        "select",
        lambda at: _in_list(at) and at.model is not None,
        12,
    ),
    Command(
        "model.register",
        "r",
        "r",
        "Register",
        "Add any HuggingFace repo by name or URL",
        "Model",
        "register",
        lambda at: not at.searching and Ability.REGISTER in at.abilities,
        9,
    ),
    Command(
        "find.search",
        "slash",
        "/",
        "Search",
        "Search names and tags while you type",
        "Find",
        "search",
        lambda at: not at.searching,
        6,
    ),
    Command(
        "find.filter",
        "f",
        "f",
        "Filter",
        "Filter by state, tag, capability, fit",
        "Find",
        "filter",
        _in_list,
        7,
    ),
    Command("find.sort", "s", "s", "Sort", "Change the order of the list", "Find", "sort", _in_list, 8),
    Command(
        "find.leave",
        "enter,down,tab",
        "enter",
        "To the list",
        "Go from the search to the list",
        "Find",
        "leave_search",
        lambda at: at.searching,
        1,
    ),
    Command(
        "find.back",
        "escape",
        "esc",
        "Back",
        "Clear search, selection, filter; close",
        "Find",
        "back",
        lambda at: at.clearable,
        13,
    ),
    Command(
        "view.next",
        "tab",
        "tab",
        "Other tab",
        "Go to the other tab",
        "View",
        "next_tab",
        lambda at: not at.searching,
        10,
    ),
    Command("view.hub", "1", "1", "Model Hub", "Show all supported models", "View", "show_tab('hub')", _in_list),
    Command("view.local", "2", "2", "Local", "Show what is on disk", "View", "show_tab('local')", _in_list),
    Command("view.fleet", "n", "n", "Nodes", "Show which model is on which node", "View", "fleet", _in_list, 14),
    Command("view.pane", "i", "i", "Details pane", "Show or hide the details", "View", "toggle_details", _has_model),
    Command("view.refresh", "ctrl+r", "^r", "Refresh", "Ask the router again now", "View", "refresh"),
    Command(
        "app.key",
        "a",
        "a",
        "Log in",
        "Give the key or password the router asks for",
        "Program",
        "api_key",
        lambda at: not at.searching and at.wants_key,
        1,
    ),
    Command("app.palette", "", "^p", "Palette", "Find any command by name", "Program", "app.command_palette"),
    Command(
        "app.help", "question_mark", "?", "Help", "List all keys", "Program", "help", lambda at: not at.searching, 98
    ),
    Command(
        "app.quit", "q", "q", "Quit", "Leave; downloads go on", "Program", "app.quit", lambda at: not at.searching, 99
    ),
)

FLEET_COMMANDS = (
    Command("fleet.open", "enter", "enter", "Model", "Show the highlighted model in the hub", "Nodes", "open", rank=1),
    Command(
        "fleet.approve",
        "a",
        "a",
        "Approve",
        "Let a waiting node in, after asking",
        "Nodes",
        "approve",
        lambda at: at.approvable,
        2,
    ),
    Command("fleet.refresh", "ctrl+r", "^r", "Refresh", "Ask the router again now", "Nodes", "refresh", rank=3),
    Command("fleet.back", "n,escape", "n esc", "Back", "Back to the models", "Nodes", "close", rank=4),
    Command("fleet.quit", "q", "q", "Quit", "Leave; downloads go on", "Nodes", "app.quit", rank=99),
)
"""Commands of the fleet view."""

MOVES = (
    ("arrows", "Move between models"),
    ("j k", "Next and previous model"),
    ("pgup pgdn", "A page up or down"),
    ("g G", "First and last model"),
)
"""Keys the list answers itself, for the help screen."""

BY_ACTION = {command.action_name: command for command in COMMANDS if command.action}
BY_ID = {command.id: command for command in COMMANDS}
_OF_FLEET = {"fleet.open", "fleet.approve", "fleet.back"}
ALL_BY_GROUP = (*(each for each in COMMANDS if each.shown), *(each for each in FLEET_COMMANDS if each.id in _OF_FLEET))
"""For help and README: what the fleet view shares with the list is said once."""
GROUPS = ("Model", "Queue", "Find", "View", "Nodes", "Program")


def footer(at: Situation, table: tuple[Command, ...] = COMMANDS) -> tuple[tuple[Command, str], ...]:
    """The commands that work here and now with the label each has, in footer order."""
    shown = sorted((each for each in table if each.rank and each.when(at)), key=lambda each: each.rank)
    return tuple((each, label(each, at)) for each in shown)


def label(command: Command, at: Situation) -> str:
    """A command's label; it counts the models when there are several."""
    if command.action in {*STATES_FOR, "adopt"} and len(at.targets) > 1:
        return f"{command.label} {len(applicable(command.action, at.targets, at.abilities, at.deleters))}"
    if command.action in ("cancel", "retry") and at.targets and all(map(orphaned, at.targets)):
        return "Forget" if command.action == "cancel" else "Restart"
    if command.id == "view.next":
        return "Model Hub" if at.on_local else "Local"
    if command.id == "find.back" and at.narrowed and not at.details:
        return "Clear"
    return command.label
