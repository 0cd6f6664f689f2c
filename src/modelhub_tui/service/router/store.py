"""SQLite under the router: what it has acknowledged survives `kill -9` and a power cut.

One connection, used by one thread; the event loop awaits it. Reads happen once, at start: from then on the router
answers from memory and writes through.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import sqlite3
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from modelhub_tui import net
from modelhub_tui.identifiers import BadIdentifier, model_name
from modelhub_tui.service.router.records import BadRecord, NodeRecord, Registration, is_moment
from modelhub_tui.values import dataclass

log = logging.getLogger(__name__)

SCHEMA_VERSION = 2
BUSY_TIMEOUT_MS = 5000
LONGEST_PATH_BYTES = 500
"""SQLite takes 512, with what it appends."""
MAX_RECORD_BYTES = 64 * 1024 * 1024
"""Longer rows are not read: a registration with the most files takes 10 MB."""
BALLAST_BYTES = 256 * 1024
"""Room that the files keep in reserve: on a full disk a person must still be able to delete models."""
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE models (seq INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, body TEXT NOT NULL) STRICT;
CREATE TABLE nodes (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
"""
_SCHEMA_2 = "CREATE TABLE trash (name TEXT PRIMARY KEY, deleted_at REAL NOT NULL, body TEXT NOT NULL) STRICT"
"""What version 2 added."""
_IDENTITY = re.compile(r"[0-9A-Za-z-]{1,64}\Z")
"""A store's id goes into a header of every answer."""


class StoreFailed(Exception):
    """The database cannot be written. `full` is True when the disk has no space left."""

    def __init__(self, reason: str, *, full: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.full = reason, full


class StoreTooNew(Exception):
    """The database was written by a newer version of this program."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that cannot be used. It is kept until somebody removes it, and never taken for one that is not there."""

    table: str
    name: str
    """What it goes by: the name it is stored under, or where that is no name, one made of its checksum."""
    key: bytes
    """Its primary key, as it is."""
    reason: str
    """Why, in a few words that are safe to show."""
    at: float = 0.0
    """When a deleted model was deleted, as far as that can be read."""

    @property
    def named(self) -> bool:
        """Whether `name` is what it is stored under, so that nodes may know the model by it."""
        return self.key == self.name.encode()


@dataclass(frozen=True, slots=True)
class Rows:
    """Everything remembered."""

    models: list[Registration]
    """In registration order."""
    nodes: list[NodeRecord]
    trash: list[tuple[Registration, float]]
    """Deleted models and when they were deleted, seconds since the epoch."""
    unreadable: list[Unreadable]


def read_rows(db: sqlite3.Connection) -> Rows:
    """Read all records, each by itself: one that cannot be used harms no other.

    Raises:
        sqlite3.Error: The database cannot be read.
    """
    rows = Rows([], [], [], [])
    # As blobs: SQLite checks no encoding, and the module refuses a whole query for one text that is no UTF-8.
    for table, key, order in (("models", "name", "seq"), ("nodes", "id", "rowid"), ("trash", "name", "rowid")):
        at = "deleted_at" if table == "trash" else "0.0"
        what = f"CAST({key} AS BLOB), {at}, length(CAST(body AS BLOB)), {order}"
        for raw_key, moment, length, row in db.execute(f"SELECT {what} FROM {table} ORDER BY {order}").fetchall():  # noqa: S608
            try:
                if length > MAX_RECORD_BYTES:
                    raise BadRecord(f"it is {length} bytes long")
                (body,) = db.execute(f"SELECT CAST(body AS BLOB) FROM {table} WHERE {order} = ?", (row,)).fetchone()  # noqa: S608
                record = (NodeRecord if table == "nodes" else Registration).from_json(net.loads(body, MAX_RECORD_BYTES))
                if raw_key != (record.id if isinstance(record, NodeRecord) else record.name).encode():
                    raise BadRecord("it is stored under another name")
                if table == "trash" and not is_moment(moment):
                    raise BadRecord("it was deleted at no time")
            except ValueError as error:  # BadRecord is one, as is what is no JSON
                reason = str(error) if isinstance(error, BadRecord) else "it is no JSON"
                rows.unreadable.append(
                    Unreadable(table, _safe_name(raw_key), raw_key, reason, moment if is_moment(moment) else 0.0)
                )
                continue
            if isinstance(record, NodeRecord):
                rows.nodes.append(record)
            elif table == "models":
                rows.models.append(record)
            else:
                rows.trash.append((record, moment))
    rows.trash.sort(key=lambda each: each[1])
    return rows


def _safe_name(key: bytes) -> str:
    """The name a row is stored under, or one that stands for it and can be typed."""
    try:
        return model_name(key.decode())
    except (BadIdentifier, UnicodeDecodeError):
        return f"unreadable-{hashlib.sha256(key).hexdigest()[:12]}"


class Store:
    """The router's database.

    Args:
        path: The database file; its folder exists. Created 0600.

    Raises:
        StoreFailed: It cannot be opened or created.
        StoreTooNew: Its schema is newer than ours.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notice = ""
        """One sentence when something had to be repaired, at start or since; else empty."""
        self.on_notice: Callable[[], object] = bool
        """Called, on any thread, when `notice` has changed."""
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        if len(os.fsencode(path)) > LONGEST_PATH_BYTES:
            raise StoreFailed(f"The state folder's path is too long for a database: {path.parent}.")
        try:
            self._db = self._open()
        except sqlite3.Error as error:
            raise _failed(error, self.path) from error
        except OSError as error:
            raise StoreFailed(f"{path} cannot be opened ({error.strerror}).", full=error.errno == 28) from error
        self._make_room()
        self._file = self.path.stat()
        self._mirror = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        """What the file is to hold, for when the file is damaged or removed under us."""
        self._db.backup(self._mirror)
        self.id = self._meta("store_id") or ""
        """Identity of this database: a node deletes nothing on the word of another one."""

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.DatabaseError as error:
            # OperationalError is "locked", "full", "unable to open": the file itself may be sound.
            if isinstance(error, sqlite3.OperationalError):
                raise
            aside = self._set_aside()
            self.notice = f"The service's database was damaged. It was kept as {aside.name} and a new one was started."
            log.error("%s (%s)", self.notice, error)
            return self._connect()

    def _connect(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        self.path.chmod(0o600)
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            # FULL: an acknowledged registration is on the platter, not in the page cache.
            db.execute("PRAGMA synchronous = FULL")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise StoreTooNew(f"{self.path} was written by a newer modelhub (schema {version}).")
            if version == 0:
                db.execute("BEGIN IMMEDIATE")
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    db.execute(statement)
                db.execute("INSERT INTO meta VALUES ('store_id', ?)", (str(uuid.uuid4()),))
            if version < SCHEMA_VERSION:
                if version:
                    db.execute("BEGIN IMMEDIATE")
                db.execute(_SCHEMA_2)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                db.execute("COMMIT")
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            read_rows(db)  # finds what no check of SQLite's looks at
            identity = _value(db, "store_id")
            if identity is None or not _IDENTITY.match(identity):
                # Another one is the safe choice: nodes delete nothing on the word of a store that they do not know.
                log.error("the database has lost its identity and gets a new one")
                db.execute("INSERT OR REPLACE INTO meta VALUES ('store_id', ?)", (str(uuid.uuid4()),))
        except BaseException:
            db.close()
            raise
        return db

    def _make_room(self) -> None:
        """Let database and log grow and shrink once: SQLite then reuses their blocks, and needs none of the disk's."""
        log_file = self.path.with_name(f"{self.path.name}-wal")
        try:
            if log_file.stat().st_size < BALLAST_BYTES:
                self._db.execute("INSERT OR REPLACE INTO meta VALUES ('ballast', ?)", ("x" * BALLAST_BYTES,))
                self._db.execute("DELETE FROM meta WHERE key = 'ballast'")
            self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        except (OSError, sqlite3.Error) as error:
            log.warning("no room could be kept in reserve (%s)", error)

    def _set_aside(self) -> Path:
        """Rename the database and what belongs to it, keeping every byte for whoever wants to look."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}-{uuid.uuid4().hex[:4]}")
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        return aside

    def _meta(self, key: str) -> str | None:
        return _value(self._db, key)

    def load(self) -> Rows:
        """Everything remembered. Blocking; for the start."""
        return read_rows(self._db)

    def set_meta(self, key: str, value: str) -> None:
        """Store one setting. Blocking; for the start."""
        self._execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
        )

    def drop_meta(self, key: str) -> None:
        """Forget one setting. Blocking; for the start."""
        self._execute("DELETE FROM meta WHERE key = ?", (key,))

    def get_meta(self, key: str) -> str | None:
        """Read one setting. Blocking; for the start."""
        return self._meta(key)

    async def put_model(self, record: Registration) -> None:
        """Write one registered model; durable when this returns. Its place in the order stays."""
        await self._run(
            "INSERT INTO models (name, body) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body",
            (record.name, json.dumps(record.to_json())),
        )

    async def drop_model(self, name: str) -> None:
        """Forget one registered model."""
        await self._run("DELETE FROM models WHERE name = ?", (name,))

    async def put_trash(self, record: Registration, deleted_at: float) -> None:
        """Remember a deleted model."""
        await self._run(
            "INSERT INTO trash VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
            " SET body = excluded.body, deleted_at = excluded.deleted_at",
            (record.name, deleted_at, json.dumps(record.to_json())),
        )

    async def drop_trash(self, name: str) -> None:
        """Forget a deleted model."""
        await self._run("DELETE FROM trash WHERE name = ?", (name,))

    async def put_meta(self, key: str, value: str) -> None:
        """Store one setting; durable when this returns."""
        await self._run(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
        )

    async def put_node(self, record: NodeRecord) -> None:
        """Write one node."""
        await self._run(
            "INSERT INTO nodes VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            (record.id, json.dumps(record.to_json())),
        )

    async def drop_node(self, node_id: str) -> None:
        """Forget one node."""
        await self._run("DELETE FROM nodes WHERE id = ?", (node_id,))

    async def drop_unreadable(self, row: Unreadable) -> None:
        """Remove a row that cannot be used."""
        key = "id" if row.table == "nodes" else "name"
        await self._run(f"DELETE FROM {row.table} WHERE CAST({key} AS BLOB) = ?", (row.key,))  # noqa: S608

    async def _run(self, sql: str, values: tuple[Any, ...]) -> None:
        # Shielded: a caller that hangs up must not tear a write that memory is about to mirror.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._worker, self._execute, sql, values))

    def _execute(self, sql: str, values: tuple[Any, ...]) -> None:
        try:
            if self._is_gone():
                self._write_anew("was removed")
            try:
                self._try(sql, values)
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                    raise
                self._write_anew("was damaged")
                self._try(sql, values)
        except sqlite3.Error as error:
            raise _failed(error, self.path) from error
        except OSError as error:
            raise StoreFailed(f"{self.path} cannot be written ({error.strerror}).", full=error.errno == 28) from error
        self._mirror.execute(sql, values)

    def _try(self, sql: str, values: tuple[Any, ...]) -> None:
        try:
            self._db.execute(sql, values)
        except sqlite3.OperationalError:
            # On a full disk the log cannot grow. Copied into the database it starts over in the room it has.
            if self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0]:
                raise  # somebody else holds the database
            self._db.execute(sql, values)

    def _is_gone(self) -> bool:
        """True if another file, or none, is where ours was: what we write then would be lost with our process."""
        try:
            return not os.path.samestat(self.path.stat(), self._file)
        except FileNotFoundError:
            return True

    def _write_anew(self, why: str) -> None:
        """Write everything to a new file, from memory: nothing is lost, and it is the same store."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        aside = self._set_aside() if self.path.exists() else None
        for suffix in ("-wal", "-shm"):  # of a database that is gone they would only spoil the new one
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000
        )
        self._file = self.path.stat()
        self._mirror.backup(self._db)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        kept = f", kept as {aside.name}," if aside else ""
        self.notice = f"The service's database {why} while it ran{kept} and was written anew; nothing was lost."
        log.error("%s", self.notice)
        self.on_notice()

    def close(self) -> None:
        """Finish what is queued and close the file."""
        self._worker.shutdown(wait=True)
        self._db.close()
        self._mirror.close()


def _value(db: sqlite3.Connection, key: str) -> str | None:
    """A setting; None if there is none, or it is no text."""
    row = db.execute("SELECT CAST(value AS BLOB) FROM meta WHERE key = ?", (key,)).fetchone()
    text = None if row is None else row[0].decode("utf-8", "replace")
    return text if text is not None and text.isprintable() else None


def _failed(error: sqlite3.Error, path: Path) -> StoreFailed:
    """Word a database error."""
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        wait_s = BUSY_TIMEOUT_MS // 1000
        return StoreFailed(f"Another program has held the service's database for {wait_s} s; close it, or try again.")
    # Where the shared index cannot grow SQLite says "disk I/O error".
    full = name.startswith("SQLITE_FULL") or "disk is full" in str(error)
    if full or (name.startswith("SQLITE_IOERR") and _has_no_room(path)):
        return StoreFailed("The disk of the state folder is full.", full=True)
    return StoreFailed(f"The service's database failed: {error}.")


def _has_no_room(path: Path) -> bool:
    try:
        room = os.statvfs(path.parent)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < BALLAST_BYTES
