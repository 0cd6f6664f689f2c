"""What the dashboard asks of a service that has a queue, limits and a trash, as our own does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from modelhub_tui.actions import running
from modelhub_tui.disk_plan import DiskPlan, plan_for
from modelhub_tui.domain import Ability, Fleet, Limits, Model, Place
from modelhub_tui.errors import ModelHubError, Rejected, explain
from modelhub_tui.screens.wording import came_back, deleted, empty_question, stop_and_delete_question, titles

if TYPE_CHECKING:
    from textual.app import App

    from modelhub_tui.app_watcher import Asked, FleetWatcherLike
    from modelhub_tui.screens.delete import DeleteAnswer
    from modelhub_tui.screens.limits import LimitsScreen
    from modelhub_tui.screens.main import MainScreen
    from modelhub_tui.screens.plan import PlanAnswer
    from modelhub_tui.screens.trash import TrashScreen
    from modelhub_tui.widgets.glyphs import Glyphs

    Base = App[None]
else:
    Base = object


class ControlActions(Base):
    """Part of `ModelHubApp`, which owns the fleet, the watcher and the workers."""

    if TYPE_CHECKING:
        fleet: Fleet
        _glyphs: Glyphs
        _clock: Callable[[], float]
        _limits: Limits | None
        _deleting: asyncio.Lock

        @property
        def main(self) -> MainScreen: ...
        async def _connected(self) -> FleetWatcherLike: ...
        def report(self, error: BaseException, title: str = "") -> None: ...
        def start(self, action: str, models: tuple[Model, ...], ask: Asked) -> None: ...
        def still(self, action: str, models: tuple[Model, ...]) -> tuple[Model, ...]: ...
        def _start(self, action: str, models: tuple[Model, ...]) -> None: ...
        async def perform(
            self, action: str, models: tuple[Model, ...], ask: Asked, *, at_once: int = ...
        ) -> tuple[Model, ...]: ...

    def _in_background(self, work: Awaitable[Any], what: str) -> None:
        self.run_worker(work, group="actions", exit_on_error=False, description=what)

    # --- the queue ---

    def reorder(self, models: tuple[Model, ...], to: Place) -> None:
        """Move models in the queue; several keep their order among each other, and stay selected for the next move."""
        last = max((each.queue_position or 0 for each in self.fleet.models), default=0)
        back = to in (Place.LATER, Place.FIRST)
        ordered = sorted(models, key=lambda each: each.queue_position or 0, reverse=back)
        if to is Place.EARLIER:  # what stands at the edge already stays, else the others would overtake it
            ordered = [each for at, each in enumerate(ordered, 1) if each.queue_position != at]
        elif to is Place.LATER:
            ordered = [each for at, each in enumerate(ordered) if each.queue_position != last - at]
        if not ordered:
            edge = "first" if to is Place.EARLIER else "last"
            self.notify(f"{titles(models)}: {edge} in the queue already.", markup=False)
            return
        self._in_background(
            self.perform("move", tuple(ordered), lambda watcher, model: watcher.move(model, to), at_once=1),
            "change the queue",
        )

    # --- deleting, and taking it back ---

    def ask_to_delete(self, models: tuple[Model, ...]) -> None:
        """Ask before anything goes to the trash, and say for how long it can be had back."""
        from modelhub_tui.screens.delete import DeleteModelsScreen

        screen = DeleteModelsScreen(models, self._limits)
        self.push_screen(screen, partial(self._answer_deletion, models))
        self._in_background(self._say_limits(screen.show_limits), "ask how long deletions can be undone")

    async def _say_limits(self, say: Callable[[Limits], None]) -> None:
        """Ask for the limits anew; without an answer those known before stand."""
        try:
            self._limits = await (await self._connected()).limits()
        except ModelHubError:
            return
        say(self._limits)

    def _answer_deletion(self, models: tuple[Model, ...], answer: DeleteAnswer | None) -> None:
        if answer and (still := self.still("delete", models)):
            self.main.forget_selection()
            self._in_background(self._send_deletions(still, keep=answer != "free"), f"delete {len(still)} models")

    async def _send_deletions(self, models: tuple[Model, ...], *, keep: bool, stop: bool = False) -> None:
        """Delete, then say how to take it back. What turns out to be in transfer is asked about once more."""
        moving: list[Model] = []

        async def ask(watcher: FleetWatcherLike, model: Model) -> None:
            if stop or running(model):
                await watcher.cancel(model)
                return
            try:
                await watcher.delete(model, keep=keep)
            except Rejected as error:
                if error.code != "transfer_running":
                    raise
                moving.append(model)

        async with self._deleting:
            done = await self.perform("delete", models, ask)
            gone = [each for each in done if each not in moving]
            if gone and keep and self._limits is None:
                await self._say_limits(lambda _: None)
        if gone and keep:
            self.notify(deleted(gone, self._limits), markup=False)
        if moving:
            self._ask_to_stop(tuple(moving))

    def _ask_to_stop(self, models: tuple[Model, ...]) -> None:
        from modelhub_tui.screens.confirm import ConfirmScreen

        def answered(answer: bool | None) -> None:
            if answer:
                self._in_background(self._send_deletions(models, keep=True, stop=True), "stop and delete")

        question, lines = stop_and_delete_question(models)
        self.push_screen(ConfirmScreen(question, lines, yes="Stop and delete", no="Keep"), answered)

    def undo(self) -> None:
        """Take the last deletion back, whoever made it and when."""
        self._in_background(self._undo(), "undo a deletion")

    async def _undo(self) -> None:
        try:
            watcher = await self._connected()
            async with self._deleting:  # a deletion that is on its way is the last one
                kept = await watcher.trash()
                if not kept:
                    self.notify("The trash is empty: there is nothing to bring back.", markup=False)
                    return
                newest = max(kept, key=lambda each: each.deleted_at)
                await watcher.restore(newest.name)
        except ModelHubError as error:
            self.report(error, title="Could not undo the deletion")
        else:
            self.notify(came_back(newest.title or newest.name), markup=False)
            watcher.refresh()

    # --- the trash ---

    def show_trash(self) -> None:
        """List what can be had back."""
        from modelhub_tui.screens.trash import TrashScreen

        screen = TrashScreen(self._glyphs, self._clock)
        self.push_screen(screen)
        self._in_background(self._fill_trash(screen), "list the trash")

    async def _fill_trash(self, screen: TrashScreen) -> None:
        try:
            kept = await (await self._connected()).trash()
        except ModelHubError as error:
            screen.fail(str(explain(error)))
        else:
            screen.show(kept)

    def on_trash_screen_restore_requested(self, event: TrashScreen.RestoreRequested) -> None:
        """Bring one model back."""
        item = event.item
        self._in_background(
            self._change_trash(event.screen, lambda watcher: watcher.restore(item.name), came_back(item.title)),
            "restore a model",
        )

    def on_trash_screen_free_requested(self, event: TrashScreen.FreeRequested) -> None:
        """Free the space of one model, or of all."""
        name = event.item.name if event.item else None
        said = f"{event.item.title} is gone for good." if event.item else "The trash is empty."
        self._in_background(
            self._change_trash(event.screen, lambda watcher: watcher.empty_trash(name), said), "empty the trash"
        )

    async def _change_trash(
        self, screen: TrashScreen | None, change: Callable[[FleetWatcherLike], Awaitable[object]], said: str
    ) -> None:
        try:
            watcher = await self._connected()
            await change(watcher)
        except ModelHubError as error:
            self.report(error, title="The trash is as it was")
        else:
            self.notify(said, markup=False)
            watcher.refresh()
        if screen is not None and screen.is_attached:
            await self._fill_trash(screen)

    # --- limits ---

    def show_limits(self) -> None:
        """Show what is in force, to be changed."""
        from modelhub_tui.screens.limits import LimitsScreen

        screen = LimitsScreen()
        self.push_screen(screen)
        self._in_background(self._fill_limits(screen), "ask for the limits")

    async def _fill_limits(self, screen: LimitsScreen) -> None:
        try:
            self._limits = await (await self._connected()).limits()
        except ModelHubError as error:
            screen.fail(str(explain(error)))
        else:
            screen.show(self._limits)

    def on_limits_screen_submitted(self, event: LimitsScreen.Submitted) -> None:
        """Put new limits in force."""
        self._in_background(self._send_limits(event.screen, event.limits), "change the limits")

    async def _send_limits(self, screen: LimitsScreen, limits: Limits) -> None:
        try:
            self._limits = await (await self._connected()).set_limits(limits)
        except ModelHubError as error:
            if screen.is_attached:
                screen.fail(str(explain(error)))
            else:
                self.report(error, title="The limits are as they were")
            return
        if screen.is_attached:
            screen.dismiss(None)
        self.notify("The new limits are in force.", markup=False)

    # --- the disk plan ---

    def lacks_room(self, models: tuple[Model, ...]) -> DiskPlan | None:
        """The plan for pulling these, if they do not fit; None if they do, or nobody knows."""
        plan = plan_for(models, self.fleet.models, self.fleet.nodes)
        return plan if plan is not None and plan.short_by else None

    def show_plan(self, models: tuple[Model, ...], plan: DiskPlan) -> None:
        """Say what is missing, and what could be freed."""
        from modelhub_tui.screens.plan import PlanScreen

        fleet = self.fleet
        waits = Ability.LIMITS in fleet.router.abilities
        screen = PlanScreen(models, plan, fleet.local, sum(each.trash_bytes or 0 for each in fleet.nodes), waits=waits)
        self.push_screen(screen, partial(self._planned, models))

    def _planned(self, models: tuple[Model, ...], answer: PlanAnswer | None) -> None:
        match answer:
            case "pull":
                if still := self.still("pull", models):
                    self._start("pull", still)
            case "local":
                self.main.show_largest()
            case "empty":
                self._ask_to_empty()

    def _ask_to_empty(self) -> None:
        from modelhub_tui.screens.confirm import ConfirmScreen

        def answered(answer: bool | None) -> None:
            if answer:
                change = self._change_trash(None, lambda watcher: watcher.empty_trash(None), "The trash is empty.")
                self._in_background(change, "empty the trash")

        freed = sum(each.trash_bytes or 0 for each in self.fleet.nodes)
        self.push_screen(ConfirmScreen(*empty_question(freed), yes="Free", no="Keep"), answered)
