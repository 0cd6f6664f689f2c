"""Every fault on the way: the file ends whole with the right checksum, or the transfer says clearly why not."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub import GOOD_TOKEN, MIB, RATE_LIMITED, STRANGER_TOKEN, Generated, HubRepo, LoopbackHub
from tests.hub.hostile import Asked, HostileHub, head
from tests.node.harness import NodeThread
from tests.node.stub_router import StubRouter, manifest_of

NAME = "acme/tiny-gguf"
SIZE = 4 * MIB


@pytest.fixture
def repo(empty_hub: LoopbackHub) -> HubRepo:
    return empty_hub.add(HubRepo("acme/Tiny-GGUF", {"tiny.gguf": Generated(SIZE, seed=1)}))


@pytest.mark.parametrize(
    ("rule", "refetched"),
    [
        pytest.param({"server": "cdn", "reset_after": MIB, "times": 3}, 0, id="reset"),
        pytest.param({"server": "cdn", "close_after": MIB, "times": 3}, 0, id="early end"),
        pytest.param({"server": "cdn", "reset_at_once": True, "times": 2}, 0, id="reset at once"),
        pytest.param({"server": "cdn", "stall_after": MIB}, 0, id="stall"),
        pytest.param({"server": "cdn", "status": 429, "headers": RATE_LIMITED}, 0, id="429 of the cdn"),
        pytest.param({"server": "hub", "status": 429, "headers": RATE_LIMITED}, 0, id="429 of the hub"),
        pytest.param({"server": "cdn", "status": 503, "headers": {"Retry-After": "1"}}, 0, id="503 of the cdn"),
        pytest.param({"server": "hub", "status": 503, "times": 3}, 0, id="503 of the hub"),
        pytest.param({"server": "cdn", "expired": True}, 0, id="expired address"),
        pytest.param({"server": "cdn", "headers": {"Content-Range": "bytes 7-99/100"}}, None, id="wrong range"),
        pytest.param({"server": "cdn", "headers": {"Content-Length": str(MIB)}}, None, id="wrong length"),
        pytest.param({"server": "hub", "headers": {"X-Repo-Commit": None}}, 0, id="no commit"),
    ],
)
def test_it_arrives_all_the_same(
    router: StubRouter,
    empty_hub: LoopbackHub,
    repo: HubRepo,
    tmp_path: Path,
    rule: dict[str, Any],
    refetched: int | None,
) -> None:
    fault = empty_hub.fault(**rule)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path):
        placed = router.wait_whole(NAME)
    assert fault.hits
    assert hashlib.sha256(Path(placed["path"]).read_bytes()).hexdigest() == repo["tiny.gguf"].sha256
    if refetched is not None:
        starts = [
            int(each.range.removeprefix("bytes=").split("-")[0])
            for each in empty_hub.requests("*.gguf", server="cdn")
            if each.file_bytes
        ]
        assert starts == sorted(starts)  # never behind what had arrived
    assert not [*tmp_path.rglob("*.part")]


def test_a_server_that_ignores_ranges_never_makes_the_total_go_back(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path
) -> None:
    empty_hub.fault(server="cdn", reset_after=2 * MIB)
    empty_hub.fault(server="cdn", ignore_range=True)
    empty_hub.connection_bps = 10e6
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path):
        placed = router.wait_whole(NAME)
    assert hashlib.sha256(Path(placed["path"]).read_bytes()).hexdigest() == repo["tiny.gguf"].sha256
    done = [each["bytes_done"] for beat in router.heartbeats for each in beat["transfers"]]
    assert done == sorted(done)


def test_damage_on_the_way_is_noticed_and_fetched_anew(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path
) -> None:
    empty_hub.fault(server="cdn", flip_at=SIZE // 2)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path):
        placed = router.wait_whole(NAME)
    assert hashlib.sha256(Path(placed["path"]).read_bytes()).hexdigest() == repo["tiny.gguf"].sha256
    assert empty_hub.served_bytes("*.gguf") == 2 * SIZE


def test_damage_that_comes_again_fails_clearly_and_is_retried_only_when_asked(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path
) -> None:
    rule = empty_hub.fault(server="cdn", flip_at=SIZE // 2, times=None)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path) as node:
        failed = router.wait_phase(NAME, "failed")
        assert failed["error_code"] == "checksum" and "damaged" in failed["error"]
        assert failed["retry_in_s"] is None
        assert not [*node.cache.rglob("*.part")] and not [*node.cache.rglob("*.gguf")]
    rule.remove()
    served = empty_hub.served_bytes("*.gguf")
    with NodeThread(router, empty_hub, tmp_path):
        count = len(router.heartbeats)
        router.wait(lambda: len(router.heartbeats) > count + 2)
        assert empty_hub.served_bytes("*.gguf") == served
        router.retry(NAME)
        router.wait_whole(NAME)


def test_a_hub_that_is_away_is_waited_for(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path
) -> None:
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    empty_hub.down()
    with NodeThread(router, empty_hub, tmp_path, max_attempts=3):
        retrying = router.wait_phase(NAME, "retrying")
        assert retrying["max_attempts"] == 3 and retrying["attempt"] in (1, 2)
        offline = router.wait_offline(NAME)
        assert offline["error_code"] == "hub_unreachable" and "cannot be reached" in offline["error"]
        assert not [each for beat in router.heartbeats for each in beat["transfers"] if each["phase"] == "failed"]
        empty_hub.up()
        router.wait_whole(NAME)


def test_the_cdn_away_in_the_middle_resumes(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path
) -> None:
    stall = empty_hub.fault(server="cdn", stall_after=MIB)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path, stall_s=30, max_attempts=3):
        assert stall.stalled.wait(30)
        router.wait(lambda: (t := router.transfer(NAME)) and t["bytes_done"] == MIB)
        empty_hub.down("cdn")
        assert router.wait_phase(NAME, "retrying", "failed")["bytes_done"] == MIB
        empty_hub.up("cdn")
        router.wait_whole(NAME)
    assert empty_hub.requests("*.gguf", server="cdn")[-1].range == f"bytes={MIB}-{SIZE - 1}"


def test_a_gated_repo_names_the_page_and_the_token(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path
) -> None:
    repo.gated = "manual"
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path):
        failed = router.wait_phase(NAME, "failed")
        assert failed["error_code"] == "gated" and failed["retry_in_s"] is None
        assert f"{empty_hub.url}/acme/Tiny-GGUF" in failed["error"] and "HF_TOKEN" in failed["error"]
        repo.gated = False
        router.retry(NAME)
        router.wait_whole(NAME)


def test_a_gated_repo_whose_token_is_not_approved(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.gated = "manual"
    monkeypatch.setenv("HF_TOKEN", STRANGER_TOKEN)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path):
        failed = router.wait_phase(NAME, "failed")
    assert failed["error_code"] == "gated" and "accept its licence" in failed["error"]
    assert "set HF_TOKEN" not in failed["error"]


def test_the_token_goes_to_the_hub_and_to_nobody_else(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    repo = empty_hub.add(HubRepo("acme/secret", {"m.gguf": Generated(MIB, 1), "config.json": "{}"}, gated="manual"))
    empty_hub.fault(server="cdn", reset_after=1000)
    empty_hub.fault(server="cdn", expired=True)
    router.register("acme/secret", manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path):
        router.wait_whole("acme/secret")
    to_hub, to_cdn = empty_hub.requests(server="hub"), empty_hub.requests(server="cdn")
    assert any(each.authorization for each in to_hub if each.label.endswith("config.json") and each.method == "GET")
    assert len(to_cdn) >= 3 and not any(each.authorization for each in to_cdn)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        pytest.param(lambda hub, repo: hub.remove(repo.id), "no_such_repo", id="repo gone"),
        pytest.param(lambda hub, repo: repo.commits.clear(), "no_such_revision", id="revision gone"),
        pytest.param(
            lambda hub, repo: repo.commit({"other.gguf": Generated(SIZE, 1)}, commit_id=repo.sha),
            "no_such_file",
            id="file gone",
        ),
        pytest.param(
            lambda hub, repo: repo.commit({"tiny.gguf": Generated(SIZE, 7)}, commit_id=repo.sha),
            "changed_upstream",
            id="changed",
        ),
        pytest.param(lambda hub, repo: setattr(repo, "disabled", True), "no_such_repo", id="disabled"),
    ],
)
def test_what_the_hub_has_no_longer_is_said_in_a_sentence(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path, spoil: Any, code: str
) -> None:
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    spoil(empty_hub, repo)
    if code == "no_such_revision":
        repo.branches.clear()
    with NodeThread(router, empty_hub, tmp_path):
        failed = router.wait_phase(NAME, "failed")
    assert failed["error_code"] == code
    assert failed["error"].endswith(".") and "\n" not in failed["error"] and "Traceback" not in failed["error"]


def test_a_file_that_changes_between_two_attempts_is_never_mixed(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path
) -> None:
    stall = empty_hub.fault(server="cdn", stall_after=MIB)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path, stall_s=30) as node:
        assert stall.stalled.wait(30)
        repo.commit({"tiny.gguf": Generated(SIZE, 7)}, commit_id=repo.sha)
        empty_hub.fault(server="cdn", expired=True, times=None)
        empty_hub.drop_connections("cdn")
        assert router.wait_phase(NAME, "failed")["error_code"] == "changed_upstream"
        assert not [*node.cache.rglob("*.gguf")]


@pytest.mark.parametrize(
    "entry",
    [
        {"path": "../../../escape.gguf", "repo": "acme/Tiny-GGUF", "revision": "main"},
        {"path": "/etc/passwd", "repo": "acme/Tiny-GGUF", "revision": "main"},
        {"path": "a\\b.gguf", "repo": "acme/Tiny-GGUF", "revision": "main"},
        {"path": "tiny.gguf", "repo": "../../etc", "revision": "main"},
        {"path": "tiny.gguf", "repo": "acme/Tiny-GGUF", "revision": "../../../up"},
        {"path": "tiny.gguf", "repo": "acme/Tiny-GGUF", "revision": "main", "sha256": "../../../../x"},
        {"path": "tiny.gguf", "repo": "acme/Tiny-GGUF", "revision": "main", "size": -1},
        {"name": "model.gguf", "url": "http://169.254.169.254/acme/x/resolve/main/latest"},
        {"name": "model.gguf", "url": "file:///etc/passwd"},
        {"name": "model.gguf", "url": "https://huggingface.co/acme/x/resolve/main/%2e%2e/%2e%2e/x"},
        "text",
    ],
)
def test_a_hostile_manifest_is_refused_before_anything_is_touched(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path, entry: Any
) -> None:
    router.register(NAME, [entry])
    with NodeThread(router, empty_hub, tmp_path) as node:
        failed = router.wait_phase(NAME, "failed")
        assert failed["error_code"] == "unsupported"
        assert not node.cache.exists()
    assert not empty_hub.log


def test_a_file_that_is_a_folder_too_is_refused(router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path) -> None:
    repo = empty_hub.add(HubRepo("acme/odd", {"m.onnx/a.onnx": b"one", "m.onnx": b"two"}))
    router.register("acme/odd", manifest_of(repo))
    with NodeThread(router, empty_hub, tmp_path) as node:
        failed = router.wait_phase("acme/odd", "failed")
        assert failed["error_code"] == "unsupported" and "m.onnx is a file and a folder" in failed["error"]
        assert not node.cache.exists()


def test_a_router_that_restarts_is_registered_with_again(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path
) -> None:
    stall = empty_hub.fault(server="cdn", stall_after=MIB)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path, stall_s=30):
        assert stall.stalled.wait(30)
        router.down()
        router.forget_nodes()
        stall.release()  # the download goes on without a router
        repo_link = tmp_path / "hub" / "models--acme--Tiny-GGUF" / "snapshots" / repo.sha / "tiny.gguf"
        known = len(router.registrations)
        router.up()
        router.wait_whole(NAME)
        assert repo_link.exists() and len(router.registrations) == known + 1


def test_a_router_that_cannot_give_the_manifest_yet_is_asked_again(
    router: StubRouter, empty_hub: LoopbackHub, repo: HubRepo, tmp_path: Path
) -> None:
    router.refuse["/v0/models/registry"] = (502, {"error": "HTTP client error: hub away", "code": "hub_unreachable"})
    router.register(NAME, manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, empty_hub, tmp_path, max_attempts=2):
        offline = router.wait_offline(NAME)
        assert offline["error_code"] == "hub_unreachable" and "hub away" in offline["error"]
        router.refuse.clear()
        router.wait_whole(NAME)


@pytest.mark.parametrize("way", ["trailers", "a chunk's length", "bytes that are here already"])
def test_no_answer_holds_a_transfer_for_ever(router: StubRouter, tmp_path: Path, way: str) -> None:
    over = threading.Event()

    def send(asked: Asked) -> Iterator[bytes]:
        if asked.method == "HEAD":
            yield head(Content_Length=SIZE, X_Repo_Commit="a" * 40, ETag=f'"{"c" * 64}"')
            return
        whole = f"bytes 0-{SIZE - 1}/{SIZE}"
        if way != "bytes that are here already":
            yield head(206, Content_Range=whole, Transfer_Encoding="chunked")
            yield b"4\r\nGGUF\r\n" + (b"0\r\n" if way == "trailers" else b"")
        elif asked.headers["range"].startswith("bytes=0-"):
            yield head(206, Content_Range=whole, Content_Length=SIZE) + bytes(MIB)
            return
        else:
            yield head(200, Content_Length=SIZE)
        while not over.wait(0.02):
            yield b"x: y\r\n" if way == "trailers" else b"0"

    file = {"path": "m.gguf", "repo": "acme/tiny", "revision": "a" * 40, "size": SIZE, "sha256": "c" * 64}
    router.register("acme/tiny", [file])
    with HostileHub(send) as hub, NodeThread(router, hub.url, tmp_path, stall_s=0.2, max_attempts=2, restart_base_s=99):
        assert router.wait_offline("acme/tiny")["error_code"] in ("stalled", "connection_lost")
    over.set()


def test_the_host_that_fails_is_the_one_that_is_named(router: StubRouter, tmp_path: Path) -> None:
    def send(asked: Asked) -> Iterator[bytes]:
        if asked.method == "HEAD":
            yield head(Content_Length=SIZE, X_Repo_Commit="a" * 40, ETag=f'"{"c" * 64}"')
        else:
            yield head(302, Location="http://user:secret\x9b31m@127.0.0.1:1/x", Content_Length=0)

    file = {"path": "m.gguf", "repo": "acme/tiny", "revision": "a" * 40, "size": SIZE, "sha256": "c" * 64}
    router.register("acme/tiny", [file])
    with HostileHub(send) as hub, NodeThread(router, hub.url, tmp_path, max_attempts=2, restart_base_s=99):
        assert "connection to 127.0.0.1:1 broke" in router.wait_offline("acme/tiny")["error"]
