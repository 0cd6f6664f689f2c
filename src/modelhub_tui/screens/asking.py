"""What the main screen asks for: each key about models, turned into a message that says what is wanted of which."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelhub_tui.actions import applicable, refusal
from modelhub_tui.commands import BY_ACTION, Situation
from modelhub_tui.domain import Fleet, Model

if TYPE_CHECKING:
    from textual.screen import Screen

    from modelhub_tui.widgets.card_grid import CardGrid

    Base = Screen[None]
else:
    Base = object


class Asking(Base):
    """Part of `MainScreen`, which owns the list and the selection."""

    if TYPE_CHECKING:
        fleet: Fleet
        ActionRequested: type[Any]
        _deleters: frozenset[str]
        _found: tuple[Model, ...]

        @property
        def grid(self) -> CardGrid: ...
        def situation(self) -> Situation: ...
        def targets(self) -> tuple[Model, ...]: ...

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether a key does something here and now."""
        found = BY_ACTION.get(action)
        if found is None:
            return True
        at = self.situation()
        return found.when(at) or (not at.searching and bool(self._refusal(action, at.targets)))

    def _refusal(self, action: str, models: tuple[Model, ...]) -> str:
        """Why this router does not do what the models' states call for; empty if it does, or they do not."""
        router = self.fleet.router
        return refusal(action, models, router.abilities, router.label, self._deleters)

    def _request(self, action: str) -> None:
        self._ask(action, self.targets())

    def _ask(self, action: str, wanted: tuple[Model, ...]) -> None:
        models = applicable(action, wanted, self.fleet.router.abilities, self._deleters)
        if models:
            self.post_message(self.ActionRequested(action, models))
        elif reason := self._refusal(action, wanted):
            self.notify(reason, markup=False)

    def action_pull(self) -> None:
        self._request("pull")

    def action_cancel(self) -> None:
        self._request("cancel")

    def action_retry(self) -> None:
        self._request("retry")

    def action_delete(self) -> None:
        self._request("delete")

    def action_adopt(self) -> None:
        self._request("adopt")

    def action_adopt_all(self) -> None:
        """Ask for everything that was found to be registered."""
        self._ask("adopt", self._found)

    def action_pause(self) -> None:
        self._request("pause")

    def action_resume(self) -> None:
        self._request("resume")

    def action_reorder(self, to: str) -> None:
        """Ask for another place in the queue: `first`, `earlier`, `later` or `last`."""
        models = applicable("reorder", self.targets(), self.fleet.router.abilities)
        if models:
            self.post_message(self.ActionRequested(to, models))
        elif reason := self._refusal("reorder", self.targets()):
            self.notify(reason, markup=False)

    def action_undo(self) -> None:
        self._request_of_router("undo")

    def action_trash(self) -> None:
        self._request_of_router("trash")

    def action_limits(self) -> None:
        self._request_of_router("limits")

    def _request_of_router(self, action: str) -> None:
        """Ask for something that is about no model, or say that this router does not know such things."""
        if reason := self._refusal(action, ()):
            self.notify(reason, markup=False)
        else:
            self.post_message(self.ActionRequested(action, ()))

    def action_copy(self) -> None:
        """Ask for the highlighted model's path or name on the clipboard."""
        model = self.grid.highlighted
        if model is not None:
            self.post_message(self.ActionRequested("copy", (model,)))

    def action_usage(self) -> None:
        """Ask for a command that runs the highlighted model on the clipboard."""
        model = self.grid.highlighted
        if model is not None:
            self.post_message(self.ActionRequested("usage", (model,)))
