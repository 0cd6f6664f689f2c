"""The logs of all processes: in the state folder, rotated, readable by us alone, and without secrets.

A log is an output like a screen: what hubs, routers and files say reaches it, and the terminal of `modelhub serve` and
`modelhub node`, through `Redacting` alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import stat
import sys
import time
from pathlib import Path

from modelhub_tui import locks
from modelhub_tui.errors import BadSettings
from modelhub_tui.service.redact import known_secrets, redact
from modelhub_tui.small_files import NotAPlainFile
from modelhub_tui.untrusted import clean

LOG_FORMATS = ("text", "json")
MAX_BYTES, KEPT = 2_000_000, 3
MAX_RECORD = 8 * 1024
"""Longest record, in bytes: a hub's error page must not be all that the log holds."""
_READ = 2 * MAX_RECORD
"""Characters of a record that are looked at, so that its cost is bounded."""
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_MORE = "\n  | "
"""Begins each further line of a record, so that none can be taken for a record."""


class Redacting(logging.Formatter):
    """Formats, cleans and hides: tracebacks and other libraries' records pass through here too.

    Every record is one line without control, format or bidi characters; what had several goes on in lines that are
    marked as such.
    """

    converter = staticmethod(time.gmtime)

    def __init__(self, *, as_json: bool = False) -> None:
        super().__init__(_FORMAT)
        self._as_json = as_json
        self.secrets: list[str] = known_secrets()
        """Strings that are hidden wherever they stand."""

    def format(self, record: logging.LogRecord) -> str:
        """One record, ready to be written."""
        if self._as_json:
            return self._json(record)
        return _capped(self._safe(super().format(record)).replace("\n", _MORE))

    def _safe(self, said: str) -> str:
        """A text without secrets and without characters that do more than be seen; its lines stay lines."""
        # Cleaned first: a character that is not shown must not hide a secret from the patterns.
        lines = map(_clean_line, _first(said).replace("\r\n", "\n").split("\n"))
        return redact("\n".join(line for line in lines if line), self.secrets)

    def _json(self, record: logging.LogRecord) -> str:
        """One object on one line (docs/operations.md)."""
        told = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "logger": clean(record.name, 200),
            "process": record.process,
            "message": _capped(self._safe(record.getMessage())),
        }
        if record.exc_info:
            told["error"] = _capped(self._safe(self.formatException(record.exc_info)))
        return json.dumps(told, ensure_ascii=False)


def _first(text: str) -> str:
    """What is looked at of a text: never half a word at its end, which could be half a secret."""
    return text if len(text) <= _READ else f"{(text[:_READ].rsplit(None, 1) or [''])[0]} …"


def _clean_line(line: str) -> str:
    indent = len(line) - len(line.lstrip(" "))
    said = clean(line, _READ)
    return f"{' ' * min(indent, 40)}{said}" if said else ""


def _capped(text: str) -> str:
    """At most `MAX_RECORD` bytes: the middle is left out, as what matters of a traceback is its end."""
    raw = text.encode()
    if len(raw) <= MAX_RECORD:
        return text
    part = MAX_RECORD // 2 - 50
    first, last = (each.decode(errors="ignore") for each in (raw[:part], raw[-part:]))
    return f"{first.rstrip(_MORE)}{_MORE}({len(raw) - 2 * part} bytes are left out here){_MORE}{last}"


class LogFile(logging.Handler):
    """A rotating file, 0600: `path`, and the `KEPT` before it as `path.1` (newest) and so on.

    Every record is one write to a file that is open for appending, so that no line is torn or lost, at a rotation too,
    whoever else writes. A rotation that fails (a read-only folder) lets the file grow to twice its size.

    Args:
        fds: Descriptors that follow the file: what a crash prints lands in the current one.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: Path, fds: tuple[int, ...] = ()) -> None:
        super().__init__()
        self._path, self._fds = path, fds
        self._fd = -1
        self._open()

    def _open(self) -> None:
        fd = open_log(self._path)
        for other in self._fds:
            os.dup2(fd, other)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = fd

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. A full disk or a removed folder must not stop the program, nor make it print about it."""
        with contextlib.suppress(Exception):
            line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
            size = os.fstat(self._fd).st_size + len(line)
            if size > MAX_BYTES:
                try:
                    rotate(self._path, self._fd)
                    self._open()
                except OSError:
                    if size > 2 * MAX_BYTES:
                        return
            os.write(self._fd, line)

    def close(self) -> None:
        """Let go of the file."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        super().close()


def open_log(path: Path) -> int:
    """A descriptor of a log file, open for appending; made if it is not there.

    Raises:
        OSError: It cannot be opened, or it is a link, or no regular file.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotAPlainFile(path, "it is no regular file")
    with contextlib.suppress(OSError):
        os.fchmod(fd, 0o600)
    return fd


def rotate(path: Path, fd: int) -> None:
    """Move a full log out of the way, unless another process has just done so.

    Args:
        fd: The file that the caller found full.

    Raises:
        OSError: The folder cannot be written.
    """
    locked = locks.flock(fd, fcntl.LOCK_EX)  # without locks two may rotate at once: a log is kept under another number
    try:
        try:
            if not os.path.samestat(os.fstat(fd), path.stat()):
                return
        except FileNotFoundError:
            return
        for number in range(KEPT - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(f"{path.name}.{number}").replace(path.with_name(f"{path.name}.{number + 1}"))
        path.replace(path.with_name(f"{path.name}.1"))
    finally:
        if locked:
            fcntl.flock(fd, fcntl.LOCK_UN)


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


def log_format() -> str:
    """How records are written: `text`, or `json`, an object on each line.

    Raises:
        BadSettings: MODELHUB_LOG_FORMAT says something else.
    """
    said = os.environ.get("MODELHUB_LOG_FORMAT") or "text"
    if said not in LOG_FORMATS:
        raise BadSettings(f"MODELHUB_LOG_FORMAT is {clean(said, 40)!r}; it can be text, which is the default, or json.")
    return said


def start_log(path: Path, *, foreground: bool, fds: tuple[int, ...] = (1, 2)) -> Redacting:
    """Send all logging and all that is printed to `path`, and to the present stderr as well in the foreground.

    Args:
        fds: Descriptors that follow the file: what native code prints when it crashes lands there.

    Returns:
        The formatter; strings put into its `secrets` are hidden from then on.

    Raises:
        OSError: The file cannot be written.
        BadSettings: MODELHUB_LOG_FORMAT names no format.
    """
    formatter = Redacting(as_json=log_format() == "json")
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    handlers: list[logging.Handler] = []
    if foreground:
        # A descriptor of its own: the usual one is about to follow the file.
        handlers.append(logging.StreamHandler(os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")))
    handlers.append(LogFile(path, fds))
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    # One line for each request of a polling client would be all that the log holds.
    for name in ("httpx", "httpx2", "httpcore", "httpcore2", "asyncio", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its warnings are what anybody who can connect, without a key, may cause as often as they like.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.captureWarnings(True)
    sys.stdout = sys.stderr = _Stream(logging.getLogger("output"))
    return formatter
