"""`modelhub doctor`: says what is wrong in a sentence each, ends in time, tells no secret, never breaks itself."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelhub_tui.cli import checks
from modelhub_tui.cli import main as command_line
from modelhub_tui.cli.checks import OK, PROBLEM, WARNING, Check, run_all
from modelhub_tui.config import load_settings
from modelhub_tui.service import lifecycle
from modelhub_tui.service.router.store import Store

NAMES = [
    *("versions", "terminal", "settings", "folders", "service", "database"),
    *("hub", "token", "cache", "gpu", "logs"),
]
PATIENCE_S = 60.0


class Hub:
    """Answers everything with one status; remembers what it was asked."""

    def __init__(self) -> None:
        self.status, self.token_status = 200, 404
        self.asked: list[tuple[str, str, str | None]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append((self.command, self.path, self.headers.get("Authorization")))
                self.send_response(hub.token_status if "whoami" in self.path else hub.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> Path:
    """A machine on which all is well."""
    for name in ("HF_TOKEN", "HF_TOKEN_PATH", "MODELHUB_ROUTER", "MODELHUB_API_KEY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in {
        "HOME": tmp_path / "home",
        "XDG_CONFIG_HOME": tmp_path / "config",
        "MODELHUB_STATE_DIR": tmp_path / "state",
        "MODELHUB_CACHE_DIR": tmp_path / "cache",
        "HF_HOME": tmp_path / "hf",
        "HF_HUB_CACHE": tmp_path / "hub",
        "HF_ENDPOINT": hub.url,
        "TERM": "xterm-256color",
    }.items():
        monkeypatch.setenv(name, str(value))
    (tmp_path / "state" / "node").mkdir(parents=True)
    return tmp_path


Doctor = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Run it; its exit code and the checks by name."""

    def run(*more: str) -> tuple[int, dict[str, Any]]:
        code = command_line(["doctor", "--json", *more])
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        report = json.loads(said.out)
        assert [each["name"] for each in report["checks"]] == NAMES
        assert code == (1 if report["problems"] else 0)
        for each in report["checks"]:
            assert each["what"].endswith((".", "!")), each
            assert each["status"] == OK or each["todo"] or each["name"] == "service", each
        return code, {each["name"]: each for each in report["checks"]}

    return run


def test_on_a_sound_machine_all_is_well(doctor: Doctor, machine: Path) -> None:
    code, found = doctor()
    assert code == 0 and {each["status"] for each in found.values()} <= {OK, WARNING}
    assert found["hub"]["status"] == found["folders"]["status"] == found["database"]["status"] == OK
    assert found["settings"]["details"]["state_dir"] == {"value": str(machine / "state"), "from": "environment"}
    assert found["settings"]["details"]["theme"]["from"] == "default"
    assert "does not run" in found["service"]["what"]
    assert not (machine / "state" / "service.json").exists(), "it starts nothing"
    assert doctor("--theme", "dark")[1]["settings"]["details"]["theme"] == {"value": "dark", "from": "flag"}


def test_with_everything_broken_it_still_reports(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    state = machine / "state"
    (machine / "config" / "modelhub").mkdir(parents=True)
    (machine / "config" / "modelhub" / "config.toml").write_text("= nonsense \x1b[31m")
    (state / "modelhub.db").write_bytes(b"nonsense" * 1000)
    (state / "service.json").symlink_to("/etc/passwd")
    (state / "service.log").write_bytes(
        b"2026-01-01 ERROR x: \x1b[2Jevil\x9b31m \xe2\x80\xaetxt Authorization: Bearer hf_secretsecret\n"
        + b"\xff" * 5000
    )
    os.mkfifo(state / "cli.log")
    (machine / "hub").write_text("a file")
    (machine / "cache").symlink_to(machine / "cache")
    monkeypatch.setenv("HF_TOKEN", "hf_my\xe9token99")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MODELHUB_API_KEY_FILE", str(machine / "gone"))
    begun = time.monotonic()
    assert command_line(["doctor"]) == 1
    assert time.monotonic() - begun < 20
    said = capsys.readouterr()
    text = said.out + said.err
    for name in ("settings", "folders", "service", "database", "hub", "token"):
        assert f"problem  {name} " in text, name
    for never in ("Traceback", "secretsecret", "token99", "\x1b", "\x9b", "\u202e", "could not be checked"):
        assert never not in text, never
    assert "config.toml is not valid TOML" in text and "symbolic link" in text and "[2Jevil" in text


def test_what_hangs_is_left_behind() -> None:
    begun = time.monotonic()
    never = threading.Event()

    def bug() -> Check:
        raise KeyError("x")

    def hangs() -> Check:
        never.wait(PATIENCE_S)
        return Check("slow", OK, "")

    found = run_all([("slow", hangs), ("fine", lambda: Check("fine", OK, "Yes.")), ("bug", bug)], 0.3)
    assert time.monotonic() - begun < PATIENCE_S / 2
    assert [each.status for each in found] == [PROBLEM, OK, PROBLEM]
    assert "took longer" in found[0].what and "KeyError" in found[2].what
    never.set()


@contextmanager
def listener(answer: bytes | None) -> Iterator[int]:
    """A port where somebody accepts, and says this; nothing at all if None."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def work() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                held.append(connection)
                if answer is not None:
                    connection.recv(1000)
                    connection.sendall(answer)
                    connection.close()

        threading.Thread(target=work, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for each in held:
            each.close()


def test_at_which_step_the_hub_fails(doctor: Doctor, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    def said() -> tuple[str, str]:
        check = doctor()[1]["hub"]
        return check["status"], check["what"]

    for status, says, verdict in [
        (401, "refuses us", PROBLEM),
        (407, "proxy wants a login", PROBLEM),
        (429, "slow down", WARNING),
        (503, "fault of its own", WARNING),
        (404, "answers in", OK),
    ]:
        hub.status = status
        assert (verdict, True) == (said()[0], says in said()[1]), status
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert said() == (PROBLEM, "http://127.0.0.1:9: nobody answers there.")
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    assert "(DNS)" in said()[1]
    with listener(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        monkeypatch.setenv("HF_ENDPOINT", f"https://127.0.0.1:{port}")
        assert "TLS fails" in said()[1]
    with listener(b"SSH-2.0-nonsense\r\n") as port:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        assert "does not answer as a web server does" in said()[1]
    with listener(None) as port:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        begun = time.monotonic()
        assert "no answer within 3 s" in said()[1]
        assert time.monotonic() - begun < 15
    with listener(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as port:
        monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:proxypass1@127.0.0.1:{port}")
        assert "the proxy does not let us through" in said()[1]


def test_a_wish_to_be_offline_is_named(doctor: Doctor, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    for name, value, status in (
        ("HF_HUB_OFFLINE", "1", PROBLEM),
        ("TRANSFORMERS_OFFLINE", "yes", PROBLEM),
        ("HF_HUB_OFFLINE", "0", OK),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            check = doctor()[1]["hub"]
        assert check["status"] == status, value
        assert status == OK or (f"{name} is set" in check["what"] and f"Unset {name}" in check["todo"])


def test_the_token_is_tried_and_not_told(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, machine: Path, hub: Hub
) -> None:
    assert "None;" in doctor()[1]["token"]["what"] and not any("whoami" in path for _, path, _ in hub.asked)
    (machine / "hf").mkdir()
    (machine / "hf" / "token").write_text("plain-token-without-looks\n")
    for status, verdict, says in [(200, OK, "and valid"), (401, PROBLEM, "does not take"), (404, OK, "does not say")]:
        hub.token_status = status
        check = doctor()[1]["token"]
        assert (check["status"], says in check["what"]) == (verdict, True)
    assert hub.asked[-1][2] == "Bearer plain-token-without-looks" or any(
        auth == "Bearer plain-token-without-looks" for _, _, auth in hub.asked
    )
    (machine / "state" / "cli.log").write_text("it said plain-token-without-looks again\n")
    monkeypatch.setenv("HF_TOKEN", "another-token-of-no-form")
    assert command_line(["doctor", "-o", str(machine / "report")]) == 0
    report = (machine / "report").read_text()
    assert "another-token-of-no-form" not in report and "hf_token" in report
    assert (machine / "report").stat().st_mode & 0o777 == 0o600


def test_checks_may_import_httpx_together() -> None:
    # In a process of its own: here it is imported already. The first import is held until the second thread is at it.
    code = """
import sys, threading
from modelhub_tui.net import spare_httpx_its_command
failed, looking, second_done = [], threading.Event(), threading.Event()
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "httpx" and not looking.is_set():
            looking.set()
            second_done.wait(0.5)
sys.meta_path.insert(0, Finder())
def go():
    try:
        spare_httpx_its_command()
    except BaseException as error:
        failed.append(repr(error))
first, second = threading.Thread(target=go), threading.Thread(target=lambda: (looking.wait(), go(), second_done.set()))
first.start(), second.start()
first.join(), second.join()
sys.exit(", ".join(failed) or 0)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_report_goes_to_a_file_or_says_why_not(machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (machine / "state" / "node" / "node.log").write_text("2026 INFO node: hello\n" * 100)
    assert command_line(["doctor", "--json", "-o", str(machine / "report.json")]) == 0
    said = capsys.readouterr()
    assert said.out == "" and "report.json" in said.err
    report = json.loads((machine / "report.json").read_text())
    [logs] = [each for each in report["checks"] if each["name"] == "logs"]
    assert logs["details"]["node/node.log"] == ["2026 INFO node: hello"] * checks.LOG_LINES
    assert command_line(["doctor", "-o", str(machine / "no" / "such" / "folder")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_the_database_is_looked_at_but_not_touched(doctor: Doctor, machine: Path) -> None:
    path = machine / "state" / "modelhub.db"
    Store(path).close()
    before = path.read_bytes()
    assert doctor()[1]["database"]["details"]["models"] == 0
    assert path.read_bytes() == before
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    other.execute("BEGIN EXCLUSIVE")
    assert doctor()[1]["database"]["status"] == WARNING
    other.execute("ROLLBACK")
    other.close()
    (machine / "state" / "modelhub.db.damaged-1").touch()
    assert "damaged-1" in doctor()[1]["database"]["what"]
    other = sqlite3.connect(path)
    other.execute("PRAGMA user_version = 99")
    other.close()
    check = doctor()[1]["database"]
    assert (check["status"], "a newer modelhub (schema 99, not" in check["what"]) == (PROBLEM, True), check


def test_the_cache_is_counted(doctor: Doctor, machine: Path) -> None:
    repo = machine / "hub" / "models--acme--tiny"
    (repo / "blobs").mkdir(parents=True)
    (repo / "snapshots" / "c0").mkdir(parents=True)
    (repo / "blobs" / "whole").write_bytes(b"x" * 8192)
    (repo / "blobs" / "half.modelhub.part").write_bytes(b"x" * 4096)
    (repo / "blobs" / "old.modelhub.trash").write_bytes(b"x" * 4096)
    (repo / "snapshots" / "c0" / "good").symlink_to("../../blobs/whole")
    assert doctor()[1]["cache"]["status"] == OK
    (repo / "snapshots" / "c0" / "bad").symlink_to("../../blobs/gone")
    check = doctor()[1]["cache"]
    told = check["details"]
    assert (told["repos"], told["files"], told["parts"], told["trashed"], told["broken"]) == (1, 1, 1, 1, 1)
    assert told["bytes"] >= 8192 and check["status"] == WARNING and "1 links lead nowhere" in check["what"]


def test_a_damaged_database_is_mended_by_what_is_advised(
    doctor: Doctor, machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No service runs: starting one mends it, which `modelhub stop` would not do."""
    path = machine / "state" / "modelhub.db"
    Store(path).close()
    path.write_bytes(b"no database" * 1000)
    check = doctor()[1]["database"]
    assert check["status"] == PROBLEM and "damaged" in check["what"]
    assert "`modelhub stop`" not in check["todo"]
    [advised] = re.findall(r"`modelhub (\w+)`", check["todo"])
    try:
        assert command_line([advised]) == 0
        capsys.readouterr()
        check = doctor()[1]["database"]
        assert check["status"] == WARNING and "kept aside" in check["what"]
        path.write_bytes(b"damaged again" * 1000)
        assert "Stop the service with `modelhub stop`, and start it again" in doctor()[1]["database"]["todo"]
    finally:
        command_line(["stop"])


@pytest.mark.parametrize("path", ["/proc/hub", "/proc/a/b"])
def test_a_folder_that_cannot_be_created_is_a_problem(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", path)
    check = doctor()[1]["folders"]
    assert check["status"] == PROBLEM and check["what"] == f"{path} is missing and cannot be created."
    assert "HF_HUB_CACHE" in check["todo"]


def test_a_folder_that_is_still_to_be_made_is_fine_and_nothing_stays_of_the_look(doctor: Doctor, machine: Path) -> None:
    before = sorted(machine.iterdir())
    check = doctor()[1]["folders"]
    assert check["status"] == OK and "free for models" in check["what"]
    assert sorted(machine.iterdir()) == before


def test_a_router_that_does_not_answer_is_a_problem(doctor: Doctor, hub: Hub) -> None:
    assert doctor("--router", hub.url)[1]["service"]["status"] == OK
    check = doctor("--router", "http://127.0.0.1:9")[1]["service"]
    assert check["status"] == PROBLEM and "nobody answers" in check["what"]


def test_the_service_that_runs_and_the_one_that_hangs(doctor: Doctor, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load_settings()
    info = lifecycle.ensure_service(settings, timeout_s=PATIENCE_S)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while (check := doctor()[1]["service"])["status"] != OK:
            assert check["status"] == WARNING and "no node is online" in check["what"]
            assert time.monotonic() < deadline
        told = check["details"]
        assert (told["pid"], told["version"], told["nodes"][0]["status"]) == (info.pid, info.version, "online")
        assert told["answer_ms"] > 0 and told["uptime_s"] >= 0
        assert command_line(["doctor"]) == 0
        assert info.key not in capsys.readouterr().out
        os.kill(info.pid, signal.SIGSTOP)
        check = doctor()[1]["service"]
        assert check["status"] == PROBLEM and f"Process {info.pid} holds" in check["what"]
    finally:
        os.kill(info.pid, signal.SIGCONT)
        lifecycle.stop_service(settings)
