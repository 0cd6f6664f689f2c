"""What the node has placed and what it is at, in a small SQLite file that survives kill -9 at any point.

A row is written before the deed it describes: a model is `removing` before its first file goes. A file that cannot be
read as a database is kept aside and started afresh: the bytes are on disk, and are found there again.

Everything here may wait for the disk, or for another program that has locked the database, as long as that takes. So it
is for threads; what runs on the event loop writes through `journal.py`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from modelhub_tui.identifiers import whole_number
from modelhub_tui.service.node.manifest import File
from modelhub_tui.service.node.progress import History
from modelhub_tui.service.witness import Witness, is_empty, is_no_file, set_aside
from modelhub_tui.untrusted import clean
from modelhub_tui.values import dataclass

log = logging.getLogger(__name__)

_SCHEMA = 2
_BALLAST_BYTES = 256 * 1024
_LOOK_S = 0.5
"""How often a thread that waits for a locked database looks whether it is to end."""
_TELL_S = 3.0
"""A wait that takes longer is told."""


class Closed(Exception):
    """The record is closed: nothing is written any more. No `sqlite3.Error`: nobody is to find another way."""


class State(StrEnum):
    """What the node is to do about a model."""

    WANTED = "wanted"
    WHOLE = "whole"
    FAILED = "failed"
    REMOVING = "removing"


@dataclass(frozen=True, slots=True)
class Entry:
    """One model."""

    name: str
    store: str | None
    """Identity of the router's database that listed it; None for a router that has none."""
    fingerprint: str = ""
    attempt: int = 0
    state: State = State.WANTED
    whole: bool = False
    """It was whole when removing began: then all its files go, else only those we fetched."""
    files: tuple[File, ...] = ()
    """Empty until the manifest is known."""
    error: str | None = None
    error_code: str | None = None
    paused: bool = False
    """A person holds its transfer."""
    queue: float | None = None
    """Place in the order of transfers, as the router last told; None from a router that has none."""
    history: History = ()
    registration: str | None = None
    """What an order to remove it names; None of a model that was listed by a router without such orders."""


class Record:
    """The tables. Used from any thread, one at a time."""

    def __init__(self, path: Path) -> None:
        """Raises sqlite3.OperationalError when the database is locked (`is_locked`), or cannot be opened."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = path
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._locked_since: float | None = None
        self._in_batch = False
        self._files: dict[str, tuple[File, ...]] = {}
        """What the rows of each model's files say."""
        self._db, notice = mended(path)
        if notice:
            log.warning("%s", notice)
        self._make_room()

    @property
    def trouble(self) -> str:
        """Why nothing can be written down for a while now, in one sentence; empty otherwise. Does not wait."""
        since = self._locked_since
        if since is None or time.monotonic() - since < _TELL_S:
            return ""
        return f"Another program has locked {clean(self.path, 300)}: until it lets go, nothing begins."

    def _make_room(self) -> None:
        """Let database and log grow and shrink once, so that a full disk does not keep anybody from deleting models.

        SQLite then reuses their blocks, and needs none of the disk's.
        """
        try:
            if Path(f"{self.path}-wal").stat().st_size < _BALLAST_BYTES:
                self._db.execute("INSERT OR REPLACE INTO trash(name, body) VALUES ('', ?)", ("x" * _BALLAST_BYTES,))
                self._db.execute("DELETE FROM trash WHERE name = ''")
            self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        except (OSError, sqlite3.Error) as error:
            log.warning("no room could be kept in reserve (%s)", error)

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Write all that is written in here in one transaction, durable when this ends; nothing of it after an error.

        Raises:
            sqlite3.Error: The disk refuses it. A lock of another program is waited for instead.
            Closed: `close()` was called meanwhile.
        """
        with self._lock:
            if self._in_batch:
                yield
                return
            self._execute("BEGIN IMMEDIATE")
            self._in_batch = True
            try:
                yield
                self._execute("COMMIT")
            except BaseException:
                self._files.clear()  # so that all rows are written anew
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._in_batch = False

    def entries(self) -> list[Entry]:
        """All models, in the order in which they were first seen. Rows that make no sense are left out."""
        out = []
        with self._lock:
            rows = self._db.execute("SELECT name, store, body FROM models ORDER BY seq").fetchall()
            parts = self._db.execute("SELECT model, body FROM files ORDER BY model, position").fetchall()
        files: dict[str, list[str]] = {}
        for name, body in parts:
            files.setdefault(name, []).append(body)
        for name, store, body in rows:
            try:
                told = json.loads(body)
                entry = _entry(name, store, told, [json.loads(each) for each in files.get(name, ())])
            except (ValueError, TypeError, KeyError):
                log.warning("the record of %r makes no sense; left out", name)
                continue
            if "files" not in told:
                self._files[name] = entry.files
            out.append(entry)
        return out

    def put(self, entry: Entry) -> None:
        """Write one model, durably. Of its files, only those of which something has changed."""
        body = json.dumps(
            {
                "fingerprint": entry.fingerprint,
                "attempt": entry.attempt,
                "state": entry.state,
                "whole": entry.whole,
                "error": entry.error,
                "error_code": entry.error_code,
                "paused": entry.paused,
                "queue": entry.queue,
                "history": entry.history,
                "registration": entry.registration,
            }
        )
        with self.batch():
            self._execute(
                "INSERT INTO models(name, store, body) VALUES (?, ?, ?)"
                " ON CONFLICT(name) DO UPDATE SET store = excluded.store, body = excluded.body",
                (entry.name, entry.store, body),
            )
            self._put_files(entry.name, entry.files)

    def _put_files(self, name: str, files: tuple[File, ...]) -> None:
        before = self._files.get(name)
        if before is files:
            return
        if before is None or len(before) > len(files):
            self._execute("DELETE FROM files WHERE model = ?", (name,))
            before = ()
        changed = [at for at, file in enumerate(files) if at >= len(before) or file != before[at]]
        self._db.executemany(
            "INSERT INTO files(model, position, body) VALUES (?, ?, ?)"
            " ON CONFLICT(model, position) DO UPDATE SET body = excluded.body",
            [(name, at, json.dumps(files[at].as_json())) for at in changed],
        )
        self._files[name] = files

    def drop(self, name: str) -> None:
        """Forget one model, durably."""
        with self.batch():
            self._execute("DELETE FROM models WHERE name = ?", (name,))
            self._execute("DELETE FROM files WHERE model = ?", (name,))
            self._files.pop(name, None)

    def trash_rows(self) -> list[tuple[str, str | None, dict[str, Any]]]:
        """Name, store and the rest of every deleted model that is kept, the oldest first. `trash.py` reads the rest."""
        with self._lock:
            rows = self._db.execute("SELECT name, store, body FROM trash WHERE name != '' ORDER BY seq").fetchall()
        out = []
        for name, store, body in rows:
            try:
                out.append((str(name), store, dict(json.loads(body))))
            except (ValueError, TypeError):
                log.warning("the record of %r in the trash makes no sense; left out", name)
        return out

    def put_trash(self, name: str, store: str | None, body: dict[str, Any]) -> None:
        """Write one deleted model, durably."""
        self._write(
            "INSERT INTO trash(name, store, body) VALUES (?, ?, ?)"
            " ON CONFLICT(name) DO UPDATE SET store = excluded.store, body = excluded.body",
            (name, store, json.dumps(body)),
        )

    def drop_trash(self, name: str) -> None:
        self._write("DELETE FROM trash WHERE name = ?", (name,))

    def setting(self, key: str) -> str | None:
        """What `set_setting` last wrote; None if nothing."""
        with self._lock:
            row = self._db.execute("SELECT value FROM settings WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_setting(self, key: str, value: str) -> None:
        """Remember a value over restarts."""
        self._write(
            "INSERT INTO settings(key, value) VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
            (key, value),
        )

    def _write(self, sql: str, values: tuple[object, ...]) -> None:
        with self.batch():
            self._execute(sql, values)

    def _execute(self, sql: str, values: tuple[object, ...] = ()) -> None:
        """Do it, once nobody else keeps the database locked. With the lock held."""
        try:
            while True:
                if self._closing.is_set():
                    raise Closed
                try:
                    self._db.execute(sql, values)
                except sqlite3.OperationalError as error:
                    if not is_locked(error):
                        raise
                else:
                    return
                self._note_locked()
        finally:
            self._locked_since = None

    def _note_locked(self) -> None:
        before = self.trouble
        self._locked_since = self._locked_since or time.monotonic()
        if self.trouble and not before:
            log.warning("%s", self.trouble)

    def close(self) -> None:
        """What waits for a lock gives up; so does all that is written later."""
        self._closing.set()
        with self._lock:
            self._db.close()


def mended(path: Path) -> tuple[sqlite3.Connection, str]:
    """Open a node's database. What cannot be used is kept aside, and another one started.

    Returns:
        The connection, and one sentence on what had to be done; empty if nothing.

    Raises:
        sqlite3.OperationalError: It is locked, or the disk is full: the file itself may be sound.
        OSError: It cannot be made.
    """
    witness = Witness(path)
    before = witness.read()
    what = ""
    if is_no_file(path):
        what = "was no file"
    elif is_empty(path) and before is not None:
        what = "was missing or empty"
    aside = set_aside(path) if what else None
    try:
        db = _open(path)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        log.warning("%s cannot be read (%s)", path, error)
        what, aside = "was damaged", set_aside(path)
        db = _open(path)
    found = "What is on the disk is found again."
    kept = f" It was kept as {aside.name}." if aside is not None and os.path.lexists(aside) else ""
    notice = f"The node's record {what} and was started anew.{kept} {found}" if what else ""
    # Counted at each opening: a copy from before an earlier one is noticed by its number.
    identity, count = _counted(db)
    if not what and before is not None and (before[0] != identity or before[1] > count):
        notice = f"The node's record is an older one than it last wrote, or another's. {found}"
    witness.write(identity, count)
    return db, notice


def _counted(db: sqlite3.Connection) -> tuple[str, int]:
    """The database's identity, and how often it was opened."""
    told = dict(db.execute("SELECT key, value FROM settings WHERE key IN ('identity', 'opened')").fetchall())
    identity, opened = told.get("identity"), told.get("opened", "")
    if not isinstance(identity, str) or not identity.isalnum():
        identity = uuid.uuid4().hex
    count = (whole_number(opened) or 0) + 1
    values = [("identity", identity), ("opened", str(count))]
    try:
        db.executemany("INSERT OR REPLACE INTO settings(key, value) VALUES (?, ?)", values)
    except sqlite3.OperationalError as error:
        log.warning("the node's record cannot be counted on (%s)", error)  # a full disk keeps nobody from reading it
        count -= 1
    return identity, count


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, isolation_level=None, timeout=_LOOK_S, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA:
            raise sqlite3.DatabaseError(f"written by a newer version ({version})")
        db.execute(
            "CREATE TABLE IF NOT EXISTS"
            " models(seq INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, store TEXT, body TEXT NOT NULL)"
        )
        db.execute(
            "CREATE TABLE IF NOT EXISTS"
            " trash(seq INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, store TEXT, body TEXT NOT NULL)"
        )
        # A row of `models` with its files in its body is of the first schema, and written anew when it changes.
        db.execute(
            "CREATE TABLE IF NOT EXISTS files(model TEXT NOT NULL, position INTEGER NOT NULL, body TEXT NOT NULL,"
            " PRIMARY KEY(model, position)) WITHOUT ROWID"
        )
        db.execute("CREATE TABLE IF NOT EXISTS settings(key TEXT PRIMARY KEY, value TEXT NOT NULL)")
        if version != _SCHEMA:
            db.execute(f"PRAGMA user_version = {_SCHEMA}")
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
    except BaseException:
        db.close()
        raise
    return db


def is_locked(error: sqlite3.Error) -> bool:
    """Whether this only says that another program works with the database now."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _entry(name: str, store: str | None, body: object, rows: list[dict[str, Any]]) -> Entry:
    if not isinstance(body, dict):
        raise TypeError("it is no object")
    files = body.get("files", rows)
    if not isinstance(files, list):
        raise TypeError("its files are no list")
    attempt, error, code = body.get("attempt"), body.get("error"), body.get("error_code")
    queue, history, registration = body.get("queue"), body.get("history"), body.get("registration")
    return Entry(
        name=name,
        store=store,
        fingerprint=str(body.get("fingerprint") or ""),
        attempt=attempt if isinstance(attempt, int) else 0,
        state=State(str(body["state"])),
        whole=bool(body.get("whole")),
        files=tuple(File.from_json(each) for each in files),
        error=error if isinstance(error, str) else None,
        error_code=code if isinstance(code, str) else None,
        paused=bool(body.get("paused")),
        queue=float(queue) if isinstance(queue, int | float) else None,
        history=tuple((float(at), str(what)) for at, what in history) if isinstance(history, list) else (),
        registration=registration if isinstance(registration, str) else None,
    )
