"""There is no room for a model: by how much, what could be freed, and whether to pull it all the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.widgets import Button, Static

from modelhub_tui.disk_plan import DiskPlan
from modelhub_tui.domain import Model, ModelState
from modelhub_tui.screens.dialog import Dialog
from modelhub_tui.screens.wording import sentence, titles
from modelhub_tui.units import human_size

PlanAnswer = Literal["pull", "local", "empty"]
"""Pull all the same, go to what is on disk, or empty the trash."""
LISTED = 4
"""Models named as candidates."""


class PlanScreen(Dialog[PlanAnswer]):
    """The plan, and the ways out. The focus starts on none of them that changes anything."""

    AUTO_FOCUS = "#plan-no"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p,y", "answer('pull')", "Pull anyway", show=False),
        Binding("l", "answer('local')", "Show Local", show=False),
        Binding("e", "answer('empty')", "Empty the trash", show=False),
        Binding("n", "close", "Not now", show=False),
        Binding("right", "app.focus_next", "Next answer", show=False),
        Binding("left", "app.focus_previous", "Previous answer", show=False),
    ]
    DEFAULT_CSS = """
    PlanScreen .dialog-buttons Button { min-width: 4; margin-left: 1; }
    PlanScreen .dialog { width: 76; border: round $warning; border-title-color: $text-warning; }
    """

    def __init__(
        self, models: Sequence[Model], plan: DiskPlan, local: Sequence[Model], trash_bytes: int, *, waits: bool
    ) -> None:
        """Prepare the dialog.

        Args:
            models: What is to be pulled.
            plan: It is short by something.
            local: What is on disk.
            trash_bytes: What all trashes hold.
            waits: The router holds a transfer for which there is no room, rather than have it fail.
        """
        super().__init__()
        self._models, self._plan, self._trash_bytes, self._waits = tuple(models), plan, trash_bytes, waits
        on_disk = [each for each in local if each.state is ModelState.DOWNLOADED]
        self._local = sorted(on_disk, key=lambda each: -(each.disk_bytes or 0))

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as box:
            box.border_title = Content(f"No room for {titles(self._models)}")
            yield Static("\n".join(self._lines()), classes="dialog-text", markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Later (n)", id="plan-no", compact=True)
                if self._trash_bytes:
                    yield Button("Empty (e)", id="plan-empty", classes="danger", compact=True)
                if self._local:
                    yield Button("Local (l)", id="plan-local", compact=True)
                yield Button("Pull anyway (p)", id="plan-pull", compact=True)

    def _lines(self) -> list[str]:
        out = [sentence(self._plan.sentence())]
        if self._local:
            out += ["", "On disk, the largest first:"]
            out += [f"  {human_size(each.disk_bytes):>8}  {each.title}" for each in self._local[:LISTED]]
            if (rest := len(self._local) - LISTED) > 0:
                out.append(f"            and {rest} more")
        if self._trash_bytes:
            out += ["", f"The trash holds {human_size(self._trash_bytes)}, counted as free already; e empties it."]
        out += ["", "Pulled anyway, it waits until there is room." if self._waits else "Pulled anyway, it may fail."]
        return out

    @on(Button.Pressed)
    def _answer_by_button(self, event: Button.Pressed) -> None:
        said = (event.button.id or "").removeprefix("plan-")
        if said == "no":
            self.dismiss(None)
        else:
            self.action_answer(said)  # type: ignore[arg-type]

    def action_answer(self, answer: PlanAnswer) -> None:
        """Answer by key; what is not there is no answer."""
        if self.query(f"#plan-{answer}"):
            self.dismiss(answer)
