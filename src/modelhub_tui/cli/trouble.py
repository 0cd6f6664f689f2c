"""What an error means for the exit code, and where its details go."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from modelhub_tui.cli import FAILED, NOT_FOUND, UNAUTHORISED, UNREACHABLE, USAGE
from modelhub_tui.errors import (
    BadCatalog,
    BadReference,
    BadSettings,
    Forbidden,
    NotARouter,
    NotFound,
    Rejected,
    Unauthorised,
    Unreachable,
)

if TYPE_CHECKING:
    from modelhub_tui.config import Settings

MAX_LOG_BYTES = 1_000_000


class BadUsage(BadSettings):
    """A request that cannot be understood as it was typed; `reason` is a sentence."""


class RouterLost(Unreachable):
    """The router went away while we watched; `url` says which."""


def exit_code(error: BaseException) -> int:
    """The exit code that says what kind of error it was."""
    match error:
        case BadSettings() | BadReference() | BadCatalog():
            return USAGE
        case Unreachable() | NotARouter():
            return UNREACHABLE
        case Unauthorised() | Forbidden() | Rejected(code="gated" | "bad_token"):
            return UNAUTHORISED
        case NotFound() | Rejected(code="no_such_repo" | "no_such_file" | "no_such_revision"):
            return NOT_FOUND
        case _:
            return FAILED


def log_to_file(settings: Settings) -> None:
    """Send log records to a file in the state folder, made when the first one comes; never to the terminal."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(_LateFile(settings))
        root.setLevel(logging.WARNING)


class _LateFile(logging.Handler):
    """Appends to `cli.log`, readable by us alone, with secrets hidden."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        import os

        from modelhub_tui.service.logs import redact

        path = self._settings.state_dir / "cli.log"
        key = self._settings.api_key
        text = redact(self.format(record), [key] if key else [])
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
                path.replace(path.with_suffix(".log.1"))
            with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text + "\n")
        except OSError:
            pass  # there is nowhere left to say so
