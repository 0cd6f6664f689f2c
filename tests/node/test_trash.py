"""Deleted models in the cache: what moves, what stays, what comes back; and a process killed between any two steps."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelhub_tui.domain import Limits
from modelhub_tui.service.node import record, removal
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.manifest import File
from modelhub_tui.service.node.record import Record
from modelhub_tui.service.node.trash import Trash

REPO, COMMIT, OTHER = "acme/tiny", "a" * 40, "b" * 40
STORE = "store-1"


class Clock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Place:
    """A cache with a trash, as a node has them."""

    def __init__(self, home: Path, **limits: int) -> None:
        self.cache = Cache(home / "hub")
        self.wall, self.monotonic = Clock(), Clock(0.0)
        self.path = home / "node.db"
        self.limits = Limits(**limits)
        self.open()

    def open(self) -> Trash:
        """As a start of the process does it."""
        self.record = Record(self.path)
        self.trash = Trash(self.cache, self.record, clock=self.wall, monotonic=self.monotonic)
        self.trash.limits = self.limits
        return self.trash

    def reopen(self) -> Trash:
        self.record.close()
        self.open().recover()
        return self.trash

    def put(self, path: str, content: bytes, *, repo: str = REPO, commit: str = COMMIT) -> File:
        """A whole file in the cache, checked."""
        etag = hashlib.sha256(content).hexdigest()
        file = File(repo, commit, path, len(content), etag, commit=commit, done=True, fetched=True)
        self.cache.prepare(repo, commit)
        self.cache.blob(repo, etag).write_bytes(content)
        self.cache.make_link(file)
        return file

    def tree(self) -> dict[str, str]:
        """Everything below the cache, links with their targets."""
        return {
            str(path.relative_to(self.cache.root)): os.readlink(path) if path.is_symlink() else "file"
            for path in sorted(self.cache.root.glob("models--*/**/*"))
            if path.is_symlink() or path.is_file()
        }

    def scan(self) -> Any:
        """The library's view, which must have nothing to complain about."""
        from huggingface_hub import scan_cache_dir

        info = scan_cache_dir(self.cache.root)
        assert info.warnings == []
        return info


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.record.close()


def bytes_of(place: Place, file: File) -> bytes:
    return place.cache.path_of(file).read_bytes()


def test_a_deleted_model_is_hidden_from_everybody_and_comes_back_as_it_was(place: Place) -> None:
    files = (place.put("tiny.gguf", b"weights" * 1000), place.put("deep/mmproj.gguf", b"projector" * 100))
    place.cache.write_ref(REPO, "main", COMMIT)
    before = place.tree()
    place.trash.discard("tiny", STORE, files)
    info = place.scan()
    assert not any(file.file_path for repo in info.repos for rev in repo.revisions for file in rev.files)
    assert sorted(place.tree()) == sorted(f"models--acme--tiny/blobs/{file.etag}.modelhub.trash" for file in files)
    assert [(name, store) for name, store, _ in place.trash.heap.names] == [("tiny", STORE)]
    assert place.trash.heap.bytes >= sum(file.size or 0 for file in files)

    plain = tuple(replace(file, done=False, fetched=False) for file in files)  # as a manifest gives them
    assert place.trash.bring_back(plain) == files
    place.trash.settle("tiny")
    assert place.tree() == before
    assert place.trash.heap.names == () and place.trash.heap.bytes == 0
    assert bytes_of(place, files[0]) == b"weights" * 1000
    place.scan()


def test_nothing_moves_that_anything_else_uses(place: Place, tmp_path: Path) -> None:
    shared = b"shared by two revisions"
    mine, other = place.put("a.gguf", shared), place.put("a.gguf", shared, commit=OTHER)
    common = place.put("mmproj.gguf", b"used by another model we hold")
    alone = place.put("b.gguf", b"mine alone")
    own = tmp_path / "my-own.gguf"
    own.write_bytes(b"the user's own file")
    linked = File(REPO, COMMIT, "own.gguf", 19, "c" * 64, commit=COMMIT, done=True)
    place.cache.path_of(linked).symlink_to(own)
    place.trash.discard("tiny", STORE, (mine, common, alone, linked), keep=[common])
    blobs = place.cache.repo_dir(REPO) / "blobs"
    assert {each.name for each in blobs.iterdir()} == {mine.etag, common.etag, f"{alone.etag}.modelhub.trash"}
    assert bytes_of(place, other) == shared and bytes_of(place, common) == b"used by another model we hold"
    assert place.cache.path_of(linked).is_symlink() and own.read_bytes() == b"the user's own file"
    assert not place.cache.path_of(mine).exists() and not place.cache.path_of(alone).exists()
    place.trash.free(["tiny"])
    assert bytes_of(place, other) == shared and bytes_of(place, common) == b"used by another model we hold"


def test_a_blob_that_is_gone_is_all_that_has_to_be_fetched_again(place: Place) -> None:
    kept, lost = place.put("1.gguf", b"one"), place.put("2.gguf", b"two")
    place.trash.discard("tiny", STORE, (kept, lost))
    assert lost.etag
    place.cache.trashed(REPO, lost.etag).unlink()
    place.reopen()
    back = place.trash.bring_back([replace(each, done=False) for each in (kept, lost)])
    assert [each.done for each in back] == [True, False]
    place.trash.settle("tiny")
    assert bytes_of(place, kept) == b"one" and place.trash.heap.names == ()


def test_a_damaged_length_is_not_brought_back(place: Place) -> None:
    file = place.put("1.gguf", b"one")
    place.trash.discard("tiny", STORE, (file,))
    assert file.etag
    place.cache.trashed(REPO, file.etag).write_bytes(b"o")
    assert [each.done for each in place.trash.bring_back([replace(file, done=False)])] == [False]
    place.trash.settle("tiny")
    assert place.tree() == {}


def test_another_model_takes_a_shared_blob_out_of_the_trash(place: Place) -> None:
    mine, common = place.put("1.gguf", b"one"), place.put("mmproj.gguf", b"projector")
    place.trash.discard("tiny", STORE, (mine, common))
    (back,) = place.trash.bring_back([replace(common, done=False, fetched=False)])
    place.trash.settle("other")
    assert back.done and bytes_of(place, common) == b"projector"
    assert [name for name, _, _ in place.trash.heap.names] == ["tiny"]
    place.trash.free(["tiny"])
    assert bytes_of(place, common) == b"projector" and place.trash.heap.bytes == 0


def test_only_what_can_be_freed_is_promised(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    common, mine, other = place.put("c", b"c" * 9000), place.put("1", b"1" * 9000), place.put("2", b"2" * 9000)
    place.trash.discard("one", STORE, (common, mine), keep=[common])
    place.trash.discard("two", STORE, (other,))
    one, two = (size for _, _, size in place.trash.heap.names)
    assert place.trash.heap.reclaimable == one + two >= 18_000, "the shared file is not in it"
    assert mine.etag
    os.link(place.cache.trashed(REPO, mine.etag), place.cache.root / "somebody-elses")
    assert place.reopen().heap.reclaimable == two
    real = Path.unlink

    def stuck(self: Path, missing_ok: bool = False) -> None:
        if self == place.cache.trashed(REPO, str(other.etag)):
            raise PermissionError(13, "immutable")
        real(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", stuck)
    assert place.trash.make_room(1) == 0
    assert place.trash.heap.reclaimable == 0 and place.trash.heap.bytes == two


def test_too_old_and_too_much_is_freed_the_oldest_first(tmp_path: Path) -> None:
    place = Place(tmp_path, trash_seconds=100, trash_bytes=200_000)
    for number in range(4):
        place.monotonic.now += 10
        place.trash.discard(str(number), STORE, (place.put(f"{number}.gguf", os.urandom(65_536)),))
    # Three of 64 KiB fit into 200,000 bytes.
    assert [name for name, _, _ in place.trash.heap.names] == ["1", "2", "3"]
    place.monotonic.now += 85  # "1" is 105 s old now, "2" 95 s
    place.trash.maintain()
    assert [name for name, _, _ in place.trash.heap.names] == ["2", "3"]
    won = place.trash.make_room(1)
    assert won >= 65_536
    assert [name for name, _, _ in place.trash.heap.names] == ["3"]
    # Over a restart the wall clock counts on; while it runs, a wall clock that jumps changes nothing.
    place.wall.now += 3600
    place.trash.maintain()
    assert [name for name, _, _ in place.trash.heap.names] == ["3"]
    place.reopen()
    assert place.trash.heap.names == () and place.tree() == {}
    place.record.close()


@pytest.mark.parametrize("limits", [{"trash_seconds": 0}, {"trash_bytes": 10}])
def test_without_room_for_it_a_model_is_freed_at_once(tmp_path: Path, limits: dict[str, int]) -> None:
    place = Place(tmp_path, **limits)
    place.trash.discard("tiny", STORE, (place.put("1.gguf", b"0123456789ab"),))
    assert place.tree() == {} and place.trash.heap.names == ()
    place.record.close()


def test_an_order_frees_the_registration_it_names_and_no_other(place: Place) -> None:
    for name in ("kept", "ordered"):
        file = place.put(f"{name}.gguf", name.encode())
        place.trash.discard(name, STORE, (file,), registration=f"r-{name}")
    assert place.trash.heap.registrations == {"r-kept", "r-ordered"}
    assert place.trash.ordered(["r-ordered", "r-of-before"]) == ["ordered"]
    place.trash.free(place.trash.ordered(["r-ordered", "r-of-before"]))
    assert [name for name, _, _ in place.trash.heap.names] == ["kept"]


def test_what_nobody_remembers_is_taken_in_and_freed_in_time(place: Place) -> None:
    file = place.put("1.gguf", b"one")
    place.trash.discard("tiny", STORE, (file,))
    place.record.close()
    place.path.unlink()  # the node's record is lost
    for suffix in ("-wal", "-shm"):
        Path(f"{place.path}{suffix}").unlink(missing_ok=True)
    place.open().recover()
    assert place.trash.heap.bytes > 0
    # Its content is looked at again: nobody remembers that it was checked.
    (back,) = place.trash.bring_back([replace(file, done=False)])
    assert bytes_of(place, file) == b"one" and not back.done
    place.trash.settle("tiny")
    assert place.trash.heap.names == ()
    place.trash.discard("tiny", STORE, (file,))
    place.record.drop_trash("tiny")
    place.reopen()
    place.monotonic.now += 3601
    place.trash.maintain()
    assert place.tree() == {}


def test_deleting_the_same_name_again_keeps_both_and_frees_both(place: Place) -> None:
    first, second = place.put("1.gguf", b"first"), place.put("1.gguf", b"second one", commit=OTHER)
    place.trash.discard("tiny", STORE, (first,))
    place.trash.discard("tiny", STORE, (second,))
    assert len(place.tree()) == 2
    place.trash.free(["tiny"])
    assert place.tree() == {}


def test_the_librarys_own_commands_work_beside_a_trash(place: Place) -> None:
    """`hf cache prune` and `hf cache rm`, as a user would run them; `hf cache ls` shows what `scan()` sees."""
    file = place.put("1.gguf", b"one")
    place.trash.discard("tiny", STORE, (file,))
    other = place.put("2.gguf", b"two", repo="acme/other")  # detached: `prune` takes it
    env = {**os.environ, "HF_HUB_CACHE": str(place.cache.root), "HF_HUB_DISABLE_TELEMETRY": "1"}
    hf = str(Path(sys.executable).with_name("hf"))
    for words in (["prune", "-y"], ["rm", "model/acme/other", "-y"]):
        ran = subprocess.run([hf, "cache", *words], env=env, capture_output=True, text=True, timeout=60)
        assert "Traceback" not in ran.stderr and "orrupt" not in ran.stdout + ran.stderr, ran.stderr
    assert not place.cache.path_of(other).exists()
    assert place.trash.bring_back([replace(file, done=False)])[0].done
    place.scan()


def test_a_record_that_cannot_be_written_does_not_keep_anybody_from_deleting(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = place.put("1.gguf", b"first"), place.put("2.gguf", b"second")
    place.trash.discard("one", STORE, (first,))

    def full(self: Record, sql: str, values: tuple[object, ...]) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Record, "_write", full)
        place.trash.discard("two", STORE, (second,))  # at once and for good: that is what a full disk needs
        assert not place.cache.path_of(second).exists() and len(place.tree()) == 1
        assert place.trash.make_room(1) > 0
        assert place.tree() == {} and place.trash.heap.bytes == 0
    place.reopen()
    assert place.trash.heap.names == ()


def test_a_record_on_a_full_disk_is_not_taken_for_a_damaged_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.trash.discard("one", STORE, (place.put("1.gguf", b"first"),))
    place.record.close()

    def full(_path: Path) -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("modelhub_tui.service.node.record._open", full)
        with pytest.raises(sqlite3.OperationalError):
            place.open()
    place.open()
    assert [name for name, _, _ in place.trash.heap.names] == ["one"]


def test_a_full_disk_leaves_room_for_the_record(tmp_path: Path) -> None:
    """Files of the state folder may not grow any more, as on a full disk; the record's own were given room before."""
    code = """
import resource, sys
from pathlib import Path
from modelhub_tui.service.node.record import Entry, Record
record = Record(Path(sys.argv[1]))
for number in range(20):
    record.put(Entry(f"acme/{number}", "s"))
limit = max(each.stat().st_size for each in Path(sys.argv[1]).parent.iterdir())
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for number in range(20):
    record.put_trash(f"acme/{number}", "s", {"files": [], "blobs": [], "refs": [], "at": 0.0, "stage": "kept"})
    record.drop(f"acme/{number}")
print(len(record.entries()), len(record.trash_rows()))
"""
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "node.db")], capture_output=True, timeout=60)
    assert ran.stdout.split() == [b"0", b"20"], ran.stderr.decode()


# -- crashes ----------------------------------------------------------------------------------------------------------

CALLS = ("unlink", "rename", "replace", "rmdir", "symlink", "mkdir")


class Crash(BaseException):
    """Stands for SIGKILL in this process: nothing of ours catches it."""


def crash_before(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], int]:
    """Crash before the `number`th call that changes the disk; returns a counter of them."""
    count = 0

    def hook(real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                raise Crash
            return real(*args, **kwargs)

        return called

    for name in CALLS:
        monkeypatch.setattr(os, name, hook(getattr(os, name)))
    real_write = Record._write

    def write(self: Record, sql: str, values: tuple[object, ...]) -> None:
        hook(lambda: real_write(self, sql, values))()

    monkeypatch.setattr(Record, "_write", write)
    return lambda: count


@pytest.mark.parametrize("deed", ["discard", "bring_back", "free"])
def test_a_crash_between_any_two_steps_loses_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    monkeypatch.setattr(record, "_BALLAST_BYTES", 0)  # hundreds of starts
    number, ended = 0, False
    while not ended:
        number += 1
        place = Place(tmp_path / f"{deed}-{number}")
        files = (place.put("1.gguf", b"one" * 100), place.put("sub/2.gguf", b"two" * 100))
        place.put("other.gguf", b"somebody else's", repo="acme/other")
        place.cache.write_ref(REPO, "main", COMMIT)
        whole = place.tree()
        plain = [replace(each, done=False, fetched=False) for each in files]
        if deed != "discard":
            place.trash.discard("tiny", STORE, files)
        deeds: dict[str, Callable[[], object]] = {
            "discard": lambda place=place, files=files: place.trash.discard("tiny", STORE, files),
            "bring_back": lambda place=place, plain=plain: (place.trash.bring_back(plain), place.trash.settle("tiny")),
            "free": lambda place=place: place.trash.free(["tiny"]),
        }
        with monkeypatch.context() as patch:
            count = crash_before(patch, number)
            try:
                deeds[deed]()
            except Crash:
                pass
            ended = count() < number
        # The next start, later: what the record says is taken up again, and what was half written is swept.
        place.reopen()
        with monkeypatch.context() as patch:
            patch.setattr(removal, "_MOMENT_S", -1.0)
            removal.sweep(place.cache)
        place.scan()
        deeds[deed]()
        if deed == "bring_back":
            for file, content in zip(files, (b"one" * 100, b"two" * 100), strict=True):
                if not place.cache.is_whole(file):  # blob is there, link is not: the transfer's adoption makes it
                    assert file.etag and place.cache.blob(REPO, file.etag).read_bytes() == content
                    place.cache.make_link(file)
            assert {k: v for k, v in place.tree().items() if "/refs/" not in k} == {
                k: v for k, v in whole.items() if "/refs/" not in k
            }
        elif deed == "discard":
            assert {each.done for each in place.trash.bring_back(plain)} == {True}
            place.trash.settle("tiny")
            assert place.tree() == whole
        else:
            assert [each for each in place.tree() if "acme--tiny" in each] == []
        assert place.trash.heap.bytes == 0
        place.scan()
        place.record.close()
    assert number > 5


def test_a_killed_process_leaves_what_the_next_one_finishes(tmp_path: Path) -> None:
    """The real thing once: SIGKILL between the rename of the first blob and of the second."""
    place = Place(tmp_path)
    files = (place.put("1.gguf", b"one"), place.put("2.gguf", b"two"))
    place.record.close()
    code = """
import os, signal, sys
from pathlib import Path
from tests.node.test_trash import Place, STORE
from modelhub_tui.service.node.manifest import File
place = Place(Path(sys.argv[1]))
files = tuple(File.from_json(each) for each in __import__("json").loads(sys.argv[2]))
real, seen = os.replace, []
def replace(src, dst, **more):
    real(src, dst, **more)
    if str(dst).endswith(".modelhub.trash"):
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
place.trash.discard("tiny", STORE, files)
"""
    import json

    words = [sys.executable, "-c", code, str(tmp_path), json.dumps([each.as_json() for each in files])]
    ran = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, timeout=60)
    assert ran.returncode == -signal.SIGKILL, ran.stderr.decode()
    assert sum(each.endswith(".modelhub.trash") for each in place.tree()) == 1
    place.open().recover()
    place.scan()
    place.trash.discard("tiny", STORE, files)
    assert sum(each.endswith(".modelhub.trash") for each in place.tree()) == 2
    assert {each.done for each in place.trash.bring_back([replace(each, done=False) for each in files])} == {True}
    place.record.close()
