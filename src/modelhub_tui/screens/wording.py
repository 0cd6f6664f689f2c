"""Sentences the screens show: why a list is empty, what a question is about. One place, one tone."""

from __future__ import annotations

from collections.abc import Sequence

from modelhub_tui.domain import Fleet, Link, Model, ModelState
from modelhub_tui.errors import BadReference
from modelhub_tui.filtering import Filter
from modelhub_tui.hub_refs import parse_hub_ref
from modelhub_tui.units import human_size


def empty_text(fleet: Fleet, wanted: Filter, *, local: bool) -> str:
    """What an empty list says: what happened on the first line, what to do on the next ones."""
    if wanted.text or wanted.choices:
        return _no_match(wanted)
    if local:
        return "Nothing here yet\n\nPress 1, choose a model, press p."
    if fleet.connection.link is Link.CONNECTING:
        return "No models yet\n\nThe catalog is empty, and the router has not answered so far."
    return "No models\n\nThe catalog is empty. Press r to register a HuggingFace repo."


def _no_match(wanted: Filter) -> str:
    if wanted.text and names_a_repo(wanted.text):
        return f"No model matches {wanted.text}\n\nPress enter, then r to register it, or esc to clear the search."
    if wanted.text and wanted.choices:
        return f"No model matches {wanted.text} with this filter\n\nPress esc to clear both, f to change the filter."
    if wanted.text:
        return f"No model matches {wanted.text}\n\nPress esc to clear the search, r to register any HuggingFace repo."
    return "No model passes the filter\n\nPress esc to clear it, f to change it."


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


def delete_question(models: Sequence[Model]) -> tuple[str, tuple[str, ...]]:
    """Question and explanation before files are removed."""
    nodes = list(dict.fromkeys(place.node for model in models for place in model.placements))
    freed, unknown = 0, False
    for model in models:
        for place in model.placements:
            size = place.disk_bytes if place.disk_bytes is not None else model.size_bytes
            freed, unknown = freed + (size or 0), unknown or size is None
    amount = f"{'At least ' if unknown and freed else ''}{human_size(freed)}" if freed else "An unknown amount"
    where = f" on {_names(nodes)}" if nodes else ""
    lines = (f"{amount} will be freed{where}.", "The files can be downloaded again.")
    return f"Delete {titles(models)}?", (*listed(models), *([""] if len(models) > 1 else []), *lines)


def cancel_question(models: Sequence[Model]) -> tuple[str, tuple[str, ...]]:
    """Question and explanation before partial files are dropped."""
    lost = fetched(models)
    what = "it" if len(models) == 1 else "them"
    lines = (
        f"{human_size(lost)} fetched so far will be dropped.",
        f"To keep {what}, let the download go on: it survives closing this program.",
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
