"""Everything known about one model, and how to use it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Static

from modelhub_tui.disk_plan import DiskPlan
from modelhub_tui.domain import Model, ModelState, Node, NodeStatus, Transfer
from modelhub_tui.states import FitKind, fit
from modelhub_tui.units import human_context, human_count, human_duration, human_rate, human_size
from modelhub_tui.widgets.card_parts import of_total, percent
from modelhub_tui.widgets.glyphs import UNICODE, Glyphs
from modelhub_tui.widgets.moments import exact, ordinal
from modelhub_tui.widgets.progress import doing, refetched, why_paused

_HUB = "https://huggingface.co"
MOST_NODES = 12
"""Places listed for one model; the fleet view has them all."""
MOST_EVENTS = 10
"""Things told that happened to a transfer."""
_STATE_STYLE = {
    ModelState.AVAILABLE: "$foreground 70%",
    ModelState.QUEUED: "$text-warning",
    ModelState.DOWNLOADING: "$text-primary",
    ModelState.PAUSED: "$text-warning",
    ModelState.FAILED: "$text-error",
    ModelState.DOWNLOADED: "$text-success",
    ModelState.DELETING: "$foreground 55%",
}


def usage(model: Model) -> list[tuple[str, str]]:
    """Ready commands that run a model, each with the program's name, by format and capability.

    Paths are used where a node told them; else the commands let the program fetch from the hub itself. Every word that
    came from outside is quoted for a POSIX shell.
    """
    quote = shlex.quote
    placed = next((each for each in model.placements if each.path), None)
    path = placed.path if placed else None
    other = next((each for each in (placed.paths if placed else ()) if "mmproj" in each.rsplit("/", 1)[-1]), None)
    hub_name = f"{model.repo}:{model.quantization}" if model.quantization else model.repo
    kinds = set(model.capabilities)
    if "speech_to_text" in kinds:
        return [("whisper.cpp", f"whisper-cli -m {quote(path)} -f audio.wav")] if path else []
    if "image_generation" in kinds:
        return [("stable-diffusion.cpp", f"sd -m {quote(path)} -p 'a lighthouse'")] if path else []
    if model.format and model.format != "gguf":
        task = " --runner pooling" if kinds & {"embedding", "embeddings"} else ""
        return [("vLLM", f"vllm serve {quote(model.repo)}{task}")]
    embedding = " --embedding" if kinds & {"embedding", "embeddings"} else ""
    projector = f" --mmproj {quote(other)}" if other else ""
    out = [
        (
            "llama.cpp",
            f"llama-server -m {quote(path)}{projector}{embedding}"
            if path
            else f"llama-server -hf {quote(hub_name)}{embedding}",
        )
    ]
    if "text_to_speech" not in kinds:
        out.append(("Ollama", f"ollama {'pull' if embedding else 'run'} {quote(f'hf.co/{hub_name}')}"))
    return out


class DetailsPane(VerticalScroll, can_focus=True):
    """A scrollable page about one model."""

    DEFAULT_CSS = """
    DetailsPane {
        background: $surface;
        padding: 0 1;
        scrollbar-size-vertical: 1;
        scrollbar-gutter: stable;
        scrollbar-color: $foreground 30%;
        scrollbar-background: $surface;
        #details-text { width: 1fr; height: auto; }
    }
    """

    model: reactive[Model | None] = reactive(None, repaint=False)
    """What to show; None shows nothing."""
    nodes: reactive[tuple[Node, ...]] = reactive((), repaint=False)
    """Decides whether it fits."""
    plan: reactive[DiskPlan | None] = reactive(None, repaint=False)
    """The disk with this model on it; set before the model. None while it is whole, or nobody knows."""

    def __init__(
        self,
        *,
        glyphs: Glyphs = UNICODE,
        hub_url: str = _HUB,
        clock: Callable[[], float] = time.time,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.glyphs, self.hub_url, self.clock = glyphs, hub_url, clock
        self._shown = Content("")
        self._key: str | None = None

    def compose(self) -> ComposeResult:
        """One text: what it costs does not depend on how much is known."""
        yield Static(self._shown, id="details-text", markup=False)

    def commands(self) -> list[tuple[str, str]]:
        """Name of a program and the command that runs this model with it."""
        return usage(self.model) if self.model else []

    def watch_model(self) -> None:
        """Draw the page; start at its top for another model."""
        key = self.model.key if self.model else None
        if key != self._key:
            self._key = key
            if self.is_mounted:
                self.scroll_home(animate=False)
        self._redraw()

    def watch_nodes(self) -> None:
        """Whether it fits may have changed."""
        self._redraw()

    def watch_plan(self) -> None:
        """Other models may take, or leave, some room."""
        if self.model is not None and self.model.key == self._key:
            self._redraw()

    def _redraw(self) -> None:
        text = self.page()
        if text.plain == self._shown.plain and text.spans == self._shown.spans:
            return
        # A page of as many lines keeps its place: no layout pass for every step of a download.
        same_shape = [len(line) for line in text.plain.split("\n")] == [
            len(line) for line in self._shown.plain.split("\n")
        ]
        self._shown = text
        for static in self.query(Static):
            static.update(text, layout=not same_shape)

    def page(self) -> Content:
        """The whole page."""
        model = self.model
        if model is None:
            return Content("")
        blocks: list[list[Content]] = [self._head(model)]
        if model.description:
            blocks.append([Content.styled(model.description, "$foreground 85%")])
        blocks.append(self._state(model))
        blocks.append(self._history(model))
        blocks.append(self._facts(model))
        if commands := usage(model):
            blocks.append([_heading("Use it")])
            for name, command in commands:
                blocks[-1] += [Content.styled(name, "$foreground 55%"), Content.styled(command, "$text-accent")]
        if model.placements:
            blocks.append(self._placements(model))
        if model.files:
            blocks.append([_heading("Files"), *(self._bullet(each) for each in model.files)])
        return Content("\n\n").join([Content("\n").join(lines) for lines in blocks if lines])

    def _bullet(self, text: str) -> Content:
        return Content.assemble((f"{self.glyphs.bullet} ", "$foreground 55%"), (text, "$foreground 85%"))

    def _head(self, model: Model) -> list[Content]:
        return [
            Content.styled(model.title, "bold $foreground"),
            Content.styled(f"{self.hub_url}/{model.repo}", "$foreground 55%"),
        ]

    def _state(self, model: Model) -> list[Content]:
        """State, why, and each node's progress."""
        mark = getattr(self.glyphs, model.state.value)
        out = [Content.styled(f"{mark} {model.state.value}", f"bold {_STATE_STYLE[model.state]}")]
        said = [why_paused(model) if model.state is ModelState.PAUSED else "", model.reason]
        if model.found and not model.registered:
            said.append("Found on disk and registered nowhere. p adopts it as it is.")
        if model.is_unverifiable:
            some = any(each.verified is False and len(each.unverified) < len(each.paths) for each in model.placements)
            said.append(f"Not verifiable: the hub gives no checksum{' of some of its files' if some else ''}.")
        if model.queue_position is not None and model.state is not ModelState.DOWNLOADING:
            said.append(f"{ordinal(model.queue_position)} in the queue")
        out += [Content.styled(each, _STATE_STYLE[model.state]) for each in said if each]
        out += [Content.styled(self._transfer(each, model), "$foreground 85%") for each in model.transfers]
        if self.plan is not None:
            style = "$text-error" if self.plan.short_by else "$foreground 85%"
            out.append(Content.styled(f"Disk: {self.plan.sentence()}", style))
        if model.state is ModelState.AVAILABLE and model.gated:
            out.append(
                Content.styled(
                    f"Gated: accept its terms at {self.hub_url}/{model.repo} and set HF_TOKEN.", "$text-warning"
                )
            )
        return out

    def _transfer(self, each: Transfer, model: Model) -> str:
        """One node's progress in a line."""
        said = [f"{each.node}: {doing(each) or each.phase.value}" if not each.orphaned else doing(each, model)]
        if each.bytes_total:
            said.append(percent(each.fraction))
            said.append(of_total(each.bytes_done, each.bytes_total))
        said += [human_rate(each.bytes_per_s), human_duration(each.eta_s) and f"{human_duration(each.eta_s)} left"]
        said.append(refetched(each))
        if each.file:
            count = f" ({each.file_index} of {each.file_count})" if each.file_count > 1 else ""
            said.append(f"{each.file}{count}")
        if each.error and each.error != model.reason:
            said.append(each.error)
        return f" {self.glyphs.dot} ".join(filter(None, said))

    def _history(self, model: Model) -> list[Content]:
        """What happened to its transfers, the latest last."""
        events = sorted(
            ((event.at, event.what, each.node) for each in model.transfers for event in each.history),
            key=lambda event: event[0],
        )
        if not events:
            return []
        now, several = self.clock(), len(model.transfers) > 1
        lines = [
            Content.assemble(
                (f"{exact(at, now)}  ", "$foreground 55%"),
                (f"{node}: {what}" if several and node not in what else what, "$foreground 85%"),
            )
            for at, what, node in events[-MOST_EVENTS:]
        ]
        return [_heading("History"), *lines]

    def _facts(self, model: Model) -> list[Content]:
        rows: list[tuple[str, str, str]] = []

        def row(name: str, value: str, style: str = "$foreground 85%") -> None:
            if value:
                rows.append((name, value, style))

        row("Download", human_size(model.size_bytes) if model.size_bytes else "")
        for each in self._memory(model):
            row(*each)
        row("Parameters", model.parameters)
        row("Quantization", model.quantization)
        row("Context", f"{human_context(model.context_length)} tokens" if model.context_length else "")
        row("Format", model.format)
        row("Can do", ", ".join(each.replace("_", " ") for each in model.capabilities))
        row("Tags", ", ".join(model.tags))
        row("License", model.license)
        if model.gated:
            row("Access", "gated: needs accepted terms and a token", "$text-warning")
        row("Revision", model.revision or "")
        if model.stats is not None:
            likes = human_count(model.stats.likes)
            downloads = human_count(model.stats.downloads)
            said = [f"{downloads} downloads a month" if downloads else "", f"{likes} likes" if likes else ""]
            old = " (being refreshed)" if model.stats.stale else ""
            row("HuggingFace", ", ".join(filter(None, said)) + old if any(said) else "")
        row("Registered as" if model.registered else "Name", model.name)
        return [
            Content.assemble((name.ljust(13) + " ", "$foreground 55%"), (value, style)) for name, value, style in rows
        ]

    def _memory(self, model: Model) -> list[tuple[str, str, str]]:
        """Required memory, and why it is or is not there."""
        need = model.required_memory_bytes
        if not need:
            return []
        rule = f" ({model.required_memory_rule})" if model.required_memory_rule else ""
        rows = [("Needs", f"{human_size(need)}{rule}", "$foreground 85%")]
        verdict = fit(need, self.nodes)
        if verdict.kind is FitKind.UNKNOWN:
            return rows
        gpu = max(self.nodes, key=lambda each: each.gpu_memory_bytes)
        ram = max(self.nodes, key=lambda each: each.ram_bytes or 0)
        best, have, kind = (
            (gpu, gpu.gpu_memory_bytes, "VRAM") if gpu.gpu_memory_bytes else (ram, ram.ram_bytes or 0, "RAM")
        )
        where = f"{best.name} has {human_size(have)} {kind}"
        if verdict.kind is FitKind.TOO_BIG:
            rows.append(("", f"{self.glyphs.no} {human_size(verdict.short_by_bytes)} too much: {where}", "$text-error"))
        else:
            rows.append(("", f"{self.glyphs.yes} fits: {where}", "$text-success"))
        return rows

    def _placements(self, model: Model) -> list[Content]:
        out = [_heading("On disk")]
        online = {said for each in self.nodes if each.status is NodeStatus.ONLINE for said in (each.id, each.name)}
        for each in model.placements[:MOST_NODES]:
            size = f"  {human_size(each.disk_bytes)}" if each.disk_bytes is not None else ""
            bare = "  not verifiable" if each.verified is False else ""
            away = "  offline" if self.nodes and (each.node_id or each.node) not in online else ""
            out.append(
                Content.assemble(
                    (each.node, "bold $foreground"),
                    (size, "$foreground 85%"),
                    (bare, "$foreground 55%"),
                    (away, "$text-warning"),
                )
            )
            paths = _unique((each.path, *each.paths))
            # All of them are said to be above; only where there are others is it worth telling which.
            marked = {*each.unverified} if len(each.unverified) < len(paths) else set()
            out += [
                Content.assemble(
                    (path, "$foreground 70%"), ("  not verifiable" if path in marked else "", "$foreground 55%")
                )
                for path in paths
            ]
        if (rest := len(model.placements) - MOST_NODES) > 0:
            out.append(Content.styled(f"and {rest} more; n shows them all", "$foreground 55%"))
        return out


def _heading(text: str) -> Content:
    return Content.styled(text, "bold $text-primary")


def _unique(paths: Iterable[str | None]) -> list[str]:
    return [each for each in dict.fromkeys(paths) if each]
