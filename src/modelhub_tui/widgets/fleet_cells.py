"""What the fleet view says about one model on one node, and about one node: texts and names of styles, no drawing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from modelhub_tui.domain import Model, ModelState, Node, NodeStatus, Phase, Placement, Transfer
from modelhub_tui.units import human_duration, human_rate, human_size
from modelhub_tui.values import dataclass
from modelhub_tui.widgets.card_parts import bar_cells, of_total, percent
from modelhub_tui.widgets.cells import clip, width_of
from modelhub_tui.widgets.glyphs import Glyphs
from modelhub_tui.widgets.moments import exact
from modelhub_tui.widgets.progress import doing, troubled

Piece = tuple[str, str]
"""A text and the name of its style."""

_PHASES = {
    Phase.WAITING: ("queued", "queued", "warn"),
    Phase.FETCHING: ("downloading", "downloading", "busy"),
    Phase.VERIFYING: ("downloading", "verifying", "busy"),
    Phase.RETRYING: ("downloading", "retrying", "warn"),
    Phase.PAUSED: ("paused", "paused", "warn"),
    Phase.FAILED: ("failed", "failed", "bad"),
}
_STATUS = {
    NodeStatus.ONLINE: ("yes", "good"),
    NodeStatus.OFFLINE: ("no", "bad"),
    NodeStatus.PENDING: ("queued", "warn"),
    NodeStatus.REGISTERING: ("queued", "warn"),
}
WORDS_FROM, FIGURES_FROM = 22, 44
"""Widths of a cell from which there is room for a word, and for a bar and all figures."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How one model is on one node. Neither transfer nor placement: the node should fetch it and has not begun."""

    glyph: str
    """Name of the mark in `Glyphs`."""
    word: str
    style: str
    transfer: Transfer | None = None
    placement: Placement | None = None


WAITING = Mark("queued", "waiting", "muted")


def in_fleet(model: Model) -> bool:
    """Whether a model has a row: it is registered, placed or moving."""
    return bool(model.registered or model.placements or model.transfers) or model.state is not ModelState.AVAILABLE


def marks_of(model: Model) -> dict[str, Mark]:
    """All marks of one model, by node. See `mark_on()` for the keys."""
    out: dict[str, Mark] = {}
    for each in model.transfers:
        glyph, word, style = _PHASES[each.phase]
        if each.orphaned or (each.phase is Phase.FETCHING and troubled(each)):
            word, style = "orphaned" if each.orphaned else "stalled", "bad" if each.orphaned else "warn"
        out[_key(each.node_id, each.node)] = Mark(glyph, word, style, transfer=each)
    gone = model.state is ModelState.DELETING
    for place in model.placements:
        key = _key(place.node_id, place.node)
        known = out.get(key)
        if known is None or (known.transfer and known.transfer.phase in (Phase.FAILED, Phase.PAUSED, Phase.WAITING)):
            out[key] = (
                Mark("deleting", "deleting", "muted", placement=place)
                if gone
                else Mark("downloaded", "downloaded", "good", placement=place)
            )
    return out


def _key(node_id: str, name: str) -> str:
    return node_id or f"name:{name}"


def mark_on(marks: Mapping[str, Mark], model: Model, node: Node) -> Mark | None:
    """The mark for one node; None when the model has nothing to do with it.

    Some routers say a node's id with what it holds, others only its name.
    """
    found = marks.get(node.id) or marks.get(f"name:{node.name}")
    if found is None and node.kind == "node" and node.status is NodeStatus.ONLINE:
        return WAITING if model.state is ModelState.QUEUED else None
    return found


def cell(mark: Mark | None, model: Model, width: int, glyphs: Glyphs) -> list[Piece]:
    """The pieces of one cell, at most `width` cells together."""
    if mark is None:
        return [(glyphs.dot, "rest")]
    sign = getattr(glyphs, mark.glyph)
    transfer = mark.transfer
    if width < WORDS_FROM:
        return [(clip(f"{sign} {_short(mark, width - 2)}", width, glyphs.ellipsis), mark.style)]
    if transfer is None or transfer.phase is Phase.WAITING:
        size = mark.placement.disk_bytes if mark.placement else None
        said = f"{sign} {mark.word}" + (f"  {human_size(size)}" if size is not None else "")
        if width >= FIGURES_FROM and mark is WAITING and model.reason:
            said += f": {model.reason}"
        return [(clip(said, width, glyphs.ellipsis), mark.style)]
    if transfer.phase in (Phase.FAILED, Phase.RETRYING) and transfer.error:
        return [(clip(f"{sign} {mark.word}: {transfer.error}", width, glyphs.ellipsis), mark.style)]
    if width < FIGURES_FROM:
        said = "  ".join(filter(None, (f"{sign} {percent(transfer.fraction)}", human_rate(transfer.bytes_per_s))))
        if not transfer.bytes_per_s:
            said = f"{said} {mark.word}"
        return [(clip(said, width, glyphs.ellipsis), mark.style)]
    return _wide(mark, transfer, width, glyphs)


def _short(mark: Mark, room: int) -> str:
    """The most telling word or figures that fit `room` cells."""
    transfer = mark.transfer
    if transfer is not None and transfer.phase in (Phase.FETCHING, Phase.VERIFYING, Phase.PAUSED):
        share = percent(transfer.fraction)
        if transfer.phase is Phase.FETCHING:
            rate = human_rate(transfer.bytes_per_s).replace(" ", "")
            full = f"{share} {rate}".strip()
            return full if width_of(full) <= room else share
        return f"{share} {mark.word}" if len(share) + len(mark.word) < room else mark.word
    if mark.placement is not None and mark.placement.disk_bytes is not None and mark.glyph == "downloaded":
        return human_size(mark.placement.disk_bytes)
    return "whole" if mark.glyph == "downloaded" and room < len(mark.word) else mark.word


def _wide(mark: Mark, transfer: Transfer, width: int, glyphs: Glyphs) -> list[Piece]:
    """A bar and as many figures as fit."""
    head = f"{getattr(glyphs, mark.glyph)} {mark.word:<11} "
    figures = [f"{percent(transfer.fraction):>4}"]
    if transfer.bytes_total:
        figures.append(of_total(transfer.bytes_done, transfer.bytes_total))
    figures += [human_rate(transfer.bytes_per_s), human_duration(transfer.eta_s)]
    figures = [each for each in figures if each]
    while len(figures) > 1 and width_of(head) + 8 + sum(width_of(each) + 2 for each in figures) > width:
        figures.pop()
    tail = "".join(f"  {each}" for each in figures)
    room = min(width - width_of(head) - width_of(tail), 32)
    if room < 4:
        return [(clip(head.rstrip() + tail, width, glyphs.ellipsis), mark.style)]
    done, rest = bar_cells(transfer.fraction, room, glyphs)
    return [(head, mark.style), (done, mark.style), (rest, "rest"), (tail, "text")]


def in_words(mark: Mark | None, model: Model, node: Node) -> str:
    """The cell as a sentence without its full stop."""
    if mark is None:
        return f"{model.title}: not on {node.name}"
    said = [mark.word]
    if (transfer := mark.transfer) is not None:
        said = [doing(transfer, model) or mark.word]
        said.append(percent(transfer.fraction))
        if transfer.bytes_total:
            said.append(of_total(transfer.bytes_done, transfer.bytes_total))
        left = human_duration(transfer.eta_s)
        said += [human_rate(transfer.bytes_per_s), f"{left} left" if left else "", transfer.error or ""]
    if mark.placement is not None:
        size = mark.placement.disk_bytes
        said += [human_size(size) if size is not None else "", mark.placement.path or ""]
    if mark is WAITING and model.reason:
        said.append(model.reason)
    return f"{model.title}: {', '.join(filter(None, said))}"


# Nodes


def status_of(node: Node) -> Piece:
    """Name of the mark and of the style for a node's status."""
    return _STATUS[node.status]


def headline(node: Node) -> str:
    """What matters most about a node, in a few words for its column."""
    if node.status is not NodeStatus.ONLINE:
        return node.status.value
    if node.software:
        return node.software
    if node.gpu_memory_bytes:
        return f"{human_size(node.gpu_memory_bytes)} VRAM"
    if node.ram_bytes:
        return f"{human_size(node.ram_bytes)} RAM"
    return f"{human_size(node.disk_free_bytes)} free" if node.disk_free_bytes is not None else "online"


def node_facts(node: Node, now: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Everything known about a node in two rows: who it is, what it has."""
    who = [node.kind if not node.software else node.software]
    if node.version:
        who.append(f"version {node.version}")
    if node.last_seen is not None:
        who.append(f"last seen {exact(node.last_seen, now)}")
    if node.latency_ms is not None:
        who.append(f"{node.latency_ms:.0f} ms")
    if node.takes_downloads:
        who.append("takes downloads")
    has = [f"{gpu.count} x {gpu.name}" if gpu.count > 1 else gpu.name for gpu in node.gpus if gpu.name]
    if node.gpu_memory_bytes:
        has.append(f"{human_size(node.gpu_memory_bytes)} VRAM")
    if node.ram_bytes:
        has.append(f"{human_size(node.ram_bytes)} RAM")
    if node.disk_free_bytes is not None:
        total = f" of {human_size(node.disk_total_bytes)}" if node.disk_total_bytes else ""
        has.append(f"{human_size(node.disk_free_bytes)} free{total}")
    for name, load in (("CPU", node.cpu_percent), ("GPU", node.gpu_percent), ("memory", node.memory_percent)):
        if load is not None:
            has.append(f"{name} {load:.0f}%")
    if node.local_bytes is not None:
        has.append(f"{human_size(node.local_bytes)} of models")
    if node.unfinished_bytes:
        has.append(f"{human_size(node.unfinished_bytes)} unfinished")
    if node.trash_bytes:
        has.append(f"{human_size(node.trash_bytes)} in the trash")
    if node.models_dir:
        has.append(node.models_dir)
    return tuple(who), tuple(has)


def counted(nodes: Iterable[Node]) -> str:
    """How many nodes or endpoints there are, and how many of them are online."""
    nodes = tuple(nodes)
    noun = "endpoint" if nodes and all(each.kind == "endpoint" for each in nodes) else "node"
    online = sum(each.status is NodeStatus.ONLINE for each in nodes)
    plural = noun if len(nodes) == 1 else f"{noun}s"
    return f"{len(nodes)} {plural}" if online == len(nodes) else f"{online}/{len(nodes)} {plural} online"
