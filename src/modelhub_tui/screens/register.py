"""Register any HuggingFace repo."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.reactive import var
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option

from modelhub_tui.errors import Advice, BadReference
from modelhub_tui.hub_refs import HubRef, parse_hub_ref
from modelhub_tui.identifiers import safe_repo_path
from modelhub_tui.screens.dialog import Dialog
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

MAX_CANDIDATES = 50


class RegisterScreen(Dialog[str]):
    """Asks for a repo and, where it has several, a file. The result is the registered name, or None.

    It sends `Submitted` and waits: whoever owns the connection answers with `accept()` or `reject()`.
    """

    AUTO_FOCUS = "#register-repo"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "app.focus_previous", show=False),
        Binding("down", "app.focus_next", show=False),
    ]
    DEFAULT_CSS = """
    RegisterScreen {
        & .dialog { width: 84; }
        & .field { color: $text-muted; margin-top: 1; }
        & .field.-first { margin-top: 0; }
        & #register-verdict { margin-top: 1; min-height: 2; height: auto; width: 100%; }
        & #register-verdict.-good { color: $text-success; }
        & #register-verdict.-bad { color: $text-error; }
        & #register-verdict.-busy { color: $text-warning; }
        & #register-candidates { display: none; height: auto; max-height: 10; margin-top: 1; border: none; }
        & #register-candidates.-shown { display: block; }
    }
    """

    sending: var[bool] = var(False)
    """A request is on its way."""

    @dataclass
    class Submitted(Message):
        """The user wants this registered."""

        screen: RegisterScreen
        ref: HubRef

    def __init__(self, text: str = "", *, endpoint: str = "https://huggingface.co") -> None:
        """Prepare the dialog.

        Args:
            text: What the repo field starts with.
            endpoint: The configured hub; URLs of it are understood.
        """
        super().__init__()
        self._text, self._endpoint = text, endpoint
        self._candidates: tuple[str, ...] = ()

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = "Register a model"
            yield Static("HuggingFace repo or URL", classes="field -first")
            repo = Input(
                self._text,
                placeholder="owner/name, or paste a URL of the repo or of one file",
                id="register-repo",
                compact=True,
                select_on_focus=False,
            )
            repo.cursor_blink = False
            yield repo
            yield Static("File (optional)", classes="field")
            file = Input(
                placeholder="one file, such as model-Q4_K_M.gguf",
                id="register-file",
                compact=True,
                select_on_focus=False,
            )
            file.cursor_blink = False
            yield file
            yield Static("", id="register-verdict", markup=False)
            yield OptionList(id="register-candidates", compact=True, markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel (esc)", id="register-cancel", compact=True)
                yield Button("Register (enter)", id="register-send", compact=True)

    def on_mount(self) -> None:
        """Judge what the field starts with."""
        self._repo.cursor_position = len(self._repo.value)
        self._judge()

    def on_key(self, event: events.Key) -> None:
        """Keys typed while the dialog opened, before the field had the focus, are meant for the field."""
        if event.is_printable and event.character and not self.sending and self.focused in (None, self._repo):
            event.stop()
            self._repo.insert_text_at_cursor(event.character)

    @property
    def _repo(self) -> Input:
        return self.query_one("#register-repo", Input)

    @property
    def _file(self) -> Input:
        return self.query_one("#register-file", Input)

    def ref(self) -> HubRef:
        """What the fields say.

        Raises:
            BadReference: They name nothing that could be registered.
        """
        ref = parse_hub_ref(self._repo.value, self._endpoint)
        file = self._file.value.strip()
        if not file:
            return ref
        try:
            return replace(ref, file=safe_repo_path(file))
        except ValueError as error:
            raise BadReference(f"The file name cannot be used: {error}.") from error

    # --- before sending ---

    @on(Input.Changed)
    def _judge(self) -> None:
        """Say at once what would be registered, or what is wrong."""
        if self.sending:
            return
        self._offer(())
        if not self._repo.value.strip():
            self._say("", "")
            return
        try:
            ref = self.ref()
        except BadReference as error:
            self._say("-bad", error.reason)
        else:
            at = f" at revision {ref.revision}" if ref.revision else ""
            what = f", file {ref.file}." if ref.file else ". If it has several files, you choose one next."
            self._say("-good", f"Registers {ref.repo}{at}{what}")

    @on(Input.Submitted)
    @on(Button.Pressed, "#register-send")
    def _send(self) -> None:
        if self.sending:
            return
        try:
            ref = self.ref()
        except BadReference as error:
            self._say("-bad", error.reason)
            self.set_focus(self._repo)
            return
        self.sending = True
        self._say("-busy", f"Asking the router to register {ref.repo} ...")
        self.post_message(self.Submitted(self, ref))

    @on(Button.Pressed, "#register-cancel")
    def _cancel(self) -> None:
        self.dismiss(None)

    # --- the answer ---

    def accept(self, name: str) -> None:
        """The router registered it as `name`: close."""
        self.sending = False
        self.dismiss(name)

    def reject(self, advice: Advice, candidates: tuple[str, ...] = ()) -> None:
        """The router said no: say why, and offer the files it named."""
        self.sending = False
        if candidates:
            self._say("-bad", f"{advice.what} Choose one:")
            self._offer(candidates)
        else:
            self._say("-bad", str(advice))
            self.set_focus(self._repo)

    def _offer(self, candidates: tuple[str, ...]) -> None:
        listed = self.query_one("#register-candidates", OptionList)
        listed.set_class(bool(candidates), "-shown")
        listed.clear_options()
        if candidates:
            listed.add_options(Option(Content(clean(each))) for each in candidates[:MAX_CANDIDATES])
            listed.highlighted = 0
            self.set_focus(listed)
        self._candidates = candidates

    @on(OptionList.OptionSelected, "#register-candidates")
    def _choose(self, event: OptionList.OptionSelected) -> None:
        file = self._candidates[event.option_index]
        with self.prevent(Input.Changed):
            self._file.value = file
        self._send()

    def _say(self, tone: str, text: str) -> None:
        verdict = self.query_one("#register-verdict", Static)
        verdict.set_classes(tone)
        verdict.update(Content(text))
