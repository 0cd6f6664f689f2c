"""The background process, for real: found, started once, stopped, replaced, and never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from modelhub_tui.cli import main as command_line
from modelhub_tui.client.v0 import V0Client
from modelhub_tui.config import Settings
from modelhub_tui.domain import Limits
from modelhub_tui.errors import ServiceFailed
from modelhub_tui.service import lifecycle, statefile
from modelhub_tui.service.lifecycle import ServiceInfo, ensure_service, find_service, stop_service
from tests.hub import MIB, Generated, HubRepo, LoopbackHub

PATIENCE_S = 60.0


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a machine of one's own; whatever service was started there ends with the test."""
    made = Settings(
        state_dir=tmp_path / "state",
        cache_dir=tmp_path / "cache",
        hub_cache=tmp_path / "hub",
        hf_endpoint="http://127.0.0.1:9",
    )
    yield made
    holder = _holder(made)
    if holder is not None:
        family: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):  # it may be on its way out already
            family = [psutil.Process(holder), *psutil.Process(holder).children(recursive=True)]
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        # Dead is enough: who has to collect an orphan may take seconds to do so.
        until(lambda: not any(alive(each.pid) for each in family), "the processes end")


def _holder(settings: Settings) -> int | None:
    try:
        return statefile.lock_holder(settings.state_dir)
    except ServiceFailed:
        return None


def start(settings: Settings) -> ServiceInfo:
    return ensure_service(settings, timeout_s=PATIENCE_S)


def until(check: Callable[[], Any], what: str) -> Any:
    """Poll for what another process does."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := check()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return found


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def ask(
    info: ServiceInfo, path: str, method: str = "GET", body: object = None, key: str | None = None, **headers: str
) -> Any:
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(info.url + path, data, method=method)
    for name, value in {
        "Authorization": f"Bearer {key or info.key}",
        "Content-Type": "application/json",
        **headers,
    }.items():
        request.add_header(name, value)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        raw = answer.read()
    return json.loads(raw) if raw else None


def online_node(info: ServiceInfo) -> Any:
    return next((each for each in ask(info, "/v0/nodes") if each["status"] == "online"), None)


def heard(info: ServiceInfo) -> bool:
    """Whether its node has told what is on the disk: that comes after it is online."""
    request = urllib.request.Request(info.url + "/v0/models", headers={"Authorization": f"Bearer {info.key}"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return online_node(info) is not None and "X-Modelhub-Unheard" not in answer.headers


def make_busy(settings: Settings, info: ServiceInfo) -> None:
    """A node of the test's own, in the middle of a transfer."""
    state = statefile.read_state(settings.state_dir)
    assert state is not None
    body = {"machine_name": "x", "ip_address": "::1", "runtime_version": "1", "runtime_port": 1, "gpu_available": False}
    node = ask(info, "/v0/nodes", "POST", body, state.node_key)
    beat = {
        "node_id": node["node_id"],
        "cpu_usage": 0,
        "memory_usage": 0,
        "active_requests": 0,
        "transfers": [{"name": "a/b", "phase": "fetching"}],
    }
    ask(info, "/v0/health", "POST", beat, state.node_key, **{"X-Node-Token": node["node_token"]})


def test_start_find_and_stop(settings: Settings) -> None:
    assert find_service(settings) is None
    assert stop_service(settings) is False
    info = start(settings)
    assert info == find_service(settings) == start(settings)
    assert (info.hf_endpoint, info.hub_cache, info.log) == (
        settings.hf_endpoint,
        str(settings.hub_cache),
        settings.state_dir / "service.log",
    )
    assert info.key not in repr(info)
    assert len(ask(info, "/v0/models")) > 50
    with urllib.request.urlopen(f"{info.url}/health", timeout=PATIENCE_S) as answer:
        assert len(answer.headers.get_all("Date")) == 1
    process = psutil.Process(info.pid)
    assert os.getsid(info.pid) == info.pid, "a session of its own: the terminal's end is not its end"
    assert info.key not in " ".join(process.cmdline())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in settings.state_dir.iterdir() if path.is_file()}
    assert {*modes.values()} == {0o600}, modes
    assert stat.S_IMODE(settings.state_dir.stat().st_mode) == 0o700
    assert stop_service(settings) is True
    assert find_service(settings) is None
    until(lambda: not alive(info.pid), "its process is gone")
    assert not (settings.state_dir / "service.json").exists()


def test_each_run_has_new_keys_on_the_same_port(settings: Settings) -> None:
    first = start(settings)
    stop_service(settings)
    second = start(settings)
    assert second.url == first.url
    assert second.state_id != first.state_id and second.key != first.key
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(second, "/v0/models", key=first.key)


def test_the_node_runs_as_a_child_and_ends_with_the_service(settings: Settings) -> None:
    info = start(settings)
    until(lambda: online_node(info), "the node comes online")
    [child] = psutil.Process(info.pid).children()
    state = statefile.read_state(settings.state_dir)
    assert state is not None and state.node_key not in " ".join(child.cmdline())
    os.kill(info.pid, signal.SIGKILL)
    until(lambda: not alive(child.pid), "the node follows a service that was killed")


def test_a_node_that_ends_is_started_again(settings: Settings) -> None:
    info = start(settings)
    until(lambda: online_node(info), "the node comes online")
    [child] = psutil.Process(info.pid).children()
    child.kill()
    until(lambda: not online_node(info) or None, "its end is noticed")
    until(lambda: online_node(info), "another one comes online")
    assert [each.pid for each in psutil.Process(info.pid).children()] != [child.pid]


def test_why_the_node_does_not_start_is_said(settings: Settings) -> None:
    settings.state_dir.mkdir()
    (settings.state_dir / "node").touch()
    log = start(settings).log
    until(
        lambda: f"node: {settings.state_dir / 'node'} is not a folder." in log.read_text(),
        "the node says it in a sentence",
    )
    assert "Traceback" not in log.read_text()


def test_a_hundred_programs_at_once_give_one_service(settings: Settings) -> None:
    """Fifty processes, each of which looks twice at the same time: all that a race could show, for a second."""
    code = (
        "import os, sys, threading\n"
        "from pathlib import Path\n"
        "from modelhub_tui.config import Settings\n"
        "from modelhub_tui.service.lifecycle import ensure_service\n"
        "s = Settings(*(Path(each) for each in sys.argv[1:4]), hf_endpoint='http://127.0.0.1:9')\n"
        "sys.stdin.read()\n"
        "for _ in range(50):\n"
        "    if os.fork() == 0:\n"
        "        found = []\n"
        "        look = lambda: found.append(ensure_service(s, timeout_s=120).state_id)\n"
        "        both = [threading.Thread(target=look) for _ in 'ab']\n"
        "        [each.start() for each in both], [each.join() for each in both]\n"
        "        os.write(1, (' '.join(found) + chr(10)).encode())\n"
        "        os._exit(0)\n"
        "for _ in range(50):\n"
        "    os.wait()\n"
    )
    folders = [str(each) for each in (settings.state_dir, settings.cache_dir, settings.hub_cache)]
    done = subprocess.run([sys.executable, "-c", code, *folders], capture_output=True, text=True, input="", timeout=150)
    told = done.stdout.split()
    assert len(told) == 100 and len({*told}) == 1, done.stderr[-2000:]
    info = find_service(settings)
    assert info is not None and info.state_id == told[0]
    assert sum("modelhub_tui.service" in each and "--ready-fd" in each for each in _commands(settings)) == 1
    until(lambda: online_node(info), "the node comes online")
    assert sum("modelhub_tui.service.node" in each for each in _commands(settings)) == 1
    left = {each.name for each in settings.state_dir.iterdir()} - {"node"}
    expected = {"service.json", "service.lock", "service.sock", "start.lock", "service.log", "modelhub.mark"}
    assert left == expected | {"modelhub.db", "modelhub.db-wal", "modelhub.db-shm"}, "no temporary file is left behind"


def test_programs_that_stop_it_while_others_start_it(settings: Settings) -> None:
    start(settings)
    with ThreadPoolExecutor(6) as pool:
        starts: list[Future[Any]] = [pool.submit(start, settings) for _ in range(3)]
        stops = [pool.submit(stop_service, settings) for _ in range(3)]
        starts += [pool.submit(start, settings) for _ in range(3)]
        for each in (*starts, *stops):
            each.result()
    found = start(settings)
    assert sum("modelhub_tui.service" in each and "--ready-fd" in each for each in _commands(settings)) == 1
    assert found == find_service(settings)


@pytest.mark.parametrize("after_s", [0.02, 0.35])
def test_killed_while_it_starts_it_leaves_nothing_in_the_way(settings: Settings, after_s: float) -> None:
    env = {**os.environ, "MODELHUB_STATE_DIR": str(settings.state_dir), "HF_ENDPOINT": settings.hf_endpoint}
    env |= {"MODELHUB_CACHE_DIR": str(settings.cache_dir), "HF_HUB_CACHE": str(settings.hub_cache)}
    settings.state_dir.mkdir()
    process = subprocess.Popen([sys.executable, "-P", "-m", "modelhub_tui.service"], env=env, start_new_session=True)
    time.sleep(after_s)  # wherever it is by then
    process.kill()
    process.wait()
    info = start(settings)
    assert info.pid != process.pid and not info.notice
    until(lambda: online_node(info), "the node comes online")


def test_a_state_folder_of_any_name_will_do(settings: Settings, tmp_path: Path) -> None:
    name = "a b  模型-é-😀 %s $HOME '\"/" + "x" * 200
    odd = replace(settings, state_dir=tmp_path / name)
    info = start(odd)
    assert find_service(odd) == info and Path(info.log).is_file()
    assert stop_service(odd) is True
    with pytest.raises(ServiceFailed, match="path is too long for a database"):
        start(replace(settings, state_dir=tmp_path / name / ("y" * 250)))


def test_a_recycled_pid_is_left_alone(settings: Settings) -> None:
    info = start(settings)
    stop_service(settings)
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        state = statefile.ServiceState(
            bystander.pid, info.url, info.state_id, statefile.identity_of(settings, info.version), info.key
        )
        statefile.write_state(settings.state_dir, state)
        (settings.state_dir / "service.lock").write_text(str(bystander.pid))
        assert find_service(settings) is None
        assert stop_service(settings) is False
        assert start(settings).pid != bystander.pid
        assert bystander.poll() is None, "nobody but the holder of the lock is ever ended"
    finally:
        bystander.kill()
        bystander.communicate()


def test_a_closed_terminal_leaves_the_service_running(settings: Settings) -> None:
    """A real one: the shell's session ends with it, as when an SSH connection drops."""
    code = (
        "from tests.service.test_lifecycle import *\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it\n"
        "s = Settings(*(Path(each) for each in sys.argv[1:4]), hf_endpoint='http://127.0.0.1:9')\n"
        "print(start(s).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    folders = [str(each) for each in (settings.state_dir, settings.cache_dir, settings.hub_cache)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(Path(__file__).parents[2])
        os.execv(sys.executable, [sys.executable, "-c", code, *folders])
    try:
        info = until(lambda: find_service(settings), "it is started from the terminal")
        os.close(terminal)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGHUP, "the hang-up reached the program"
        pid = 0
        until(lambda: online_node(info), "the service goes on, and its node")
        assert find_service(settings) == info
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _commands(settings: Settings) -> list[list[str]]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("MODELHUB_STATE_DIR") == str(settings.state_dir):
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


def test_the_end_of_the_terminal_is_not_its_end(settings: Settings) -> None:
    info = start(settings)
    os.kill(info.pid, signal.SIGHUP)
    os.kill(info.pid, signal.SIGHUP)
    assert find_service(settings) == info


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_in_good_order_under_three_seconds(settings: Settings, sign: int) -> None:
    info = start(settings)
    until(lambda: online_node(info), "the node comes online")
    family = [info.pid, *(each.pid for each in psutil.Process(info.pid).children())]
    poll = _hold_a_poll(info)
    begun = time.monotonic()
    os.kill(info.pid, sign)
    until(lambda: not any(alive(pid) for pid in family), "service and node are gone")
    assert time.monotonic() - begun < 3 * _slowness()
    with poll:
        assert poll.recv(1000).startswith(b"HTTP/1.1 304")
    assert not (settings.state_dir / "service.json").exists()
    assert "stopped" in info.log.read_text()


def test_it_ends_in_time_in_the_middle_of_downloads(settings: Settings) -> None:
    """Two at full speed and one that stands still; what has arrived is kept."""
    with LoopbackHub() as hub:
        names = [f"acme/m{number}-GGUF" for number in range(3)]
        for seed, name in enumerate(names):
            hub.add(HubRepo(name, {"m.gguf": Generated(400 * MIB, seed=seed)}))
        stall = hub.fault(server="cdn", stall_after=MIB)
        busy = replace(settings, hf_endpoint=hub.url, limits=Limits(parallel_transfers=4))
        info = start(busy)
        for name in names:
            ask(info, "/v0/models/register", "POST", {"repo": name, "filename": "m.gguf"})

        def done() -> list[int]:
            told = {each["repo"]: each["transfers"] for each in ask(info, "/v0/models")}
            return sorted(each["bytes_done"] for name in names for each in told[name])

        until(lambda: stall.stalled.is_set() and len(done()) == 3 and done()[1] > 0, "all three are under way")
        family = [info.pid, *(each.pid for each in psutil.Process(info.pid).children(recursive=True))]
        begun = time.monotonic()
        os.kill(info.pid, signal.SIGTERM)
        until(lambda: not any(alive(pid) for pid in family), "service and node are gone")
        assert time.monotonic() - begun < 3 * _slowness()
        assert find_service(busy) is None and "stopped" in info.log.read_text()
    kept = [each.stat().st_blocks * 512 for each in settings.hub_cache.rglob("*.part")]
    assert len(kept) >= 1 and sum(kept) >= MIB
    shutil.rmtree(settings.hub_cache)


def _slowness() -> float:
    """How much slower than an idle machine this one is now."""
    return max(1.0, 3 * os.getloadavg()[0] / (os.cpu_count() or 1))


def _hold_a_poll(info: ServiceInfo) -> socket.socket:
    """A client of its own, waiting for a change; the service has read its request when this returns."""
    request = urllib.request.Request(info.url + "/v1/models", headers={"Authorization": f"Bearer {info.key}"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        tag = answer.headers["etag"]
    host, port = info.url.removeprefix("http://").split(":")
    poll = socket.create_connection((host, int(port)), timeout=PATIENCE_S)
    headers = f"Host: {host}:{port}\r\nX-API-Key: {info.key}\r\nIf-None-Match: {tag}\r\nPrefer: wait=30\r\n"
    poll.sendall(f"GET /v1/models HTTP/1.1\r\n{headers}\r\n".encode())
    for _ in range(3):
        ask(info, "/v0/nodes")
    return poll


def test_after_kill_9_the_stale_state_file_is_seen_through(settings: Settings) -> None:
    info = start(settings)
    os.kill(info.pid, signal.SIGKILL)
    until(lambda: statefile.lock_holder(settings.state_dir) is None, "the kernel lets go of the lock")
    assert (settings.state_dir / "service.json").exists()
    assert find_service(settings) is None
    assert start(settings).pid != info.pid


def test_another_program_on_the_old_port_is_not_taken_for_the_service(settings: Settings) -> None:
    info = start(settings)
    stop_service(settings)
    statefile.write_state(
        settings.state_dir,
        statefile.ServiceState(
            info.pid, info.url, info.state_id, statefile.identity_of(settings, info.version), info.key
        ),
    )
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", int(info.url.rsplit(":", 1)[1])))
        squatter.listen()
        thread = threading.Thread(target=_chatter, args=(squatter,), daemon=True)
        thread.start()
        assert find_service(settings) is None
        assert start(settings).url != info.url


def _chatter(squatter: socket.socket) -> None:
    while True:
        try:
            connection, _ = squatter.accept()
        except OSError:
            return
        with connection:
            connection.recv(1000)
            connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"status": "ok", "state_id": "somebody else"}')


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"pid": 1}', b"\xff" * 100, b"[" * 100_000, b'{"pid": "1", "url": 2}'], ids=range(7)
)
def test_a_corrupt_state_file_is_replaced(settings: Settings, content: bytes) -> None:
    settings.state_dir.mkdir()
    (settings.state_dir / "service.json").write_bytes(content)
    assert find_service(settings) is None
    assert stop_service(settings) is False
    if content in (b"", b'{"pid": "1", "url": 2}'):
        info = start(settings)
        assert statefile.read_state(settings.state_dir) is not None and find_service(settings) == info


def test_a_corrupt_database_is_said_and_survived(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings.state_dir.mkdir()
    (settings.state_dir / "modelhub.db").write_bytes(b"nonsense" * 1000)
    info = start(settings)
    assert "damaged" in info.notice and info.notice in info.log.read_text()
    assert modelhub(settings, monkeypatch, "status") == 0
    assert info.notice in capsys.readouterr().err

    async def look() -> tuple[str, ...]:
        client = V0Client(info.url, info.key)
        try:
            return (await client.report()).notices
        finally:
            await client.aclose()

    assert asyncio.run(look()) == (info.notice,), "the dashboard says it too, and so does a remote one"
    assert len(ask(info, "/v0/models")) > 50


def test_what_belongs_to_another_user_is_refused(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    info = start(settings)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    for act in (find_service, ensure_service, stop_service):
        with pytest.raises(ServiceFailed, match="belongs to another user"):
            act(settings)
    monkeypatch.undo()
    assert find_service(settings) == info


def test_a_folder_as_state_file_is_one_sentence(settings: Settings) -> None:
    (settings.state_dir / "service.json").mkdir(parents=True)
    assert find_service(settings) is None and stop_service(settings) is False
    with pytest.raises(ServiceFailed) as caught:
        start(settings)
    assert "service.json" in caught.value.reason and caught.value.todo


def test_a_token_of_any_bytes_has_a_mark(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", b"hf_\xff".decode(errors="surrogateescape"))
    assert statefile.identity_of(settings, "1").token


def test_a_link_as_state_file_is_refused(settings: Settings, tmp_path: Path) -> None:
    settings.state_dir.mkdir()
    (tmp_path / "theirs").write_text("{}")
    (settings.state_dir / "service.json").symlink_to(tmp_path / "theirs")
    with pytest.raises(ServiceFailed, match="symbolic link"):
        find_service(settings)


def test_a_state_file_that_others_can_write_is_not_believed(settings: Settings) -> None:
    info = start(settings)
    (settings.state_dir / "service.json").chmod(0o622)
    for act in (find_service, ensure_service, stop_service):
        with pytest.raises(ServiceFailed, match="can be written by other users") as caught:
            act(settings)
        assert "chmod 600" in caught.value.todo
    (settings.state_dir / "service.json").chmod(0o600)
    assert find_service(settings) == info


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_or_read_only_disk_is_one_sentence(settings: Settings) -> None:
    settings.state_dir.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", settings.state_dir])
    if mounted.returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        (settings.state_dir / "filler").write_bytes(b"x" * 40_000)
        with pytest.raises(ServiceFailed) as caught:
            start(settings)
        assert "full" in caught.value.reason and "pace" in caught.value.todo, caught.value
        (settings.state_dir / "filler").unlink()
        subprocess.run(["mount", "-o", "remount,ro", settings.state_dir], check=True)
        with pytest.raises(ServiceFailed) as caught:
            start(settings)
        assert "read-only file system" in caught.value.reason and caught.value.todo
        assert find_service(settings) is None
    finally:
        subprocess.run(["umount", "--lazy", settings.state_dir], check=True)


def test_it_exits_when_idle(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELHUB_IDLE_EXIT_S", "0.5")
    info = start(settings)
    until(lambda: not alive(info.pid), "it leaves by itself")
    assert "nothing to do" in info.log.read_text()
    assert find_service(settings) is None


def test_it_does_not_exit_while_somebody_asks_or_something_moves(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELHUB_IDLE_EXIT_S", "0.5")
    info = start(settings)
    poll = _hold_a_poll(info)
    time.sleep(1.2)
    assert alive(info.pid), "a reader waits for news"
    make_busy(settings, info)
    poll.close()
    time.sleep(1.2)
    assert alive(info.pid), "something moves"


def test_other_settings_replace_an_idle_service(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(settings)
    other = replace(settings, hf_endpoint="http://127.0.0.1:10")
    second = start(other)
    assert (second.pid != first.pid, second.hf_endpoint) == (True, "http://127.0.0.1:10")
    until(lambda: not alive(first.pid), "the first is gone")
    moved = start(replace(other, hub_cache=tmp_path / "elsewhere"))
    assert moved.hub_cache == str(tmp_path / "elsewhere")
    monkeypatch.setenv("HF_TOKEN", "hf_newTokenForTheTest")
    third = start(replace(other, hub_cache=tmp_path / "elsewhere"))
    assert third.pid != moved.pid
    monkeypatch.delenv("HF_TOKEN")
    assert start(replace(other, hub_cache=tmp_path / "elsewhere")).pid == third.pid, (
        "a program without a token is content"
    )
    everything = "".join(each.read_text() for each in settings.state_dir.glob("service.*") if each.is_file())
    assert "hf_newTokenForTheTest" not in everything


def modelhub(settings: Settings, monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    """Run the command line in this process, with these settings."""
    for name in ("state_dir", "cache_dir"):
        monkeypatch.setenv(f"MODELHUB_{name.upper()}", str(getattr(settings, name)))
    monkeypatch.setenv("HF_HUB_CACHE", str(settings.hub_cache))
    monkeypatch.setenv("HF_ENDPOINT", settings.hf_endpoint)
    return command_line([*argv])


def test_looking_with_other_settings_leaves_the_service_as_it_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = start(settings)
    until(lambda: heard(info), "its node has reported")
    assert modelhub(replace(settings, hf_endpoint="http://127.0.0.1:10"), monkeypatch, "status") == 0
    said = capsys.readouterr()
    assert f"process {info.pid}" in said.out
    assert said.err == "It was started for the hub http://127.0.0.1:9, not http://127.0.0.1:10.\n"
    assert find_service(settings) == info


def test_other_settings_do_not_disturb_a_busy_service(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    info = start(settings)
    make_busy(settings, info)
    with pytest.raises(ServiceFailed) as caught:
        start(replace(settings, hf_endpoint="http://127.0.0.1:10"))
    assert (
        caught.value.reason == "The service is busy, started with the hub http://127.0.0.1:9, not http://127.0.0.1:10."
    )
    assert "modelhub stop" in caught.value.todo
    monkeypatch.setattr(lifecycle, "__version__", "99.0")
    again = start(settings)
    assert again.pid == info.pid, "a newer program goes on with a busy older service that speaks its protocol"
    assert again.about_version == (
        f"The service is still modelhub {info.version}, not 99.0; it is replaced once nothing uses it."
    )


def pretend(settings: Settings, **changes: Any) -> None:
    """Let the service that runs be another version, as far as others can see."""
    state = statefile.read_state(settings.state_dir)
    assert state is not None
    statefile.write_state(settings.state_dir, replace(state, identity=replace(state.identity, **changes)))


def test_programs_and_services_of_different_versions(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    info = start(settings)
    pretend(settings, version="99.0")
    newer = start(settings)
    assert newer.pid == info.pid, "an older program does not replace a newer service: they would take turns"
    assert (
        newer.about_version
        == f"The service is modelhub 99.0, newer than this program ({info.version}); update this one."
    )
    assert modelhub(settings, monkeypatch, "status") == 0
    assert newer.about_version in capsys.readouterr().err
    pretend(settings, protocol=99)
    with pytest.raises(ServiceFailed) as caught:
        start(settings)
    assert caught.value.reason == (f"The service that runs here is modelhub 99.0, too new for this {info.version}.")
    pretend(settings, protocol=statefile.PROTOCOL, version="0.0.1")
    make_busy(settings, info)
    assert start(settings).pid == info.pid, "left to finish"


def test_a_newer_program_replaces_an_idle_older_service(settings: Settings) -> None:
    info = start(settings)
    pretend(settings, version="0.0.1")
    assert start(settings).pid != info.pid


@pytest.mark.parametrize(
    ("one", "other", "newer"),
    [
        ("1.0", "1.0", False),
        ("1.0.1", "1.0", True),
        ("1.0", "1.0.1", False),
        ("1.10", "1.9", True),
        ("2.0rc1", "2.0.dev5", True),
        ("2.0", "garbage", True),
        ("garbage", "2.0", False),
        ("", "0.1", False),
    ],
)
def test_versions_are_compared_by_their_numbers(one: str, other: str, newer: bool) -> None:
    assert lifecycle._newer(one, other) is newer


def test_a_service_that_no_longer_answers_is_named_and_can_be_stopped(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lifecycle, "ANSWER_S", 0.3)
    info = start(settings)
    os.kill(info.pid, signal.SIGSTOP)
    try:
        assert modelhub(settings, monkeypatch, "status") == 1
        assert f"process {info.pid}) holds" in capsys.readouterr().err
        with pytest.raises(ServiceFailed, match=rf"process {info.pid}\) holds .* but does not answer"):
            ensure_service(settings, timeout_s=1)
        assert stop_service(settings) is True
    finally:
        if alive(info.pid):
            os.kill(info.pid, signal.SIGCONT)
    until(lambda: not alive(info.pid), "its process is gone")


def _serve(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `serve()` in a process of its own until it ends."""
    command = _serve_command(settings, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


def _serve_command(settings: Settings, *arguments: str) -> list[str]:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from modelhub_tui.config import Settings\nfrom modelhub_tui.errors import ModelHubError, explain\n"
        "from modelhub_tui.service.lifecycle import serve\n"
        "s = Settings(*(Path(each) for each in sys.argv[1:4]), hf_endpoint='http://127.0.0.1:9')\n"
        "try:\n    code = serve(s, **eval(sys.argv[4]))\n"
        "except ModelHubError as error:\n    print(explain(error))\n    code = 1\nsys.exit(code)\n"
    )
    folders = [str(each) for each in (settings.state_dir, settings.cache_dir, settings.hub_cache)]
    return [sys.executable, "-c", code, *folders, *(arguments or ("{}",))]


def test_what_cannot_be_served_is_one_sentence(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = _serve(settings, f"{{'port': {port}}}")
        assert (said.returncode, said.stdout.strip()) == (
            1,
            f"Port {port} is in use on 127.0.0.1. Choose another with --port, or stop what uses it.",
        ), said.stderr
    assert "Traceback" not in said.stderr
    for arguments, says in [
        ("{'host': '0.0.0.0'}", "Listening on 0.0.0.0 lets other machines in, so it needs a key."),
        ("{'host': 'no.such.host.invalid', 'api_key': 'k'}", "no.such.host.invalid is no address of this machine."),
        ("{'host': '192.0.2.1', 'api_key': 'k'}", "192.0.2.1 is no address of this machine"),
    ]:
        said = _serve(settings, arguments)
        assert said.returncode == 1 and said.stdout.startswith(says) and "Traceback" not in said.stderr, said
    assert find_service(settings) is None


def test_serving_other_machines_without_a_key_is_wrong_usage(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MODELHUB_API_KEY", raising=False)
    assert modelhub(settings, monkeypatch, "serve", "--host", "0.0.0.0") == 2
    assert "needs a key. Give one with --api-key-file or MODELHUB_API_KEY." in capsys.readouterr().err
    assert _holder(settings) is None


def test_serving_in_the_foreground_with_a_key_of_ones_own(settings: Settings) -> None:
    command = _serve_command(settings, "{'host': '0.0.0.0', 'api_key': 'a-key-of-my-own'}")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        info = until(lambda: find_service(settings), "it answers")
        assert info.pid == process.pid and info.key == "a-key-of-my-own" and info.url.startswith("http://127.0.0.1:")
        assert len(ask(info, "/v0/models")) > 50
        second = _serve(settings)
        assert (second.returncode, second.stdout.startswith("A modelhub service already runs in ")) == (1, True)
        assert stop_service(settings) is True
        _, log = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert "serves http://127.0.0.1" in log and "a-key-of-my-own" not in log


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/sys").is_dir(), reason="needs a folder that nobody may write")
def test_a_routers_key_is_not_the_services_own(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """`modelhub serve` in a shell that is set up for a router elsewhere."""
    env = {
        **os.environ,
        "MODELHUB_STATE_DIR": str(settings.state_dir),
        "MODELHUB_ROUTER": "https://router.example",
        "MODELHUB_API_KEY": "the-routers-key",
    }
    command = [sys.executable, "-m", "modelhub_tui", "serve"]
    refused = subprocess.run([*command, "--host", "0.0.0.0"], env=env, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and "so it needs a key" in refused.stderr
    assert "The API key is for https://router.example, set beside it, and not this service's." in refused.stderr
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        info = until(lambda: find_service(settings), "it answers")
        assert info.key != "the-routers-key"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(info, "/v0/models", key="the-routers-key")
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def test_a_state_folder_that_cannot_be_used_is_one_sentence(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, says in [
        (Path("/proc/modelhub-state"), "/proc/modelhub-state"),
        (tmp_path / "file", f"{tmp_path / 'file'} is not a folder."),
        (tmp_path / "file" / "below", "is not a folder."),
    ]:
        with pytest.raises(ServiceFailed) as caught:
            start(replace(settings, state_dir=folder))
        assert says in caught.value.reason and caught.value.todo


@pytest.mark.parametrize("name", ["MODELHUB_LOG_FORMAT", "MODELHUB_METRICS"])
def test_a_setting_that_only_the_service_reads_is_one_sentence(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "loud\x1b[2J")
    with pytest.raises(ServiceFailed) as caught:
        start(settings)
    assert caught.value.reason.startswith(f"{name} is 'loud[2J'; it can be ")
    log = settings.state_dir / statefile.LOG_FILE
    assert not log.exists() or "Traceback" not in log.read_text()


def test_who_has_no_key_does_not_fill_the_log(settings: Settings) -> None:
    info = start(settings)
    online_node(info)
    port = int(info.url.rsplit(":", 1)[1])
    said = {
        b"\x00\r\n\r\n": b"400",
        b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n": b"421",
        b"GET /v0/models HTTP/1.1\r\nHost: localhost:%d\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" % port: b"401",
    }
    for request, status in said.items():
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
            connection.sendall(request)
            assert connection.recv(65536).split()[1] == status
    assert "uvicorn" not in info.log.read_text()


def test_a_catalog_that_cannot_be_read_is_one_sentence(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "catalog.yaml").write_text("models: [")
    with pytest.raises(ServiceFailed) as caught:
        start(replace(settings, catalog=tmp_path / "catalog.yaml"))
    assert "catalog" in caught.value.reason
    assert find_service(settings) is None
    assert _holder(settings) is None


def test_finding_a_service_imports_nothing_heavy() -> None:
    code = (
        "import sys; import modelhub_tui.service.lifecycle; "
        "print([each for each in ('asyncio', 'starlette', 'uvicorn', 'pydantic', 'httpx', 'http.client', 'textual', "
        "'huggingface_hub', 'filelock', 'yaml', 'modelhub_tui.client') if each in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
