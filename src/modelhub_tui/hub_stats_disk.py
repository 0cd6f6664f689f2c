"""The file of the hub statistics: diskcache, with nothing in it that could reach beyond its folder.

Whoever can write this folder decides what diskcache reads there, and diskcache believes it: a row may name a file,
which is opened, unpickled and removed wherever it is; a setting may name any attribute and any pragma; and SQLite runs
the views and triggers that a schema holds, and removes the file that a journal names. So a folder is opened only if it
holds what diskcache makes by itself and nothing else; and rows are JSON in the database: never a file, never a pickle.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import sqlite3
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diskcache

SIZE_LIMIT_BYTES = 32 * 1024 * 1024
"""Beyond this, the oldest rows go."""
_MOST_FILE_BYTES = 2 * SIZE_LIMIT_BYTES
_MOST_ROW_BYTES = 4096
_BUSY_S = 2.0
"""How long another process may be at it."""
_WORK_S = 5.0
"""How long the check of a database may take, and each use of it: a trigger or a view may ask without end."""
_DATABASE = diskcache.core.DBNAME
_FILES = (_DATABASE, f"{_DATABASE}-wal", f"{_DATABASE}-shm")
# Another process may shorten a mapped file, and reading on would end this one.
_SETTINGS = {**diskcache.DEFAULT_SETTINGS, "size_limit": SIZE_LIMIT_BYTES, "sqlite_mmap_size": 0}

_OTHER_ROWS = f"""SELECT EXISTS (SELECT 1 FROM Cache WHERE filename IS NOT NULL OR mode IS NOT {diskcache.core.MODE_RAW}
    OR typeof(value) != 'blob' OR length(value) > {_MOST_ROW_BYTES})"""  # noqa: S608 - two numbers


class NotOurs(Exception):
    """The folder holds something that diskcache did not make here."""


class RowDisk(diskcache.JSONDisk):
    """Small JSON rows in the database. What names a file or holds a pickle is none, and nothing is ever removed."""

    def filename(self, key: Any = None, value: Any = None) -> tuple[str, str]:
        raise ValueError("too large for a row")

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        """Return the row.

        Raises:
            ValueError: It is none that `store` makes, or is larger unpacked than one may be.
        """
        if mode != diskcache.core.MODE_RAW or filename is not None or type(value) is not bytes or read:
            raise ValueError("not a JSON row")
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(value, _MOST_ROW_BYTES)
        if not unpacking.eof:
            raise ValueError("an overlong or unfinished row")
        return json.loads(text)

    def get(self, key: Any, raw: bool) -> Any:
        raise ValueError("keys are looked up, never listed")

    def remove(self, file_path: str) -> None:
        """Remove nothing: no row of ours has a file."""


class BoundedCache(diskcache.Cache):
    """As diskcache's, but no statement goes on for ever, whatever somebody puts into the database while it is open."""

    @property
    def _con(self) -> sqlite3.Connection:
        """This thread's connection, with the time for what it is asked for from now on.

        diskcache would take a new connection's pragmas from the database; here they are those that we know.
        """
        if getattr(self._local, "pid", None) != os.getpid():
            self.close()
            self._local.pid = os.getpid()
        con: sqlite3.Connection | None = getattr(self._local, "con", None)
        if con is None:
            path = os.path.join(self._directory, _DATABASE)  # noqa: PTH118 - a string, as diskcache keeps it
            con = self._local.con = sqlite3.connect(path, timeout=self._timeout, isolation_level=None)
            for key, value in sorted(_SETTINGS.items()):
                if key.startswith("sqlite_"):
                    self.reset(key, value, update=False)
        _limit(con)
        return con


def _limit(db: sqlite3.Connection) -> None:
    """Interrupt what still runs on this connection in five seconds."""
    until = time.monotonic() + _WORK_S
    db.set_progress_handler(lambda: time.monotonic() > until, 10_000)


def is_endless(error: BaseException | None) -> bool:
    """Whether this was raised as the time was over, or in rolling that back."""
    while error is not None:
        if (
            isinstance(error, sqlite3.Error)
            and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_INTERRUPT
        ):
            return True
        error = error.__context__
    return False


def open_disk(directory: Path) -> BoundedCache:
    """Open the cache in a folder that exists and belongs to us; its methods wait at most two seconds for a lock.

    Raises:
        NotOurs: It holds something else; move it aside.
        sqlite3.Error: As SQLite says; OperationalError if another process is at it.
        OSError: It cannot be used.
    """
    path = str(directory)
    if os.path.expandvars(os.path.expanduser(path)) != path:  # noqa: PTH111 - what diskcache would make of it
        raise OSError("diskcache would take this path for another")
    with _alone(directory):
        _check_files(directory)
        _check_database(directory / _DATABASE)
        return BoundedCache(path, timeout=_BUSY_S, disk=RowDisk, **_SETTINGS)


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep other processes from opening it meanwhile: a database half made is no sight for them."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        until = time.monotonic() + _BUSY_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)
            except OSError:
                break  # a file system without locks
        yield
    finally:
        os.close(fd)


def _check_files(directory: Path) -> None:
    """Every file that SQLite would open: a regular one of ours with one name, no larger than we let it grow.

    A rollback journal is none of them: this database never has one while nobody is at it, and SQLite removes the file
    that a journal names as its superior.
    """
    for entry in os.scandir(directory):
        if not entry.name.startswith(_DATABASE):
            continue
        state = entry.stat(follow_symlinks=False)
        ours = stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid() and state.st_nlink == 1
        if entry.name not in _FILES or not ours or state.st_size > _MOST_FILE_BYTES:
            raise NotOurs(f"{entry.name} is not as we make it")


def _check_database(path: Path) -> None:
    """Its structure is sound, its schema and its settings hold nothing that diskcache would not write by itself."""
    with contextlib.closing(sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)) as db:
        _limit(db)
        db.execute("PRAGMA trusted_schema = OFF")
        db.execute("PRAGMA mmap_size = 0")
        try:
            schema = set(db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
            if not schema <= _schema():
                raise NotOurs("its schema is not diskcache's")
            if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise NotOurs("it is damaged")
            known = {*_SETTINGS.items(), *((name, 0) for name in diskcache.core.METADATA)}
            settings = db.execute("SELECT key, value FROM Settings") if schema else ()
            if not all(each in known or (each[0] == "count" and type(each[1]) is int) for each in settings):
                raise NotOurs("its settings are not ours")
            if "Cache" in {name for _, name, _, _ in schema} and db.execute(_OTHER_ROWS).fetchone() != (0,):
                raise NotOurs("it holds rows that are not ours")
        except UnicodeDecodeError as error:
            raise NotOurs("it is damaged") from error
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_INTERRUPT):
                raise NotOurs("it cannot be read, or not in time") from error
            raise
        # diskcache would wait for a minute, statement by statement, for whoever writes now.
        db.execute("BEGIN IMMEDIATE")
        db.execute("ROLLBACK")


@functools.cache
def _schema() -> frozenset[tuple[Any, ...]]:
    """What this version of diskcache makes in an empty folder."""
    with tempfile.TemporaryDirectory(prefix="modelhub-") as folder:
        diskcache.Cache(folder, sqlite_synchronous=0, sqlite_journal_mode="off").close()
        with contextlib.closing(sqlite3.connect(Path(folder, _DATABASE))) as db:
            return frozenset(db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
