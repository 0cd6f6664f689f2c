"""Sentences the screens show: why a list is empty, what a question is about. One place, one tone."""

from __future__ import annotations

from collections.abc import Sequence

from modelhub_tui.actions import running
from modelhub_tui.domain import Fleet, Limits, Link, Model, ModelState, Node
from modelhub_tui.errors import BadReference
from modelhub_tui.filtering import Filter
from modelhub_tui.hub_refs import parse_hub_ref
from modelhub_tui.states import also_registered
from modelhub_tui.units import human_size
from modelhub_tui.widgets.glyphs import Glyphs
from modelhub_tui.widgets.moments import in_words


def empty_text(fleet: Fleet, wanted: Filter, *, local: bool) -> str:
    """What an empty list says: what happened on the first line, what to do on the next ones."""
    if wanted.text or wanted.choices:
        return _no_match(wanted)
    if local and (unheard := _unheard(fleet)):
        return f"Looking at the disk…\n\n{unheard}"
    if local:
        return "Nothing here yet\n\nPress 1, choose a model, press p."
    if fleet.connection.link is Link.CONNECTING:
        return "No models yet\n\nThe catalog is empty, and the router has not answered so far."
    return "No models\n\nThe catalog is empty. Press r to register a HuggingFace repo."


def _unheard(fleet: Fleet) -> str:
    """Why nobody can say yet that nothing is there; empty once somebody has looked."""
    never = fleet.connection.link is not Link.LIVE and fleet.connection.heard_at is None
    return "The router has not answered so far." if never else fleet.unheard


def _no_match(wanted: Filter) -> str:
    if wanted.text and names_a_repo(wanted.text):
        return f"No model matches {wanted.text}\n\nPress enter, then r to register it, or esc to clear the search."
    if wanted.text and wanted.choices:
        return f"No model matches {wanted.text} with this filter\n\nPress esc to clear both, f to change the filter."
    if wanted.text:
        return f"No model matches {wanted.text}\n\nPress esc to clear the search, r to register any HuggingFace repo."
    return "No model passes the filter\n\nPress esc to clear it, f to change it."


def on_disk(nodes: Sequence[Node], glyphs: Glyphs) -> tuple[str, ...]:
    """What the listed models take on disk, shared files counted once, and what else does; the longest form first."""
    told = [each.local_bytes for each in nodes if each.local_bytes is not None]
    if not told:
        return ("modelhub",)
    models = human_size(sum(told))
    more = (
        ("unfinished", sum(each.unfinished_bytes or 0 for each in nodes)),
        ("trash", sum(each.trash_bytes or 0 for each in nodes)),
    )
    parts = [f"{models} on disk", *(f"{name} {human_size(size)}" for name, size in more if size)]
    forms = (f" {glyphs.dot} ".join(parts[:count]) for count in range(len(parts), 0, -1))
    return (*forms, models)


def names_a_repo(text: str) -> bool:
    """Whether a search text could be registered as it is."""
    try:
        parse_hub_ref(text)
    except BadReference:
        return False
    return "/" in text


def titles(models: Sequence[Model]) -> str:
    """One title, or how many models."""
    return models[0].title if len(models) == 1 else f"{len(models)} models"


def listed(models: Sequence[Model], limit: int = 6) -> tuple[str, ...]:
    """The titles of several models, one a line, cut to `limit` lines."""
    if len(models) < 2:
        return ()
    names = [f"  {model.title}" for model in models[:limit]]
    rest = len(models) - len(names)
    return (*names, f"  and {rest} more") if rest else tuple(names)


def delete_question(
    models: Sequence[Model], *, trash: bool = False, limits: Limits | None = None
) -> tuple[str, tuple[str, ...]]:
    """Question and explanation before files are removed.

    Args:
        trash: The router has one.
        limits: What it may take; None if that is not known so far.
    """
    nodes = list(dict.fromkeys(place.node for model in models for place in model.placements))
    freed, unknown = 0, False
    for model in models:
        size = _size_of(model)
        stays = sum(each.shared_bytes for each in model.placements)
        freed, unknown = freed + max(size - stays, 0), unknown or not size
    shared = also_registered({model.title: model for model in models})
    amount = f"{'At least ' if unknown and freed else ''}{human_size(freed)}" if freed else "An unknown amount"
    if shared and not freed and not unknown:
        amount = "Nothing"
    where = f" on {_names(nodes)}" if nodes else ""
    lines = [f"{amount} will be freed{where}.", *([shared] if shared else [])]
    it, them = ("It", "it") if len(models) == 1 else ("They", "them")
    if trash and limits is None:
        lines.append(f"{it} can be brought back with u for a while.")
    elif trash and limits is not None and can_be_undone(models, limits):
        span = in_words(limits.trash_seconds)
        lines.append(f"u brings {them} back for {span}; the space is free then, or when a transfer needs it.")
    elif trash and limits is not None and not limits.trash_seconds:
        lines.append("There is no undo: the trash is switched off. L switches it on.")
    elif trash and limits is not None:
        larger = "it is" if len(models) == 1 else "they are"
        lines.append(f"There is no undo: {larger} larger than the trash ({human_size(limits.trash_bytes)}, L).")
    else:
        lines.append("The files can be downloaded again.")
    busy = list(dict.fromkeys(each.node for model in models for each in running(model)))
    if busy:
        verb = "is" if len(busy) == 1 else "are"
        lines.append(f"{_names(busy)} {verb} still fetching {them}: that is stopped as well.")
    return f"Delete {titles(models)}?", (*listed(models), *([""] if len(models) > 1 else []), *lines)


def _size_of(model: Model) -> int:
    sizes = (each.disk_bytes if each.disk_bytes is not None else model.size_bytes for each in model.placements)
    return sum(size or 0 for size in sizes)


def can_be_undone(models: Sequence[Model], limits: Limits | None) -> bool:
    """Whether the trash takes these models; as long as nothing is known about it, it is believed to."""
    if limits is None:
        return True
    return limits.trash_seconds > 0 and any(_size_of(model) <= limits.trash_bytes for model in models)


def deleted(models: Sequence[Model], limits: Limits | None) -> str:
    """What to say once models are deleted: how to have them back, as long as that can be done."""
    it = "it" if len(models) == 1 else "them, one by one,"
    said = f"Deleted {titles(models)}."
    if limits is None or not can_be_undone(models, limits):
        return said
    return f"{said} u brings {it} back for {in_words(limits.trash_seconds)}."


def came_back(title: str) -> str:
    """What to say once a deletion is undone."""
    return f"{title} is back."


def stop_and_delete_question(models: Sequence[Model]) -> tuple[str, tuple[str, ...]]:
    """Question and explanation before a transfer is stopped that the router did not want to delete under."""
    verb, it = ("is", "it") if len(models) == 1 else ("are", "them")
    lines = (f"{titles(models)} {verb} being fetched just now.", f"Stop that, and delete {it}?")
    return f"Stop downloading {titles(models)}?", (*listed(models), *([""] if len(models) > 1 else []), *lines)


def empty_question(freed_bytes: int) -> tuple[str, tuple[str, ...]]:
    """Question and explanation before the whole trash goes."""
    return "Empty the trash?", freed_for_good(freed_bytes)


def freed_for_good(freed_bytes: int) -> tuple[str, ...]:
    """Explanation before something in the trash goes."""
    return f"{human_size(freed_bytes)} will be freed.", "That cannot be undone."


def sentence(text: str) -> str:
    """`text` with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def cancel_question(models: Sequence[Model], *, can_pause: bool = False) -> tuple[str, tuple[str, ...]]:
    """Question and explanation before partial files are dropped."""
    lost = fetched(models)
    what = "it" if len(models) == 1 else "them"
    lines = (
        f"{human_size(lost)} fetched so far will be dropped.",
        f"To keep {what}, press P: that holds the download instead."
        if can_pause
        else f"To keep {what}, let the download go on: it survives closing this program.",
    )
    return f"Stop downloading {titles(models)}?", (*listed(models), *([""] if len(models) > 1 else []), *lines)


def fetched(models: Sequence[Model]) -> int:
    """Bytes of unfinished downloads that cancelling would throw away."""
    return sum(transfer.bytes_done for model in models for transfer in model.transfers)


def _names(nodes: Sequence[str], limit: int = 4) -> str:
    rest = len(nodes) - limit
    return ", ".join(nodes[:limit]) + (f" and {rest} more" if rest > 0 else "")


def goodbye(fleet: Fleet) -> str:
    """What to say after closing with downloads under way; empty when there are none."""
    going = [model for model in fleet.transferring if model.state in (ModelState.DOWNLOADING, ModelState.QUEUED)]
    if not going:
        return ""
    noun, verb = ("download", "goes") if len(going) == 1 else ("downloads", "go")
    where = "" if fleet.router.generation in ("", "local") else f" on {fleet.router.label}"
    return (
        f"{len(going)} {noun} {verb} on{where}. `modelhub status` shows how far, `modelhub` opens the dashboard again."
    )
