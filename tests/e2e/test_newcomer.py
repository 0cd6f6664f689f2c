"""The whole job as a newcomer does it: the installed program in a terminal, its service, and a hub on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelhub_tui.config import load_settings
from modelhub_tui.service.lifecycle import ServiceInfo, find_service, stop_service
from tests.hub import MIB, Generated, HubRepo, LoopbackHub
from tests.tty import Terminal
from tests.tty.terminal import installed

pytestmark = pytest.mark.timeout(300)

SIZE = 24 * MIB
FILE = "Newcomer-3B-Q4_K_M.gguf"
TITLE = "Newcomer 3B"
CATALOG = f"""
schema: 1
models:
  - id: other-7b
    name: Other 7B
    description: Another model, which is never pulled here.
    repo: acme/Other-7B-GGUF
    files: [{{path: other-7b-Q4_K_M.gguf, size_bytes: 4000000000}}]
    quantization: Q4_K_M
    license: mit
    tags: [chat]
    capabilities: [text_generation]
    format: gguf
  - id: newcomer-3b
    name: {TITLE}
    description: A model for whoever has just arrived.
    repo: acme/Newcomer-3B-GGUF
    files: [{{path: {FILE}, size_bytes: {SIZE}}}]
    quantization: Q4_K_M
    license: apache-2.0
    tags: [chat]
    capabilities: [text_generation]
    format: gguf
"""


@dataclass
class World:
    """A machine with the program on it, and a hub it reaches."""

    hub: LoopbackHub
    sha256: str

    def open(self) -> Terminal:
        """Type `modelhub` and press enter."""
        terminal = Terminal([installed()])
        terminal.wait_for("Model Hub (2)", timeout=60)
        return terminal

    def service(self) -> ServiceInfo:
        found = find_service(load_settings())
        assert found is not None
        return found

    def files(self) -> list[Path]:
        """Real files of the model's size in the cache, whatever their name."""
        cache = Path(os.environ["HF_HOME"])
        return [each for each in cache.rglob("*") if each.is_file() and not each.is_symlink() and size(each) == SIZE]

    def bytes_on_disk(self) -> int:
        cache = Path(os.environ["HF_HOME"])
        return sum(size(each) for each in cache.rglob("*") if each.is_file() and not each.is_symlink())

    def served(self) -> int:
        return self.hub.served_bytes("acme/Newcomer-3B-GGUF/*")


def size(path: Path) -> int:
    return path.stat().st_size


@pytest.fixture
def world(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    repo = hub.add(HubRepo("acme/Newcomer-3B-GGUF", {FILE: Generated(SIZE, seed=3), "README.md": "# Newcomer"}))
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(CATALOG)
    monkeypatch.setenv("MODELHUB_CATALOG", str(catalog))
    hub.throttle_bps = 4 * MIB
    yield World(hub, repo[FILE].sha256)
    stop_service(load_settings())


def choose(terminal: Terminal) -> None:
    """Search for the model and leave the search with it under the cursor."""
    terminal.send("/newcomer")
    terminal.wait_for("1 of 2")
    terminal.send("enter")


def percents(terminal: Terminal) -> list[int]:
    return [int(found) for found in re.findall(r"(\d+)%", terminal.text())]


def start_pull(terminal: Terminal) -> int:
    """Press p; return the first percentage that is not nothing."""
    choose(terminal)
    terminal.send("p")
    terminal.wait_for(lambda text: any(int(found) >= 5 for found in re.findall(r"(\d+)%", text)), timeout=90)
    return max(percents(terminal))


def wait_until_downloaded(terminal: Terminal) -> None:
    terminal.wait_for(lambda text: "Local (1)" in text and "downloaded" in text, timeout=120)


def test_browse_pull_watch_delete_quit(world: World) -> None:
    with world.open() as terminal:
        first = start_pull(terminal)
        terminal.wait_for(lambda text: any(int(found) >= first + 10 for found in re.findall(r"(\d+)%", text)))
        assert re.search(r"\d+(\.\d+)? MB/s", terminal.text()), "its speed is told"
        wait_until_downloaded(terminal)

        (blob,) = world.files()
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == world.sha256
        (named,) = [each for each in Path(os.environ["HF_HOME"]).rglob(FILE) if "snapshots" in each.parts]
        assert named.resolve() == blob.resolve()
        assert world.served() < SIZE * 1.05, "every byte travelled once"

        terminal.send("escape", "2")
        terminal.wait_for(lambda text: TITLE in text and "Other 7B" not in text)
        terminal.send("d")
        terminal.wait_for("Delete (y)")
        assert world.files(), "nothing is deleted unasked"
        terminal.send("y")
        terminal.wait_for("Local (0)", timeout=60)
        terminal.send("u")
        terminal.wait_for("Local (1)", timeout=60)
        assert world.served() < SIZE * 1.05, "undoing a deletion fetches nothing"
        terminal.wait_for(lambda text: TITLE in text and "downloaded" in text)
        terminal.send("d")
        terminal.wait_for("Free at once (f)")
        terminal.send("f")
        terminal.wait_for("Local (0)", timeout=60)
        terminal.send("q")
        assert terminal.wait() == 0
        assert not terminal.screen.in_alternate  # type: ignore[attr-defined]
    assert not world.files()
    assert world.bytes_on_disk() < MIB, "its bytes are gone"


def test_closing_the_terminal_leaves_the_pull_running(world: World) -> None:
    with world.open() as terminal:
        seen = start_pull(terminal)
        service = world.service()
        terminal.hangup()
        assert terminal.wait() != 0
    served = world.served()
    with world.open() as terminal:
        terminal.wait_for(lambda text: "Local (1)" in text or any(found > seen for found in percents_of(text)))
        assert world.service().pid == service.pid, "it is the same service"
        assert world.served() > served, "it went on with nobody watching"
        wait_until_downloaded(terminal)
        (blob,) = world.files()
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == world.sha256
        assert world.served() < SIZE * 1.05, "nothing was fetched twice"
        terminal.send("q")
        assert terminal.wait() == 0


def percents_of(text: str) -> list[int]:
    return [int(found) for found in re.findall(r"(\d+)%", text)]


def test_a_killed_service_resumes_where_it_was(world: World) -> None:
    with world.open() as terminal:
        start_pull(terminal)
        terminal.wait_for(lambda text: any(found >= 30 for found in percents_of(text)), timeout=60)
        terminal.send("q")
        assert terminal.wait() == 0
        told = terminal.text()
    assert "1 download goes on." in told
    killed = world.service()
    os.kill(killed.pid, signal.SIGKILL)
    with world.open() as terminal:
        wait_until_downloaded(terminal)
        assert world.service().pid != killed.pid
        (blob,) = world.files()
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == world.sha256
        terminal.send("q")
        assert terminal.wait() == 0
    # What was under way when it was killed may travel again, the first 30 % may not.
    assert world.served() < SIZE * 1.25


def test_without_a_router_the_dashboard_says_so_and_lives(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELHUB_ROUTER", "http://127.0.0.1:9")
    with world.open() as terminal:
        terminal.wait_for("No router answers at http://127.0.0.1:9", timeout=60)
        assert TITLE in terminal.text()
        terminal.send("q")
        assert terminal.wait() == 0
        assert "Traceback" not in terminal.output.decode(errors="replace")


def test_what_the_command_line_sees_is_what_the_dashboard_pulled(world: World) -> None:
    world.hub.throttle_bps = None
    with world.open() as terminal:
        choose(terminal)
        terminal.send("p")
        wait_until_downloaded(terminal)
        terminal.send("q")
        assert terminal.wait() == 0
    with Terminal([installed(), "local", "--json"], size=(400, 60)) as shell:
        assert shell.wait(60) == 0
        (model,) = json.loads(shell.text())
    assert (model["id"], model["state"], model["disk_bytes"]) == ("newcomer-3b", "downloaded", SIZE)
