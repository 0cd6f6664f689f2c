"""A machine's whims, for the processes that have this folder on their `PYTHONPATH`.

`MODELHUB_TEST_SKEW` names a file with the seconds that the clock (`time.time()`) is ahead, `MODELHUB_TEST_SLOW` one
with the seconds that every durable write takes longer: a sync of a file, a commit of a database. Both are read each
time.
"""

from __future__ import annotations

import os
import sqlite3
import time

_skew_path, _slow_path = os.environ.get("MODELHUB_TEST_SKEW", ""), os.environ.get("MODELHUB_TEST_SLOW", "")
_real, _real_ns, _sleep, _connect = time.time, time.time_ns, time.sleep, sqlite3.connect
_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "COMMIT")


def _number(path: str) -> float:
    try:
        with open(path, encoding="ascii") as file:
            return float(file.read())
    except (OSError, ValueError):
        return 0.0


if _skew_path:
    time.time = lambda: _real() + _number(_skew_path)
    time.time_ns = lambda: _real_ns() + int(_number(_skew_path) * 1e9)

if _slow_path:

    def _slowly(real):
        def sync(fd):
            _sleep(_number(_slow_path))
            return real(fd)

        return sync

    os.fsync, os.fdatasync = _slowly(os.fsync), _slowly(os.fdatasync)

    class _Slow(sqlite3.Connection):
        """What is written alone is committed by itself; within a transaction only the commit waits for the disk."""

        def execute(self, sql, *values):
            if sql.lstrip().upper().startswith(_WRITES) and (not self.in_transaction or sql.startswith("COMMIT")):
                _sleep(_number(_slow_path))
            return super().execute(sql, *values)

        def commit(self):
            if self.in_transaction:
                _sleep(_number(_slow_path))
            super().commit()

    def _open(database, *args, **options):
        if database != ":memory:":
            options.setdefault("factory", _Slow)
        return _connect(database, *args, **options)

    sqlite3.connect = _open
