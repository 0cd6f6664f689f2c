"""What a router's refusal means: every status and error body of docs/wire.md and upstream, as one of our errors.

Bodies come as plain text, `{"error": "..."}` with or without `code`, or OpenAI's `{"error": {"message": ...}}`,
whatever their Content-Type says.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from modelhub_tui import net
from modelhub_tui.errors import (
    AlreadyRegistered,
    Forbidden,
    ModelHubError,
    NotFound,
    NotSupported,
    PasswordChangeNeeded,
    RateLimited,
    Rejected,
    RouterFault,
    Unauthorised,
)
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

MAX_CANDIDATES = 50
_KIND = re.compile(r"(?:(?:Validation|HTTP client|Database|Internal) error|Invalid model name): ", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What an error body says, cleaned."""

    message: str = ""
    """Without upstream's prefix for its kind; empty if it is a web page or says nothing."""
    code: str = ""
    candidates: tuple[str, ...] = ()
    name: str = ""


def read_error(body: bytes) -> ErrorBody:
    """Read an error body of any shape; never fails."""
    try:
        told = net.loads(body)
    except ValueError:
        text = body[:4000].decode(errors="replace").strip()
        return ErrorBody() if text.startswith("<") else ErrorBody(_message(text))
    if not isinstance(told, dict):
        return ErrorBody(_message(told) if isinstance(told, str) else "")
    error, code = told.get("error", told.get("detail")), told.get("code")
    if isinstance(error, dict):
        code, error = error.get("code"), error.get("message")
    found, name = told.get("candidates"), told.get("name")
    candidates = [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
    return ErrorBody(
        _message(error) if isinstance(error, str) else "",
        clean(code, 60).lower() if isinstance(code, str) else "",
        tuple(clean(each, 400) for each in candidates[:MAX_CANDIDATES]),
        clean(name, 400) if isinstance(name, str) else "",
    )


def to_error(
    status: int, headers: Mapping[str, str], body: bytes, *, model: str = "", action: str = ""
) -> ModelHubError:
    """Translate a refusal.

    Args:
        headers: Looked up by lower-case names.
        model: The model the request was about; empty for lists.
        action: What was asked, to complete "This router cannot ...".
    """
    told = read_error(body)
    said = told.message.lower()
    match status:
        case 401:
            return Unauthorised()
        case 403:
            return PasswordChangeNeeded() if told.message == "password_change_required" else Forbidden()
        case 429:
            return RateLimited(retry_after_s=net.retry_after_s(headers, time.time()))
        case 404 | 405 if not told.message and action:
            return NotSupported(action)
    if told.code in _OWN_WORDS:
        return Rejected(_sentence(told.message), code=told.code)
    if told.code == "not_registered" or (model and (status == 404 or said.startswith("model not found"))):
        return NotFound(model or told.name)
    if told.code == "already_registered" or "already registered" in said:
        return AlreadyRegistered(told.name or model)
    if 400 <= status < 500 or told.code in _MENDABLE:
        reason = _sentence(told.message or f"The router refused (status {status})")
        return Rejected(reason, candidates=told.candidates, code=told.code)
    return RouterFault(_sentence(told.message or f"status {status}"))


_OWN_WORDS = frozenset({"not_in_trash", "not_on_disk", "nothing_to_do", "transfer_running"})
"""Codes whose status alone would be taken for something else."""
_MENDABLE = frozenset({"hub_unreachable", "hub_failed", "no_space", "gated", "rate_limited", "unsupported"})
"""Codes whose message says itself what to do, also when the status is a 5xx."""


def _message(text: str) -> str:
    return clean(_KIND.sub("", clean(text, 2000), count=1), 500)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
