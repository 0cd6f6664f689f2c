"""Another user of this machine in the service's place: on its port, at its socket, with its lock, in its folder."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from modelhub_tui import own_socket
from modelhub_tui.cli.connect import Connector
from modelhub_tui.cli.keys import keep_key, kept_key
from modelhub_tui.client.auth import Session, Sessions
from modelhub_tui.config import Settings
from modelhub_tui.errors import ModelHubError, ServiceFailed
from modelhub_tui.service import statefile
from modelhub_tui.service.lifecycle import ensure_service, find_service, silent_holder, stop_service
from tests.service.other_user import (
    LINKER,
    LOCK_HOLDER,
    PORT_TAKER,
    SOCKET_TAKER,
    UID,
    needs_root,
    other_user,
    wait_ready,
)
from tests.service.test_lifecycle import PATIENCE_S, _serve, alive, settings, start, until

__all__ = ["settings"]
COMMANDS = (["status", "--show-key", "--json"], ["list"], ["limits"], ["trash"], ["doctor"], ["stop"])


def modelhub(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line as a process, which ends."""
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MODELHUB_")},
        "MODELHUB_STATE_DIR": str(settings.state_dir),
        "MODELHUB_CACHE_DIR": str(settings.cache_dir),
        "HF_HUB_CACHE": str(settings.hub_cache),
        "HF_ENDPOINT": settings.hf_endpoint,
    }
    command = [sys.executable, "-m", "modelhub_tui", *arguments]
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, stdin=subprocess.DEVNULL
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


@needs_root
@pytest.mark.parametrize("how", ["replay", "relay", "redirect"])
def test_who_takes_the_port_of_a_killed_service_hears_nothing(settings: Settings, tmp_path: Path, how: str) -> None:
    info = start(settings)
    until(lambda: psutil.Process(info.pid).children(), "its node is there")
    port = int(info.url.rsplit(":", 1)[1])
    with urllib.request.urlopen(f"{info.url}/health", timeout=PATIENCE_S) as answer:
        health = answer.read().decode()
    left = (settings.state_dir / "service.json").read_bytes()
    # Another service of this user lives elsewhere: the one that a relay would like to be taken for.
    other = replace(settings, state_dir=tmp_path / "other")
    real = start(other)
    try:
        with other_user(PORT_TAKER, tmp_path / "heard", port, how, health, real.url.rsplit(":", 1)[1]) as impostor:
            # A dashboard that was connected all the time.
            looking = asyncio.new_event_loop()
            client = looking.run_until_complete(Connector(settings)())
            looking.run_until_complete(client.report())
            os.kill(info.pid, signal.SIGKILL)
            wait_ready(impostor)
            with pytest.raises(ModelHubError):
                looking.run_until_complete(client.report())
            assert find_service(settings) is None
            for command in COMMANDS:
                modelhub(settings, *command)
                if command[0] == "stop":
                    continue
                # As if nobody had started a new one in between.
                stop_service(settings)
                (settings.state_dir / "service.json").write_bytes(left)
            # The dashboard connects anew, as it does after a loss.
            again = looking.run_until_complete(Connector(settings)())
            assert looking.run_until_complete(again.report()).models
            looking.run_until_complete(again.aclose())
            looking.run_until_complete(client.aclose())
            looking.close()
            found = find_service(settings)
            assert found is not None and found.url != info.url
        heard = (tmp_path / "heard").read_bytes()
        assert heard == b"", "not a word is said to whoever has the port: no key, no question, no nonce"
    finally:
        stop_service(other)


@needs_root
def test_a_socket_that_somebody_else_put_there_is_not_spoken_to(settings: Settings, tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    there = replace(settings, state_dir=folder / "state")
    folder.chmod(0o755)
    there.state_dir.mkdir()
    there.state_dir.chmod(0o777)
    try:
        path = there.state_dir / own_socket.SOCKET_FILE
        with other_user(SOCKET_TAKER, tmp_path / "heard", path) as impostor:
            wait_ready(impostor)
            state = statefile.ServiceState(1, "http://127.0.0.1:9", "x", statefile.identity_of(there, "1"), "key")
            statefile.write_state(there.state_dir, state)
            assert find_service(there) is None
            assert stat.S_IMODE(there.state_dir.stat().st_mode) == 0o700
            assert ensure_service(there, timeout_s=PATIENCE_S).state_id != "x"
            assert path.stat().st_uid == os.geteuid()
        assert (tmp_path / "heard").read_bytes() == b""
    finally:
        stop_service(there)
        shutil.rmtree(folder)


@needs_root
def test_a_lock_in_another_users_hands_ends_nobody(settings: Settings, tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    settings.state_dir.mkdir()
    lock = settings.state_dir / "service.lock"
    try:
        for said in (str(bystander.pid), "", "-1", "0", "1", "x" * 100, "²"):
            lock.write_text(said)
            with (
                lock.open() as file,
                other_user(LOCK_HOLDER, tmp_path / "heard", file.fileno(), pass_fds=(file.fileno(),)) as holder,
            ):
                wait_ready(holder)
                if said == "":
                    lock.write_text(str(holder.pid))
                for act in (stop_service, silent_holder, ensure_service):
                    with pytest.raises(ServiceFailed, match="held by a process that cannot be seen from here"):
                        act(settings)
                assert alive(holder.pid)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.communicate()


@needs_root
def test_files_of_another_user_in_the_folder_are_one_sentence(settings: Settings) -> None:
    settings.state_dir.mkdir()
    for name in ("service.json", "service.lock", "start.lock"):
        path = settings.state_dir / name
        path.write_text(str(os.getpid()))
        os.chown(path, UID, UID)
        with pytest.raises(ServiceFailed, match=f"{name} belongs to another user"):
            ensure_service(settings)
        path.unlink()


@needs_root
@pytest.mark.parametrize(
    "name", ["node", "node/node.db", "node/node.log", "modelhub.db", "modelhub.db-wal", "service.log"]
)
@pytest.mark.parametrize("what", ["link", "own"])
def test_what_another_user_left_in_an_open_folder_is_not_used(
    settings: Settings, tmp_path: Path, what: str, name: str
) -> None:
    """Put there while the folder was open to others: what they own they read and change, and a link leads elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path = settings.state_dir / name
    path.parent.mkdir(parents=True)
    settings.state_dir.chmod(0o777)
    if what == "link":
        path.symlink_to(elsewhere if name == "node" else elsewhere / "file")
    elif name == "node":
        path.mkdir()
    else:
        path.touch()
    os.chown(path, UID, UID, follow_symlinks=False)
    says = f"{path} belongs to another user."
    assert says in modelhub(settings, "list").stderr
    done = modelhub(settings, "node", "--router", "http://127.0.0.1:9", "--api-key", "k")
    assert done.returncode == 1 and says in done.stderr
    assert path.is_symlink() or path.exists(), "it was moved"
    assert not [*elsewhere.iterdir()]


def link(target: Path, path: Path, _: Path) -> None:
    (target / "file").write_text("{}")
    path.symlink_to(target / "file")


def pipe(target: Path, path: Path, _: Path) -> None:
    os.mkfifo(path)


def device(target: Path, path: Path, _: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(target: Path, path: Path, _: Path) -> None:
    path.mkdir()


def large(target: Path, path: Path, _: Path) -> None:
    with path.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    path.chmod(0o600)


@pytest.mark.parametrize("put", [link, pipe, device, folder, large], ids=lambda each: each.__name__)
def test_what_does_not_belong_in_the_folder_is_a_sentence_and_never_a_wait(
    settings: Settings, tmp_path: Path, put: Callable[[Path, Path, Path], None]
) -> None:
    (tmp_path / "theirs").mkdir()
    names = ("service.json", "service.lock", "start.lock", own_socket.SOCKET_FILE, "modelhub.db", "service.log")
    for name in names:
        settings.state_dir.mkdir(exist_ok=True)
        put(tmp_path / "theirs", settings.state_dir / name, tmp_path)
        for command in (["status"], ["list"], ["stop"]):
            done = modelhub(settings, *command)
            assert done.returncode in (0, 1) and (done.returncode == 0 or done.stderr.strip()), (name, command, done)
        shutil.rmtree(settings.state_dir)
    for name in ("router-keys.json", "sessions.json"):
        settings.state_dir.mkdir(exist_ok=True)
        put(tmp_path / "theirs", settings.state_dir / name, tmp_path)
        far = replace(settings, router="http://127.0.0.1:9")
        assert kept_key(far) is None
        assert Sessions(settings.state_dir, keyring=False).load("http://127.0.0.1:9") is None
        shutil.rmtree(settings.state_dir)
    if (tmp_path / "theirs" / "file").exists():
        assert (tmp_path / "theirs" / "file").read_text() == "{}"


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder in which everybody may make things, as /tmp is."""
    made = Path(tempfile.mkdtemp(dir="/tmp"))
    made.chmod(0o1777)
    yield made
    shutil.rmtree(made)


@needs_root
@pytest.mark.parametrize("below", ["", "state"], ids=["the folder itself", "on the way"])
def test_another_users_link_is_not_followed(settings: Settings, tmp_path: Path, shared: Path, below: str) -> None:
    mine = tmp_path / "mine"
    (mine / "state").mkdir(parents=True)
    mine.chmod(0o755)
    (mine / "state").chmod(0o755)
    with other_user(LINKER, tmp_path / "heard", mine, shared / "link") as linker:
        wait_ready(linker)
    there = replace(settings, state_dir=shared / "link" / below)
    for act in (ensure_service, find_service, stop_service, silent_holder):
        with pytest.raises(ServiceFailed, match="another user's link"):
            act(there)
    with pytest.raises(ServiceFailed, match="another user's link"):
        keep_key(replace(there, router="http://r:1"), "key")
    with pytest.raises(ServiceFailed, match="another user's link"):
        Sessions(there.state_dir, keyring=False).store("http://r:1", Session("token", time.time() + 9))
    assert "another user's link" in _serve(there).stdout
    done = modelhub(there, "node", "--router", "http://127.0.0.1:9", "--api-key", "k")
    assert done.returncode == 1 and "another user's link" in done.stderr
    assert {stat.S_IMODE(each.stat().st_mode) for each in (mine, mine / "state")} == {0o755}
    assert [*mine.iterdir()] == [mine / "state"] and not [*(mine / "state").iterdir()]


def test_links_of_ones_own_are_followed(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to(tmp_path / "real" / ".." / "real")
    linked = replace(settings, state_dir=tmp_path / "one" / "state")
    info = start(linked)
    assert find_service(replace(settings, state_dir=tmp_path / "real" / "state")) is not None
    assert stop_service(linked) is True and not alive(info.pid)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ServiceFailed, match="symbolic link"):
        start(replace(settings, state_dir=tmp_path / "loop"))


def test_a_folder_that_all_share_is_left_as_it_is(settings: Settings, shared: Path) -> None:
    for act in (ensure_service, find_service):
        with pytest.raises(ServiceFailed, match="is shared by all users"):
            act(replace(settings, state_dir=shared))
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777


def test_the_socket_asks_for_no_key_and_the_port_does(settings: Settings) -> None:
    info = start(settings)
    assert stat.S_IMODE((settings.state_dir / own_socket.SOCKET_FILE).stat().st_mode) == 0o600

    def ask(connection: socket.socket, *headers: str) -> int:
        with connection:
            lines = ("GET /v0/models HTTP/1.1", *headers, "Connection: close", "", "")
            connection.sendall("\r\n".join(lines).encode())
            with connection.makefile("rb") as answer:
                return int(answer.readline().split()[1])

    def door() -> socket.socket:
        return own_socket.connect(settings.state_dir, PATIENCE_S)

    host = info.url.removeprefix("http://")
    port = int(host.rsplit(":", 1)[1])
    assert ask(door(), "Host: localhost") == 200
    assert ask(door(), "Host: localhost", "Authorization: Bearer wrong") == 401
    assert ask(door(), "Host: localhost", "Origin: http://evil.example") == 403
    assert ask(socket.create_connection(("127.0.0.1", port)), f"Host: {host}") == 401
    assert (
        ask(socket.create_connection(("127.0.0.1", port)), f"Host: {host}", f"Authorization: Bearer {info.key}") == 200
    )


def test_a_service_from_before_the_socket_is_named_and_can_be_stopped(settings: Settings) -> None:
    info = start(settings)
    state = statefile.read_state(settings.state_dir)
    assert state is not None
    old = replace(state, identity=replace(state.identity, version="0.0.1", protocol=1))
    statefile.write_state(settings.state_dir, old)
    own_socket.remove(settings.state_dir)
    with pytest.raises(ServiceFailed) as caught:
        ensure_service(settings, timeout_s=1)
    assert caught.value.reason.startswith("The service that runs here is modelhub 0.0.1, too old for this ")
    assert "modelhub stop" in caught.value.todo
    assert stop_service(settings) is True
    until(lambda: not alive(info.pid), "its process is gone")


def test_keys_of_earlier_versions_are_forgotten(settings: Settings) -> None:
    from modelhub_tui.service.router import rows
    from modelhub_tui.service.router.store import Store

    settings.state_dir.mkdir()
    store = Store(settings.state_dir / "modelhub.db")
    for kept in ("admin_key", "node_key"):
        store.apply_now([rows.put_meta(kept, "an-old-key")])
    store.close()
    info = start(settings)
    state = json.loads((settings.state_dir / "service.json").read_bytes())
    assert "an-old-key" not in (info.key, state["node_key"])
    stop_service(settings)
    store = Store(settings.state_dir / "modelhub.db")
    assert store.get_meta("admin_key") is store.get_meta("node_key") is None
    store.close()
