"""What is left to do, as the databases of a service say that was killed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from modelhub_tui.cli import main as command_line
from modelhub_tui.service.node.record import Entry, Record, State
from modelhub_tui.service.router.store import Store
from modelhub_tui.service.unfinished import unfinished


def left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two to fetch, of which the node has heard of one; one whole, one failed, one that nobody registered any more.

    The databases stay open: what is in them is not yet where a clean end would put it.
    """
    store = Store(folder / "modelhub.db")
    record = Record(folder / "node" / "node.db")
    monkeypatch.setattr("tests.service.test_unfinished._kept", [store, record], raising=False)
    with sqlite3.connect(folder / "modelhub.db") as db:
        db.executemany("INSERT INTO models (name, body) VALUES (?, '{}')", [(each,) for each in ("a", "b", "c", "d")])
    record.put(Entry("a", None))
    record.put(Entry("c", None, state=State.WHOLE))
    record.put(Entry("d", None, state=State.FAILED))
    record.put(Entry("gone", None))


def hold(folder: Path, name: str) -> None:
    with sqlite3.connect(folder / "modelhub.db") as db:
        db.execute("UPDATE models SET body = json_set(body, '$.paused', json('true')) WHERE name = ?", (name,))


def test_it_counts_what_is_registered_and_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unfinished(tmp_path) == (0, 0)
    left(tmp_path, monkeypatch)
    assert unfinished(tmp_path) == (2, 0)
    hold(tmp_path, "c")
    assert unfinished(tmp_path) == (2, 0), "what is whole is not held"
    hold(tmp_path, "a")
    assert unfinished(tmp_path) == (2, 1)


def test_what_cannot_be_read_is_nothing_to_speak_of(tmp_path: Path) -> None:
    (tmp_path / "modelhub.db").write_bytes(b"no database" * 100)
    assert unfinished(tmp_path) == (0, 0)


def test_status_says_so_and_starts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODELHUB_STATE_DIR", str(tmp_path))
    left(tmp_path, monkeypatch)
    before = {each.name for each in tmp_path.iterdir()}
    assert command_line(["status"]) == 0
    said = capsys.readouterr()
    assert "No service runs" in said.out
    assert "2 downloads are unfinished. `modelhub` goes on with them" in said.err
    assert {each.name for each in tmp_path.iterdir()} == before
    hold(tmp_path, "a")
    command_line(["status"])
    said = capsys.readouterr()
    assert "2 downloads are unfinished, 1 of them on hold. `modelhub` goes on with the other," in said.err
    hold(tmp_path, "b")
    command_line(["status"])
    assert capsys.readouterr().err == "2 downloads are unfinished and on hold; `modelhub resume` lets them go on.\n"
