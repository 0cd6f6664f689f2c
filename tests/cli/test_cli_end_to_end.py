"""The real command, service, node and `hf`, against the loopback hub: the main job without a screen."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.hub import MIB, Generated, HubRepo, LoopbackHub

pytestmark = pytest.mark.timeout(300)


class Shell:
    """Runs `modelhub`, and stops its service at the end."""

    def __call__(self, *argv: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "modelhub_tui", *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)

    def ok(self, *argv: str) -> str:
        """What a command that must succeed printed."""
        done = self(*argv)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def until(self, wanted: Callable[[dict[str, Any]], object], name: str) -> dict[str, Any]:
        """What `status` says of a model, once that is as wanted."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for model in json.loads(self.ok("status", "--json"))["transfers"]:
                if model["name"] == name and wanted(model):
                    found: dict[str, Any] = model
                    return found
        raise AssertionError(f"{name} did not come to that")

    def local_until(self, wanted: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
        """What `local` lists, once that is as wanted."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            models: list[dict[str, Any]] = json.loads(self.ok("local", "--json"))
            if wanted(models):
                return models
        raise AssertionError("what is on disk did not come to that")

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """A command that is not waited for."""
        command = [sys.executable, "-m", "modelhub_tui", *argv]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def modelhub(hub: LoopbackHub) -> Iterator[Shell]:
    shell = Shell()
    yield shell
    shell("stop")


def hf_cache() -> str:
    """What the real `hf` command lists."""
    command = [str(Path(sys.executable).with_name("hf")), "cache", "ls"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def bytes_on_disk() -> int:
    cache = Path(os.environ["HF_HOME"]) / "hub"
    return sum(each.stat().st_size for each in cache.rglob("*") if each.is_file() and not each.is_symlink())


def test_a_mirror_that_tells_no_checksum(modelhub: Shell, hub: LoopbackHub) -> None:
    """Registered, downloaded, listed, deleted and brought back; and nowhere called verified."""
    hub.api.mirror_etag, hub.api.untold = (lambda _repo, _blob: '"deadbeef"'), (lambda _repo, path: path == "b.gguf")
    hub.add(HubRepo("acme/Bare", {"a.gguf": Generated(MIB, 1), "b.gguf": Generated(MIB, 2)}))
    for file, verified in (("a.gguf", True), ("b.gguf", False)):
        name = json.loads(modelhub.ok("register", "acme/Bare", "--file", file, "--json"))["name"]
        done = modelhub("pull", name)
        assert done.returncode == 0 and ("cannot be verified" in done.stderr) is not verified, done.stderr
        path = done.stdout.strip()
        assert Path(path).read_bytes() == hub.repo("acme/Bare")[file].read()
        for command in ("local", "list"):
            told = next(each for each in json.loads(modelhub.ok(command, "--json")) if each["name"] == name)
            (place,) = told["placements"]
            assert (place["verified"], place["unverified"]) == (verified, [] if verified else [path])
        assert ("not verifiable" in modelhub.ok("local")) is not verified
        said = modelhub.ok("status", "--json") + modelhub.ok("local")
        assert verified or "Verified" not in said
    served = hub.served_bytes()
    modelhub.ok("rm", name, "--yes")
    assert modelhub.ok("undo") == f"{path}\n"
    assert hub.served_bytes() == served, "it was downloaded again"


def test_register_pull_local_rm(modelhub: Shell, hub: LoopbackHub) -> None:
    repo = hub.add(HubRepo("acme/Big-GGUF", {"big-Q4_K_M.gguf": Generated(3 * MIB, seed=5), "README.md": "# Big"}))
    told = json.loads(modelhub.ok("register", f"{hub.url}/acme/Big-GGUF/blob/main/big-Q4_K_M.gguf", "--json"))
    assert (told["name"], told["file"], told["size_bytes"]) == ("acme/big-gguf", "big-Q4_K_M.gguf", 3 * MIB)

    path = Path(modelhub.ok("pull", "big-gguf").strip())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == repo["big-Q4_K_M.gguf"].sha256

    (local,) = json.loads(modelhub.ok("local", "--json"))
    assert (local["name"], local["path"], local["disk_bytes"]) == ("acme/big-gguf", str(path), 3 * MIB)
    assert local["state"] == "downloaded" and local["placements"][0]["path"] == str(path)
    assert re.search(r"acme/Big-GGUF", hf_cache())
    assert "is registered already" in modelhub("register", "acme/Big-GGUF", "--file", "big-Q4_K_M.gguf").stderr

    before = bytes_on_disk()
    said = modelhub.ok("rm", "acme/big-gguf", "--yes")
    assert said.startswith("Deleted acme/big-gguf; 3.1 MB kept in the trash until ")
    assert not path.exists() and json.loads(modelhub.ok("local", "--json")) == []
    (kept,) = json.loads(modelhub.ok("trash", "--json"))
    assert (kept["name"], kept["bytes"]) == ("acme/big-gguf", 3 * MIB)

    served = hub.served_bytes()
    assert modelhub.ok("undo") == f"{path}\n"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == repo["big-Q4_K_M.gguf"].sha256
    assert hub.served_bytes() == served, "it was downloaded again"

    assert modelhub.ok("rm", "acme/big-gguf", "--yes", "--now") == "Deleted acme/big-gguf; 3.1 MB freed.\n"
    assert not path.exists() and before - bytes_on_disk() >= 3 * MIB
    assert "acme/Big-GGUF" not in hf_cache()
    assert json.loads(modelhub.ok("trash", "--json")) == []
    assert modelhub("undo").returncode == 5
    assert modelhub("rm", "acme/big-gguf", "--yes").returncode == 5

    modelhub.ok("pull", "acme/Big-GGUF")
    modelhub.ok("rm", "acme/big-gguf", "--yes")
    assert modelhub("trash", "--empty", "--yes").stderr == "3.1 MB freed.\n"
    assert before - bytes_on_disk() >= 3 * MIB, "it was said before it was true"


def test_the_queue_and_its_limits(modelhub: Shell, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELHUB_TRASH_SECONDS", "2d")
    for seed, name in enumerate(("One", "Two"), 40):
        hub.add(HubRepo(f"acme/{name}-GGUF", {f"{name}-Q4_K_M.gguf": Generated(4 * MIB, seed=seed)}))
    limits = json.loads(modelhub.ok("limits", "--parallel", "1", "--bandwidth", "20k", "--json"))
    assert (limits["parallel_transfers"], limits["bandwidth_bps"], limits["trash_seconds"]) == (1, 20_000, 172_800)
    modelhub.ok("pull", "acme/One-GGUF", "acme/Two-GGUF", "--no-wait")
    one = modelhub.until(lambda model: (model["progress"] or {}).get("phase") == "fetching", "acme/one-gguf")
    assert one["queue_position"] == 1

    refused = modelhub("rm", "acme/one-gguf", "--yes")
    assert refused.returncode == 1 and "--cancel" in refused.stderr
    (paused,) = json.loads(modelhub.ok("pause", "acme/one-gguf", "--json"))
    assert paused["paused"] is True
    modelhub.ok("limits", "--bandwidth", "0")
    # What is held makes room for the next one, which nothing slows down any more.
    assert modelhub.ok("pull", "acme/two-gguf").strip().endswith("Two-Q4_K_M.gguf")
    modelhub.until(lambda model: model["state"] == "paused", "acme/one-gguf")
    assert modelhub.ok("pull", "acme/one-gguf").strip().endswith("One-Q4_K_M.gguf")
    assert modelhub("pause", "acme/one-gguf").returncode == 1  # there is nothing to hold any more


def test_what_hf_download_fetched_is_adopted_without_a_download(modelhub: Shell, hub: LoopbackHub) -> None:
    hub.add(HubRepo("acme/Own-GGUF", {"own-Q4_K_M.gguf": Generated(MIB, seed=9)}))
    command = [str(Path(sys.executable).with_name("hf")), "download", "acme/Own-GGUF", "own-Q4_K_M.gguf"]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    served = hub.served_bytes()
    (found,) = modelhub.local_until(lambda models: bool(models))
    assert (found["found"], found["registered"], found["repo"]) == (True, False, "acme/Own-GGUF")
    assert ": 1.0 MB of models (1.0 MB of it not registered), shared files counted once" in modelhub("local").stderr
    assert modelhub("rm", found["name"], "--yes").returncode == 1
    assert modelhub.ok("adopt", "--all").strip() == found["name"]
    (own,) = modelhub.local_until(lambda models: all(model["registered"] for model in models))
    assert (own["found"], own["paths"]) == (False, found["paths"]) and hub.served_bytes() == served


def test_wrong_input_is_one_sentence(modelhub: Shell, hub: LoopbackHub) -> None:
    for repo, says in (
        ("acme/Tiny-GGUF", "Choose one of: Tiny-Q4_K_M.gguf"),
        ("acme/nothing-there", ""),
        ("acme/Tiny-GGUF:none.gguf", ""),
        ("acme/Empty", ""),
    ):
        done = modelhub("register", repo)
        assert done.returncode in (1, 5) and done.stdout == ""
        # A busy machine makes it wait for seconds, and it says so.
        *waits, sentence = done.stderr.splitlines()
        assert sentence.startswith("modelhub: ") and says in sentence
        assert waits in ([], [f"Waiting for the router to ask the hub about {repo.partition(':')[0]}."])


def test_an_interrupted_pull_goes_on_in_the_background(modelhub: Shell, hub: LoopbackHub) -> None:
    hub.add(HubRepo("acme/Slow-GGUF", {"slow-Q4_K_M.gguf": Generated(2 * MIB, seed=6)}))
    stall = hub.fault(server="cdn", path="*slow*", stall_after=MIB)
    process = modelhub.start("pull", "acme/Slow-GGUF", "--json")
    assert process.stdout is not None and process.stderr is not None
    for line in process.stdout:
        if (json.loads(line)["progress"] or {}).get("bytes_done"):
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    said = process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    assert "goes on in the background" in said and "Traceback" not in said
    (transfer,) = json.loads(modelhub.ok("status", "--json"))["transfers"]
    assert (transfer["name"], transfer["state"]) == ("acme/slow-gguf", "downloading")
    stall.release()
    assert modelhub.ok("pull", "slow-gguf").strip().endswith("slow-Q4_K_M.gguf")


def test_a_service_that_is_killed_is_started_again_and_resumes(modelhub: Shell, hub: LoopbackHub) -> None:
    repo = hub.add(HubRepo("acme/Slow-GGUF", {"slow-Q4_K_M.gguf": Generated(4 * MIB, seed=7)}))
    hub.throttle_bps = 4 * MIB
    process = modelhub.start("pull", "acme/Slow-GGUF", "--json")
    assert process.stdout is not None and process.stderr is not None
    killed = False
    path = ""
    for line in process.stdout:
        event = json.loads(line)
        path = event["path"] or path
        if not killed and (event["progress"] or {}).get("bytes_done", 0) > MIB // 2:
            killed = True
            os.kill(json.loads(modelhub.ok("status", "--json"))["service"]["pid"], signal.SIGKILL)
    said = process.stderr.read()
    assert process.wait(120) == 0, said
    process.stdout.close()
    process.stderr.close()
    assert killed
    assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == repo["slow-Q4_K_M.gguf"].sha256


def test_on_a_terminal_it_shows_progress_and_asks_before_deleting(modelhub: Shell, hub: LoopbackHub) -> None:
    hub.add(HubRepo("acme/Big-GGUF", {"big-Q4_K_M.gguf": Generated(2 * MIB, seed=8)}))
    stall = hub.fault(server="cdn", path="*big*", stall_after=MIB)
    terminal = Terminal("pull", "acme/Big-GGUF")
    terminal.expect(r"\r\S+  ━+─+  \d+%  1\.0 MB of 2\.1 MB[^\n]*\x1b\[K")
    stall.release()
    assert terminal.finish() == 0
    assert "\x1b[32macme/big-gguf is downloaded, 2.1 MB.\x1b[0m" in terminal.said

    terminal = Terminal("rm", "acme/big-gguf")
    terminal.expect(
        r"Delete acme/big-gguf \(2\.1 MB on \S+\)\? "
        r"It can be undone for 1 hour with `modelhub undo`, unless [^\[]+ before\. \[y/N\] "
    )
    terminal.type("\r")
    assert terminal.finish() == 1 and "Nothing was deleted." in terminal.said
    assert len(json.loads(modelhub.ok("local", "--json"))) == 1

    terminal = Terminal("rm", "acme/big-gguf")
    terminal.expect(r"\[y/N\] ")
    terminal.type("\x03")
    assert terminal.finish() == 130 and "Traceback" not in terminal.said

    terminal = Terminal("rm", "acme/big-gguf")
    terminal.expect(r"\[y/N\] ")
    terminal.type("y\r")
    assert terminal.finish() == 0 and "2.1 MB kept in the trash" in terminal.said
    assert json.loads(modelhub.ok("local", "--json")) == []


class Terminal:
    """`modelhub` on a terminal of its own."""

    def __init__(self, *argv: str) -> None:
        env = {**os.environ, "TERM": "xterm-256color"}
        command = ["-m", "modelhub_tui", *argv]
        self._child = pexpect.spawn(
            sys.executable, command, env=env, dimensions=(24, 100), timeout=120, encoding="utf-8"
        )
        self.said = ""

    def expect(self, pattern: str) -> None:
        self._child.expect(pattern)
        self.said += self._child.before + self._child.after

    def type(self, text: str) -> None:
        self._child.send(text)

    def finish(self) -> int:
        """Read to the end; the exit code."""
        self._child.expect(pexpect.EOF)
        self.said += self._child.before
        self._child.close()
        assert self._child.exitstatus is not None
        return int(self._child.exitstatus)
