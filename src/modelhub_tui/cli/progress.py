"""Where a download is, in one line of plain text."""

from __future__ import annotations

from modelhub_tui.domain import Model, ModelState, Phase
from modelhub_tui.units import human_duration, human_rate, human_size
from modelhub_tui.widgets.progress import file_of, refetched, retrying, stalled, standing, why_paused

_BAR_CELLS = 24
_BAR, _PLAIN_BAR = ("━", "─"), ("#", "-")


def happening(model: Model) -> str:
    """Why it is not simply moving on, such as `stalled 12 s, retrying (2/6) in 4 s: connection lost`; else empty."""
    transfer = model.transfer
    words: list[str] = []
    reason = model.reason.rstrip(".")
    if transfer is not None and not transfer.orphaned:
        match transfer.phase:
            case Phase.RETRYING:
                words = [stalled(transfer), retrying(transfer)]
            case Phase.FETCHING:
                words = [stalled(transfer)]
            case Phase.VERIFYING:
                words = ["verifying"]
    if model.state is ModelState.QUEUED:
        return standing(model)
    if model.state is ModelState.PAUSED:
        words = [why_paused(model)]
    doing = ", ".join(word for word in words if word)
    # A reason is worth its place when it is told at all, but not twice.
    return ": ".join(text for text in (doing, "" if reason.casefold() in doing else reason) if text)


def line(model: Model, *, bar: bool = False, unicode: bool = False) -> str:
    """Where a model is.

    Args:
        bar: Draw one, too.
        unicode: It may be drawn with more than ASCII.
    """
    transfer = model.transfer
    words = [model.title]
    if transfer is None or transfer.phase in (Phase.WAITING, Phase.PAUSED) or model.state is ModelState.PAUSED:
        why = happening(model)
        words += [str(model.state), f"({why})" if why else ""]
        return " ".join(word for word in words if word)
    if transfer.fraction is not None:
        if bar:
            full = round(transfer.fraction * _BAR_CELLS)
            done, left = _BAR if unicode else _PLAIN_BAR
            words.append(done * full + left * (_BAR_CELLS - full))
        words.append(f"{int(transfer.fraction * 100)}%")
    words.append(f"{human_size(transfer.bytes_done)} of {human_size(transfer.bytes_total)}")
    if transfer.phase is not Phase.FETCHING or transfer.stalled_s is not None:
        words.append(happening(model))
    else:
        words += [human_rate(transfer.bytes_per_s), human_duration(transfer.eta_s), file_of(transfer)]
    words.append(refetched(transfer))
    return "  ".join(word for word in words if word)
