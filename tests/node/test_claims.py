"""Claims on a shared cache: when they hold, when they end, and what is done where nobody can say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelhub_tui.service.node import claims as module
from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.claims import CLAIM_SUFFIX, EXPIRES_S, Claims, Owner
from modelhub_tui.service.node.manifest import File
from modelhub_tui.service.node.removal import remove_files
from tests.node.test_trash import COMMIT, REPO

CONTENT = b"GGUF"
FILE = File(REPO, COMMIT, "a.gguf", len(CONTENT), "e" * 64, commit=COMMIT, done=True, fetched=True)


def cache_of(root: Path, state: Path) -> Cache:
    state.mkdir(exist_ok=True)
    return Cache(root, Claims(root, Owner.of(state)))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Cache, Cache]:
    """Two services on one cache; the second has a model in it."""
    a, b = (cache_of(tmp_path / "hub", tmp_path / each) for each in "ab")
    b.claims.hold("tiny", [FILE])
    b.prepare(REPO, COMMIT)
    b.blob(REPO, "e" * 64).write_bytes(CONTENT)
    b.make_link(FILE)
    return a, b


def claim_of(cache: Cache) -> Path:
    assert cache.claims.owner
    return cache.root / ".locks" / (cache.claims.owner.id + CLAIM_SUFFIX)


def is_removed(cache: Cache) -> bool:
    remove_files(cache, [FILE])
    return not cache.path_of(FILE).exists()


def test_what_is_claimed_stays_and_what_is_released_goes(pair: tuple[Cache, Cache]) -> None:
    a, b = pair
    assert a.claims.shared_bytes([FILE]) == len(CONTENT)
    assert not is_removed(a) and b.is_whole(FILE)
    b.claims.release("tiny")
    assert not claim_of(b).exists() and a.claims.shared_bytes([FILE]) == 0
    assert is_removed(a) and not (a.root / "models--acme--tiny").exists()


def test_another_commit_of_the_same_blob_loses_its_link_only(pair: tuple[Cache, Cache]) -> None:
    a, b = pair
    other = File(REPO, "b" * 40, "a.gguf", len(CONTENT), "e" * 64, commit="b" * 40, done=True, fetched=True)
    a.make_link(other)
    remove_files(a, [other])
    assert not a.path_of(other).exists() and not a.path_of(other).parent.exists()
    assert b.is_whole(FILE)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"at": 1, "where": "", "files": {"a/b": 1}}']
)
def test_a_claim_that_makes_no_sense_is_one_to_everything(pair: tuple[Cache, Cache], content: bytes) -> None:
    a, b = pair
    claim_of(b).write_bytes(content)
    assert not is_removed(a) and b.is_whole(FILE)


def test_what_is_no_claim_of_anybody_is_left_out(pair: tuple[Cache, Cache]) -> None:
    a, b = pair
    b.claims.release("tiny")
    for name in ("x.modelhub.claim", f"{'A' * 32}.modelhub.claim", f"{'a' * 32}.modelhub.claim.tmp"):
        (a.root / ".locks" / name).write_text("{}")
    assert is_removed(a)


def test_a_pipe_in_the_place_of_a_claim_is_not_waited_for(pair: tuple[Cache, Cache]) -> None:
    a, b = pair
    claim_of(b).unlink()
    os.mkfifo(claim_of(b))
    assert not is_removed(a)


def test_a_claim_whose_state_folder_has_gone_or_is_anothers_ends(pair: tuple[Cache, Cache]) -> None:
    a, b = pair
    assert b.claims.owner
    b.claims.owner.path.write_text("f" * 32)
    assert is_removed(a)


def test_a_claim_of_another_machine_is_judged_by_its_age_alone(
    pair: tuple[Cache, Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    assert b.claims.owner
    b.claims.owner.path.unlink()
    monkeypatch.setattr(module, "_where", lambda: "elsewhere")
    assert not is_removed(a)


def test_a_claim_that_nobody_renews_ends(pair: tuple[Cache, Cache]) -> None:
    a, b = pair
    old = time.time() - EXPIRES_S - 60
    os.utime(claim_of(b), (old, old))
    b.claims.write()  # it lives: as each look does
    assert not is_removed(a)
    os.utime(claim_of(b), (old, old))
    assert is_removed(a)


def test_an_owner_is_the_same_after_a_restart_and_rewrites_a_claim_that_was_removed(
    pair: tuple[Cache, Cache], tmp_path: Path
) -> None:
    a, b = pair
    again = cache_of(tmp_path / "hub", tmp_path / "b")
    assert again.claims.owner == b.claims.owner and again.claims.others([FILE]) == ()
    claim_of(b).unlink()
    b.claims.write()
    assert json.loads(claim_of(b).read_text())["files"] == {REPO: [[COMMIT, "a.gguf", "e" * 64]]}
    assert claim_of(b).stat().st_mode & 0o777 == 0o644
    assert not is_removed(a)


def test_the_lock_keeps_others_out_and_is_not_waited_for_for_ever(
    pair: tuple[Cache, Cache], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    monkeypatch.setattr(module, "_LOCK_WAIT_S", 0.05)
    with b.claims.alone():
        with b.claims.alone():
            pass  # again, by the same thread
        with pytest.raises(BlockingIOError, match="another modelhub service"):
            remove_files(a, [FILE])
        with pytest.raises(BlockingIOError):
            a.claims.hold("tiny", [FILE])
    b.claims.release("tiny")
    assert is_removed(a)


def test_a_part_that_another_process_writes_is_not_removed(tmp_path: Path) -> None:
    """Also where claims cannot be written: its own lock says so."""
    cache = cache_of(tmp_path / "hub", tmp_path / "a")
    cache.prepare(REPO, COMMIT)
    part = cache.part(REPO, "e" * 64)
    part.write_bytes(b"half")
    code = (
        "import fcntl, sys; file = open(sys.argv[1], 'r+b'); fcntl.flock(file, fcntl.LOCK_EX);"
        "print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(part)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout and writer.stdout.readline()
        remove_files(cache, [FILE])
        assert part.read_bytes() == b"half"
    remove_files(cache, [FILE])
    assert not part.exists()
