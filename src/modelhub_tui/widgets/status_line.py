"""One line about the whole fleet: who answers, what hardware there is, what moves, and whether we still hear it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from textual.content import Content
from textual.reactive import reactive
from textual.timer import Timer
from textual.widget import Widget

from modelhub_tui.domain import Ability, Fleet, Link, Model, Node, NodeStatus, Phase
from modelhub_tui.fleet_state import Following
from modelhub_tui.units import human_duration, human_rate, human_size
from modelhub_tui.widgets.cells import clip, width_of
from modelhub_tui.widgets.fleet_cells import counted
from modelhub_tui.widgets.glyphs import UNICODE, Glyphs

_MOVING = (Phase.FETCHING, Phase.VERIFYING, Phase.RETRYING)


class StatusLine(Widget):
    """Parts that do not fit go, the least important first. Silent while nothing changes."""

    ALLOW_SELECT = False
    DEFAULT_CSS = """
    StatusLine { height: 1; background: $background; }
    """

    fleet: reactive[Fleet] = reactive(Fleet, repaint=False)
    """What to tell about."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        glyphs: Glyphs = UNICODE,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self.clock, self.glyphs = clock, glyphs
        self._timer: Timer | None = None
        self._shown: tuple[str, ...] = ()
        self._transferred = Following(Model.is_transferred)

    def watch_fleet(self, fleet: Fleet) -> None:
        """Repaint if the words differ; count seconds only while the router is lost."""
        lost = fleet.connection.link is Link.LOST
        if lost and self._timer is None and self.is_mounted:
            self._timer = self.set_interval(1.0, self._tick)
        elif not lost and self._timer is not None:
            self._timer.stop()
            self._timer = None
        self._tick()

    def on_mount(self) -> None:
        """Start counting if the first fleet says so."""
        self.watch_fleet(self.fleet)

    def _tick(self) -> None:
        shown = tuple(text for _, text, _ in self.parts())
        if shown != self._shown:
            self._shown = shown
            self.refresh()

    def parts(self) -> list[tuple[int, str, str]]:
        """What could be said: rank (the higher, the sooner it goes), text, style. In order."""
        fleet, now = self.fleet, self.clock()
        connection, glyphs = fleet.connection, self.glyphs
        out: list[tuple[int, str, str]] = []
        label = fleet.router.label or "starting"
        if connection.link is Link.LIVE:
            out.append((0, f"{glyphs.yes} {label}", "$text-success"))
        elif connection.link is Link.CONNECTING:
            out.append((0, f"{glyphs.queued} {label}", "$foreground 70%"))
            out.append((1, connection.problem or "connecting", "$foreground 70%"))
        else:
            out.append((0, f"{glyphs.no} {label}", "$text-error"))
            out.append((1, connection.problem or "no answer", "$text-error"))
            if connection.retry_at is not None:
                wait = max(round(connection.retry_at - now), 0)
                out.append((2, f"trying again in {wait} s" if wait else "trying again now", "$text-warning"))
            if connection.heard_at is not None:
                out.append((3, f"as of {_age(now - connection.heard_at)} ago", "$foreground 70%"))
            if fleet.unlisted:
                out.append((3, f"{fleet.unlisted:,} more models once it answers", "$foreground 70%"))
            if connection.advice:
                # Nothing comes back by itself from a refusal: there it matters most.
                out.append((2 if connection.link is Link.REFUSED else 4, connection.advice, "$text-warning"))
        out += self._hardware(fleet.nodes)
        transfers = [each for model in self._transferred.of(fleet.models) for each in model.transfers]
        moving = sum(each.phase in _MOVING and not each.orphaned for each in transfers)
        if moving:
            bytes_per_s = sum(each.bytes_per_s or 0.0 for each in transfers)
            rate = f" {human_rate(bytes_per_s)}" if bytes_per_s else ""
            out.append((3, f"{glyphs.downloads} {moving}{rate}", "$text-primary"))
        return out

    def _hardware(self, nodes: Iterable[Node]) -> list[tuple[int, str, str]]:
        """Nodes, memory and disk, of those that are online."""
        nodes = tuple(nodes)
        online = [each for each in nodes if each.status is NodeStatus.ONLINE]
        pending = sum(each.status is NodeStatus.PENDING for each in nodes)
        waiting: list[tuple[int, str, str]] = []
        if pending and Ability.APPROVE in self.fleet.router.abilities:
            who = "1 node waits" if pending == 1 else f"{pending} nodes wait"
            waiting.append((2, f"{who} for approval: n", "$text-warning"))
        if not nodes:
            return [(4, "no node yet", "$text-warning")] if self.fleet.connection.link is Link.LIVE else []
        if not online:
            noun = "endpoint" if all(each.kind == "endpoint" for each in nodes) else "node"
            return [*waiting, (4, f"no {noun} online", "$text-warning")]
        out: list[tuple[int, str, str]] = waiting
        if len(nodes) > 1 or nodes[0].kind == "endpoint":
            out.append((5, counted(nodes), "$foreground 85%"))
        gpus = [gpu for node in online for gpu in node.gpus]
        if gpus:
            kinds = {gpu.name for gpu in gpus}
            count = sum(gpu.count for gpu in gpus)
            best = max(node.gpu_memory_bytes for node in online)
            if len(kinds) == 1:
                out.append((7, f"{count} x {gpus[0].name}" if count > 1 else gpus[0].name, "$foreground 85%"))
            per = " a node" if len(online) > 1 else ""
            out.append((5, f"{human_size(best)} VRAM{per}", "$foreground 85%"))
        else:
            ram = max((node.ram_bytes or 0 for node in online), default=0)
            if ram:
                out.append((5, f"{human_size(ram)} RAM, no GPU", "$foreground 85%"))
        free = [node.disk_free_bytes for node in online if node.disk_free_bytes is not None]
        if free:
            least = min(free)
            out.append((6, f"{human_size(least)} free", "$text-error" if least < 2_000_000_000 else "$foreground 85%"))
        return out

    def render(self) -> Content:
        """Draw the line."""
        room = self.size.width - 2
        parts = self.parts()
        separator = f" {self.glyphs.dot} "
        while len(parts) > 1 and sum(width_of(text) + 3 for _, text, _ in parts) - 3 > room:
            least = max(reversed(parts), key=lambda part: part[0])
            at = parts.index(least)
            parts.remove(least)
            left = room - sum(width_of(text) + 3 for _, text, _ in parts)
            if least[0] <= 1 and left > 0:  # what is wrong is said, as far as there is room for it
                parts.insert(at, (least[0], clip(least[1], left, self.glyphs.ellipsis), least[2]))
                break
        pieces: list[Content | str | tuple[str, str]] = [" "]
        for at, (_, text, style) in enumerate(parts):
            if at:
                pieces.append((separator, "$foreground 40%"))
            pieces.append((clip(text, room, self.glyphs.ellipsis), style))
        return Content.assemble(*pieces)


def _age(seconds: float) -> str:
    return f"{max(seconds, 0):.0f} s" if seconds < 90 else human_duration(seconds)
