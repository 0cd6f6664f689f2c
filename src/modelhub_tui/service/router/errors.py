"""What can go wrong, and its one translation to HTTP. Shapes: docs/wire.md, "Errors"."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import PlainTextResponse, Response

from modelhub_tui.service.router.store import StoreFailed
from modelhub_tui.untrusted import encodable

MAX_CANDIDATES = 50
_STATUS = {"hub_unreachable": 502, "hub_failed": 502, "rate_limited": 429, "not_registered": 404}


class Refused(Exception):
    """A request that cannot be met. `reason` is a sentence that says what to do.

    Args:
        code: One of the codes of docs/wire.md; decides the HTTP status.
        candidates: File names to choose from, most useful first.
        name: The model it is about, where the caller may not know it.
        retry_after_s: When to come back, for `rate_limited`.
    """

    def __init__(
        self,
        code: str,
        reason: str,
        *,
        candidates: tuple[str, ...] = (),
        name: str | None = None,
        retry_after_s: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(code, reason)
        self.code, self.reason, self.candidates, self.name = code, reason, candidates, name
        self.retry_after_s, self.status = retry_after_s, status


class BadBody(Exception):
    """A request body that is no JSON, or not what is wanted. Worded as upstream's framework does."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status, self.text = status, text


def to_response(error: Exception) -> Response:
    """Translate an error of this package to its HTTP answer."""
    match error:
        case Refused():
            status = error.status or _STATUS.get(error.code, 400)
            prefix = {400: "Validation error: ", 502: "HTTP client error: "}.get(status, "")
            body: dict[str, Any] = {"error": prefix + error.reason, "code": error.code}
            if error.candidates:
                body["candidates"] = error.candidates[:MAX_CANDIDATES]
            if error.name:
                body["name"] = error.name
            wait = error.retry_after_s
            return error_json(status, body, {"Retry-After": str(max(1, round(wait)))} if wait is not None else None)
        case BadBody(status=status, text=text):
            return PlainTextResponse(text, status)
        case StoreFailed(reason=reason, full=full):
            return error_json(507 if full else 503, {"error": reason, "code": "no_space" if full else "database_error"})
        case _:
            raise error


def error_json(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """A JSON error answer."""
    text = encodable(json.dumps(body, ensure_ascii=False))
    return Response(text, status, headers, media_type="application/json")


def openai_not_found(model: str) -> Response:
    """`/v1/models/{id}` for an unknown model, in OpenAI's shape."""
    return error_json(
        404,
        {
            "error": {
                "message": f"The model '{model}' does not exist",
                "type": "invalid_request_error",
                "param": "model",
                "code": "model_not_found",
            }
        },
    )
