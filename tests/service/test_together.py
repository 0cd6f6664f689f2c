"""Programs with different settings at the same time: real commands, a real dashboard, and the service they share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelhub_tui.config import load_settings
from modelhub_tui.service.lifecycle import ServiceInfo, find_service, stop_service
from tests.hub import Generated, HubRepo, LoopbackHub
from tests.tty import Terminal
from tests.tty.terminal import installed

pytestmark = pytest.mark.timeout(300)

PROJECTOR = "mmproj.gguf"


def catalog(folder: Path, *ids: str, companions: bool = False) -> Path:
    """A catalog file with a small model for each id."""
    path = folder / f"{'-'.join(ids)}.yaml"
    entries = "".join(
        f"""
  - id: {each}
    name: Model {each}
    description: A model for the test.
    repo: acme/{each}-GGUF
    files: [{{path: {each}-Q4_K_M.gguf}}]
    {f"companions: [{{path: {PROJECTOR}}}]" if companions else ""}
    quantization: Q4_K_M
    license: mit
    tags: [chat]
    capabilities: [text_generation]
    format: gguf
"""
        for each in ids
    )
    path.write_text(f"schema: 1\nmodels:{entries}")
    return path


@pytest.fixture
def machine(hub: LoopbackHub) -> Iterator[LoopbackHub]:
    for number, each in enumerate(("one", "two")):
        files = {f"{each}-Q4_K_M.gguf": Generated(100_000, seed=number), PROJECTOR: Generated(5_000, seed=number + 9)}
        hub.add(HubRepo(f"acme/{each}-GGUF", files))
    yield hub
    stop_service(load_settings())


def modelhub(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "modelhub_tui", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **env})


def ok(*argv: str, **env: str) -> str:
    done = modelhub(*argv, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(path: Path) -> dict[str | None, str]:
    """States by catalog id."""
    return {each["id"]: each["state"] for each in json.loads(ok("list", "--json", "--catalog", str(path)))}


def service() -> ServiceInfo:
    found = find_service(load_settings())
    assert found is not None
    return found


def dashboard(path: Path, shows: str) -> Terminal:
    terminal = Terminal([installed(), "--catalog", path])
    terminal.wait_for(lambda text: shows in text and "this machine" in text, timeout=60)
    return terminal


def test_an_open_dashboard_and_commands_with_other_catalogs_share_one_service(
    machine: LoopbackHub, tmp_path: Path
) -> None:
    one, two = catalog(tmp_path, "one"), catalog(tmp_path, "two")
    with dashboard(one, "Model one") as terminal:
        pid = service().pid
        for _ in range(2):
            assert listed(two) == {"two": "available"}, "another catalog's models are not ours"
            assert listed(one) == {"one": "available"}
        ok("pull", "two", "--catalog", str(two))
        assert listed(two) == {"two": "downloaded"}
        # What is registered is there for everybody, whoever knew it first.
        assert listed(one) == {"one": "available", None: "downloaded"}
        ok("pull", "one", "--catalog", str(one))
        terminal.wait_for(lambda text: "Local (2)" in text, timeout=60)
        assert "No router answers" not in terminal.text()
        assert service().pid == pid, "one service, all the time"


def test_a_pull_takes_what_the_commands_own_catalog_lists(machine: LoopbackHub, tmp_path: Path) -> None:
    plain, full = catalog(tmp_path, "one"), catalog(tmp_path, "two", companions=True)
    ok("list", "--catalog", str(plain))
    pid = service().pid
    ok("pull", "two", "--catalog", str(full))
    (whole,) = [each for each in json.loads(ok("local", "--json", "--catalog", str(full))) if each["id"] == "two"]
    assert {Path(each).name for placed in whole["placements"] for each in placed["paths"]} >= {PROJECTOR}
    assert service().pid == pid


def test_a_catalog_that_is_edited_is_seen_by_the_service_that_runs(machine: LoopbackHub, tmp_path: Path) -> None:
    path = catalog(tmp_path, "one")
    with dashboard(path, "Model one") as terminal:
        pid = service().pid
        path.write_text(catalog(tmp_path, "one", "two").read_text())
        assert listed(path) == {"one": "available", "two": "available"}
        ok("pull", "two", "--catalog", str(path))
        path.write_text("models: [")
        broken = modelhub("list", "--catalog", str(path))
        assert broken.returncode == 2 and "The catalog cannot be used" in broken.stderr
        terminal.send("ctrl+r")
        terminal.wait_for(lambda text: "Local (1)" in text, timeout=60)
        assert "cannot be used" not in terminal.text() and service().pid == pid


@pytest.mark.parametrize("what", ["HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE"])
def test_a_command_with_another_hub_or_cache_leaves_an_open_dashboard_its_service(
    what: str, machine: LoopbackHub, tmp_path: Path
) -> None:
    path = catalog(tmp_path, "one")
    other = {what: "http://127.0.0.1:10" if what == "HF_ENDPOINT" else str(tmp_path / "elsewhere")}
    with dashboard(path, "Model one") as terminal:
        pid = service().pid
        for argv in (("pull", "one"), ("local",), ("pull", "one")):
            refused = modelhub(*argv, "--catalog", str(path), **other)
            assert refused.returncode == 1, refused.stdout
            assert refused.stderr.count("\n") == 1 and other[what] in refused.stderr, refused.stderr
            assert "Another program uses the service, started with" in refused.stderr
            assert "MODELHUB_STATE_DIR" in refused.stderr
            assert listed(path) == {"one": "available"}
        ok("pull", "one", "--catalog", str(path))
        terminal.wait_for(lambda text: "Local (1)" in text, timeout=60)
        assert service().pid == pid
        # As the sentence says.
        apart = {**other, "MODELHUB_STATE_DIR": str(tmp_path / "state of its own")}
        try:
            assert json.loads(ok("list", "--json", "--catalog", str(path), **apart))[0]["id"] == "one"
        finally:
            modelhub("stop", **apart)
        terminal.send("q")
    # Nobody uses it any more: now it may be replaced.
    ok("local", "--catalog", str(path), **other)
    assert service().pid != pid


def test_a_second_dashboard_with_another_cache_waits_with_a_sentence(machine: LoopbackHub, tmp_path: Path) -> None:
    path = catalog(tmp_path, "one")
    with dashboard(path, "Model one") as first:
        pid = service().pid
        second = Terminal(
            [installed(), "--catalog", path], env={"HF_HOME": str(tmp_path / "elsewhere")}, size=(200, 40)
        )
        with second:
            second.wait_for("Another program uses the service", timeout=60)
            ok("pull", "one", "--catalog", str(path))
            first.wait_for("Local (1)", timeout=60)
            assert service().pid == pid
            first.send("q")
            second.send("ctrl+r")
            second.wait_for(lambda text: "this machine" in text and "Another program" not in text, timeout=60)
            assert service().hub_cache == str(tmp_path / "elsewhere" / "hub")


def test_a_service_that_was_started_to_stay_is_not_ended_for_other_settings(
    machine: LoopbackHub, tmp_path: Path
) -> None:
    path = catalog(tmp_path, "one")
    process = subprocess.Popen(
        [sys.executable, "-m", "modelhub_tui", "serve"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while find_service(load_settings()) is None:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        elsewhere = str(tmp_path / "elsewhere")
        refused = modelhub("local", "--catalog", str(path), HF_HUB_CACHE=elsewhere)
        assert refused.returncode == 1
        assert refused.stderr.startswith("modelhub: The service was started to stay, with its models in ")
        assert f"not {elsewhere}. Another folder than " in refused.stderr
        assert listed(path) == {"one": "available"} and service().pid == process.pid
    finally:
        process.terminate()
        process.wait(60)


def test_another_token_never_takes_turns_and_is_named_where_it_matters(machine: LoopbackHub, tmp_path: Path) -> None:
    path = catalog(tmp_path, "one")
    machine.add(HubRepo("acme/Closed-GGUF", {"closed-Q4_K_M.gguf": Generated(1000, seed=1)}, gated="manual"))
    flags = ("--catalog", str(path))
    ok("list", *flags)
    bare = service().pid
    ok("list", *flags, HF_TOKEN="hf_first")
    first = service().pid
    assert first != bare, "an idle service without a token gives way to one that has it"
    for token in ("hf_second", "", "hf_first", "hf_second"):
        ok("list", *flags, HF_TOKEN=token)
        assert service().pid == first
    refused = modelhub("pull", "acme/Closed-GGUF", *flags, HF_TOKEN="hf_second")
    assert refused.returncode != 0
    assert "The service was started with another HF_TOKEN than this; `modelhub stop`" in refused.stderr
    mine = modelhub("pull", "acme/Closed-GGUF", *flags, HF_TOKEN="hf_first")
    assert mine.returncode != 0 and "HF_TOKEN than this" not in mine.stderr
    ok("stop")
    with dashboard(path, "Model one"):
        open_one = service().pid
        refused = modelhub("pull", "acme/Closed-GGUF", *flags, HF_TOKEN="hf_first")
        assert "The service was started without this HF_TOKEN; `modelhub stop`" in refused.stderr
        assert service().pid == open_one


def test_a_service_that_another_program_has_just_found_is_not_taken_from_under_it(
    machine: LoopbackHub, tmp_path: Path
) -> None:
    """Between finding the service and connecting to it a command has nothing open; another one must not use that."""
    assert modelhub("list").returncode == 0
    code = (
        "import select, sys; from modelhub_tui.config import load_settings\n"
        "from modelhub_tui.service.lifecycle import find_service\n"
        "while not select.select([sys.stdin], [], [], 0.2)[0]: print(find_service(load_settings()).pid, flush=True)"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as found:
        assert found.stdin is not None and found.stdout is not None
        pid = int(found.stdout.readline())
        other = modelhub("local", HF_HOME=str(tmp_path / "elsewhere"))
        assert other.returncode == 1 and "Another program uses the service" in other.stderr, other.stderr
        running = find_service(load_settings())
        assert running is not None and running.pid == pid
        found.stdin.close()
    assert modelhub("list", HF_HOME=str(tmp_path / "elsewhere")).returncode == 0, "who has ended uses it no more"
    stop_service(load_settings())
