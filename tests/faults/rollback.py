"""Databases that are lost, damaged or older than they were, put in place while nobody has them open."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

DATABASES = {"router": "modelhub.db", "node": "node/node.db"}
HOWS = ("old", "old file", "no log", "gone", "zeroed", "cut", "garbage", "folder", "link")
_LOGS = ("-wal", "-shm")


def copy_databases(state: Path, into: Path) -> None:
    """Keep a copy of each, as a careful user makes one (`old`) and as one who copies the file alone (`old file`)."""
    into.mkdir(exist_ok=True)
    for who, name in DATABASES.items():
        source = state / name
        if not source.is_file():
            continue
        with closing(sqlite3.connect(source, timeout=30)) as db, closing(sqlite3.connect(into / who)) as copy:
            db.backup(copy)
        shutil.copyfile(source, into / f"{who}.file")


def damage(state: Path, copies: Path, who: str, how: str) -> bool:
    """Put a database into another state; False if there is nothing to do it with.

    Args:
        who: Of `DATABASES`.
        how: Of `HOWS`.
    """
    path = state / DATABASES[who]
    if not path.is_file():
        return False
    size = path.stat().st_size
    if how not in ("zeroed", "cut"):  # these leave the log, which may or may not save it
        for suffix in _LOGS:
            Path(f"{path}{suffix}").unlink(missing_ok=True)
    match how:
        case "old" | "old file":
            copy = copies / (who if how == "old" else f"{who}.file")
            if not copy.is_file():
                return False
            shutil.copyfile(copy, path)
        case "gone":
            path.unlink()
        case "zeroed":
            path.write_bytes(bytes(size))
        case "cut":
            os.truncate(path, size // 2)
        case "garbage":
            path.write_bytes(b"no database at all" * 1000)
        case "folder":
            path.unlink()
            path.mkdir()
        case "link":
            path.unlink()
            path.symlink_to(path.parent / "nowhere" / "at-all.db")
    return True


def words(state: Path, who: str) -> list[str] | None:
    """All that a database says, with its log, without touching either; None if it says nothing.

    Only for comparison: what is read of a damaged one may be anything.
    """
    path = state / DATABASES[who]
    if not path.is_file():
        return None
    copy = state.parent / f"looked-at-{who}.db"
    try:
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}") if Path(f"{path}{suffix}").exists() else None
        with closing(sqlite3.connect(copy)) as db:
            return list(db.iterdump())
    except sqlite3.Error:
        return None
    finally:
        for suffix in ("", *_LOGS):
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
