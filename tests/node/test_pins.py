"""What was pinned at registration decides which bytes are right; what a mirror's ETag looks like changes nothing."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import hf_hub_download
from hypothesis import given, settings
from hypothesis import strategies as st

from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.faults import Fault
from modelhub_tui.service.node.fetch import Fetcher
from modelhub_tui.service.node.found import Finder
from modelhub_tui.service.node.hasher import Digests, Verdict, look_at
from modelhub_tui.service.node.hub import Hub
from modelhub_tui.service.node.manifest import File, read_manifest
from modelhub_tui.service.node.progress import Progress
from modelhub_tui.service.node.tuning import Tuning
from tests.hub import MIB, Blob, Generated, HubRepo, LoopbackHub
from tests.node.harness import NodeThread, start_process
from tests.node.stub_router import StubRouter, manifest_of

SIZE = 3000
FORMS: dict[str, Callable[[Blob], str | None]] = {
    "sha256": lambda blob: f'"{blob.sha256}"',
    "upper": lambda blob: f'"{blob.sha256.upper()}"',
    "weak": lambda blob: f'W/"{blob.sha256}"',
    "git": lambda blob: f'"{git(blob)}"',
    "sha1": lambda blob: f'"{hashlib.sha1(blob.read()).hexdigest()}"',
    "md5": lambda blob: f'"{hashlib.md5(blob.read()).hexdigest()}"',
    "s3-parts": lambda blob: f'"{hashlib.md5(blob.read()).hexdigest()}-7"',
    "gzip": lambda blob: f'"{blob.sha256}-gzip"',
    "weak-gzip": lambda blob: f'W/"{blob.sha256}-gzip"',
    "nginx": lambda blob: f'"65f0c0de-{blob.size:x}"',
    "nexus": lambda blob: f'"{{SHA1{{{hashlib.sha1(blob.read()).hexdigest()}}}}}"',
    "deadbeef": lambda _: '"deadbeef"',
    "path": lambda _: '"../../../../escape"',
    "unquoted": lambda blob: blob.sha256,
    "empty": lambda _: '""',
    "absent": lambda _: None,
    "other40": lambda blob: f'"{hashlib.sha1(blob.sha256.encode()).hexdigest()}"',
    "other64": lambda blob: f'"{hashlib.sha256(blob.sha256.encode()).hexdigest()}"',
}
LIARS = {"other40", "other64"}
"""They look like checksums of the content, and are of something else: believed only where nothing else is known."""
CHECKSUMS = {"sha256", "upper", "weak", "git", "sha1", "unquoted"}
"""The forms that tell what the content should be."""
PINS = ("sha256", "blob_id", "both", "none")


def git(blob: Blob) -> str:
    return Blob.of(blob.read(), lfs=False).oid


def pinned(repo: HubRepo, pin: str, *paths: str) -> list[dict[str, Any]]:
    """A manifest that pins so much of each file."""
    files = manifest_of(repo, *paths)
    for each in files:
        blob = repo[each["path"]]
        each["sha256"] = blob.sha256 if pin in ("sha256", "both") else None
        each["blob_id"] = git(blob) if pin in ("blob_id", "both") else None
    return files


def blob_of(path: str) -> str:
    return Path(path).resolve().name


def test_every_form_of_etag_with_every_pin_and_a_flipped_byte(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    """The whole table, in one real node process: what is pinned decides; what nobody tells is never called verified."""
    empty_hub.api.mirror_etag = lambda repo, blob: FORMS[repo.id.split(".")[1]](blob)
    table = [(form, pin, damaged) for form in FORMS for pin in PINS for damaged in (False, True)]
    repos: dict[str, HubRepo] = {}
    for number, (form, pin, damaged) in enumerate(table):
        repo = empty_hub.add(HubRepo(f"acme/{pin}.{form}.{damaged}", {"m.gguf": Generated(SIZE, number)}))
        repos[repo.id.lower()] = repo
        if damaged:
            empty_hub.fault(method="GET", path=f"{repo.id}/m.gguf", flip_at=SIZE // 2, times=None)
        router.register(repo.id.lower(), pinned(repo, pin))
    process = start_process(router, empty_hub, tmp_path, tuning={"parallel_models": 4, "stall_s": 30})

    def settled() -> bool:
        failed = {each["name"] for each in router.last.get("transfers", ()) if each["phase"] == "failed"}
        return len(failed) + len(router.last.get("placements", ())) == len(table)

    try:
        router.wait(settled, 120)
    finally:
        process.terminate()
        process.wait(20)
    log = (tmp_path / "state" / "node" / "node.log").read_text()
    wrong = []
    for form, pin, damaged in table:
        name = f"acme/{pin}.{form}.{damaged}".lower()
        placed, transfer = router.placement(name), router.transfer(name)
        blob = repos[name]["m.gguf"]
        known = pin != "none" or form in CHECKSUMS | LIARS
        if (damaged and known) or (pin == "none" and form in LIARS):
            ok = placed is None and transfer is not None and transfer["error_code"] == "checksum"
            ok = ok and ("ETag" in transfer["error"] or pin != "none")
        else:
            ok = placed is not None and placed["verified"] is known
            ok = ok and placed["unverified"] == ([] if known else placed["paths"])
            # At the first try. (One that makes way for another may be sent once more what was on its way.)
            ok = ok and f"m.gguf of {repos[name].id} arrived with a wrong checksum" not in log
            if ok and pin != "none":
                ok = blob_of(placed["path"]) == (blob.sha256 if pin != "blob_id" else git(blob))
            if ok and not known:
                ok = not any(each in blob_of(placed["path"]) for each in (blob.sha256, git(blob)))
            if ok and not damaged:
                offline = hf_hub_download(
                    repos[name].id,
                    "m.gguf",
                    revision=repos[name].sha,
                    cache_dir=tmp_path / "hub",
                    endpoint=empty_hub.url,
                    local_files_only=True,
                )
                ok = Path(offline).read_bytes() == blob.read()
        if not ok:
            wrong.append((form, pin, damaged, empty_hub.served_bytes(f"{repos[name].id}/m.gguf"), placed, transfer))
    assert not wrong
    assert not [*tmp_path.rglob("*.part")], "something is left of what failed"


@pytest.mark.parametrize("damaged", [False, True])
def test_several_connections_and_an_etag_that_is_no_checksum(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, damaged: bool
) -> None:
    empty_hub.api.mirror_etag = lambda _repo, blob: FORMS["md5"](blob)
    repo = empty_hub.add(HubRepo("acme/big", {"big.gguf": Generated(24 * MIB, 3)}))
    if damaged:
        empty_hub.fault(method="GET", path="*/big.gguf", flip_at=13 * MIB, times=None)
    router.register("acme/big", pinned(repo, "sha256"))
    with NodeThread(router, empty_hub, tmp_path, parallel_bytes=MIB, connections=4):
        if damaged:
            assert router.wait_phase("acme/big", "failed")["error_code"] == "checksum"
        else:
            assert router.wait_whole("acme/big")["verified"] is True
            assert empty_hub.served_bytes("*/big.gguf") == 24 * MIB


def test_bytes_that_arrive_damaged_once_are_fetched_again(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    empty_hub.api.mirror_etag = lambda _repo, blob: FORMS["sha1"](blob)
    repo = empty_hub.add(HubRepo("acme/tiny", {"m.gguf": Generated(SIZE, 1)}))
    empty_hub.fault(method="GET", path="*/m.gguf", flip_at=7)
    router.register("acme/tiny", pinned(repo, "sha256"))
    with NodeThread(router, empty_hub, tmp_path):
        placed = router.wait_whole("acme/tiny")
    assert placed["verified"] is True and Path(placed["path"]).read_bytes() == repo["m.gguf"].read()


def test_only_some_files_of_a_model_cannot_be_verified(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    empty_hub.api.mirror_etag = lambda _repo, _blob: '"deadbeef"'
    files = {"a.gguf": Generated(SIZE, 1), "b.gguf": Generated(SIZE, 2), "c.gguf": Generated(SIZE, 3)}
    repo = empty_hub.add(HubRepo("acme/some", files))
    manifest = [*pinned(repo, "sha256", "a.gguf"), *pinned(repo, "none", "b.gguf", "c.gguf")]
    router.register("acme/some", manifest)
    with NodeThread(router, empty_hub, tmp_path):
        placed = router.wait_whole("acme/some")
    assert placed["verified"] is False
    assert [Path(each).name for each in placed["unverified"]] == ["b.gguf", "c.gguf"]
    # The same ETag for all of them, and the same length: still each has its own bytes.
    for path in placed["paths"]:
        assert Path(path).read_bytes() == repo[Path(path).name].read()
    history = router.last
    said = [each["what"] for beat in router.heartbeats for t in beat.get("transfers", ()) for each in t["history"]]
    assert history and not any("Verified" in each for each in said)


@pytest.mark.parametrize("lost", [("X-Repo-Commit",), ("Content-Length",), ("ETag",)], ids=lambda each: each[0])
@pytest.mark.parametrize("redirected", [False, True])
def test_what_a_head_leaves_out_is_no_trouble_where_it_is_pinned(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, lost: tuple[str], redirected: bool
) -> None:
    if not redirected:
        empty_hub.api.mirror_etag = lambda _repo, blob: FORMS["sha256"](blob)
    headers = dict.fromkeys([*lost, "X-Linked-Size", "X-Linked-ETag"] if redirected else lost)
    empty_hub.fault(method="HEAD", times=None, headers=headers)
    repo = empty_hub.add(HubRepo("acme/tiny", {"m.gguf": Generated(SIZE, 1)}))
    router.register("acme/tiny", pinned(repo, "sha256"))
    with NodeThread(router, empty_hub, tmp_path, backoff_base_s=30.0, backoff_cap_s=30.0):
        assert router.wait_whole("acme/tiny")["verified"] is True
    phases = {each["phase"] for beat in router.heartbeats for each in beat.get("transfers", ())}
    assert "retrying" not in phases


def test_the_etag_of_a_redirect_is_not_taken_for_the_files(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    """It is git's name of the pointer file: a proxy that drops X-Linked-ETag makes no good file look damaged."""
    empty_hub.fault(method="HEAD", times=None, headers={"X-Linked-ETag": None})
    repo = empty_hub.add(HubRepo("acme/tiny", {"m.gguf": Generated(SIZE, 1)}))
    router.register("acme/tiny", pinned(repo, "none"))
    with NodeThread(router, empty_hub, tmp_path):
        assert router.wait_whole("acme/tiny")["verified"] is False


def test_another_size_is_another_file(router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path) -> None:
    empty_hub.api.mirror_etag = lambda _repo, _blob: '"deadbeef"'
    repo = empty_hub.add(HubRepo("acme/tiny", {"m.gguf": Generated(SIZE, 1)}))
    manifest = pinned(repo, "sha256")
    manifest[0]["size"] = SIZE + 1
    router.register("acme/tiny", manifest)
    with NodeThread(router, empty_hub, tmp_path):
        failed = router.wait_phase("acme/tiny", "failed")
    assert failed["error_code"] == "changed_upstream"
    assert f"{SIZE} bytes, not {SIZE + 1}" in failed["error"]
    assert not empty_hub.served_bytes()


def test_a_small_file_that_was_changed_is_called_changed_not_damaged(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = empty_hub.add(HubRepo("acme/tiny", {"m.gguf": b"GGUF", "config.json": '{"a": 1}'}))
    router.register("acme/tiny", manifest_of(repo, "config.json"))
    repo.commit({"config.json": '{"a": 2}'}, commit_id=repo.sha)
    with NodeThread(router, empty_hub, tmp_path) as node:
        assert router.wait_phase("acme/tiny", "failed")["error_code"] == "changed_upstream"
        assert not [*node.cache.rglob("*.part")]


def test_a_deletion_that_is_undone_brings_back_what_has_no_checksum_without_a_byte(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    empty_hub.api.mirror_etag = lambda _repo, _blob: '"deadbeef"'
    repo = empty_hub.add(HubRepo("acme/tiny", {"m.gguf": Generated(SIZE, 1)}))
    router.limit(trash_seconds=3600, trash_bytes=10**9)
    router.register("acme/tiny", pinned(repo, "none"))
    with NodeThread(router, empty_hub, tmp_path):
        router.wait_whole("acme/tiny")
        served = empty_hub.served_bytes()
        router.remove("acme/tiny", keep=True)
        router.wait_trashed("acme/tiny")
        router.register("acme/tiny", pinned(repo, "none"))
        placed = router.wait_whole("acme/tiny")
    assert placed["verified"] is False and empty_hub.served_bytes() == served
    assert Path(placed["path"]).read_bytes() == repo["m.gguf"].read()


@pytest.mark.parametrize("asked", ["answers", "is down"])
def test_what_the_library_fetched_from_a_mirror_is_adopted_and_not_called_verified(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, asked: str
) -> None:
    empty_hub.api.mirror_etag = lambda _repo, blob: FORMS["md5"](blob)
    repo = empty_hub.add(HubRepo("acme/tiny", {"m.gguf": Generated(SIZE, 1)}))
    cache = Cache(tmp_path / "hub")
    hf_hub_download(repo.id, "m.gguf", cache_dir=cache.root, endpoint=empty_hub.url, token=False)
    finder = Finder(cache)
    finder.scan()
    (group,) = finder.report(())
    assert group["files"] == [{"path": "m.gguf", "size": SIZE, "sha256": None, "blob_id": None}]
    served = empty_hub.served_bytes()
    if asked == "is down":
        empty_hub.down()
    # What the router makes of it: the same, with nothing added.
    router.register("acme/tiny", [{**each, "repo": repo.id, "revision": repo.sha} for each in group["files"]])
    with NodeThread(router, empty_hub, tmp_path, backoff_base_s=30.0, backoff_cap_s=30.0):
        placed = router.wait_whole("acme/tiny")
        assert placed["verified"] is False and placed["unverified"] == placed["paths"]
        assert empty_hub.served_bytes() == served
        router.remove("acme/tiny")
        router.wait_gone("acme/tiny")
    assert not [each for each in cache.root.rglob("*") if each.is_file() and each.stat().st_size == SIZE]


def test_a_damaged_file_in_the_cache_is_looked_at_with_what_is_pinned(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    """Whatever the blob is called that the link leads to."""
    empty_hub.api.mirror_etag = lambda _repo, blob: FORMS["md5"](blob)
    repo = empty_hub.add(HubRepo("acme/tiny", {"m.gguf": Generated(SIZE, 1)}))
    cache = Cache(tmp_path / "hub")
    there = hf_hub_download(repo.id, "m.gguf", cache_dir=cache.root, endpoint=empty_hub.url, token=False)
    content = bytearray(Path(there).read_bytes())
    content[5] ^= 1
    Path(there).resolve().write_bytes(content)
    router.register("acme/tiny", pinned(repo, "sha256"))
    with NodeThread(router, empty_hub, tmp_path):
        placed = router.wait_whole("acme/tiny")
    assert placed["verified"] is True
    assert Path(placed["path"]).read_bytes() == repo["m.gguf"].read()


@given(
    content=st.binary(min_size=1, max_size=200),
    pin=st.sampled_from(["sha256", "blob_id", "none"]),
    etag=st.one_of(
        st.none(),
        st.text(max_size=70),
        st.text("0123456789abcdefABCDEF", min_size=40, max_size=40),
        st.text("0123456789abcdefABCDEF", min_size=64, max_size=64),
        st.sampled_from([*FORMS]),
    ),
    damage=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_no_answer_of_a_hub_makes_damaged_bytes_right(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, pin: str, etag: str | None, damage: bool
) -> None:
    """(pins) x (whatever an ETag may be) x (damage), through everything that decides, without a network."""
    blob = Blob.of(content, lfs=True)
    told = FORMS[etag](blob) if etag in FORMS else etag
    entry = {"path": "m.gguf", "repo": "acme/tiny", "revision": "a" * 40, "size": len(content)}
    entry |= {"sha256": blob.sha256} if pin == "sha256" else {"blob_id": git(blob)} if pin == "blob_id" else {}
    (file,) = read_manifest({"files": [entry]}, "http://hub")
    hub = _Told("http://127.0.0.1:9", told)
    folder = tmp_path_factory.mktemp("pins")
    fetcher = Fetcher(
        hub=hub,
        cache=Cache(folder),
        transport=None,  # type: ignore[arg-type]
        tuning=Tuning(),
        progress=Progress("m"),
        stop=threading.Event(),
        check_room=lambda: None,
        note=lambda _files: None,
        tell=lambda _files: None,
    )
    hub.size = len(content)
    try:
        file, _ = fetcher.look_up(file)
    except Fault as fault:
        raise AssertionError("no form of an ETag is a reason to refuse a file") from fault
    path = folder / "x"
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:] if damage else content)
    verdict = look_at(str(path), file.digest, len(content), threading.Event())
    if pin != "none":
        assert file.etag == (blob.sha256 if pin == "sha256" else git(blob))
        assert verdict is (Verdict.DAMAGED if damage else Verdict.GOOD)
    elif damage:
        assert verdict is not Verdict.GOOD
    assert (verdict is Verdict.UNKNOWN) is (file.digest is None)


class _Told(Hub):
    """A hub that answers with this ETag, read as any other answer is."""

    def __init__(self, endpoint: str, etag: str | None) -> None:
        super().__init__(endpoint)
        self.etag, self.size = etag, 0

    def find(self, repo: str, revision: str, path: str, **pinned: Any) -> Any:
        from unittest import mock

        from huggingface_hub.file_download import HfFileMetadata, _normalize_etag

        told = HfFileMetadata("a" * 40, _normalize_etag(self.etag), f"{self.endpoint}/x", self.size, None)
        with mock.patch("huggingface_hub.file_download.get_hf_file_metadata", return_value=told):
            return super().find(repo, revision, path, **pinned)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_large_file_that_was_listed_as_a_small_one_is_proved_by_the_name_of_its_pointer(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, damaged: bool
) -> None:
    """A listing without `lfs` gives git's name of the pointer, and nothing else to pin."""
    repo = empty_hub.add(HubRepo("acme/tiny", {"m.gguf": Generated(SIZE, 1)}))
    if damaged:
        empty_hub.fault(method="GET", path="*/m.gguf", flip_at=7, times=None)
    pin = {"sha256": None, "blob_id": repo["m.gguf"].oid}
    router.register("acme/tiny", [each | pin for each in manifest_of(repo)])
    with NodeThread(router, empty_hub, tmp_path):
        if damaged:
            assert router.wait_phase("acme/tiny", "failed")["error_code"] == "checksum"
        else:
            assert router.wait_whole("acme/tiny")["verified"] is True


def test_forty_digits_are_gits_name_or_the_plain_sha1_or_the_pointers_and_nothing_else() -> None:
    content = b"GGUF"
    other = Blob.of(b"GGML", lfs=True)
    for digest, right in (
        (Blob.of(content, lfs=True).oid, True),
        (other.oid, False),
        (hashlib.sha1(Blob.of(content, lfs=True).pointer).hexdigest(), False),
        (Blob.of(content, lfs=False).oid, True),
        (hashlib.sha1(content).hexdigest(), True),
        (hashlib.sha1(content + b"!").hexdigest(), False),
        (hashlib.sha256(content).hexdigest()[:40], False),
    ):
        digests = Digests(digest, len(content))
        digests.update(memoryview(content))
        assert digests.verdict() is (Verdict.GOOD if right else Verdict.DAMAGED)


def test_an_old_record_reads_as_what_it_knew() -> None:
    old = {"repo": "a/b", "revision": "c" * 40, "path": "m.gguf", "size": 1, "etag": "f" * 64, "done": True}
    assert File.from_json(old).digest == "f" * 64
    assert File.from_json({**old, "etag": "deadbeef"}).digest is None
