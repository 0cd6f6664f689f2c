"""Log in to a router with user and password, and choose a new password when it wants one."""

from __future__ import annotations

from dataclasses import field

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Button, Input, Static

from modelhub_tui.errors import Advice
from modelhub_tui.screens.dialog import Dialog
from modelhub_tui.values import dataclass

SHORTEST = 6
"""Characters a new password needs, at least."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A password. Neither `repr` nor `str` show it."""

    _value: str = field(repr=False)

    def __str__(self) -> str:
        return "**********"

    def get_secret_value(self) -> str:
        """The password itself."""
        return self._value


@dataclass(frozen=True, slots=True)
class GivenLogin:
    """What the user typed."""

    user: str
    password: Secret
    remember: bool = False


class LoginScreen(Dialog[str]):
    """User and password. It stays open until the router agrees; the result is `in`, or `key` to give an API key."""

    AUTO_FOCUS = "#login-user"
    DEFAULT_CSS = """
    LoginScreen .dialog { width: 78; }
    LoginScreen #login-user, LoginScreen .second-line { margin-top: 1; }
    LoginScreen .dialog-problem { min-height: 1; }
    """

    @dataclass
    class Submitted(Message):
        """The user wants to log in."""

        screen: LoginScreen
        given: GivenLogin

    @dataclass
    class PasswordChosen(Message):
        """The user has chosen a new password."""

        screen: LoginScreen
        password: Secret

    def __init__(self, router: str, problem: str, *, offers_key: bool, user: str = "") -> None:
        """Prepare the dialog.

        Args:
            router: Its label or URL, plain text.
            problem: Why it is asked for, one sentence.
            offers_key: An API key could be given instead.
            user: The name to start with.
        """
        super().__init__()
        self._router, self._problem, self._offers_key, self._user = router, problem, offers_key, user
        self._busy = False
        self._remember = False
        self.changing = False
        """The router wants a new password first."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Log in"
            yield Static(Content(self._problem), classes="dialog-problem")
            text = f"User and password for {self._router}. They are sent to this router only."
            yield Static(Content(text), classes="dialog-text", id="login-text")
            for id_, hint, hidden in (("login-user", "user", False), ("login-password", "password", True)):
                line = Input(
                    self._user if not hidden else "",
                    placeholder=hint,
                    password=hidden,
                    id=id_,
                    compact=True,
                    select_on_focus=False,
                    classes="second-line" if hidden else "",
                )
                line.cursor_blink = False
                yield line
            hint = "Remembered is the session, never the password: in your keyring, or a file that only you can read."
            yield Static(Content(hint), classes="dialog-hint", id="login-hint")
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel (esc)", id="login-cancel", compact=True)
                if self._offers_key:
                    yield Button("API key", id="login-key", compact=True)
                yield Button("Log in (enter)", id="login-in", compact=True)
                yield Button("Keep logged in", id="login-remember", compact=True)

    @on(Input.Submitted, "#login-user")
    def _to_password(self) -> None:
        self.set_focus(self.query_one("#login-password"))

    @on(Input.Submitted, "#login-password")
    @on(Button.Pressed, "#login-in")
    def _log_in(self) -> None:
        self._submit(remember=self._remember)

    @on(Button.Pressed, "#login-remember")
    def _log_in_and_remember(self) -> None:
        self._submit(remember=True)

    def _submit(self, *, remember: bool) -> None:
        if self._busy:
            return
        first = self.query_one("#login-user", Input).value
        password = self.query_one("#login-password", Input).value
        if self.changing:
            self._choose(first, password)
            return
        user = first.strip()
        if not user or not password:
            self._say("Give both, user and password.")
            self.set_focus(self.query_one("#login-password" if user else "#login-user"))
            return
        self._remember = remember
        self._wait("Logging in ...")
        self.post_message(self.Submitted(self, GivenLogin(user, Secret(password), remember)))

    def _choose(self, first: str, second: str) -> None:
        """Send the new password if it was typed twice alike."""
        if len(first) < SHORTEST:
            self._say(f"A password needs at least {SHORTEST} characters.")
        elif first != second:
            self._say("The two are not alike.")
        else:
            self._wait("Changing the password ...")
            self.post_message(self.PasswordChosen(self, Secret(first)))

    def _say(self, text: str) -> None:
        self.query_one(".dialog-problem", Static).update(Content(text))

    def _wait(self, text: str) -> None:
        self._busy = True
        self._say(text)

    def reject(self, advice: Advice) -> None:
        """The router said no."""
        self._busy = False
        self._say(str(advice))
        line = self.query_one("#login-password", Input)
        line.value = ""
        self.set_focus(self.query_one("#login-user") if self.changing else line)

    def ask_new_password(self) -> None:
        """The router wants another password before it lets this user do anything."""
        self._busy, self.changing = False, True
        self.query_one(".dialog").border_title = "New password"
        self._say("The router wants you to choose a new password.")
        self.query_one("#login-text", Static).update(
            Content(f"Type it twice; at least {SHORTEST} characters. It is sent to {self._router} only.")
        )
        first, second = self.query_one("#login-user", Input), self.query_one("#login-password", Input)
        first.value = second.value = ""
        first.password = True
        first.placeholder, second.placeholder = "new password", "new password again"
        self.query_one("#login-in", Button).label = "Change (enter)"
        for each in ("#login-remember", "#login-key"):
            for button in self.query(each):
                button.display = False
        self.set_focus(first)

    def accept(self) -> None:
        """The router agreed."""
        self.dismiss("in")

    @on(Button.Pressed, "#login-key")
    def _use_key(self) -> None:
        self.dismiss("key")

    @on(Button.Pressed, "#login-cancel")
    def _cancel(self) -> None:
        self.dismiss(None)
