"""What a status that a hub answers with means: one table for the service and its nodes.

What the hub says beside it (`X-Error-Code`, told by the library as an exception of its own) comes before the number.
"""

from __future__ import annotations

from modelhub_tui.values import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """How to take an answer that is no success."""

    code: str
    """As docs/wire.md has it."""
    passing: bool
    """It may go away by itself, however long that takes."""
    what: str
    """Goes behind the host's name."""
    todo: str = ""
    """For a person; empty if there is nothing but trying again."""


_TABLE = {
    407: Status(
        "hub_unreachable", False, "is behind a proxy that wants a login", "put user and password into HTTPS_PROXY"
    ),
    408: Status("hub_failed", True, "waited too long for our request (408)"),
    410: Status("no_such_file", False, "says that it is gone for good (410)", "choose another file"),
    425: Status("hub_failed", True, "wants to be asked a little later (425)"),
    429: Status("rate_limited", True, "limits our requests"),
    451: Status("disabled", False, "may not hand it out, for legal reasons (451)", "choose another model"),
    499: Status("hub_failed", True, "gave up on our request (499)"),
}


def meaning(status: int) -> Status:
    """What a status of 400 or more says; one that nothing is known of does not pass, but may have been an accident."""
    if status in _TABLE:
        return _TABLE[status]
    if status >= 500:
        return Status("hub_failed", True, f"answers with error {status}")
    return Status("hub_failed", False, f"refuses the request (HTTP {status})", "check HF_ENDPOINT, or try again later")
