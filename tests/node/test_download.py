"""Real downloads: the node against the loopback hub, through the real huggingface_hub, told by a router what to hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub import MIB, Generated, HubRepo, LoopbackHub
from tests.node.harness import NodeThread
from tests.node.stub_router import StubRouter, manifest_of


@pytest.fixture
def router() -> Iterator[StubRouter]:
    with StubRouter() as running:
        yield running


@pytest.fixture
def loop_hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as running:
        yield running


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_a_registered_model_arrives_whole_where_everybody_finds_it(
    router: StubRouter, loop_hub: LoopbackHub, tmp_path: Path
) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    repo = loop_hub.add(
        HubRepo("acme/Tiny-GGUF", {"tiny.gguf": Generated(3 * MIB + 17, seed=1), "README.md": "# Tiny"})
    )
    router.register("acme/tiny-gguf", manifest_of(repo, "tiny.gguf"))
    with NodeThread(router, loop_hub, tmp_path) as node:
        placed = router.wait_whole("acme/tiny-gguf")
        assert sha256(placed["path"]) == repo["tiny.gguf"].sha256
        assert placed["disk_bytes"] == repo["tiny.gguf"].size
        assert router.last["loaded_models"] == ["acme/tiny-gguf"]
        assert loop_hub.served_bytes("*.gguf") == repo["tiny.gguf"].size
        scan = scan_cache_dir(node.cache)
        assert not scan.warnings
        assert [each.repo_id for each in scan.repos] == ["acme/Tiny-GGUF"]
        found = hf_hub_download(
            "acme/Tiny-GGUF", "tiny.gguf", cache_dir=node.cache, local_files_only=True, endpoint=loop_hub.url
        )
        assert found == placed["path"]
        assert not [*node.cache.rglob("*.part")]
