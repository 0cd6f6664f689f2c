"""The service's log: in the state folder, rotated, readable by us alone, and without secrets."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Iterable
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES, KEPT = 2_000_000, 3
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_HIDDEN = "[hidden]"
_NAMES = r"x-api-key|x-node-token|authorization|api[_-]?key|hf_token"
_SIGNED = r"signature|policy|key-pair-id|x-amz-[a-z-]+|x-goog-[a-z-]+|x-xet-[a-z-]+|sig|token"
_SECRETS = (
    # Bearer tokens and keys in headers, HuggingFace tokens anywhere, node tokens of the router.
    (re.compile(r"(?i)(bearer\s+)[^\s'\",;]+"), rf"\1{_HIDDEN}"),
    (re.compile(rf"(?i)((?:{_NAMES})['\"]?\s*[:=]\s*['\"]?)(?!bearer\b)[^\s'\",;&]+"), rf"\1{_HIDDEN}"),
    (re.compile(r"\b(?:hf|nt|sk|api_org)_[A-Za-z0-9-]{6,}"), _HIDDEN),
    # Signed URLs: who has the query has the file.
    (re.compile(rf"(?i)((?:{_SIGNED})=)[^&\s'\"<>]+"), rf"\1{_HIDDEN}"),
    (re.compile(r"(://)[^/\s:@]+:[^/\s@]+@"), rf"\1{_HIDDEN}@"),
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Hide tokens, keys and signatures in a text."""
    for secret in secrets:
        if len(secret) >= 6:
            text = text.replace(secret, _HIDDEN)
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class _Redacting(logging.Formatter):
    """Formats, then hides: tracebacks pass through here too."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(_FORMAT)
        self.secrets: list[str] = []

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record), self.secrets)


class _Log(RotatingFileHandler):
    """A rotating file, 0600. When `fds` are given, they follow it: what crashes print lands in the current file."""

    def __init__(self, path: Path, fds: tuple[int, ...]) -> None:
        self._fds = fds
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=KEPT, encoding="utf-8", errors="backslashreplace")

    def _open(self):  # type: ignore[no-untyped-def]
        fd = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.fchmod(fd, 0o600)
        for other in self._fds:
            os.dup2(fd, other)
        return os.fdopen(fd, "a", encoding="utf-8", errors="backslashreplace")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk or a removed folder must not stop the service, nor make it print about it."""


class _Stream:
    """Stands in for stdout and stderr: what libraries print goes through the log, hence redacted."""

    encoding = "utf-8"

    def __init__(self, log: logging.Logger) -> None:
        self._log = log

    def write(self, text: str) -> int:
        for line in text.splitlines():
            if line.strip():
                self._log.warning("%s", line.rstrip()[:4000])
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return False


def start_log(path: Path, *, foreground: bool) -> _Redacting:
    """Send all logging to `path`, and to stderr as well in the foreground.

    Returns:
        The formatter; strings put into its `secrets` are hidden from then on.

    Raises:
        OSError: The file cannot be written.
    """
    formatter = _Redacting()
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    handlers: list[logging.Handler] = [_Log(path, () if foreground else (1, 2))]
    if foreground:
        handlers.append(logging.StreamHandler())
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    # One line for each request of a polling client would be all that the log holds.
    for name in ("httpx", "httpx2", "httpcore", "httpcore2", "asyncio", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    if not foreground:
        stream = _Stream(logging.getLogger("output"))
        sys.stdout = sys.stderr = stream
    return formatter
