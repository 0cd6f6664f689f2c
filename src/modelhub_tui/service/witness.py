"""A small file beside a database that says how far it had come: by it a database that went back in time is noticed.

A database is older than its witness when its log was lost, or when a copy from before was put in its place. What it
says then is no news but history, and nobody may act on what it does *not* say.
"""

from __future__ import annotations

import logging
import os
import stat
import time
import uuid
from pathlib import Path

from modelhub_tui.identifiers import whole_number
from modelhub_tui.small_files import NotAPlainFile, read_small

log = logging.getLogger(__name__)

_LIMIT_BYTES = 200


class Witness:
    """What was last written to a database, in a file of its own.

    It is not synced: after a power cut it may be behind its database, and then says nothing. Killing a process leaves
    it right.
    """

    def __init__(self, database: Path) -> None:
        self.path = database.with_suffix(".mark")

    def read(self) -> tuple[str, int] | None:
        """The database's identity and the number of its last write; None if nobody wrote that down."""
        try:
            identity, count = read_small(self.path, _LIMIT_BYTES).decode("ascii").split()
        except (OSError, NotAPlainFile, ValueError):
            return None
        number = whole_number(count)
        return None if number is None else (identity, number)

    def write(self, identity: str, count: int) -> None:
        """Say how far the database has come. Trouble is logged: the database itself is what counts."""
        line = f"{identity} {count:020d}\n".encode("ascii")
        try:
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
            try:
                if stat.S_ISREG(os.fstat(file).st_mode):
                    os.pwrite(file, line, 0)
                    os.ftruncate(file, len(line))
            finally:
                os.close(file)
        except OSError as error:
            log.warning("%s cannot be written (%s)", self.path, error.strerror)


def aside_of(path: Path) -> Path:
    """A name, not used so far, under which a database can be kept."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    return path.with_name(f"{path.name}.damaged-{stamp}-{uuid.uuid4().hex[:4]}")


def set_aside(path: Path) -> Path:
    """Rename a database and what belongs to it, whatever it is, keeping every byte for whoever wants to look.

    Raises:
        OSError: It cannot be renamed.
    """
    aside = aside_of(path)
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if os.path.lexists(part):
            part.rename(aside.with_name(aside.name + suffix))
    return aside


def is_no_file(path: Path) -> bool:
    """Whether something is there that can be no database: a folder, a link that leads nowhere, a pipe."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return False
    return not (stat.S_ISREG(kind) or (stat.S_ISLNK(kind) and path.exists()))


def is_empty(path: Path) -> bool:
    """Whether there is no database, or an empty file in its place."""
    try:
        return path.lstat().st_size == 0
    except FileNotFoundError:
        return True
