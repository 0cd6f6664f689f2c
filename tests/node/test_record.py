"""The node's record: one row for each file, a writer of its own, and what happens while nobody can write."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelhub_tui.domain import Limits
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.journal import Journal
from modelhub_tui.service.node.manifest import File
from modelhub_tui.service.node.record import Closed, Entry, Record, State
from modelhub_tui.service.node.trash import Trash

COMMIT = "a" * 40


def many(count: int) -> tuple[File, ...]:
    return tuple(File("a/b", "main", f"f{number}", 5, f"{number:064x}", commit=COMMIT) for number in range(count))


def locked_by_another(path: Path) -> sqlite3.Connection:
    """Another program in the middle of writing."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return other


def until(seen: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.01)


def test_a_change_of_one_file_writes_one_row_of_a_thousand(tmp_path: Path) -> None:
    record = Record(tmp_path / "node.db")
    entry = Entry("m", "s", files=many(1000))
    record.put(entry)
    before = record._db.total_changes
    changed = (*entry.files[:500], replace(entry.files[500], done=True), *entry.files[501:])
    record.put(replace(entry, files=changed, state=State.WHOLE))
    assert record._db.total_changes - before == 2, "the model's row, and the file's"
    again = Record(tmp_path / "node.db")
    assert again.entries() == [replace(entry, files=changed, state=State.WHOLE)]
    before = again._db.total_changes
    again.put(again.entries()[0])
    assert again._db.total_changes - before == 1, "after a start, too"


def test_other_files_take_the_place_of_all_that_were_there(tmp_path: Path) -> None:
    record = Record(tmp_path / "node.db")
    record.put(Entry("m", "s", files=many(10)))
    record.put(Entry("other", "s", files=many(3)))
    for files in ((), many(2), many(5)[2:]):
        record.put(Entry("m", "s", files=files))
        assert [each.files for each in Record(tmp_path / "node.db").entries()] == [files, many(3)]
    record.drop("m")
    assert [each.name for each in Record(tmp_path / "node.db").entries()] == ["other"]
    assert record._db.execute("SELECT count(*) FROM files").fetchone() == (3,)


def test_a_record_of_the_first_schema_is_taken_over(tmp_path: Path) -> None:
    files = many(3)
    body = {"state": "whole", "whole": True, "files": [each.as_json() for each in files]}
    db = sqlite3.connect(tmp_path / "node.db", isolation_level=None)
    db.execute(
        "CREATE TABLE models(seq INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, store TEXT, body TEXT NOT NULL)"
    )
    db.execute("INSERT INTO models(name, store, body) VALUES ('m', 's', ?)", (json.dumps(body),))
    db.execute("PRAGMA user_version = 1")
    db.close()
    entry = Entry("m", "s", state=State.WHOLE, whole=True, files=files)
    record = Record(tmp_path / "node.db")
    assert record.entries() == [entry]
    record.put(replace(entry, attempt=2))
    assert Record(tmp_path / "node.db").entries() == [replace(entry, attempt=2)]


def test_what_is_written_together_is_there_together_or_not_at_all(tmp_path: Path) -> None:
    record = Record(tmp_path / "node.db")
    record.put(Entry("m", "s", files=many(3)))
    with pytest.raises(ZeroDivisionError), record.batch():
        record.put(Entry("m", "s", files=many(9)))
        record.put(Entry("new", "s"))
        raise ZeroDivisionError
    assert Record(tmp_path / "node.db").entries() == [Entry("m", "s", files=many(3))]
    record.put(Entry("m", "s", files=many(9)))
    assert Record(tmp_path / "node.db").entries() == [Entry("m", "s", files=many(9))], "and written anew when it can be"


def test_a_lock_of_another_program_is_waited_for_and_told(tmp_path: Path) -> None:
    record = Record(tmp_path / "node.db")
    journal = Journal(record)
    other = locked_by_another(record.path)
    written = [journal.put(Entry(f"m{number}", "s")) for number in range(3)]
    until(lambda: record.trouble)
    assert str(record.path) in record.trouble
    assert not any(each.done() for each in written)
    other.close()
    for each in written:
        each.result(30)
    assert record.trouble == ""
    assert [each.name for each in Record(record.path).entries()] == ["m0", "m1", "m2"]
    journal.close()
    record.close()


def test_what_the_disk_refuses_is_told_and_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(tmp_path / "node.db")
    journal = Journal(record)
    full = threading.Event()
    real = Record._execute

    def execute(self: Record, sql: str, values: tuple[object, ...] = ()) -> None:
        if full.is_set() and sql == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")
        real(self, sql, values)

    monkeypatch.setattr(Record, "_execute", execute)
    full.set()
    first, second = journal.put(Entry("m", "s", files=many(40))), journal.put(Entry("n", "s"))
    for each in (first, second):
        with pytest.raises(sqlite3.OperationalError):
            each.result(30)
    full.clear()
    journal.put(Entry("o", "s")).result(30)
    assert [each.name for each in Record(record.path).entries()] == ["m", "n", "o"], "in the order of asking"
    journal.close()


def test_a_change_that_makes_no_sense_does_not_end_the_writer(tmp_path: Path) -> None:
    record = Record(tmp_path / "node.db")
    journal = Journal(record)
    bad, good = journal.put(Entry("\ud800", "s")), journal.put(Entry("m", "s"))
    with pytest.raises(UnicodeEncodeError):
        bad.result(30)
    good.result(30)
    assert [each.name for each in Record(record.path).entries()] == ["m"]
    journal.close()


def test_a_stop_does_not_wait_for_a_lock(tmp_path: Path) -> None:
    record = Record(tmp_path / "node.db")
    journal = Journal(record)
    other = locked_by_another(record.path)
    written = journal.put(Entry("m", "s"))
    closing = threading.Thread(target=lambda: (journal.close(), record.close()))
    closing.start()
    closing.join(20)
    assert not closing.is_alive() and not written.done()
    other.close()


def test_a_deletion_is_not_made_final_because_the_database_is_locked_or_closed(tmp_path: Path) -> None:
    cache, record = Cache(tmp_path / "hub"), Record(tmp_path / "node.db")
    file = File("a/b", "main", "f", 5, "b" * 64, commit=COMMIT, done=True, fetched=True)
    cache.prepare(file.repo, COMMIT)
    cache.blob(file.repo, "b" * 64).write_bytes(b"12345")
    cache.make_link(file)
    trash = Trash(cache, record)
    trash.limits = Limits()
    other = locked_by_another(record.path)
    failed: list[BaseException] = []

    def discard() -> None:
        try:
            trash.discard("m", "s", (file,))
        except Closed as error:
            failed.append(error)

    deleting = threading.Thread(target=discard)
    deleting.start()
    until(lambda: record._locked_since)
    record.close()
    deleting.join(30)
    other.close()
    assert failed and cache.is_whole(file), "nothing was removed without a word in the record"
