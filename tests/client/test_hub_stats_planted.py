"""A hub-stats cache that somebody else wrote: nothing outside it changes, nothing waits, and the cache works again."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import sqlite3
import stat
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelhub_tui import hub_stats_disk
from modelhub_tui.domain import HubStats
from modelhub_tui.hub_stats import HubStatsCache

NOW = 1_800_000_000.0
PAYLOAD = b"-----BEGIN OPENSSH PRIVATE KEY-----\n"


class Home:
    """A home with a cache of ours in it, closed, that an attacker may write, and a file that must stay."""

    def __init__(self, home: Path) -> None:
        self.victim = home / "id_rsa"
        self.victim.write_bytes(PAYLOAD)
        self.folder = home / "cache" / "hub-stats"
        self.database = self.folder / "cache.db"
        cache = self.cache()
        for number in range(20):
            cache.put(f"a/b{number}", downloads=1, likes=2)
        cache.close()

    def cache(self) -> HubStatsCache:
        return HubStatsCache(self.folder, clock=lambda: NOW)

    def sql(self, *statements: str, values: tuple[object, ...] = ()) -> None:
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None)) as db:
            for each in statements:
                db.execute(each, values)

    def replace(self, name: str) -> Path:
        """A path in the folder, free for something else."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        return path

    def open(self) -> HubStatsCache:
        """A cache that looked at the folder before it was changed."""
        cache = self.cache()
        assert cache.get_many(["c/d"]) == {}
        return cache

    def use(self, cache: HubStatsCache) -> None:
        """Everything the program does with a cache, many times over."""
        assert set(cache.get_many([f"a/b{number}" for number in range(20)]).values()) <= {
            HubStats(1, 2),
            HubStats(3, 4),
        }
        for number in range(40):
            cache.put(f"a/b{number}", downloads=3, likes=4)
            cache.stale([f"a/b{number}"])
        cache.put_failure("c/d", 404)
        cache.close()
        assert self.victim.read_bytes() == PAYLOAD

    def works(self) -> None:
        """What the program writes now is there next time."""
        self.use(self.cache())
        cache = self.cache()
        known = cache.get_many([f"a/b{number}" for number in range(40)])
        cache.close()
        assert set(known.values()) == {HubStats(3, 4)} and len(known) == 40
        assert self.victim.read_bytes() == PAYLOAD


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    yield home
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before


# A trigger and a view that never end.
_ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["../../id_rsa", "{home}/id_rsa", "pipe", "device", ""])
@pytest.mark.parametrize("expired", [False, True])
@pytest.mark.parametrize("is_open", [False, True])
def test_a_row_that_names_a_file_is_none(home: Home, name: str, mode: int, expired: bool, is_open: bool) -> None:
    cache = home.open() if is_open else home.cache()
    os.mkfifo(home.folder / "pipe")
    _device(home.folder / "device", home)
    home.sql("UPDATE Cache SET mode = ?, filename = ?", values=(mode, name.format(home=home.victim.parent)))
    home.sql(f"UPDATE Cache SET expire_time = {1 if expired else 9e9}, size = 100000000, value = NULL")
    home.use(cache)
    home.works()


@pytest.mark.parametrize("column", ["filename", "value", "tag", "expire_time", "mode"])
def test_a_row_with_a_text_that_is_none_is_none(home: Home, column: str) -> None:
    home.sql(f"UPDATE Cache SET {column} = CAST(x'ff' AS TEXT)")
    home.works()


class Touch:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pickle-ran",)


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("column", ["value", "key"])
def test_a_pickle_never_loads(
    home: Home, column: str, is_open: bool, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    here = tmp_path_factory.mktemp("here")
    monkeypatch.chdir(here)
    cache = home.open() if is_open else home.cache()
    home.sql("DELETE FROM Cache WHERE rowid > 1")
    home.sql(f"UPDATE Cache SET mode = 4, raw = 0, {column} = ?", values=(pickle.dumps(Touch()),))
    home.use(cache)
    home.works()
    assert os.listdir(here) == []


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(lambda: b"\0" * 200_000_000, id="zeros"),
        pytest.param(lambda: b"[" * 100_000, id="deep"),
        pytest.param(lambda: b'{"ok":1,"at":1' + b"0" * 4000 + b"}", id="number"),
        pytest.param(lambda: b"", id="empty"),
    ],
)
@pytest.mark.parametrize("is_open", [False, True])
def test_a_bomb_is_not_unpacked(home: Home, value: Callable[[], bytes], is_open: bool) -> None:
    cache = home.open() if is_open else home.cache()
    home.sql("UPDATE Cache SET value = ?", values=(zlib.compress(value()),))
    tracemalloc.start()
    try:
        home.use(cache)
        home.works()
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "statements",
    [
        ["ALTER TABLE Cache RENAME TO Old", f"CREATE VIEW Cache AS {_ENDLESS}"],
        [f"CREATE TRIGGER mine AFTER INSERT ON Cache BEGIN INSERT INTO Settings {_ENDLESS}; END"],
        ["DROP TRIGGER Settings_count_insert", "CREATE TRIGGER Settings_count_insert AFTER INSERT ON Cache BEGIN"
         f" UPDATE Settings SET value = ({_ENDLESS}); END"],
        ["CREATE INDEX mine ON Cache (length(zeroblob(100000000)))"],
        ["DROP INDEX Cache_store_time", "CREATE INDEX Cache_store_time ON Cache (rowid, hex(value))"],
        ["CREATE VIRTUAL TABLE mine USING fts5(text)"],
        ["DROP TABLE Settings", f"CREATE VIEW Settings AS SELECT 'size' AS key, ({_ENDLESS}) AS value"],
        ["ALTER TABLE Cache ADD COLUMN mine DEFAULT 1"],
    ],
)  # fmt: skip
def test_a_schema_that_is_not_ours_never_runs(home: Home, statements: list[str]) -> None:
    home.sql(*statements)
    home.works()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_directory", "{home}/elsewhere"),
        ("set", 1),
        ("get", "x"),
        ("_sql", "x"),
        ("disk__directory", "{home}"),
        ("disk_directory", "{home}"),
        ("disk_min_file_size", 0),
        ("disk_compress_level", 77),
        ("sqlite_temp_store_directory", "'{home}/elsewhere'"),
        ("sqlite_writable_schema", 1),
        ("sqlite_mmap_size", 2**40),
        ("sqlite_locking_mode", "exclusive"),
        ("eviction_policy", "nonsense"),
        ("size_limit", -1),
        ("cull_limit", 2**60),
        ("statistics", 1),
        ("size", -(2**60)),
        ("size", "many"),
        ("count", "many"),
        ("count", None),
    ],
)
def test_a_setting_that_is_not_ours_is_not_believed(home: Home, key: str, value: object) -> None:
    text = value.format(home=home.victim.parent) if isinstance(value, str) else value
    home.sql("INSERT OR REPLACE INTO Settings VALUES (?, ?)", values=(key, text))
    home.works()


FILES = ["cache.db", "cache.db-wal", "cache.db-shm", "cache.db-journal"]


def _pipe(path: Path, home: Home) -> None:
    os.mkfifo(path)


def _folder(path: Path, home: Home) -> None:
    path.mkdir()


def _link(path: Path, home: Home) -> None:
    path.symlink_to(home.victim)


def _device(path: Path, home: Home) -> None:
    """One that never ends; our own node of it, as root may remove whatever these tests name."""
    try:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        path.symlink_to("/dev/zero")  # which only root could harm


def _hard_link(path: Path, home: Home) -> None:
    path.hardlink_to(home.victim)


def _huge(path: Path, home: Home) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def _strangers(path: Path, home: Home) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    path.write_bytes(b"")
    os.chown(path, 65534, 65534)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("plant", [_pipe, _folder, _link, _device, _hard_link, _huge, _strangers])
def test_what_is_no_file_of_ours_is_never_opened(home: Home, name: str, plant: Callable[[Path, Home], None]) -> None:
    plant(home.replace(name), home)
    home.works()


def _journal(superior: Path) -> bytes:
    """A rollback journal of no pages that names its superior, as SQLite writes one for several databases at once."""
    magic, name = bytes.fromhex("d9d505f920a163d7"), os.fsencode(superior)
    head = magic + struct.pack(">IIIII", 0, 1, 0, 512, 4096)
    tail = struct.pack(">I", 2**30 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name)) + magic
    return head.ljust(512, b"\0") + tail


def test_a_journal_that_names_a_file_removes_nothing(home: Home, tmp_path: Path) -> None:
    (home.folder / "cache.db-journal").write_bytes(_journal(home.victim))
    home.works()
    # The attack is real: SQLite by itself removes the file.
    other, gone = tmp_path / "cache" / "other.db", tmp_path / "cache" / "gone"
    with contextlib.closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE t (x)")
    gone.write_bytes(PAYLOAD)
    Path(f"{other}-journal").write_bytes(_journal(gone))
    with contextlib.closing(sqlite3.connect(other)) as db, contextlib.suppress(sqlite3.Error):
        db.execute("SELECT * FROM t")
    assert not gone.exists()


def test_damage_of_any_kind_costs_no_more_than_the_cache(home: Home) -> None:
    whole = home.database.read_bytes()
    chance = random.Random(7)
    for _ in range(60):
        spoiled = bytearray(whole)
        for _ in range(chance.randrange(1, 30)):
            spoiled[chance.randrange(len(spoiled))] = chance.choice(
                [0, 1, 2, 5, 10, 13, 127, 255, chance.randrange(256)]
            )
        for each in home.folder.iterdir():
            each.unlink()
        home.database.write_bytes(spoiled)
        cache = home.cache()
        cache.get_many([f"a/b{number}" for number in range(20)])
        cache.put("a/b", downloads=3, likes=4)
        cache.close()
        assert cache.get_many(["a/b"]) == {"a/b": HubStats(3, 4)}
        cache.close()


def test_what_stands_where_it_is_set_aside_is_no_obstacle(home: Home) -> None:
    aside = home.folder.with_name("hub-stats.corrupt")
    aside.symlink_to(home.victim.parent)
    home.database.write_bytes(b"this is no database" * 500)
    home.works()
    assert aside.is_dir() and not aside.is_symlink()


def test_a_folder_whose_name_holds_a_variable_is_not_taken_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELSEWHERE", "gone")
    cache = HubStatsCache(tmp_path / "$ELSEWHERE" / "hub-stats", clock=lambda: NOW)
    cache.put("a/b", downloads=1, likes=2)
    assert cache.get_many(["a/b"]) == {"a/b": HubStats(1, 2)}
    cache.close()
    assert not (tmp_path / "gone").exists()


def test_another_process_at_the_folder_is_not_waited_for_long(home: Home) -> None:
    with contextlib.closing(sqlite3.connect(home.database, isolation_level=None)) as db:
        db.execute("BEGIN EXCLUSIVE")
        cache = home.cache()
        assert cache.get_many([f"a/b{number}" for number in range(20)]) == {}
        cache.put("a/b", downloads=1, likes=2)
        assert cache.get_many(["a/b"]) == {"a/b": HubStats(1, 2)}
        cache.close()


@pytest.mark.parametrize(
    "planted",
    [
        (f"CREATE TRIGGER t AFTER INSERT ON Cache BEGIN {_ENDLESS}; END",),
        (f"CREATE TRIGGER t AFTER UPDATE ON Settings BEGIN {_ENDLESS}; END",),
        ("ALTER TABLE Cache RENAME TO C", f"CREATE VIEW Cache AS {_ENDLESS}"),
        ("ALTER TABLE Settings RENAME TO S", f"CREATE VIEW Settings(key, value) AS SELECT 'sqlite_x', ({_ENDLESS})"),
    ],
    ids=["a row", "its count", "a look", "a setting"],
)
@pytest.mark.parametrize("connected", [True, False], ids=["connected", "another thread"])
@pytest.mark.timeout(60, method="thread")  # a signal does not end a statement
def test_work_without_end_that_is_planted_while_it_is_open_is_interrupted_and_set_aside(
    home: Home, monkeypatch: pytest.MonkeyPatch, planted: tuple[str, ...], connected: bool
) -> None:
    monkeypatch.setattr(hub_stats_disk, "_WORK_S", 0.2)
    cache = home.open()
    home.sql(*planted)
    if connected:
        home.use(cache)
    else:
        with ThreadPoolExecutor(1) as worker:
            worker.submit(home.use, cache).result()
    cache.close()
    home.works()
