"""Each trouble by its own name: what a hub's status says, and what a model's file really holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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
