"""The node as a process: how it ends, what it survives, what it never writes down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelhub_tui.service.redact import redact
from tests.hub import GOOD_TOKEN, MIB, Generated, HubRepo, LoopbackHub
from tests.node.harness import start_process
from tests.node.stub_router import KEY, StubRouter, manifest_of

NAME = "acme/tiny-gguf"


@pytest.fixture
def pulling(router: StubRouter, empty_hub: LoopbackHub) -> Callable[[], None]:
    """A registered model of which the first MiB arrives, and then nothing; call it to wait for that."""
    repo = empty_hub.add(HubRepo("acme/Tiny-GGUF", {"tiny.gguf": Generated(4 * MIB, seed=1)}))
    stall = empty_hub.fault(server="cdn", stall_after=MIB)
    router.register(NAME, manifest_of(repo, "tiny.gguf"))

    def wait() -> None:
        assert stall.stalled.wait(60)
        router.wait(lambda: (t := router.transfer(NAME)) and t["bytes_done"] == MIB)

    return wait


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_it_stops_in_the_middle_of_a_pull_at_once_and_keeps_the_bytes(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, pulling: Callable[[], None], how: signal.Signals
) -> None:
    process = start_process(router, empty_hub, tmp_path, tuning={"stall_s": 60})
    try:
        pulling()
        at = time.monotonic()
        process.send_signal(how)
        assert process.wait(20) == 0
        assert time.monotonic() - at < 3.0
    finally:
        process.kill()
        process.wait()
    assert [each.stat().st_size for each in tmp_path.rglob("*.part")] == [MIB]


def test_it_ends_when_its_parent_is_gone(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, pulling: Callable[[], None]
) -> None:
    ours, its = os.pipe()
    # The node holds the reading end; the writing end is the parent's, and closes with it.
    process = start_process(router, empty_hub, tmp_path, lifeline=ours, tuning={"stall_s": 60})
    os.close(ours)
    try:
        pulling()
        os.close(its)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_a_dropped_session_and_a_closed_terminal_do_not_stop_it(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path, pulling: Callable[[], None]
) -> None:
    process = start_process(
        router, empty_hub, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, tuning={"stall_s": 60}
    )
    assert process.stdout and process.stderr
    process.stdout.close()
    process.stderr.close()
    try:
        pulling()
        process.send_signal(signal.SIGHUP)
        empty_hub.faults[0].release()
        router.wait_whole(NAME)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_its_log_and_its_folder_are_private_and_carry_no_secret(
    router: StubRouter, empty_hub: LoopbackHub, tmp_path: Path
) -> None:
    repo = empty_hub.add(HubRepo("acme/secret", {"m.gguf": Generated(MIB, 1)}, gated="manual"))
    empty_hub.fault(server="cdn", reset_after=1000, times=2)
    empty_hub.fault(server="cdn", expired=True, times=2)
    router.register("acme/secret", manifest_of(repo))
    process = start_process(router, empty_hub, tmp_path, env={"HF_TOKEN": GOOD_TOKEN})
    try:
        router.wait_whole("acme/secret")
        token = next(iter(router._tokens))
        assert KEY not in Path(f"/proc/{process.pid}/cmdline").read_text() if sys.platform == "linux" else True
    finally:
        process.terminate()
        assert process.wait(20) == 0
    home = tmp_path / "state" / "node"
    log = (home / "node.log").read_text()
    assert "acme/secret" in log
    for secret in (GOOD_TOKEN, KEY, token, "Signature=", "X-Amz-"):
        assert secret not in log
    assert home.stat().st_mode & 0o077 == 0
    assert all(each.stat().st_mode & 0o077 == 0 for each in home.iterdir())


def test_without_a_router_it_says_what_it_needs(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "modelhub_tui.service.node"],
        env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 2
    assert "MODELHUB_ROUTER" in told.stderr and "Traceback" not in told.stderr


def test_it_imports_neither_textual_nor_the_client_nor_the_router() -> None:
    # (httpx brings Rich along by itself where it is installed.)
    code = (
        "import sys, modelhub_tui.service.node.agent, modelhub_tui.service.node.runner\n"
        "no = 'textual', 'fastapi', 'huggingface_hub', 'modelhub_tui.client', 'modelhub_tui.service.router'\n"
        "sys.exit(' '.join(name for name in sys.modules if name.startswith(no)) or 0)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr


@pytest.mark.parametrize(
    ("text", "never"),
    [
        ("GET https://cdn.example/x?Policy=abc&Signature=def failed", "=def"),
        ("authorization: Bearer hf_abcdefghijkl", "abcdefghijkl"),
        ("token hf_abcdefghijkl in text", "abcdefghijkl"),
        ("X-Node-Token: nt_12345678-9abc", "12345678"),
        ("key sk_ABCDEFGHIJ", "ABCDEFGHIJ"),
        ("proxy http://user:pass@proxy:3128/", "pass"),
    ],
)
def test_secrets_are_taken_out_of_log_lines(text: str, never: str) -> None:
    assert never not in redact(text)


def test_a_proxy_that_is_not_understood_ends_a_node_with_a_sentence(tmp_path: Path) -> None:
    env = {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        "MODELHUB_ROUTER": "http://router.example",
        "MODELHUB_API_KEY": "nk-x",
        "MODELHUB_STATE_DIR": str(tmp_path / "state"),
        "HF_HOME": str(tmp_path),
        "ALL_PROXY": "socks://me:proxypass1@proxy.example",
    }
    command = [sys.executable, "-m", "modelhub_tui.service.node"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    said = done.stderr + (tmp_path / "state" / "node" / "node.log").read_text()
    assert "ALL_PROXY=socks://proxy.example is not understood" in said
    assert "Traceback" not in said and "proxypass1" not in said
