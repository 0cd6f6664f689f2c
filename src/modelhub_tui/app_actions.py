"""What the dashboard asks of any router: registrations, logins, downloads and deletions on one endpoint, approvals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from modelhub_tui.domain import Ability, Fleet, Link, Model, ModelState
from modelhub_tui.errors import (
    Advice,
    AlreadyRegistered,
    LoginNeeded,
    ModelHubError,
    PasswordChangeNeeded,
    Rejected,
    Unauthorised,
    explain,
)
from modelhub_tui.widgets.details import usage

if TYPE_CHECKING:
    from textual.app import App

    from modelhub_tui.app_watcher import FleetWatcherLike
    from modelhub_tui.domain import Node
    from modelhub_tui.hub_refs import HubRef
    from modelhub_tui.screens.endpoint import DeleteChoice, EndpointChoice
    from modelhub_tui.screens.fleet import FleetScreen
    from modelhub_tui.screens.login import GivenLogin, LoginScreen, Secret
    from modelhub_tui.screens.register import RegisterScreen
    from modelhub_tui.widgets.glyphs import Glyphs

    Base = App[None]
else:
    Base = object


class RouterActions(Base):
    """Part of `ModelHubApp`, which owns the fleet, the watcher and the workers."""

    if TYPE_CHECKING:
        fleet: Fleet
        _glyphs: Glyphs
        _use_key: Callable[[str, bool], Awaitable[None]] | None
        _login: Callable[[str, Secret, bool], Awaitable[None]] | None
        _change_password: Callable[[Secret], Awaitable[None]] | None
        _watcher: FleetWatcherLike | None
        _open_error: ModelHubError | None
        _noticed: set[str]
        _asked_for_key: bool
        _copied_usage: tuple[str, int]

        async def _connected(self) -> FleetWatcherLike: ...
        def _refresh(self) -> None: ...
        def ask_for_api_key(self) -> None: ...
        def report(self, error: BaseException, title: str = "") -> None: ...
        def start(self, action: str, models: tuple[Model, ...], ask: Any) -> None: ...

    def show_notices(self, notices: tuple[str, ...]) -> None:
        """Show each sentence once, for as long as it stands; one that comes back later is news again."""
        for each in notices:
            if each not in self._noticed:
                self.notify(each, severity="warning", timeout=10, markup=False)
        self._noticed = set(notices)

    def tell(self, advice: Advice, title: str = "") -> None:
        """Show what went wrong, and what to do."""
        self.notify(str(advice), title=title, severity="error", timeout=10, markup=False)

    def _copy(self, model: Model) -> None:
        """Put the path of a downloaded model, or else its repo, on the clipboard of the terminal (OSC 52)."""
        path = next((place.path for place in model.placements if place.path), None)
        text = path or model.repo
        self.copy_to_clipboard(text)
        self.notify(text, title="Copied", markup=False)

    def _copy_usage(self, model: Model) -> None:
        """Put a command that runs the model on the clipboard: the first one, then each time the next."""
        commands = usage(model)
        if not commands:
            self.notify("No ready command is known for this kind of model.", markup=False)
            return
        key, turn = self._copied_usage
        turn = (turn + 1) % len(commands) if key == model.key else 0
        self._copied_usage = (model.key, turn)
        program, command = commands[turn]
        self.copy_to_clipboard(command)
        self.notify(command, title=f"Copied for {program} ({turn + 1}/{len(commands)})", markup=False)

    # --- registering ---

    def on_register_screen_submitted(self, event: RegisterScreen.Submitted) -> None:
        """Send what the dialog asks for."""
        self.run_worker(
            self._send_registration(event.screen, event.ref),
            group="register",
            exclusive=True,
            exit_on_error=False,
            description="register",
        )

    async def _send_registration(self, screen: RegisterScreen, ref: HubRef) -> None:
        from modelhub_tui.client.base import RegisterRequest

        try:
            watcher = await self._connected()
            registered = await watcher.register(RegisterRequest(ref.repo, ref.file, ref.revision))
        except AlreadyRegistered as error:
            if screen.is_attached:
                screen.accept(error.name)
            self.notify(f"{error.name} was registered before.", markup=False)
        except ModelHubError as error:
            candidates = error.candidates if isinstance(error, Rejected) else ()
            if screen.is_attached:
                screen.reject(replace(explain(error), todo="") if candidates else explain(error), candidates)
            else:
                self.report(error, title=f"Could not register {ref.repo}")
        else:
            if screen.is_attached:
                screen.accept(registered.name)
            self.notify(
                " ".join(registered.warnings) or "Its download starts as soon as a node is free.",
                title=f"Registered {registered.name}",
                markup=False,
            )
            watcher.refresh()

    # --- downloads and deletions on one endpoint ---

    def choose_endpoint(self, models: tuple[Model, ...]) -> None:
        """Ask on which endpoint to download."""
        from modelhub_tui.screens.endpoint import EndpointScreen, candidates

        fleet = self.fleet
        able = candidates(fleet.nodes)
        if not able:
            if Ability.PULL in fleet.router.abilities:
                self.start("pull", models, lambda watcher, model: watcher.pull(model))
                return
            who = fleet.router.label or "this router"
            self.notify(f"No endpoint of {who} takes downloads.", severity="warning", markup=False)
            return
        held = Counter(place.node_id for model in fleet.models for place in model.placements)
        quantization = Ability.QUANTIZATION in fleet.router.abilities
        screen = EndpointScreen(models, able, dict(held), self._glyphs, quantization=quantization)
        self.push_screen(screen, partial(self._download, models))

    def _download(self, models: tuple[Model, ...], choice: EndpointChoice | None) -> None:
        """Register what is not registered, and order the downloads."""
        if choice is None:
            return

        registers = Ability.REGISTER in self.fleet.router.abilities

        async def ask(watcher: FleetWatcherLike, model: Model) -> None:
            # What only an endpoint knows, under a name of its own, is no repo that could be registered.
            if registers and not model.registered and model.state is ModelState.AVAILABLE:
                await watcher.pull(model)
            await watcher.download(model, choice.node_id, choice.quantization)

        self.start("download", models, ask)

    def choose_copies(self, models: tuple[Model, ...]) -> None:
        """Ask what to delete from where."""
        from modelhub_tui.screens.endpoint import DeleteScreen

        fleet = self.fleet
        holding = {place.node_id or place.node for model in models for place in model.placements}
        nodes = [each for each in fleet.nodes if each.deletes and holding & {each.id, each.name}]
        registration = Ability.DELETE in fleet.router.abilities and any(model.registered for model in models)
        if not nodes and not registration:
            names = sorted({place.node for model in models for place in model.placements})
            where = ", ".join(names[:4]) or "Its endpoint"
            self.notify(f"{where} cannot delete models when asked to.", severity="warning", markup=False)
            return
        self.push_screen(
            DeleteScreen(models, nodes, self._glyphs, registration=registration), partial(self._delete, models)
        )

    def _delete(self, models: tuple[Model, ...], choice: DeleteChoice | None) -> None:
        """Delete the copies first: without its registration a model may not be listed any more."""
        if choice is None:
            return
        names = {node.name: node.id for node in self.fleet.nodes}

        async def ask(watcher: FleetWatcherLike, model: Model) -> None:
            holding = {place.node_id or names.get(place.node, "") for place in model.placements}
            for node_id in choice.node_ids:
                if node_id in holding:
                    await watcher.delete_on(model, node_id)
            if choice.registration and model.registered:
                await watcher.delete(model)

        self.start("delete", models, ask)

    # --- nodes ---

    def on_fleet_screen_refresh_requested(self) -> None:
        """Ask the router now."""
        self._refresh()

    def on_fleet_screen_approve_requested(self, event: FleetScreen.ApproveRequested) -> None:
        """Ask before a machine is let in."""
        from modelhub_tui.screens.confirm import ConfirmScreen
        from modelhub_tui.widgets.fleet_cells import node_facts

        node = event.node
        _, has = node_facts(node, 0.0)
        lines = (", ".join(has) or "It has not told what hardware it has.", "It will fetch all registered models.")
        self.push_screen(
            ConfirmScreen(f"Let {node.name} in?", lines, yes="Approve", no="Not now"), partial(self._approve, node)
        )

    def _approve(self, node: Node, answer: bool | None) -> None:
        if answer:
            self.run_worker(self._send_approval(node), group="actions", exit_on_error=False, description="approve")

    async def _send_approval(self, node: Node) -> None:
        try:
            watcher = await self._connected()
            await watcher.approve(node)
        except ModelHubError as error:
            self.report(error, title=f"Could not approve {node.name}")
        else:
            self.notify(f"{node.name} may come in.", markup=False)
            watcher.refresh()

    # --- logging in ---

    def takes_login(self) -> bool:
        """Whether this router knows users and passwords: all but our own service do."""
        problem = self._open_error or getattr(self._watcher, "problem", None)
        return isinstance(problem, LoginNeeded) or self.fleet.router.generation != "local"

    def ask_for_login(self) -> None:
        """Ask for user and password."""
        from modelhub_tui.screens.login import LoginScreen

        fleet = self.fleet
        router = fleet.router.label or "the router"
        screen = LoginScreen(router, fleet.connection.problem, offers_key=self._use_key is not None)
        self.push_screen(screen, self._after_login)

    def _after_login(self, result: str | None) -> None:
        if result == "key":
            self.ask_for_api_key()

    def on_login_screen_submitted(self, event: LoginScreen.Submitted) -> None:
        """Send user and password."""
        self.run_worker(
            self._log_in(event.screen, event.given),
            group="key",
            exclusive=True,
            exit_on_error=False,
            description="log in",
        )

    async def _log_in(self, screen: LoginScreen, given: GivenLogin) -> None:
        assert self._login is not None
        try:
            await self._login(given.user, given.password, given.remember)
        except PasswordChangeNeeded as error:
            if screen.is_attached and self._change_password is not None:
                screen.ask_new_password()
            else:
                self.report(error, title="Could not log in")
        except Unauthorised:
            self._refuse(screen, Advice("User or password is wrong."))
        except (ModelHubError, OSError) as error:
            self._refuse(screen, explain(error))
        else:
            self._logged_in(screen)

    def on_login_screen_password_chosen(self, event: LoginScreen.PasswordChosen) -> None:
        """Send the new password."""
        self.run_worker(
            self._send_password(event.screen, event.password),
            group="key",
            exclusive=True,
            exit_on_error=False,
            description="change the password",
        )

    async def _send_password(self, screen: LoginScreen, password: Secret) -> None:
        assert self._change_password is not None
        try:
            await self._change_password(password)
        except (ModelHubError, OSError) as error:
            self._refuse(screen, explain(error))
        else:
            self._logged_in(screen)

    def _refuse(self, screen: LoginScreen, advice: Advice) -> None:
        if screen.is_attached:
            screen.reject(advice)
        else:
            self.tell(advice, title="Could not log in")

    def _logged_in(self, screen: LoginScreen) -> None:
        """Connect again, as somebody the router knows."""
        self._asked_for_key = False
        if screen.is_attached:
            screen.accept()
        if self.fleet.connection.link is not Link.LIVE:
            self._refresh()
