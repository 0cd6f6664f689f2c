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
    ServiceFailed,
    Unauthorised,
    Unreachable,
)

if TYPE_CHECKING:
    from modelhub_tui.config import Settings


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
        case (
            NotFound()
            | Rejected(code="no_such_repo" | "no_such_file" | "no_such_revision" | "not_in_trash" | "not_on_disk")
        ):
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

    def emit(self, record: logging.LogRecord) -> None:
        from modelhub_tui.own_folder import prepare_dir
        from modelhub_tui.service import logs

        formatter = logs.Redacting()
        if self._settings.api_key:
            formatter.secrets.append(self._settings.api_key)
        try:
            prepare_dir(self._settings.state_dir)
            # Anew each time: programs come and go, and what they write is rare.
            file = logs.LogFile(self._settings.state_dir / "cli.log")
            file.setFormatter(formatter)
            file.emit(record)
            file.close()
        except (OSError, ServiceFailed):
            pass  # there is nowhere left to say so
