"""The first command after a start, and deletions that cannot be done: with the real service and node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_cli_end_to_end import Shell
from tests.faults.places import humble
from tests.hub import MIB, Generated, HubRepo, LoopbackHub

pytestmark = pytest.mark.timeout(300)

NAME = "acme/own-gguf"
FILE = "own-Q4_K_M.gguf"


class Humble(Shell):
    """Runs `modelhub` where permissions count."""

    def __call__(self, *argv: str) -> subprocess.CompletedProcess[str]:
        command = [*humble(), sys.executable, "-m", "modelhub_tui", *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


@pytest.fixture
def modelhub(hub: LoopbackHub) -> Iterator[Shell]:
    hub.add(HubRepo("acme/Own-GGUF", {FILE: Generated(MIB, seed=9)}))
    shell = Humble()
    yield shell
    shell("stop")


def fetch_by_other_means() -> None:
    command = [str(Path(sys.executable).with_name("hf")), "download", "acme/Own-GGUF", FILE]
    subprocess.run(command, capture_output=True, timeout=120, check=True)


def repo_folder() -> Path:
    return Path(os.environ["HF_HOME"]) / "hub" / "models--acme--Own-GGUF"


def test_the_very_first_command_of_a_machine_knows_what_is_on_its_disk(modelhub: Shell) -> None:
    fetch_by_other_means()
    (found,) = json.loads(modelhub.ok("local", "--json"))
    assert (found["found"], found["repo"]) == (True, "acme/Own-GGUF")


def test_adopting_right_after_a_start_finds_what_is_there(modelhub: Shell) -> None:
    fetch_by_other_means()
    assert modelhub.ok("adopt", "--all").strip() == NAME


def test_each_start_is_waited_for(modelhub: Shell) -> None:
    modelhub.ok("list")
    modelhub.ok("stop")
    fitting = json.loads(modelhub.ok("list", "--fits", "--json"))
    assert fitting, "no model fits this machine, it says"
    modelhub.ok("pull", f"acme/Own-GGUF:{FILE}")
    modelhub.ok("stop")
    gone = modelhub("rm", NAME, "--yes", "--now")
    assert (gone.returncode, gone.stdout) == (0, f"Deleted {NAME}; 1.0 MB freed.\n"), gone.stderr
    assert "offline" not in gone.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="leaves a folder that only root may look into")
def test_a_cache_that_cannot_be_read_is_not_called_empty(modelhub: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Path(os.environ["HF_HOME"]) / "hub"
    cache.mkdir(parents=True)
    cache.chmod(0o000)
    try:
        for argv in (("local",), ("local", "--json"), ("adopt", "--all")):
            told = modelhub(*argv)
            assert (told.returncode, told.stdout) == (1, ""), argv
            assert "The model folder cannot be read: Permission denied" in told.stderr
    finally:
        cache.chmod(0o700)


def test_rm_ends_although_another_commit_has_the_same_file(modelhub: Shell) -> None:
    modelhub.ok("pull", f"acme/Own-GGUF:{FILE}")
    (mine,) = (repo_folder() / "snapshots").iterdir()
    other = mine.with_name("b" * 40)
    other.mkdir()
    (other / FILE).symlink_to((mine / FILE).readlink())
    modelhub.ok("stop")
    done = modelhub("rm", NAME, "--yes", "--now", "--timeout", "30")
    assert done.returncode == 0 and done.stdout.startswith(f"Deleted {NAME}"), done
    assert (other / FILE).resolve().stat().st_size == MIB, "it belonged to somebody else, too"


def test_rm_says_what_keeps_the_node_from_removing(modelhub: Shell) -> None:
    path = Path(modelhub.ok("pull", f"acme/Own-GGUF:{FILE}").strip())
    folders = [each for each in (repo_folder(), *repo_folder().rglob("*")) if each.is_dir()]
    for each in folders:
        each.chmod(0o500)
    try:
        begun = time.monotonic()
        refused = modelhub("rm", NAME, "--yes", "--now", "--timeout", "12")
        assert time.monotonic() - begun < 40
        assert (refused.returncode, refused.stdout) == (1, ""), refused
        assert "cannot be removed: Permission denied." in refused.stderr
        assert "offline" not in refused.stderr and "freed" not in refused.stderr
        (left,) = json.loads(modelhub.ok("list", "--status", "deleting", "--json"))
        assert "Permission denied" in left["reason"] and path.exists()
    finally:
        for each in folders:
            each.chmod(0o700)


def test_a_wish_to_be_offline_is_named_by_the_pull_that_it_stops(
    modelhub: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    begun = time.monotonic()
    for model in (f"acme/Own-GGUF:{FILE}", "qwen3-0.6b"):
        stopped = modelhub("pull", model)
        assert stopped.returncode == 1 and "HF_HUB_OFFLINE is set" in stopped.stderr, stopped
    assert time.monotonic() - begun < 60
