"""The instant frame: the last session's first screen, on the terminal before Textual is imported.

Importing Textual takes some 300 ms; reading 14 KB and writing them takes one. The picture says how old it is, is used
only when everything it depends on is the same (size, terminal, theme, settings, version), and is replaced by the live
one cell by cell. Only what costs next to nothing is imported here: anything more would be felt.

The file is 0600 and its text was made safe when it was painted; all the same it is written out only if it holds nothing
but cursor positions, colours and printable characters.
"""
# Importing pathlib costs as much as everything here together.
# ruff: noqa: PTH103, PTH105, PTH108, PTH116, PTH118, PTH120, PTH208

from __future__ import annotations

import os
import sys
import termios
import time

from modelhub_tui.small_files import read_small

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MAGIC = "modelhub-instant 1"
MAX_BYTES = 2_000_000
_MAX_FILES = 6
"""Pictures kept, one for each size of terminal."""
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[m\x1b[?7h\x1b[?1049l\x1b[?25h"
# tcgetattr's list: iflag, oflag, cflag, lflag, ispeed, ospeed, cc
_IFLAG, _LFLAG, _CC = 0, 3, 6


class Held:
    """The terminal while we hold it, from exec until Textual takes over."""

    def __init__(self, fd: int, attributes: list[Any]) -> None:
        self.fd, self.attributes = fd, attributes
        self.drawn = False
        """The alternate screen is on and shows `picture`."""
        self.picture = ""
        self.size = (0, 0)
        self.early_keys = b""
        """Read before raw mode was on; Enter among them is a carriage return again."""
        self.handed_over = False


_held: Held | None = None


def identity(version: str, env: Mapping[str, str], arguments: list[str], files: tuple[str, ...]) -> str:
    """Everything a picture depends on besides the size, as one line: settings as they were given, files by their stamp.

    The settings are not evaluated: reading TOML costs more than the whole picture.
    """
    said = [
        f"{name}={env[name]}" for name in sorted(env) if name.startswith("MODELHUB_") and name != "MODELHUB_API_KEY"
    ]
    said += [
        f"{name}={env.get(name, '')}"
        for name in (
            "TERM",
            "COLORTERM",
            "LANG",
            "LC_ALL",
            "LC_CTYPE",
            "TMUX",
            "HF_ENDPOINT",
            "TEXTUAL_THEME",
            "TEXTUAL_COLOR_SYSTEM",
        )
    ]
    for path in files:
        try:
            stamp = os.stat(path)
            said.append(f"{path}={stamp.st_mtime_ns},{stamp.st_size}")
        except OSError:
            said.append(f"{path}=")
    return repr((version, said, arguments))


def path_for(cache_dir: str, width: int, height: int) -> str:
    """Where the picture for this size of terminal is kept."""
    return os.path.join(cache_dir, f"screen-{width}x{height}.ansi")


def is_safe(text: str) -> bool:
    """Say whether text holds printable characters, cursor positions (CUP) and colours (SGR), and nothing else."""
    first, *pieces = text.split("\x1b[")
    if first:
        return False
    for piece in pieces:
        rest = piece.lstrip("0123456789;")
        if rest[:1] not in ("H", "m") or len(piece) - len(rest) > 64 or not rest[1:].isprintable():
            return False
    return True


def save(path: str, key: str, body: str, *, slot: tuple[int, int, int], style: str, heard_at: float | None) -> None:
    """Keep a picture for the next start.

    Args:
        body: The cells, from `pictures.picture()`.
        slot: Where the picture's age is written over it: row, column, width in cells.
        style: SGR parameters for that text.
        heard_at: When what it shows was last confirmed, seconds since the epoch; None if never.
    """
    if not is_safe(body) or "\n" in key:
        return
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    row, column, width = slot
    head = f"{MAGIC}\n{key}\n{row} {column} {width} {heard_at or 0:.0f} {style or '0'}\n"
    temporary = f"{path}.{os.getpid()}"
    if os.path.lexists(temporary):
        os.unlink(temporary)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(head + body)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    kept = [
        os.path.join(folder, name)
        for name in os.listdir(folder)
        if name.startswith("screen-") and name.endswith(".ansi")
    ]
    for old in sorted(kept, key=os.path.getmtime)[:-_MAX_FILES]:
        os.unlink(old)


def load(path: str, key: str, now: float) -> str | None:
    """Return the kept picture with its age written into it; None if none fits, or it is not to be trusted."""
    try:
        text = read_small(path, MAX_BYTES, only_ours=True).decode()
        magic, kept_key, place, body = text.split("\n", 3)
        row, column, width, heard_at, style = place.split(" ")
        if magic != MAGIC or kept_key != key:
            return None
        said = f"as of {_age(now - int(heard_at))}, starting…" if int(heard_at) else "starting…"
        label = said[: int(width)].ljust(int(width))
        picture = f"{body}\x1b[{int(row) + 1};{int(column) + 1}H\x1b[0;{style}m{label}\x1b[0m"
    except (OSError, ValueError):
        return None
    return picture if is_safe(picture) else None


def _age(seconds: float) -> str:
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (129_600, 3600, "h")):
        if seconds < limit:
            return f"{max(seconds, 0) / size:.0f} {unit} ago"
    return f"{seconds / 86_400:.0f} days ago"


def take_terminal(input_fd: int) -> Held | None:
    """Switch off echo, line mode and the translation of Enter, so that type-ahead reaches the app as it was typed."""
    global _held
    try:
        attributes = termios.tcgetattr(input_fd)
        raw = termios.tcgetattr(input_fd)
    except termios.error:
        return None
    raw[_IFLAG] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR | termios.IXON | termios.IXOFF)
    raw[_LFLAG] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
    raw[_CC][termios.VMIN] = 0
    raw[_CC][termios.VTIME] = 0
    held = Held(input_fd, attributes)
    try:
        # NOW, not FLUSH: flushing would throw away what has been typed since exec.
        termios.tcsetattr(input_fd, termios.TCSANOW, raw)
        _held = held
        if attributes[_IFLAG] & termios.ICRNL:
            # Typed between exec and here: the terminal has turned Enter into a line feed, which is ctrl+j.
            held.early_keys = os.read(input_fd, 4096).replace(b"\n", b"\r")
        raw[_CC][termios.VMIN] = 1
        termios.tcsetattr(input_fd, termios.TCSANOW, raw)
    except (OSError, termios.error):
        restore()
        return None
    return held


def show(held: Held, picture: str, size: tuple[int, int], output_fd: int) -> None:
    """Put the picture on the alternate screen, in one write."""
    data = (_ENTER + picture).encode()
    held.drawn, held.picture, held.size = True, picture, size
    while data:
        data = data[os.write(output_fd, data) :]


def hand_over() -> Held | None:
    """Give the terminal to the driver, once; None if we do not hold it."""
    if _held is None or _held.handed_over:
        return None
    _held.handed_over = True
    return _held


def take_early_keys() -> bytes:
    """Return what was typed before raw mode, once."""
    if _held is None:
        return b""
    keys, _held.early_keys = _held.early_keys, b""
    return keys


def current() -> Held | None:
    """The terminal as we hold it; None if we do not."""
    return _held


def restore() -> None:
    """Give the terminal back as it was. Safe to call at any time, any number of times."""
    global _held
    held, _held = _held, None
    if held is None:
        return
    try:
        if held.drawn and not held.handed_over:
            os.write(2 if os.isatty(2) else 1, _LEAVE.encode())
        termios.tcsetattr(held.fd, termios.TCSANOW, held.attributes)
    except (OSError, termios.error):
        pass  # the terminal is gone


def begin(cache_dir: str, key: str) -> None:
    """Do all of the above at the start of a session: take the terminal and show the kept picture if there is one."""
    output_fd = 2 if os.isatty(2) else 1
    try:
        width, height = os.get_terminal_size(output_fd)
    except OSError:
        return
    held = take_terminal(0)
    if held is None:
        return
    # The C half of `signal`, which needs no import of enum: the picture must not be on the screen without this.
    import _signal  # type: ignore[import-not-found]
    import atexit

    atexit.register(restore)
    for number in (_signal.SIGTERM, _signal.SIGHUP):
        _signal.signal(number, abandon)
    if os.environ.get("COLUMNS") or os.environ.get("LINES"):
        return  # Textual believes these, whatever the terminal says
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        return
    picture = load(path_for(cache_dir, width, height), key, time.time())
    if picture is not None:
        show(held, picture, (width, height), output_fd)


def abandon(_signal: int, _frame: object) -> None:
    """A signal handler for the time before Textual runs: leave, restoring the terminal on the way out."""
    sys.exit(128 + _signal)
