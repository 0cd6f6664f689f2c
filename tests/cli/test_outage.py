"""A hub that goes away and comes back under the real command, service and node: never a failure in between."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_cli_end_to_end import Shell
from tests.hub import MIB, Generated, HubRepo, LoopbackHub

pytestmark = pytest.mark.timeout(300)

FILE = "away-Q4_K_M.gguf"
SOON = {"stall_s": 1.0, "max_attempts": 2, "backoff_base_s": 0.1, "restart_base_s": 2.0, "restart_cap_s": 2.0}


@pytest.fixture
def modelhub(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.setenv("MODELHUB_NODE_TUNING", json.dumps(SOON))
    shell = Shell()
    yield shell
    shell("stop")


def pull_through(modelhub: Shell, hub: LoopbackHub, waits: str, *, code: str, cut: bool) -> None:
    """Pull a model; half of it comes, then the hub is `cut` off or fails, until the command has said `waits`."""
    repo = hub.add(HubRepo("acme/Away-GGUF", {FILE: Generated(4 * MIB, seed=7)}))
    stall = hub.fault(path="acme/Away-GGUF/*", server="cdn", stall_after=2 * MIB)
    process = modelhub.start("pull", f"acme/Away-GGUF:{FILE}")
    assert process.stdout is not None and process.stderr is not None
    said: list[str] = []
    told = threading.Event()

    def read() -> None:
        for line in process.stderr or ():
            said.append(line)
            if waits in line:
                told.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert stall.stalled.wait(60), said
        if cut:
            hub.down()
        else:
            failing = hub.fault(path="*", status=503, times=None)
            hub.drop_connections()
        assert told.wait(90), said
        (transfer,) = json.loads(modelhub.ok("status", "--json"))["transfers"]
        assert transfer["state"] != "failed" and transfer["progress"]["error_code"] == code, transfer
        if cut:
            hub.up()
        else:
            failing.remove()
        assert process.wait(120) == 0, said
        reader.join(30)
        path = Path(process.stdout.read().strip())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == repo[FILE].sha256
    assert "failed" not in "".join(said).lower(), said
    assert path.is_relative_to(Path(os.environ["HF_HOME"]))


def test_a_network_that_is_cut_during_a_pull_and_comes_back(modelhub: Shell, hub: LoopbackHub) -> None:
    pull_through(modelhub, hub, "offline, trying again in", code="hub_unreachable", cut=True)


def test_a_hub_that_answers_with_errors_for_a_while_is_not_called_offline(modelhub: Shell, hub: LoopbackHub) -> None:
    pull_through(modelhub, hub, "the hub fails, trying again in", code="hub_failed", cut=False)
