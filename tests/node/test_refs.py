"""What lets the library find our files offline, and keeps `hf cache prune` from taking them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download

from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.folders import Folder
from modelhub_tui.service.node.removal import sweep
from tests.hub import HubRepo, LoopbackHub
from tests.node.harness import NodeThread
from tests.node.stub_router import StubRouter, manifest_of
from tests.node.test_trash import COMMIT, REPO, Place


def prune(cache: Path) -> str:
    """The library's own command; it removes what nothing in `refs` is at."""
    env = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"}
    hf = str(Path(sys.executable).with_name("hf"))
    ran = subprocess.run([hf, "cache", "prune", "-y"], env=env, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and "orrupt" not in ran.stdout + ran.stderr, ran.stderr
    return ran.stdout


def test_a_full_disk_leaves_nothing_in_refs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path)
    place.put("a.gguf", b"GGUF a")

    before = place.tree()
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", lambda self, name, content, **_: _half(self, name))
        with pytest.raises(OSError, match="No space"):
            place.cache.write_ref(REPO, "main", COMMIT)
    # What a killed process leaves is no branch: the library sees the model.
    assert [repo.repo_id for repo in place.scan().repos] == [REPO]
    place.cache.write_ref(REPO, "main", COMMIT)
    assert place.tree().keys() - before.keys() == {"models--acme--tiny/refs/main"}
    place.record.close()


def _half(folder: Folder, name: str) -> None:
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=folder.fd))
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_older_versions_and_killed_processes_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.put("a.gguf", b"GGUF a")
    place.cache.write_ref(REPO, "main", COMMIT)
    home = place.cache.repo_dir(REPO)
    snapshot = home / "snapshots" / COMMIT
    ours = [
        home / "refs" / "main.0123abcd.tmp",
        home / ".0123456789ab.modelhub.tmp",
        snapshot / ".0123456789ab.modelhub.tmp",
        home / "blobs" / f"{'e' * 64}.modelhub.map.new",
    ]
    theirs = [
        home / "refs" / "main.tmp",
        snapshot / "mine.tmp",
        home / "blobs" / f"{'e' * 64}.incomplete",
        home / "notes.tmp",
    ]
    young = home / "refs" / "dev.0123abcd.tmp"
    for each in (*ours, *theirs, young):
        each.write_text(COMMIT)
    for each in (*ours, *theirs):
        os.utime(each, (time.time() - 3600,) * 2)
    sweep(place.cache)
    assert not any(each.exists() for each in ours)
    assert all(each.exists() for each in (*theirs, young))
    place.record.close()


def test_the_ref_is_completed_when_the_hub_answers_again(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = empty_hub.add(HubRepo("acme/late", {"a.gguf": b"GGUF a" * 100}))
    # The look-up of `main` fails; that of the commit, for the file itself, does not.
    fault = empty_hub.fault(path=f"/{repo.id}/resolve/main/*", method="HEAD", status=503, times=None)
    router.register("acme/late", manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path, max_attempts=1) as node:
        router.wait_whole("acme/late")
        cache = node.cache
        assert not (cache / "models--acme--late/refs/main").exists()
        # Meanwhile it has a ref of our own kind, so that nobody takes it for rubbish.
        assert "Nothing to prune" in prune(cache)
        fault.times = 0
        router.wait(lambda: (cache / "models--acme--late/refs/main").exists())
    assert Path(hf_hub_download(repo.id, "a.gguf", cache_dir=cache, local_files_only=True)).is_file()
    assert Path(snapshot_download(repo.id, cache_dir=cache, local_files_only=True)).is_dir()
    assert not [*cache.glob("models--acme--late/refs/modelhub/*")], "one name is enough"


def test_a_model_of_another_commit_than_main_is_not_pruned_and_takes_its_ref_with_it(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = HubRepo("acme/pinned", {"a.gguf": b"GGUF old" * 100})
    old = repo.sha
    repo = empty_hub.add(repo)
    manifest = manifest_of(repo)
    repo.commit({"a.gguf": b"GGUF new" * 100})
    assert repo.sha != old
    router.register("acme/pinned", manifest)
    with NodeThread(router, empty_hub, tmp_path) as node:
        told = router.wait_whole("acme/pinned")
        cache = node.cache
        ref = cache / "models--acme--pinned/refs/modelhub" / old
        assert ref.read_text() == old
        assert "Nothing to prune" in prune(cache) and Path(told["path"]).is_file()
        (info,) = scan_cache_dir(cache).repos
        assert [revision.commit_hash for revision in info.revisions] == [old]
        # Somebody fetches the branch as it is now: both are kept.
        hf_hub_download(repo.id, "a.gguf", cache_dir=cache, endpoint=empty_hub.url, token=False)
        assert "Nothing to prune" in prune(cache) and Path(told["path"]).is_file()
        router.remove("acme/pinned")
        router.wait_gone("acme/pinned")
        router.wait(lambda: not ref.exists())
        assert scan_cache_dir(cache).warnings == []
    assert (cache / "models--acme--pinned/refs/main").read_text() == repo.sha


def test_an_adopted_model_that_nothing_names_is_kept(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    """`hf download --revision <commit>` writes no ref: until it is registered, `prune` may take it; then no longer."""
    repo = empty_hub.add(HubRepo("acme/adopted", {"a.gguf": b"GGUF a" * 100}))
    cache = Cache(tmp_path / "hub")
    hf_hub_download(repo.id, "a.gguf", revision=repo.sha, cache_dir=cache.root, endpoint=empty_hub.url, token=False)
    router.register("acme/adopted", manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path):
        router.wait_whole("acme/adopted")
        assert "Nothing to prune" in prune(cache.root)
        assert cache.link(repo.id, repo.sha, "a.gguf").is_file()
