"""SQLite under the router: what it has acknowledged survives `kill -9` and a power cut.

One connection, used by one thread; the event loop awaits it. Reads happen once, at start: from then on the router
answers from memory and writes through, so while it runs memory is right, whatever becomes of the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modelhub_tui.identifiers import whole_number
from modelhub_tui.service.router import rows
from modelhub_tui.service.router.records import is_identity
from modelhub_tui.service.router.rows import SCHEMA_VERSION, Rows, Write, read_rows
from modelhub_tui.service.witness import Witness, aside_of, is_empty, is_no_file, set_aside

log = logging.getLogger(__name__)

BUSY_TIMEOUT_MS = 5000
LONGEST_PATH_BYTES = 500
"""SQLite takes 512, with what it appends."""
BALLAST_BYTES = 256 * 1024
"""Room that the files keep in reserve: on a full disk a person must still be able to delete models."""
_COUNT_ON = "UPDATE meta SET value = CAST(CAST(value AS INTEGER) + 1 AS TEXT) WHERE key = 'count'"
_FOUND_AGAIN = "Models on the disk are not removed: those it does not know are listed as found."


class StoreFailed(Exception):
    """The database cannot be written. `full` is True when the disk has no space left."""

    def __init__(self, reason: str, *, full: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.full = reason, full


class StoreTooNew(Exception):
    """The database was written by a newer version of this program."""


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
        self._witness = Witness(path)
        if len(os.fsencode(path)) > LONGEST_PATH_BYTES:
            raise StoreFailed(f"The state folder's path is too long for a database: {path.parent}.")
        try:
            self._db = self._open()
        except sqlite3.Error as error:
            raise _failed(error, self.path) from error
        except OSError as error:
            raise StoreFailed(f"{path} cannot be opened ({error.strerror}).", full=error.errno == 28) from error
        self._make_room()
        self._mirror = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        """What the file is to hold, for when the file is damaged, replaced or removed under us."""
        self._db.backup(self._mirror)
        self._left: tuple[tuple[int, int, int] | None, ...] = self._signature()
        """How we left the file."""
        self.id = self.get_meta("store_id") or ""
        """Identity of this database; a new one when it is not, or no longer, what it was."""

    def _open(self) -> sqlite3.Connection:
        before = self._witness.read()
        fresh = False
        if is_no_file(self.path) or (is_empty(self.path) and before is not None):
            what = "was no file" if is_no_file(self.path) else "was missing or empty"
            aside = set_aside(self.path)
            self._note(f"The service's database {what}; a new one was started. {_FOUND_AGAIN}", aside)
            fresh = True
        try:
            db = self._connect()
        except sqlite3.DatabaseError as error:
            # OperationalError is "locked", "full", "unable to open": the file itself may be sound.
            if isinstance(error, sqlite3.OperationalError):
                raise
            aside = set_aside(self.path)
            self._note(f"The service's database was damaged. It was kept as {aside.name} and a new one was started.")
            log.error("%s", error)
            db, fresh = self._connect(), True
        if before is not None and not fresh:
            self._compare(db, *before)
        self._witness.write(_value(db, "store_id") or "", _count(db))
        return db

    def _compare(self, db: sqlite3.Connection, identity: str, count: int) -> None:
        """See whether this is the database that was written last, and as it was then."""
        if _value(db, "store_id") == identity and _count(db) >= count:
            return
        # Its numbers will be given anew, to other changes: it is another store from here on.
        db.execute("UPDATE meta SET value = ? WHERE key = 'store_id'", (str(uuid.uuid4()),))
        self._note(f"The service's database is an older one than it last wrote, or another's. {_FOUND_AGAIN}")

    def _note(self, notice: str, aside: Path | None = None) -> None:
        kept = f" What was there was kept as {aside.name}." if aside is not None and os.path.lexists(aside) else ""
        self.notice = notice + kept
        log.error("%s", self.notice)

    def _connect(self) -> sqlite3.Connection:
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        self.path.chmod(0o600)
        db = self._connection()
        try:
            db.execute("PRAGMA journal_mode = WAL")
            # FULL: an acknowledged registration is on the platter, not in the page cache.
            db.execute("PRAGMA synchronous = FULL")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise StoreTooNew(f"{self.path} was written by a newer modelhub (schema {version}).")
            if version < SCHEMA_VERSION:
                rows.upgrade(db, version)
            found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            db.execute("INSERT OR IGNORE INTO meta VALUES ('count', '0')")
            rows.identify(db)  # finds what no check of SQLite's looks at
            if not is_identity(_value(db, "store_id")):
                log.error("the database has lost its identity and gets a new one")
                db.execute("INSERT OR REPLACE INTO meta VALUES ('store_id', ?)", (str(uuid.uuid4()),))
        except BaseException:
            db.close()
            raise
        return db

    def _connection(self) -> sqlite3.Connection:
        timeout_s = BUSY_TIMEOUT_MS / 1000
        return sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=timeout_s)

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

    def load(self) -> Rows:
        """Everything remembered. Blocking; for the start."""
        return read_rows(self._db)

    def get_meta(self, key: str) -> str | None:
        """Read one setting. Blocking; for the start."""
        return _value(self._db, key)

    async def apply(self, writes: Iterable[Write]) -> None:
        """Write what belongs together, all of it or nothing; durable when this returns.

        Raises:
            StoreFailed: It cannot be written; nothing of it is.
        """
        # Shielded: a caller that hangs up must not tear a write that memory is about to mirror.
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._worker, self.apply_now, tuple(writes)))

    async def check(self) -> None:
        """See whether somebody has removed or changed the file, and write it anew then.

        Raises:
            StoreFailed: It cannot be written.
        """
        await asyncio.get_running_loop().run_in_executor(self._worker, self._guarded, self._mend)

    def apply_now(self, writes: Iterable[Write]) -> None:
        """The same, blocking; for the start.

        Raises:
            StoreFailed: It cannot be written; nothing of it is.
        """
        self._guarded(lambda: self._apply(tuple(writes)))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except sqlite3.Error as error:
            raise _failed(error, self.path) from error
        except OSError as error:
            raise StoreFailed(f"{self.path} cannot be written ({error.strerror}).", full=error.errno == 28) from error

    def _apply(self, writes: tuple[Write, ...]) -> None:
        self._mend()
        try:
            self._try(writes)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            self._write_anew("was damaged")
            self._try(writes)
        _transaction(self._mirror, writes)
        self._witness.write(self.id, _count(self._mirror))

    def _try(self, writes: tuple[Write, ...]) -> None:
        try:
            _transaction(self._db, writes)
        except sqlite3.OperationalError:
            # On a full disk the log cannot grow. Copied into the database it starts over in the room it has.
            if self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0]:
                raise  # somebody else holds the database
            _transaction(self._db, writes)
        finally:
            self._left = self._signature()

    def _mend(self) -> None:
        """Write the file anew if it is not as we left it: what we write into such a one would be lost, or spoil it."""
        now = self._signature()
        if now == self._left:
            return
        self._write_anew("was changed or replaced" if now[0] is not None else "was removed")

    def _signature(self) -> tuple[tuple[int, int, int] | None, ...]:
        """What changes when somebody else writes the database, or its log."""
        return tuple(_stamp(self.path.with_name(self.path.name + suffix)) for suffix in ("", "-wal"))

    def _write_anew(self, why: str) -> None:
        """Write everything to a new file, from memory: nothing is lost, and it is the same store."""
        self._left = ()  # until this is done it is to be done again
        aside = aside_of(self.path)
        if self.path.is_file() and not self.path.is_symlink():
            # A copy: closing our connection writes into the file that is there.
            with contextlib.suppress(OSError):
                shutil.copyfile(self.path, aside)
                aside.chmod(0o600)
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        if os.path.lexists(self.path):
            if os.path.lexists(aside):
                self.path.unlink()
            else:
                self.path.rename(aside)
        for suffix in ("-wal", "-shm"):  # of a database that is gone they would only spoil the new one
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        self._db = self._connection()
        self._mirror.backup(self._db)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._left = self._signature()
        kept = f", kept as {aside.name}," if os.path.lexists(aside) else ""
        self._note(f"The service's database {why} while it ran{kept} and was written anew; nothing was lost.")
        self.on_notice()

    def close(self) -> None:
        """Finish what is queued and close the file."""
        self._worker.shutdown(wait=True)
        try:
            self._guarded(self._mend)
        except StoreFailed as error:
            log.error("store: %s", error.reason)
        self._db.close()
        self._mirror.close()


def _transaction(db: sqlite3.Connection, writes: tuple[Write, ...]) -> None:
    db.execute("BEGIN IMMEDIATE")
    try:
        for sql, values in writes:
            db.execute(sql, values)
        db.execute(_COUNT_ON)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        told = path.lstat()
    except FileNotFoundError:
        return None
    return told.st_ino, told.st_size, told.st_mtime_ns


def _count(db: sqlite3.Connection) -> int:
    """How many changes were written to a database."""
    return whole_number(_value(db, "count")) or 0


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
