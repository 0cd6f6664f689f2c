"""Files in Xet storage, through the real `hf_xet` with a storage that is a folder on this machine."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelhub_tui.service.node.cache import Cache
from modelhub_tui.service.node.xet import XetTransport, _XetBody, is_available, xet_file
from tests.hub import MIB, Generated, HubRepo, LoopbackHub
from tests.node.harness import NodeThread
from tests.node.stub_router import StubRouter, manifest_of

NAME = "acme/xet-gguf"
SIZE = 6 * MIB + 77
pytestmark = pytest.mark.skipif(not is_available({}), reason="hf_xet is not installed")


@pytest.fixture
def repo(empty_hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubRepo:
    """A file that is on the CDN and in Xet storage."""
    import hf_xet

    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "xet-cache"))
    # A hub that names a folder of this machine would not be believed.
    monkeypatch.setattr("modelhub_tui.service.node.xet._SCHEMES", ("https", "http", "local"))
    storage = tmp_path / "storage"
    storage.mkdir()
    made = empty_hub.add(HubRepo("acme/Xet-GGUF", {"x.gguf": Generated(SIZE, seed=9)}))
    empty_hub.api.xet_url = f"local://{storage}"
    with hf_xet.XetSession().new_upload_commit(endpoint=empty_hub.api.xet_url) as commit:
        upload = commit.start_upload_bytes(made["x.gguf"].read(), name="x.gguf")
    empty_hub.api.xet[made["x.gguf"].sha256] = upload.result().xet_info.hash
    return made


def pull(router: StubRouter, hub: LoopbackHub, home: Path, repo: HubRepo, **tuning: Any) -> None:
    router.register(NAME, manifest_of(repo, "x.gguf"))
    with NodeThread(router, hub, home, **{"xet_bytes": 1, **tuning}):
        placed = Path(router.wait_whole(NAME)["path"])
    assert hashlib.sha256(placed.read_bytes()).hexdigest() == repo["x.gguf"].sha256
    assert [each.name for each in placed.resolve().parent.iterdir()] == [repo["x.gguf"].sha256]


def tokens(hub: LoopbackHub) -> int:
    return len(hub.requests("/api/models/*/xet-read-token/*"))


def test_a_very_large_file_comes_from_xet_storage(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, repo: HubRepo
) -> None:
    pull(router, empty_hub, tmp_path, repo)
    assert tokens(empty_hub) >= 1
    assert empty_hub.served_bytes("*.gguf") == 0


def test_what_is_there_already_is_not_fetched_from_xet_storage_again(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, repo: HubRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, blob = Cache(tmp_path / "hub"), repo["x.gguf"]
    cache.prepare("acme/Xet-GGUF", repo.main.id)
    cache.part("acme/Xet-GGUF", blob.sha256).write_bytes(blob.read()[: 4 * MIB + 1])
    starts: list[int] = []
    opened = XetTransport.open

    def noted(self: XetTransport, url: str, headers: Any) -> Any:
        starts.append(int(headers["Range"].removeprefix("bytes=").partition("-")[0]))
        return opened(self, url, headers)

    monkeypatch.setattr(XetTransport, "open", noted)
    pull(router, empty_hub, tmp_path, repo)
    assert starts == [4 * MIB + 1]
    assert empty_hub.served_bytes("*.gguf") == 0


@pytest.mark.parametrize("why", ["smaller", "switched off", "no storage", "no token"])
def test_plain_http_brings_it_otherwise(
    router: StubRouter,
    empty_hub: LoopbackHub,
    tmp_path: Path,
    repo: HubRepo,
    monkeypatch: pytest.MonkeyPatch,
    why: str,
) -> None:
    if why == "switched off":
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    elif why == "no storage":
        empty_hub.api.xet[repo["x.gguf"].sha256] = "0" * 64
    elif why == "no token":
        empty_hub.fault(path="/api/models/*/xet-read-token/*", status=403, times=None)
    pull(router, empty_hub, tmp_path, repo, xet_bytes=1 if why != "smaller" else SIZE + 1)
    assert empty_hub.served_bytes("*.gguf") == SIZE
    assert bool(tokens(empty_hub)) == (why in ("no storage", "no token"))


class Quiet:
    """A stream that gives one block, and then nothing until it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.asked = threading.Event()
        self._blocks: Iterator[bytes] = iter([b"abc"])

    def __next__(self) -> bytes:
        block = next(self._blocks, b"")
        if not block:
            self.asked.set()
            assert self.cancelled.wait(60)
            raise StopIteration
        return block

    def __iter__(self) -> Quiet:
        return self

    def cancel(self) -> None:
        self.cancelled.set()


def test_a_storage_that_goes_quiet_is_noticed_and_a_reader_is_stopped_at_once() -> None:
    view = memoryview(bytearray(2))
    body = _XetBody(Quiet(), 0, 10, stall_s=0.1)
    assert (body.read_into(view), bytes(view), body.read_into(view), bytes(view[:1])) == (2, b"ab", 1, b"c")
    with pytest.raises(TimeoutError):
        body.read_into(view)
    stream = Quiet()
    body = _XetBody(stream, 0, 10, stall_s=600)
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while body.read_into(view):
                pass
        except OSError as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert stream.asked.wait(30)
    begin = time.monotonic()
    body.cancel()
    reader.join(30)
    assert errors and not isinstance(errors[0], TimeoutError)
    assert time.monotonic() - begin < 5


def test_what_a_hub_says_is_checked_and_the_package_is_loaded_only_when_needed() -> None:
    assert xet_file("a" * 64, "http://hub/token") is not None
    assert xet_file("a" * 63, "http://hub/token") is None and xet_file(None, None) is None
    code = "import sys, modelhub_tui.service.node.agent; sys.exit('hf_xet' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
