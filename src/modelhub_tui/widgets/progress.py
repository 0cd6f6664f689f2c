"""What a transfer is doing, in words. Seconds are the router's: they tick when it says something new, by no timer."""

from __future__ import annotations

from modelhub_tui.actions import held, orphaned, waits_for_room
from modelhub_tui.domain import Model, ModelState, Phase, Transfer
from modelhub_tui.units import human_size
from modelhub_tui.widgets.moments import ordinal


def doing(transfer: Transfer, model: Model | None = None) -> str:
    """Such as `stalled 12 s, retrying (2/6) in 4 s` or `verifying`; empty while bytes arrive."""
    if transfer.orphaned:
        # Where another node goes on, R does nothing, and x would drop what that one has.
        return f"{transfer.node} is gone" + (": R restarts, x forgets" if model is not None and orphaned(model) else "")
    match transfer.phase:
        case Phase.RETRYING:
            return ", ".join(filter(None, (stalled(transfer), retrying(transfer))))
        case Phase.FETCHING:
            return stalled(transfer)
        case Phase.WAITING if transfer.waits_for_line:
            return trying_again(transfer)
        case Phase.PAUSED:
            return "waits for room on the disk" if transfer.error_code == "no_space" else "paused"
        case phase:
            return phase.value


def stalled(transfer: Transfer) -> str:
    """`stalled 12 s`; empty while bytes arrive."""
    return "" if transfer.stalled_s is None else f"stalled {transfer.stalled_s:.0f} s"


def retrying(transfer: Transfer) -> str:
    """`retrying (2/6) in 4 s`."""
    count = f" ({transfer.attempt}/{transfer.max_attempts})" if transfer.max_attempts else ""
    return f"retrying{count}" + (f" in {transfer.retry_in_s:.0f} s" if transfer.retry_in_s else "")


def trying_again(transfer: Transfer) -> str:
    """`offline, trying again in 12 s`; it does so by itself. A hub that answers with errors is not offline."""
    why = {"hub_unreachable": "offline, ", "hub_failed": "the hub fails, "}.get(transfer.error_code or "", "")
    return f"{why}trying again" + (f" in {transfer.retry_in_s:.0f} s" if transfer.retry_in_s else "")


def in_short(transfer: Transfer) -> str:
    """The same in at most 17 cells."""
    if transfer.orphaned:
        return "node is gone"
    if transfer.waits_for_line:
        return f"again in {transfer.retry_in_s:.0f} s"
    if transfer.phase is Phase.RETRYING:
        return f"retrying in {transfer.retry_in_s:.0f} s" if transfer.retry_in_s else "retrying"
    return doing(transfer)[:17]


def troubled(transfer: Transfer) -> bool:
    """Whether it wants the colour of a warning."""
    return (
        transfer.orphaned
        or transfer.phase is Phase.RETRYING
        or transfer.stalled_s is not None
        or transfer.waits_for_line
    )


def file_of(transfer: Transfer) -> str:
    """`file 2/5`; empty for a single file."""
    return (
        f"file {transfer.file_index}/{transfer.file_count}" if transfer.file_count > 1 and transfer.file_index else ""
    )


def refetched(transfer: Transfer) -> str:
    """`1.2 GB fetched again`; empty if nothing was."""
    return f"{human_size(transfer.refetched_bytes)} fetched again" if transfer.refetched_bytes else ""


def standing(model: Model, reason: str = "") -> str:
    """Why a model that waits does so, with its place in the queue: `2nd in the queue: queued on gpu-01`."""
    reason = reason or model.reason
    if (transfer := model.transfer) is not None and transfer.waits_for_line:
        return f"{trying_again(transfer)}: {reason}" if reason else trying_again(transfer)
    if model.queue_position is None or model.state is not ModelState.QUEUED:
        return reason
    place = f"{ordinal(model.queue_position)} in the queue"
    return f"{place}: {reason}" if reason else place


def why_paused(model: Model) -> str:
    """Who or what holds it: a person, or a disk without room. Empty when neither is known."""
    if waits_for_room(model):
        return "no room on the disk, waits for it"
    return "paused by hand" if held(model) and model.paused else ""
