"""What happened while nobody looked: two fleets compared, in one line."""

from __future__ import annotations

from modelhub_tui.actions import held
from modelhub_tui.domain import Fleet, Model, ModelState

_RUNNING = frozenset({ModelState.DOWNLOADING, ModelState.QUEUED})


def while_away(before: Fleet, now: Fleet) -> str:
    """Such as `While you were away (3 h): 2 downloaded, 1 failed, 1 still running.`; empty when nothing changed.

    Args:
        before: What was last shown; its `connection.heard_at` says when that was true.
        now: What the router says now.

    What a person deleted here is no news: it is `deleting` in what was last shown.
    """
    was = {model.key: model for model in before.models}
    counts = dict.fromkeys(("downloaded", "failed", "paused for lack of room", "started", "gone"), 0)
    for model in now.models:
        what = _change(was.get(model.key), model)
        if what:
            counts[what] += 1
    here = {model.key for model in now.models if model.state is not ModelState.AVAILABLE}
    counts["gone"] = sum(
        model.state is ModelState.DOWNLOADED and not model.found and model.key not in here for model in before.models
    )
    said = [f"{count} {what}" for what, count in counts.items() if count]
    if not said:
        return ""
    running = sum(model.state in _RUNNING for model in now.models)
    if running:
        said.append(f"{running} still running")
    since, at = before.connection.heard_at, now.connection.heard_at
    how_long = f" ({_span(at - since)})" if since is not None and at is not None and at >= since else ""
    return f"While you were away{how_long}: {', '.join(said)}."


def _change(was: Model | None, now: Model) -> str:
    """What became of a model, in a word; empty if nothing a person would be told."""
    before = was.state if was else ModelState.AVAILABLE
    if now.state is before:
        return ""
    if now.state is ModelState.DOWNLOADED:
        # What was merely found on a disk was there before, and what is being deleted is whole on its way out.
        return "" if now.found or before is ModelState.DELETING else "downloaded"
    if now.state is ModelState.FAILED:
        return "failed"
    if now.state is ModelState.PAUSED and not held(now):
        return "paused for lack of room"
    return "started" if now.state in _RUNNING and before is ModelState.AVAILABLE else ""


def _span(seconds: float) -> str:
    """A length of time in one unit: nobody needs minutes after three hours."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
