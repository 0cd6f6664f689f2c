"""A token file that is none: the library would open whatever lies there, and wait for it or fill the memory with it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.machine import Machine
from tests.hub import MIB, Generated, HubRepo, LoopbackHub


def modelhub(machine: Machine, *argv: str) -> subprocess.CompletedProcess[str]:
    """A command on that machine, which ends."""
    command = [sys.executable, "-m", "modelhub_tui", *argv]
    return subprocess.run(command, env=machine.env, capture_output=True, text=True, timeout=90)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/full")


def folder(path: Path) -> None:
    path.mkdir()


def no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x80" * 100)


def large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("put", [pipe, device, folder, no_text, large], ids=lambda each: each.__name__)
def test_what_is_no_token_file_is_no_token(tmp_path: Path, put: Callable[[Path], None]) -> None:
    """A registration ends at once in a sentence, statistics are read without one, and `doctor` names the file."""
    with LoopbackHub() as hub:
        hub.add(HubRepo("acme/Small-GGUF", {"small-Q4_K_M.gguf": Generated(MIB, seed=5)}))
        machine = Machine(tmp_path / "machine", hub)
        (machine.home / "hf").mkdir()
        put(machine.home / "hf" / "token")
        with machine:
            refused, done = modelhub(machine, "register", "acme/Small-GGUF"), modelhub(machine, "doctor")
            machine.until(
                lambda: "Going on without one" in machine.output(), "statistics are asked for without a token"
            )
            logs = machine.output()
    assert refused.returncode == 4 and f"The token file {machine.home / 'hf' / 'token'} " in refused.stderr
    assert "problem  token     The token file" in done.stdout
    assert not any("Traceback" in each for each in (logs, refused.stderr, done.stdout, done.stderr))


def test_a_token_of_any_bytes_breaks_nothing_but_itself(tmp_path: Path) -> None:
    token = os.fsdecode(b"hf_\xc3\xa9\xff-secret")
    with LoopbackHub() as hub, Machine(tmp_path / "machine", hub, env={"HF_TOKEN": token}) as machine:
        done = modelhub(machine, "register", "acme/Small-GGUF")
        assert done.returncode == 4 and "has characters that no token has" in done.stderr
        logs = "".join(each.read_text() for each in machine.settings.state_dir.rglob("*.log"))
    assert "Traceback" not in logs and "secret" not in logs
