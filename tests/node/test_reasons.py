"""Each trouble by its own name: what a hub's status says, and what a model's file really holds."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from modelhub_tui.service.node import faults
from modelhub_tui.service.node.asking import lost
from modelhub_tui.service.node.part import Part
from tests.hub import MIB, Generated, HubRepo, LoopbackHub
from tests.hub.blobs import pointer
from tests.node.harness import NodeThread
from tests.node.stub_router import StubRouter, manifest_of

NAME = "acme/tiny-gguf"
SIZE = 4 * MIB


@pytest.fixture
def repo(empty_hub: LoopbackHub) -> HubRepo:
    return empty_hub.add(HubRepo("acme/Tiny-GGUF", {"tiny.gguf": Generated(SIZE, seed=1)}))


@pytest.mark.parametrize("status", [408, 425, 429, 499, 500, 520, 599])
def test_a_status_that_passes_is_waited_out_however_long_it_lasts(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path, status: int
) -> None:
    rule = empty_hub.fault(server="hub", method="HEAD", status=status, times=None)
    router.register(NAME, manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path, max_attempts=2):
        waiting = router.wait_offline(NAME)
        assert waiting["error_code"] == ("rate_limited" if status == 429 else "hub_failed")
        assert "delete" not in waiting["error"]
        rule.remove()
        router.wait_whole(NAME)


@pytest.mark.parametrize("server", ["hub", "cdn"])
@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (400, "hub_failed", "refuses the request (HTTP 400)"),
        (418, "hub_failed", "refuses the request (HTTP 418)"),
        (421, "hub_failed", "refuses the request (HTTP 421)"),
        (451, "disabled", "for legal reasons"),
    ],
)
def test_a_status_that_stays_is_believed_the_third_time_and_never_called_a_missing_file(
    router: StubRouter,
    empty_hub: LoopbackHub,
    repo: HubRepo,
    tmp_path: Path,
    server: Any,
    status: int,
    code: str,
    words: str,
) -> None:
    rule = empty_hub.fault(server=server, path="acme/*", status=status, times=None)
    router.register(NAME, manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path):
        failed = router.wait_phase(NAME, "failed")
        assert failed["error_code"] == code and words in failed["error"] and failed["retry_in_s"] is None
        assert "not in" not in failed["error"] and "delete" not in failed["error"]
        assert rule.hits >= 3
        meanwhile = {
            each["error"] for beat in router.heartbeats for each in beat["transfers"] if each["phase"] == "retrying"
        }
        assert all(each.endswith("it is asked again.") for each in meanwhile)
        rule.remove()
        router.retry(NAME)
        router.wait_whole(NAME)


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({"status": 404}, id="404"),
        pytest.param({"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}}, id="no entry"),
        pytest.param({"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}}, id="no repo"),
        pytest.param({"status": 404, "headers": {"X-Error-Code": "RevisionNotFound"}}, id="no revision"),
        pytest.param({"status": 410}, id="410"),
        pytest.param({"headers": {"X-Repo-Commit": "0" * 40}}, id="another commit"),
        pytest.param({"headers": {"X-Linked-Size": "5"}}, id="another length"),
        pytest.param({"headers": {"X-Linked-Size": "many"}}, id="no length"),
        pytest.param({"headers": {"X-Linked-Etag": f'"{"0" * 64}"'}}, id="another checksum"),
    ],
)
def test_what_a_hub_says_twice_by_accident_condemns_no_model(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path, rule: dict[str, Any]
) -> None:
    fault = empty_hub.fault(server="hub", method="HEAD", times=2, **rule)
    router.register(NAME, manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path):
        router.wait_whole(NAME)
    assert fault.hits == 2
    told = [each for beat in router.heartbeats for each in beat["transfers"]]
    assert not [each for each in told if each["phase"] == "failed" or "delete" in (each["error"] or "")]


@pytest.mark.parametrize("status", [405, 501])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_mirror_without_head_is_asked_for_one_byte(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, status: int, ranges: bool
) -> None:
    repo = empty_hub.add(
        HubRepo("acme/Tiny-GGUF", {"tiny.gguf": Generated(SIZE, 1), "config.json": "{}", "empty": b""})
    )
    empty_hub.fault(method="HEAD", status=status, times=None)
    if not ranges:
        empty_hub.fault(method="GET", ignore_range=True, times=None)
    router.register(NAME, [{**each, "size": None} for each in manifest_of(repo)])
    with NodeThread(router, empty_hub, tmp_path):
        router.wait_whole(NAME)
    assert empty_hub.served_bytes("*.gguf") <= SIZE + MIB


def test_a_pointer_in_place_of_the_file_is_called_so_and_condemns_nothing(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path
) -> None:
    told = pointer(repo["tiny.gguf"].sha256, SIZE)
    length = {"Content-Length": str(len(told))}
    empty_hub.fault(server="hub", method="HEAD", path="*.gguf", status=200, headers=pinned(repo) | length, times=None)
    rule = empty_hub.fault(server="hub", method="GET", path="*.gguf", status=200, body=told, times=None)
    router.register(NAME, manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path):
        failed = router.wait_phase(NAME, "failed")
        assert failed["error_code"] == "not_weights"
        assert "sent the git-lfs pointer in place of tiny.gguf" in failed["error"] and "delete" not in failed["error"]
        assert rule.hits == 3


@pytest.mark.parametrize("length", [True, False])
def test_a_pointer_that_the_storage_sends_once_is_no_trouble(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path, length: bool
) -> None:
    told = pointer(repo["tiny.gguf"].sha256, SIZE)
    empty_hub.fault(server="cdn", status=200, body=told, headers={} if length else {"Content-Length": None})
    router.register(NAME, manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path):
        router.wait_whole(NAME)


def pinned(repo: HubRepo) -> dict[str, str]:
    return {"X-Repo-Commit": repo.sha, "ETag": f'"{"a" * 40}"'}


BAD = {
    "pointer.gguf": (pointer("0" * 64, 10**9), "is not a GGUF file: it holds a git-lfs pointer"),
    "empty.gguf": (b"", "is not a GGUF file: it is empty"),
    "page.gguf": (b"<!doctype html>" * 200, "is not a GGUF file: it does not begin as one"),
    "pointer.safetensors": (pointer("0" * 64, 10**9), "is not a safetensors file: it holds a git-lfs pointer"),
    "long.safetensors": (b"\xff" * 4000, "is not a safetensors file: the length of its header cannot be"),
    "short.safetensors": (b"{}", "is not a safetensors file: the length of its header cannot be"),
    "config.json": (pointer("0" * 64, 10**4), "is no usable file: it holds a git-lfs pointer"),
}


@pytest.mark.parametrize("known", [True, False], ids=["with checksum", "without"])
@pytest.mark.parametrize("path", BAD)
def test_what_is_no_model_is_never_downloaded(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, path: str, known: bool
) -> None:
    content, words = BAD[path]
    repo = empty_hub.add(HubRepo("acme/Tiny-GGUF", {path: content}))
    if not known:
        empty_hub.fault(method="HEAD", headers={"ETag": None, "X-Linked-Etag": None}, times=None)
    bare = {} if known else {"sha256": None, "blob_id": None}
    router.register(NAME, [{**each, **bare} for each in manifest_of(repo)])
    with NodeThread(router, empty_hub, tmp_path) as node:
        failed = router.wait_phase(NAME, "failed")
        assert failed["error_code"] == "not_weights"
        assert f"{path} {words}" in failed["error"] and failed["retry_in_s"] is None
        assert not [*node.cache.rglob(path)] and not [*node.cache.rglob("*.part")]


@pytest.mark.parametrize(
    ("number", "code", "passing", "words"),
    [
        (errno.EACCES, "disk", True, "No permission to write /m/x"),
        (errno.EROFS, "disk", True, "read-only file system"),
        (errno.ENOTDIR, "disk", False, "is not a folder"),
        (errno.EFBIG, "disk", False, "FAT: 4 GiB"),
        (errno.EDQUOT, "no_space", True, "disk quota of this user"),
        (errno.EIO, "disk", True, "The disk reports an error at /m/x"),
        (errno.ESTALE, "disk", True, "stale handle"),
        (errno.ENOTCONN, "disk", True, "not connected any more"),
        (errno.ENAMETOOLONG, "disk", False, "longer name than this file system takes"),
        (errno.EMFILE, "disk", True, "ulimit -n"),
        (errno.ENFILE, "disk", True, "fs.file-max"),
        (errno.ENOMEM, "disk", True, "no memory left"),
        (errno.EXDEV, "disk", True, "/m/x cannot be written: "),
    ],
)
def test_each_error_of_the_disk_has_a_sentence_of_its_own(number: int, code: str, passing: bool, words: str) -> None:
    fault = faults.disk_trouble(OSError(number, os.strerror(number), "/m/x"))
    assert (fault.code, fault.passing) == (code, passing) and words in fault.sentence
    assert "Needs" not in fault.sentence and fault.sentence.endswith(".")


def test_a_line_that_fails_for_want_of_descriptors_is_not_called_broken() -> None:
    fault = lost("cdn", OSError(errno.EMFILE, "Too many open files"))
    assert fault.code == "disk" and "ulimit -n" in fault.sentence and "cdn" not in fault.sentence


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_again_and_again_costs_fewer_and_fewer_bytes(
    router: StubRouter,
    empty_hub: LoopbackHub,
    repo: HubRepo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """The disk takes the first MiB and nothing more, while its figures tell of room."""
    broken = [True]
    append = Part.append

    def full(part: Part, data: memoryview) -> None:
        if broken[0] and part.have >= MIB:
            raise OSError(number, os.strerror(number), str(part.path))
        append(part, data[: MIB - part.have] if broken[0] else data)

    monkeypatch.setattr(Part, "append", full)
    router.register(NAME, manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path, restart_cap_s=600.0, restart_base_s=600.0):
        told = router.wait_phase(NAME, "failed" if number == errno.EIO else "paused")
        assert "Needs" not in told["error"]
        router.wait(lambda: len(empty_hub.requests("*.gguf", server="cdn")) >= (1 if number == errno.EIO else 3))
        asked = empty_hub.requests("*.gguf", server="cdn")
        assert all(each.range == f"bytes={MIB}-{SIZE - 1}" for each in asked[1:]), (
            "what is on disk is not fetched again"
        )
        broken[0] = False
        router.retry(NAME)
        placed = router.wait_whole(NAME)
    assert hashlib.sha256(Path(placed["path"]).read_bytes()).hexdigest() == repo["tiny.gguf"].sha256
